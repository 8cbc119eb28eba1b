//! Why choices cannot be resolved for a model.

use crate::runtime::ErrorKind;
use msq_passes::PassError;
use msq_passes::ir::{ExternalError, SaveError, TensorError};
use std::path::PathBuf;

/// Why choices cannot be resolved for a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemeError {
    /// The model has nothing to quantize.
    #[error("the model has no layer with float weights to quantize{hint}")]
    NothingToQuantize {
        /// What it has instead, if that is known.
        hint: String,
    },
    /// A pattern of layer names matches nothing.
    #[error("no layer matches `{pattern}`; command `inspect` lists them")]
    NoSuchLayer {
        /// The pattern.
        pattern: String,
    },
    /// An operator that is to stay in float does not occur in the model.
    #[error("the model has no node of operator `{op}`")]
    NoSuchOperator {
        /// The operator.
        op: String,
    },
    /// A pattern of layer names is malformed.
    #[error("`{pattern}` is no regular expression: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        reason: String,
    },
    /// A bit plan cannot be read.
    #[error("`{path}` is no bit plan: {reason}", path = path.display())]
    BadPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A bit plan does not fit the model or the target.
    #[error("bit plan, layer `{layer}`: {reason}; command `inspect` lists the layers")]
    PlanLayer {
        /// The layer.
        layer: String,
        /// Why.
        reason: String,
    },
    /// Bits, grid or packing of all layers that do not fit each other or the target.
    #[error(
        "{reason} (option `weight-bits`, option `act-bits`, option `grid`, option `granularity` or option `packing`, or what the plan says of all layers)"
    )]
    Combination {
        /// What does not fit.
        reason: String,
    },
    /// A bit plan without names is of another number of layers than the model.
    #[error("bit plan: it is of {plan} layers without names, the model has {model}")]
    PlanLayers {
        /// Layers of the plan.
        plan: usize,
        /// Layers of the model.
        model: usize,
    },
    /// A bit plan names a node or a value that the model does not have.
    #[error("bit plan: the model has no {what} `{name}` once it is prepared")]
    PlanName {
        /// Whether it is a node or a value.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The metadata of a model holds a bit plan that cannot be read.
    #[error("the plan in the model's metadata cannot be read: {reason}")]
    DamagedPlan {
        /// Why.
        reason: String,
    },
    /// Encodings do not fit the model or the target.
    #[error("encodings, tensor `{tensor}`: {reason}")]
    EncodedTensor {
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A plan cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A tensor of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor of the model cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// An analysis of the graph failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl SchemeError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingToQuantize { .. } | Self::DamagedPlan { .. } | Self::Tensor(_) | Self::External(_) => {
                ErrorKind::Model
            }
            Self::Save(_) | Self::Pass(_) => ErrorKind::Other,
            _ => ErrorKind::Usage,
        }
    }
}
