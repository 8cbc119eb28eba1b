//! Errors of the engine. What a back end says becomes one line here and goes no further.

use crate::data::ShapeText;
use crate::runtime::{Cancelled, ErrorKind};

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot load the model: an operator or a shape it does not know.
    #[error("the engine cannot run this model: {reason}")]
    Load {
        /// The innermost cause.
        reason: String,
    },
    /// There is no memory for what the model computes.
    #[error("the engine cannot run this model: {reason}")]
    Memory {
        /// For what there is none.
        reason: String,
    },
    /// A window slides over nothing: the samples are too short for the model.
    #[error("what `{node}` reads or writes has no elements, its shape is {shape}: the model needs longer samples")]
    Empty {
        /// The convolution or pool.
        node: String,
        /// The shape.
        shape: ShapeText,
    },
    /// A run failed.
    #[error("running the model failed: {reason}")]
    Run {
        /// The innermost cause.
        reason: String,
    },
    /// A value asked for is not in the model.
    #[error("the engine finds no value `{name}` in the model")]
    NoSuchValue {
        /// The value.
        name: String,
    },
    /// The caller asked for an end.
    #[error("cancelled")]
    Cancelled,
    /// External data could not be read.
    #[error(transparent)]
    External(#[from] msq_passes::ir::ExternalError),
}

impl From<Cancelled> for EngineError {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl EngineError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Load { .. } | Self::Memory { .. } | Self::External(_) => ErrorKind::Model,
            Self::Empty { .. } => ErrorKind::Data,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Run { .. } | Self::NoSuchValue { .. } => ErrorKind::Other,
        }
    }

    pub(super) fn load(error: impl Into<anyhow::Error>) -> Self {
        Self::Load { reason: chain(&error.into()) }
    }

    pub(super) fn run(error: impl Into<anyhow::Error>) -> Self {
        Self::Run { reason: chain(&error.into()) }
    }
}

/// An error chain in one line, outermost first, without its line breaks.
fn chain(error: &anyhow::Error) -> String {
    let causes: Vec<String> =
        error.chain().map(|c| c.to_string().split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    causes.join(": ")
}
