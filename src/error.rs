//! What can go wrong, with the exit code a command line gives it.

use crate::data::DataError;
use crate::engine::EngineError;
use crate::quant::QuantError;
use crate::runtime::Cancelled;
use msq_passes::PassError;
use msq_passes::ir::{CheckError, ExternalError, ImportError, SaveError, TensorError};
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
    /// The input model contradicts itself.
    #[error("the model is not valid: {0}")]
    Invalid(#[from] CheckError),
    /// A tensor of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor of the model cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// The model has nothing to quantize.
    #[error("the model has no layer with float weights to quantize{hint}")]
    NothingToQuantize {
        /// What it has instead, if that is known.
        hint: String,
    },
    /// The model is quantized already.
    #[error("the model is quantized already: node `{node}` is {op}; start from the float model")]
    AlreadyQuantized {
        /// The first quantized node.
        node: String,
        /// Its operator.
        op: String,
    },
    /// A weight that is not a number.
    #[error("tensor `{tensor}` has {value} at index {index}; the model is broken or badly exported")]
    NonFiniteWeight {
        /// The tensor.
        tensor: String,
        /// Index of the first such element in storage order.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// An activation that is not a number.
    #[error(
        "value `{value}` is NaN or infinite for sample {sample}: the data or its preprocessing does not fit the model"
    )]
    NonFiniteActivation {
        /// The value.
        value: String,
        /// The sample.
        sample: usize,
    },
    /// Calibration data does not fit.
    #[error(transparent)]
    Data(#[from] DataError),
    /// MSQ measures classes.
    #[error(
        "the model has no single output of class scores [N, C], which MSQ needs: use --search sensitivity, ilp or auto"
    )]
    NotAClassifier,
    /// A search cannot be carried out.
    #[error("the search cannot be carried out: {reason}")]
    Search {
        /// Why.
        reason: String,
    },
    /// What a layer computes has no features for MSQ's task predictor.
    #[error("the activations cannot be imprinted: {0}; use --search sensitivity")]
    Imprint(#[from] crate::search::imprint::ImprintError),
    /// What a search measures cannot be written down.
    #[error("`{path}`: the journal of the search cannot be written: {reason}", path = path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no calibration data to speak of.
    #[error("calibration data is empty")]
    NoSamples,
    /// The model cannot be run.
    #[error(transparent)]
    Engine(EngineError),
    /// The caller ended the run.
    #[error("cancelled")]
    Cancelled,
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A weight cannot be rounded.
    #[error("layer `{layer}`: {source}")]
    Quant {
        /// The layer.
        layer: String,
        /// Why.
        source: QuantError,
    },
    /// A pattern on the command line matches nothing.
    #[error("no layer matches `{pattern}`; `msq-onnx inspect` lists them")]
    NoSuchLayer {
        /// The pattern.
        pattern: String,
    },
    /// An operator on the command line that the model does not use.
    #[error("the model has no node of operator `{op}`")]
    NoSuchOperator {
        /// The operator.
        op: String,
    },
    /// The model's operator set is too old to be quantized, and cannot be raised.
    #[error("opset {opset} is too old for quantization and cannot be raised: `{node}`: {reason}")]
    OldOpset {
        /// The model's operator set.
        opset: i64,
        /// The first node that cannot be converted.
        node: String,
        /// Why.
        reason: String,
    },
    /// A bit plan that cannot be read.
    #[error("`{path}` is no bit plan: {reason}", path = path.display())]
    BadPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file beside the model that cannot be written.
    #[error("`{path}` cannot be written: {reason}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The metadata of a model holds a bit plan that cannot be read.
    #[error("the plan in the model's metadata cannot be read: {reason}")]
    DamagedPlan {
        /// Why.
        reason: String,
    },
    /// Encodings that cannot be read.
    #[error("`{path}`: {reason}", path = path.display())]
    BadEncodings {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// Encodings that do not fit the model or the target.
    #[error("encodings, tensor `{tensor}`: {reason}")]
    EncodedTensor {
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A quantized model whose encodings cannot be given.
    #[error("the model has no encodings to export: {reason}")]
    NoEncodings {
        /// Why.
        reason: String,
    },
    /// A bit plan that does not fit the model or the target.
    #[error("bit plan, layer `{layer}`: {reason}; `msq-onnx inspect` lists the layers")]
    PlanLayer {
        /// The layer.
        layer: String,
        /// Why.
        reason: String,
    },
    /// What a layer reads does not fit it.
    #[error(transparent)]
    Kernel(#[from] crate::kernels::KernelError),
    /// What a layer reads cannot be followed through the quantized network.
    #[error("what layer `{layer}` reads cannot be followed; use `--solver round`")]
    Sequence {
        /// The layer.
        layer: String,
    },
    /// A form that the target does not run.
    #[error("`{profile}` does not run {form}; choose another --profile or form")]
    Target {
        /// The target.
        profile: &'static str,
        /// The form.
        form: &'static str,
    },
    /// Rounding by chance with a solver that does not round.
    #[error("rounding `stochastic` is of `--solver round`, the other solvers choose each integer for a reason")]
    StochasticSolver,
    /// The packing wanted needs a newer operator set than the model can be raised to.
    #[error("the packing asked for needs opset {wanted}: {reason}")]
    NoOpset {
        /// The operator set.
        wanted: i64,
        /// Why it cannot be had.
        reason: String,
    },
    /// A pattern on the command line is malformed.
    #[error("`{pattern}` is no regular expression: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        reason: String,
    },
    /// The report's page cannot be written.
    #[error("the report cannot be written: {reason}")]
    Page {
        /// Why.
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
    /// Two models cannot be compared.
    #[error("the two models differ: {reason}")]
    Incomparable {
        /// In what.
        reason: String,
    },
}

impl From<Cancelled> for Error {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Engine(other),
        }
    }
}

impl Error {
    /// The command line's exit code: 2 for its arguments, 3 for the model, 4 for the data, 130 for a run that was
    /// cancelled, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Import { .. }
            | Self::Invalid(_)
            | Self::Tensor(_)
            | Self::External(_)
            | Self::NothingToQuantize { .. }
            | Self::AlreadyQuantized { .. }
            | Self::NonFiniteWeight { .. }
            | Self::OldOpset { .. }
            | Self::NoOpset { .. }
            | Self::NoEncodings { .. }
            | Self::DamagedPlan { .. }
            | Self::Engine(EngineError::Load { .. } | EngineError::External(_))
            | Self::NotAClassifier
            | Self::Incomparable { .. } => 3,
            Self::Data(DataError::Write(_)) => 1,
            Self::Data(_) | Self::NoSamples | Self::NonFiniteActivation { .. } => 4,
            Self::NoSuchLayer { .. }
            | Self::NoSuchOperator { .. }
            | Self::BadPattern { .. }
            | Self::BadPlan { .. }
            | Self::PlanLayer { .. }
            | Self::BadEncodings { .. }
            | Self::EncodedTensor { .. }
            | Self::Target { .. }
            | Self::StochasticSolver => 2,
            Self::Cancelled => 130,
            _ => 1,
        }
    }
}
