//! What can go wrong. Each folder has an error enum of its own; this one holds them all.

use crate::calibrate::CalibrateError;
use crate::data::DataError;
use crate::engine::EngineError;
use crate::exchange::ExchangeError;
use crate::execute::ExecuteError;
use crate::measure::MeasureError;
use crate::prepare::PrepareError;
use crate::report::ReportError;
use crate::runtime::{Cancelled, ErrorKind};
use crate::scheme::SchemeError;
use crate::scheme::options::Format;
use crate::search::SearchError;
use crate::solve::SolveError;
use msq_passes::PassError;
use msq_passes::ir::{ExternalError, ImportError, SaveError, TensorError};
use std::path::PathBuf;

/// Why a run failed. Messages name the file, tensor or layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input model cannot be read.
    #[error("`{path}`: {source}", path = path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ImportError,
    },
    /// The model cannot be brought into its canonical form.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The choices do not fit the model.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// Encodings cannot be read or written.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The report cannot be made.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A tensor of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor of the model cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// Activations cannot be observed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Calibration data does not fit.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The search cannot be carried out.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// There is no calibration data to speak of.
    #[error("calibration data is empty")]
    NoSamples,
    /// The model cannot be run, or the caller ended the run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A network cannot be run on its samples.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A network cannot be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The weights of a layer cannot become integers.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A file beside the model that cannot be written.
    #[error("`{path}` cannot be written: {reason}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A form that the target does not run.
    #[error("`{profile}` does not run {form}; choose another target (option `profile`) or form")]
    Target {
        /// The target.
        profile: &'static str,
        /// The form.
        form: &'static str,
    },
    /// Rounding by chance with a solver that does not round.
    #[error(
        "option `rounding=stochastic` belongs to option `solver=round`, the other solvers choose each integer for a reason"
    )]
    StochasticSolver,
    /// A format without operators for activations of 16 bits.
    #[error("format `{format}` has no operators for activations of 16 bits, `qdq` has (option `format`)")]
    WideFormat {
        /// The format.
        format: Format,
    },
    /// The packing or the activations wanted need a newer operator set than the model can be raised to.
    #[error("{what} opset {wanted}: {reason}")]
    NoOpset {
        /// What needs it, and that it does.
        what: &'static str,
        /// The operator set.
        wanted: i64,
        /// Why it cannot be had.
        reason: String,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The output is the input.
    #[error("`{path}` is an input; choose another name for the output", path = path.display())]
    OverwritesInput {
        /// The file.
        path: PathBuf,
    },
    /// A thread pool cannot be made.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

impl From<Cancelled> for Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::Engine(cancelled.into())
    }
}

impl Error {
    /// What inputs did to the model, where that ended the run and other inputs might not.
    pub(crate) fn of_inputs(&self) -> Option<String> {
        let engine = match self {
            Self::Calibrate(CalibrateError::NonFiniteActivation { value, .. }) => {
                return Some(format!("value `{value}` is NaN or infinite"));
            }
            Self::Calibrate(error) => error.of_engine(),
            Self::Execute(ExecuteError::Engine(error)) | Self::Engine(error) => Some(error),
            _ => None,
        };
        let engine = engine.filter(|error| error.kind() != ErrorKind::Cancelled);
        engine.map(|error| format!("the engine fails ({error})"))
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Prepare(error) => error.kind(),
            Self::Scheme(error) => error.kind(),
            Self::Exchange(error) => error.kind(),
            Self::Calibrate(error) => error.kind(),
            Self::Report(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Execute(error) => error.kind(),
            Self::Measure(error) => error.kind(),
            Self::Solve(error) => error.kind(),
            Self::Search(error) => error.kind(),
            Self::Import { .. } | Self::Tensor(_) | Self::External(_) | Self::NoOpset { .. } => ErrorKind::Model,
            Self::Data(error) => error.kind(),
            Self::NoSamples => ErrorKind::Data,
            Self::Target { .. } | Self::StochasticSolver | Self::WideFormat { .. } => ErrorKind::Usage,
            _ => ErrorKind::Other,
        }
    }
}
