//! Why activations cannot be observed.

use crate::data::DataError;
use crate::engine::EngineError;
use crate::execute::ExecuteError;
use crate::quant::QuantError;
use crate::runtime::ErrorKind;
use msq_passes::PassError;
use msq_passes::ir::{ExternalError, TensorError};
use std::path::PathBuf;

/// Why activations cannot be observed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There are no samples.
    #[error("calibration data is empty")]
    NoSamples,
    /// An activation is not a number.
    #[error(
        "value `{value}` is NaN or infinite for sample {sample}: the data or its preprocessing does not fit the model"
    )]
    NonFiniteActivation {
        /// The value.
        value: String,
        /// The sample.
        sample: usize,
    },
    /// Statistics counted elsewhere that do not fit.
    #[error("`{path}`: {reason}", path = path.display())]
    Statistics {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No grid of activations has the requested bits.
    #[error("layer `activations`: {0}")]
    Grid(#[from] QuantError),
    /// The model could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A constant of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external constant of the model cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
}

impl CalibrateError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSamples | Self::NonFiniteActivation { .. } | Self::Statistics { .. } => ErrorKind::Data,
            Self::Execute(error) => error.kind(),
            Self::Tensor(_) | Self::External(_) => ErrorKind::Model,
            Self::Grid(_) | Self::Pass(_) => ErrorKind::Other,
        }
    }

    /// What the engine says, where it could not run the model.
    pub(crate) fn of_engine(&self) -> Option<&EngineError> {
        match self {
            Self::Execute(ExecuteError::Engine(error)) => Some(error).filter(|e| e.kind() != ErrorKind::Cancelled),
            _ => None,
        }
    }
}

impl From<EngineError> for CalibrateError {
    fn from(error: EngineError) -> Self {
        Self::Execute(error.into())
    }
}

impl From<DataError> for CalibrateError {
    fn from(error: DataError) -> Self {
        Self::Execute(error.into())
    }
}
