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
    /// A state comes from an output that the model does not have.
    #[error("option `state`: the model has no output `{output}`; it has `{outputs}`", outputs = outputs.join("`, `"))]
    NoStateOutput {
        /// The output.
        output: String,
        /// The model's outputs.
        outputs: Vec<String>,
    },
    /// A state feeds an input that another model does not have at that place.
    #[error("option `state`: the model has no input `{input}` where the other one has it")]
    NoStateInput {
        /// The input.
        input: String,
    },
    /// An output cannot feed an input.
    #[error("option `state={output}={input}`: {reason}")]
    State {
        /// The output.
        output: String,
        /// The input.
        input: String,
        /// Why.
        reason: String,
    },
    /// A model that is run in stages is not run frame by frame.
    #[error("option `state`: a model that takes more memory than allowed is not run frame by frame; allow more")]
    StatesInStages,
    /// The engine does not run what computes the states.
    #[error(
        "option `state`: {reason}, and the states depend on it; without the option the rest of the model is quantized"
    )]
    StatesUnknown {
        /// What it does not run.
        reason: String,
    },
    /// The input of a layer cannot be followed through the quantized network.
    #[error("the input of layer `{layer}` cannot be followed; use solver `round`")]
    Sequence {
        /// The layer.
        layer: String,
    },
}

impl ExecuteError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Data(error) => error.kind(),
            Self::NoSamples
            | Self::NoStateOutput { .. }
            | Self::NoStateInput { .. }
            | Self::State { .. }
            | Self::StatesInStages => ErrorKind::Data,
            Self::StatesUnknown { .. } => ErrorKind::Model,
            Self::Pass(_) | Self::Sequence { .. } => ErrorKind::Other,
        }
    }
}

impl From<Cancelled> for ExecuteError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Engine(cancelled.into())
    }
}
