//! Errors of running networks.

use crate::data::DataError;
use crate::engine::EngineError;
use crate::runtime::{Cancelled, ErrorKind};
use msq_passes::PassError;

/// Why a network could not be run on its samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// The engine failed, or the caller asked for an end.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A sample could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model could not be cut.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// There are no samples.
    #[error("there are no samples")]
    NoSamples,
    /// The input of a layer cannot be followed through the quantized network.
    #[error("the input of layer `{layer}` cannot be followed; use solver `round`")]
    Sequence {
        /// The layer.
        layer: String,
    },
}

impl From<Cancelled> for ExecuteError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Engine(cancelled.into())
    }
}

impl ExecuteError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Data(DataError::Write(_)) | Self::Pass(_) | Self::Sequence { .. } => ErrorKind::Other,
            Self::Data(_) | Self::NoSamples => ErrorKind::Data,
        }
    }
}
