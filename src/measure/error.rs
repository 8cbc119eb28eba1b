//! Errors of measuring.

use crate::data::DataError;
use crate::engine::EngineError;
use crate::execute::ExecuteError;
use crate::prepare::PrepareError;
use crate::runtime::{Cancelled, ErrorKind};
use crate::scheme::SchemeError;

/// Why a model cannot be measured, compared or looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// It cannot be brought into its canonical form.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The bit plan in its metadata is damaged.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// It cannot be run on the samples.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Outputs cannot be saved.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There are no samples.
    #[error("calibration data is empty")]
    NoSamples,
    /// The caller says what an output holds that the model has not.
    #[error("option `output-kind`: no output is called `{name}`; there are {known}")]
    NoSuchOutput {
        /// The name.
        name: String,
        /// The names of all outputs.
        known: String,
    },
    /// The caller's own metric fails.
    #[error("metric `{name}`: {reason}")]
    Metric {
        /// The metric, or its command.
        name: String,
        /// Why.
        reason: String,
    },
    /// Two models cannot be compared.
    #[error("the two models differ: {reason}")]
    Incomparable {
        /// In what.
        reason: String,
    },
}

impl From<EngineError> for MeasureError {
    fn from(error: EngineError) -> Self {
        Self::Execute(error.into())
    }
}

impl From<Cancelled> for MeasureError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Execute(cancelled.into())
    }
}

impl MeasureError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Prepare(error) => error.kind(),
            Self::Scheme(error) => error.kind(),
            Self::Execute(error) => error.kind(),
            Self::Data(DataError::Write(_)) | Self::Metric { .. } => ErrorKind::Other,
            Self::Data(_) | Self::NoSamples => ErrorKind::Data,
            Self::NoSuchOutput { .. } => ErrorKind::Usage,
            Self::Incomparable { .. } => ErrorKind::Model,
        }
    }
}
