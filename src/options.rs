//! What a caller can choose.

use crate::bit_plan::{BitPlan, LayerPlan};
use crate::calibrate::ObserverKind;
use crate::ends::EndBits;
use crate::exchange::Encodings;
use msq_passes::Profile;

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

/// How weights become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Rounded to nearest, on the scale of least squared error.
    Round,
    /// To nearest, on scales of weights and inputs with which what the layer computes keeps its direction.
    Cosine,
    /// By what the layer reads, so that what it computes changes least.
    Gram,
    /// Down or up, learned from what the layer reads.
    Adaround,
    /// Weights and scales learned from what the layer reads.
    Lsq,
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

/// What becomes of a batch-norm behind a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNorm {
    /// It is multiplied into the weights, which are rounded then.
    #[default]
    Fold,
    /// The weights keep their own grid; its factors go into the scales.
    Affine,
}

/// Choices of a quantization run. The defaults do the job.
#[derive(Clone, Debug, PartialEq)]
// Choices, each of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Options {
    /// The runtime to write for.
    pub profile: Profile,
    /// How activation ranges are chosen.
    pub observer: ObserverKind,
    /// Bits of every layer.
    pub plan: BitPlan,
    /// Bits of the first and the last layers, where the plan names no layers.
    pub ends: EndBits,
    /// Parameters of tensors, which take the place of calibrated ones and of the plan's bits. Not for searches.
    pub encodings: Encodings,
    /// How weights become integers; if not said, `Gram` where any layer has fewer than 8 bits.
    pub solver: Option<Solver>,
    /// Whether the bias takes back what rounding the weights does to the mean of what a layer computes.
    pub bias_correction: bool,
    /// Whether channels between two layers are scaled to equal ranges; if not said, where weights have one scale a
    /// tensor.
    pub equalize: Option<bool>,
    /// Every how many positions of an activation `Gram` looks at one, about; at least 32 of a sample are looked at.
    pub position_step: usize,
    /// Mini-batches a solver that learns looks at for each layer.
    pub solver_steps: usize,
    /// How the solver `Round` rounds; `Stochastic` makes it the solver if none is said.
    pub rounding: RoundingMode,
    /// What quantized layers are written as.
    pub format: Format,
    /// What becomes of batch-norms.
    pub batch_norm: BatchNorm,
    /// Whether packed weights are unpacked by functions of the model.
    pub functions: bool,
    /// Whether scales are rounded to half precision and stored so.
    pub half_scales: bool,
    /// Layers to leave float: their names, or regular expressions that match a whole name.
    pub skip: Vec<String>,
    /// Operators to leave float.
    pub keep_float: Vec<String>,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Bytes of activations and plans the engine may hold at once; nothing for no limit.
    pub memory: Option<u64>,
    /// Whether the report says what every layer's errors add up to, and how the values of the worst are distributed.
    pub details: bool,
    /// Samples whose outputs are compared with the float model's after the fact.
    pub verify: usize,
    /// Whether names of inner values are shortened and node names dropped; if not said, where weights are packed.
    pub strip_names: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::ORT_CPU,
            observer: ObserverKind::default(),
            plan: BitPlan::uniform(LayerPlan::default()),
            ends: EndBits::default(),
            encodings: Encodings::default(),
            solver: None,
            bias_correction: true,
            equalize: None,
            position_step: 8,
            solver_steps: 2_000,
            rounding: RoundingMode::default(),
            format: Format::default(),
            batch_norm: BatchNorm::default(),
            functions: false,
            half_scales: false,
            skip: Vec::new(),
            keep_float: Vec::new(),
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: None,
            details: false,
            verify: 16,
            strip_names: None,
        }
    }
}

impl Options {
    /// The same with other bits.
    pub(crate) fn with_plan(&self, plan: &BitPlan) -> Self {
        Self { plan: plan.clone(), ..self.clone() }
    }
}
