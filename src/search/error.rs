//! Why a search cannot be carried out.

use super::allocate::AllocateError;
use super::imprint::ImprintError;
use crate::calibrate::CalibrateError;
use crate::data::DataError;
use crate::engine::EngineError;
use crate::execute::ExecuteError;
use crate::kernels::KernelError;
use crate::measure::MeasureError;
use crate::runtime::{Cancelled, ErrorKind};
use crate::scheme::SchemeError;
use crate::solve::SolveError;
use msq_passes::PassError;
use std::path::PathBuf;
use thiserror::Error;

/// Why a search cannot be carried out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The options contradict each other.
    #[error("the search cannot be carried out: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The costs of the layers are no problem that can be solved.
    #[error("the search cannot be carried out: {0}")]
    Allocate(#[from] AllocateError),
    /// The method measures classes, and the model is no classifier.
    #[error(
        "the model has no single output of class scores [N, C], which search `{method}` needs; use search {others}"
    )]
    NotAClassifier {
        /// The method.
        method: &'static str,
        /// Methods that need no classes.
        others: String,
    },
    /// The output of a layer has no features for the task predictors of `msq`.
    #[error("the activations cannot be imprinted: {0}; use search `sensitivity`")]
    Imprint(#[from] ImprintError),
    /// The measurements cannot be written down.
    #[error("`{path}`: the journal of the search cannot be written: {reason}", path = path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Measurements of another machine do not belong to this search.
    #[error("`{path}`: {reason}", path = path.display())]
    Measurements {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of the two parts of the data has no samples.
    #[error("calibration data is empty")]
    NoSamples,
    /// A plan does not fit the model.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Activations cannot be observed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// A layer cannot be solved.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A network could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A network could not be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The input of a layer does not fit it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl SearchError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAClassifier { .. } => ErrorKind::Model,
            Self::NoSamples | Self::Measurements { .. } => ErrorKind::Data,
            Self::Scheme(error) => error.kind(),
            Self::Calibrate(error) => error.kind(),
            Self::Solve(error) => error.kind(),
            Self::Execute(error) => error.kind(),
            Self::Measure(error) => error.kind(),
            Self::Refused { .. }
            | Self::Allocate(_)
            | Self::Imprint(_)
            | Self::Journal { .. }
            | Self::Kernel(_)
            | Self::Pass(_) => ErrorKind::Other,
        }
    }
}

impl From<Cancelled> for SearchError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Execute(cancelled.into())
    }
}

impl From<EngineError> for SearchError {
    fn from(error: EngineError) -> Self {
        Self::Execute(error.into())
    }
}

impl From<DataError> for SearchError {
    fn from(error: DataError) -> Self {
        Self::Execute(error.into())
    }
}
