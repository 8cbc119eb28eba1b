//! Why a model cannot be brought into its canonical form.

use crate::runtime::ErrorKind;
use msq_passes::PassError;
use msq_passes::ir::{CheckError, ExternalError, TensorError};

/// Why a model cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The model contradicts itself.
    #[error("the model is not valid: {0}")]
    Invalid(#[from] CheckError),
    /// A tensor is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// The model is quantized already.
    #[error("the model is quantized already: node `{node}` is {op}; start from the float model")]
    AlreadyQuantized {
        /// The first quantized node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// The model is a result of this tool.
    #[error("the model is quantized already: a bit plan is in its metadata; start from the float model")]
    OwnResult,
    /// A weight is not a number.
    #[error("tensor `{tensor}` has {value} at index {index}; the model is broken or badly exported")]
    NonFiniteWeight {
        /// The tensor.
        tensor: String,
        /// Index of the first such element in storage order.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Nothing is asked of the model.
    #[error("the model is not valid: it has no outputs")]
    NoOutputs,
    /// Operands of a node do not fit each other.
    #[error("the model is not valid: node `{node}` ({op}): {reason}")]
    Shapes {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The shapes.
        reason: String,
    },
    /// The model's operator set is too old to be quantized, and cannot be raised.
    #[error("opset {opset} is too old for quantization and cannot be raised{reason}")]
    OldOpset {
        /// The model's operator set.
        opset: i64,
        /// The first node that cannot be converted, and why, if that is known.
        reason: String,
    },
    /// An input cannot be fixed at a value.
    #[error("option `fix-input={fixed}`: {reason}")]
    FixedInput {
        /// The input and the value.
        fixed: String,
        /// Why.
        reason: String,
    },
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl PrepareError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Pass(error) => of_pass(error),
            Self::FixedInput { .. } => ErrorKind::Usage,
            _ => ErrorKind::Model,
        }
    }
}

/// What a pass found in a model is the model's fault, what it made of it is not.
fn of_pass(error: &PassError) -> ErrorKind {
    match error {
        PassError::In { source, .. } => of_pass(source),
        PassError::Tensor(_)
        | PassError::External(_)
        | PassError::Cycle(_)
        | PassError::Input(_)
        | PassError::Invalid(_) => ErrorKind::Model,
        _ => ErrorKind::Other,
    }
}
