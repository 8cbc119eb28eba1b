//! What a caller can choose, one struct per phase. The defaults do the job.

use super::bit_plan::{BitPlan, LayerPlan};
use super::encodings::Encodings;
use super::ends::EndBits;
use super::observer::ObserverKind;
use super::solver_name::SolverName;
pub use crate::prepare::{BatchNorm, PrepareOptions};
use msq_passes::Profile;
use std::sync::Arc;

/// The operators a quantized layer is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Float operators between `DequantizeLinear` and `QuantizeLinear`.
    #[default]
    Qdq,
    /// `QLinearConv`, `QLinearMatMul` and, where the target runs them, their kin of the domain `com.microsoft`.
    Qlinear,
    /// `ConvInteger` and `MatMulInteger`, a factor and an offset a channel in float, `QuantizeLinear`.
    Integer,
}

/// Which integer the solver `Round` takes for a weight that lies between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoundingMode {
    /// The nearer one.
    #[default]
    Nearest,
    /// Either, more likely the nearer one, so that the mean is the weight.
    Stochastic,
}

/// Which layers and values are quantized, for which runtime and to how many bits.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemeOptions {
    /// The runtime to write for.
    pub profile: Profile,
    /// Bits of every layer.
    pub plan: BitPlan,
    /// Bits of the first and the last layers, where the plan names no layers.
    pub first_last_bits: EndBits,
    /// Parameters of tensors, which take the place of calibrated ones and of the plan's bits. Not for searches.
    pub encodings: Arc<Encodings>,
    /// Layers to leave in float: their names, or regular expressions that match a whole name.
    pub skip: Vec<String>,
    /// Operators to leave in float.
    pub keep_float: Vec<String>,
}

/// How ranges of activations are chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrateOptions {
    /// How activation ranges are chosen.
    pub observer: ObserverKind,
}

/// How weights become integers.
#[derive(Clone, Debug, PartialEq)]
pub struct SolveOptions {
    /// How weights become integers; where `None`, `gram` if any layer has fewer than 8 bits, else `round`.
    pub solver: Option<SolverName>,
    /// How the solver `round` rounds; `stochastic` makes it the solver where none is named.
    pub rounding: RoundingMode,
    /// Whether the bias takes back what rounding the weights does to the mean of a layer's output.
    pub bias_correction: bool,
    /// Stride between the positions of an activation that `gram` samples; at least 32 positions per sample are taken.
    pub position_step: usize,
    /// Mini-batches per layer for solvers that learn.
    pub solver_steps: usize,
}

/// What the written file looks like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutputOptions {
    /// The operators quantized layers are written as.
    pub format: Format,
    /// Whether packed weights are unpacked by functions of the model.
    pub functions: bool,
    /// Whether scales are rounded to half precision and stored so.
    pub half_scales: bool,
    /// Whether names of inner values are shortened and node names dropped; where `None`, if weights are packed.
    pub strip_names: Option<bool>,
}

/// How the result is compared with the float model.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyOptions {
    /// Samples whose outputs are compared with the float model's; 0 for none.
    pub verify: usize,
    /// Whether the report states what errors add up to layer by layer, and the distributions of the worst layers.
    pub details: bool,
}

/// Choices of a quantization run, phase by phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How the float graph is brought into its canonical form.
    pub prepare: PrepareOptions,
    /// Which layers and values are quantized, for which runtime and to how many bits.
    pub scheme: SchemeOptions,
    /// How ranges of activations are chosen.
    pub calibrate: CalibrateOptions,
    /// How weights become integers.
    pub solve: SolveOptions,
    /// What the written file looks like.
    pub output: OutputOptions,
    /// How the result is compared with the float model.
    pub verify: VerifyOptions,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
}

impl Default for SchemeOptions {
    fn default() -> Self {
        Self {
            profile: Profile::ORT_CPU,
            plan: BitPlan::uniform(LayerPlan::default()),
            first_last_bits: EndBits::default(),
            encodings: Arc::default(),
            skip: Vec::new(),
            keep_float: Vec::new(),
        }
    }
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self {
            solver: None,
            rounding: RoundingMode::default(),
            bias_correction: true,
            position_step: 8,
            solver_steps: 2_000,
        }
    }
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { verify: 16, details: false }
    }
}

impl Options {
    /// The same with other bits.
    pub(crate) fn with_plan(&self, plan: &BitPlan) -> Self {
        let mut options = self.clone();
        options.scheme.plan = plan.clone();
        options
    }
}
