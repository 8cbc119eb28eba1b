//! What a caller can choose, one struct per phase. The defaults do the job.
//!
//! These structs are the only list of options: the flags of the command line and their help, the keys of `--config`, the
//! `options` of the report and the library all follow from their fields, doc comments and defaults. The key of an option
//! is the name of its field with hyphens.

use super::bit_plan::BitPlan;
use super::encodings::Encodings;
use super::ends::EndBits;
use super::gradient_code::GradientCode;
use super::observer::ObserverKind;
use super::outliers::Outliers;
use super::output_kind::OutputChoice;
use super::solver_name::SolverName;
pub use crate::prepare::{BatchNorm, PrepareOptions};
#[cfg(feature = "cli")]
use crate::runtime::flags::{at_least_one, positive, processes};
use indexmap::IndexMap;
use msq_passes::Profile;
use msq_passes::analysis::{Layer, layers};
use msq_passes::ir::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The operators a quantized layer is written as.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Float operators between `DequantizeLinear` and `QuantizeLinear`.
    #[default]
    Qdq,
    /// `QLinearConv`, `QLinearMatMul` and, where the target runs them, their kin of the domain `com.microsoft`.
    Qlinear,
    /// `ConvInteger` and `MatMulInteger`, scales and offsets per channel in float; slow in onnxruntime.
    Integer,
    /// As `qdq`, but for products with one scale per block: `MatMulNBits` of onnxruntime, which it makes of them by itself
    /// where the file is of opset 21 (25 for 2 bits).
    Nbits,
}

/// What of a model has 16 bits, besides what becomes integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Float16 {
    /// Weights alone, behind a `Cast` that runtimes fold when they load the file: they compute in float32.
    Weights,
    /// Weights and computation, as far as operators have float16 and values fit it on the calibration data.
    All,
    /// Weights alone, in bfloat16: the range of float32 and an error of up to 2⁻⁸ of each number.
    Bfloat16,
}

/// What to do with nodes that the target runs on integers, but slower than in float.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum PlacementMode {
    /// Leave them in float, as predicted from their sizes.
    #[default]
    Faster,
    /// Quantize every node that has an integer kernel.
    All,
}

/// How the solver `round` rounds a weight that lies between two integers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum RoundingMode {
    /// To the nearer integer.
    #[default]
    Nearest,
    /// To either integer at random, more likely the nearer, so that the expected value is the weight.
    Stochastic,
}

/// Which layers and values are quantized, for which runtime and to how many bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SchemeOptions {
    /// The runtime that the file is written for.
    #[cfg_attr(
        feature = "cli",
        arg(long, alias = "target", value_name = "NAME", default_value = Profile::ORT_CPU.name, value_parser = profile::parse, help_heading = "Output")
    )]
    #[serde(with = "profile")]
    #[schemars(with = "String")]
    pub profile: Profile,
    /// Bits of every layer.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub plan: BitPlan,
    /// Bits of the first and the last layers, where the plan names no layers: 2 to 8 for weights and activations, same as
    /// in all layers, or activations, which keeps activations at 8 bits and weights at those of all layers.
    #[cfg_attr(feature = "cli", arg(long, value_name = "BITS", default_value_t))]
    pub first_last_bits: EndBits,
    /// Parameters of tensors, which take the place of calibrated ones and of the plan's bits. Not for searches.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub encodings: Arc<Encodings>,
    /// Activations of which products read in float what the quantizer clips of some channels, by name: found on the data.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub outliers: Arc<IndexMap<String, Outliers>>,
    /// Layers to leave in float: a name, or a regular expression that matches whole names; may be given again.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME|REGEX"))]
    pub skip: Vec<String>,
    /// Operators whose nodes are left in float; may be given again.
    #[cfg_attr(feature = "cli", arg(long, value_name = "OP"))]
    pub keep_float: Vec<String>,
    /// Which of the nodes that have an integer kernel are quantized: those that run faster so, or all.
    #[cfg_attr(feature = "cli", arg(long, value_name = "WHICH", value_enum, default_value_t))]
    pub placement: PlacementMode,
}

/// How ranges of activations are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CalibrateOptions {
    /// How activation ranges are chosen: min-max, moving-average, `percentile[:P]`, entropy, mse or cosine.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME", default_value_t))]
    pub observer: ObserverKind,
    /// Whether positions that a mask or lengths among the inputs leave out count nowhere.
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "no-masks",
            action = clap::ArgAction::SetFalse,
            help = "Count every position of a sequence, also those that a mask or lengths among the inputs leave out"
        )
    )]
    pub masks: bool,
    /// Whether channels of what products with a matrix read are brought to like ranges where that loses less.
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "no-smooth",
            action = clap::ArgAction::SetFalse,
            help = "Leave the channels of what products with a matrix read as they are, also where factors per channel, \
                    taken out of the weights, would lose less"
        )
    )]
    pub smooth: bool,
    /// Whether products with a matrix read in float what quantizers clip of a few channels where that loses less.
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "no-outliers",
            action = clap::ArgAction::SetFalse,
            help = "Give products with a matrix no second product, in float, of the few channels that are much larger than \
                    the others, also where that would lose less"
        )
    )]
    pub outliers: bool,
}

/// How weights become integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SolveOptions {
    /// How weights become integers [default: `gram` if any layer has fewer than 8 bits, else `round`].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub solver: Option<SolverName>,
    /// How the solver `round` rounds; `stochastic` makes it the solver where none is named.
    #[cfg_attr(feature = "cli", arg(long, value_name = "MODE", default_value_t))]
    pub rounding: RoundingMode,
    /// Whether the bias takes back what rounding the weights does to the mean of a layer's output.
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "no-bias-correction",
            action = clap::ArgAction::SetFalse,
            help = "Leave biases as they are, instead of taking back what rounding does to the mean of a layer's output"
        )
    )]
    pub bias_correction: bool,
    /// Stride between the positions of an activation that `gram` samples, 1 for all; at least 32 positions per sample are
    /// taken, and more where samples are few.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one))]
    pub position_step: usize,
    /// Mini-batches for the solvers that learn: per layer for `adaround` and `lsq`, per block for `block`, of the whole
    /// network for `distill` [default: 2,000 per layer, 250 per block, 300 of the network].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_parser = at_least_one))]
    pub solver_steps: Option<usize>,
    /// Seconds of work that `block` and `distill` may learn for, about: work is counted, not timed, so that the result
    /// depends on no clock [default: no limit].
    #[cfg_attr(feature = "cli", arg(long, value_name = "F", value_parser = positive))]
    pub solver_time: Option<f64>,
    /// Learning rate of weights for `block` and `distill`, relative to the root mean square of a layer's weights
    /// [default: 0.01 for `block`, 0.001 for `distill`].
    #[cfg_attr(feature = "cli", arg(long, value_name = "F", value_parser = positive))]
    pub solver_rate: Option<f64>,
    /// Processes that learn together for `block` and `distill`: each computes the gradients of its share of every
    /// mini-batch. Of the command line; where the library is given none, one computes all shares, with the same result.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 1, value_parser = processes))]
    pub solver_processes: usize,
    /// How the gradients that they exchange are encoded: float, onebit, threshold:T, qsgd:BITS, terngrad or dorefa:BITS.
    #[cfg_attr(feature = "cli", arg(long, value_name = "CODE", default_value_t))]
    pub gradient_code: GradientCode,
}

/// What the written file looks like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Output"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OutputOptions {
    /// The operators that quantized layers are written as.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FORM", default_value_t))]
    pub format: Format,
    /// Unpack packed weights by functions of the model, for onnxruntime.
    #[cfg_attr(feature = "cli", arg(long))]
    pub functions: bool,
    /// Round the scales of weights to half precision and store them so; biases too, where that moves outputs by less than
    /// a sixteenth of a step. So anyway where a weight has fewer than 8 bits and the target folds the casts, unless
    /// names are kept.
    #[cfg_attr(feature = "cli", arg(long, conflicts_with = "full_scales"))]
    pub half_scales: bool,
    /// Keep scales and biases in single precision.
    #[cfg_attr(feature = "cli", arg(long))]
    pub full_scales: bool,
    /// Store in 16 bits what stays float: weights in float16 or bfloat16, which runtimes make float32 again when they load
    /// the file, or all, to compute in float16 as well, for GPUs and NPUs. Inputs and outputs keep their types.
    #[cfg_attr(feature = "cli", arg(long, value_name = "WHAT"))]
    pub float16: Option<Float16>,
    /// Whether names of inner values are shortened and node names dropped; where `None`, if weights are packed.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub strip_names: Option<bool>,
}

/// How the result is compared with the float model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Run"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerifyOptions {
    /// Samples whose outputs are compared with the float model's afterwards; 0 for none.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 16))]
    pub verify: usize,
    /// Whether the report states what errors add up to layer by layer, and the distributions of the worst layers.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub details: bool,
}

/// What becomes of a result that loses more than 1 % of its answers, or of the variance of a channel of its output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RepairOptions {
    /// Whether it is repaired: by other ranges of activations, and by layers and operators that compute in float.
    #[cfg_attr(
        feature = "cli",
        arg(
            long = "no-repair",
            action = clap::ArgAction::SetFalse,
            help = "Leave a result as it is that loses more than 1 %, instead of repairing it by other ranges and by \
                    layers in float"
        )
    )]
    pub repair: bool,
    /// Seconds of work that repairs may take, about: work is counted, not timed, so that the result depends on no clock
    /// [default: twice that of calibration, 20 to 60].
    #[cfg_attr(feature = "cli", arg(long, value_name = "F", value_parser = positive))]
    pub repair_time: Option<f64>,
}

/// How a network is measured against the float one: in the summary, by searches and by `max-drop`, by `evaluate` and
/// `compare`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Run"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MeasureOptions {
    /// What an output holds, where the program does not see it: scores, values, boxes, embedding or sequence; may be
    /// given again.
    #[cfg_attr(feature = "cli", arg(id = "output_kind", long = "output-kind", value_name = "NAME=KIND"))]
    #[serde(rename = "output-kind")]
    pub output_kinds: Vec<OutputChoice>,
    /// Command that scores a network, more being better: `{outputs}` becomes an .npz of its outputs, `{labels}` one of the
    /// labels, and it prints one number. A drop is then the share of the float network's score that is lost.
    #[cfg_attr(feature = "cli", arg(long, value_name = "COMMAND", value_parser = clap::builder::NonEmptyStringValueParser::new()))]
    pub metric_command: Option<String>,
}

/// Choices of a quantization run, phase by phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
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
    /// What becomes of a result that loses too much.
    pub repair: RepairOptions,
    /// How networks are measured against the float one.
    pub measure: MeasureOptions,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
}

impl Default for SchemeOptions {
    fn default() -> Self {
        Self {
            profile: Profile::ORT_CPU,
            plan: BitPlan::default(),
            first_last_bits: EndBits::default(),
            encodings: Arc::default(),
            outliers: Arc::default(),
            skip: Vec::new(),
            keep_float: Vec::new(),
            placement: PlacementMode::default(),
        }
    }
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        Self { observer: ObserverKind::default(), masks: true, smooth: true, outliers: true }
    }
}

impl Default for SolveOptions {
    fn default() -> Self {
        Self {
            solver: None,
            rounding: RoundingMode::default(),
            bias_correction: true,
            position_step: 8,
            solver_steps: None,
            solver_time: None,
            solver_rate: None,
            solver_processes: 1,
            gradient_code: GradientCode::default(),
        }
    }
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { verify: 16, details: false }
    }
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self { repair: true, repair_time: None }
    }
}

/// Weights from which on trellis codes pay: each number of bits that is used stores a table and what decodes it.
const TABLES_PAY: usize = 1 << 17;

impl Options {
    /// Whether trellis codes are the grid of few bits in a model unless another is asked for: the target folds what decodes
    /// them, the solver chooses them well, and the weights are so many that tables pay.
    pub(crate) fn takes_trellis(&self, model: &Model) -> bool {
        let weights = || layers(model).iter().map(Layer::weights).sum::<usize>();
        let closed = [SolverName::GRAM, SolverName::BLOCK, SolverName::PD_QUANT, SolverName::DISTILL];
        let gram = self.solve.solver.as_ref().is_none_or(|solver| closed.contains(solver));
        let nearest = self.solve.rounding == RoundingMode::Nearest;
        self.scheme.profile.folds_decoders
            && gram
            && nearest
            && self.scheme.encodings.tensors.is_empty()
            && weights() >= TABLES_PAY
    }

    /// These options with another bit plan.
    pub(crate) fn with_plan(&self, plan: &BitPlan) -> Self {
        let mut options = self.clone();
        options.scheme.plan = plan.clone();
        options
    }
}

/// Targets go by their names.
mod profile {
    use msq_passes::Profile;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn parse(name: &str) -> Result<Profile, String> {
        Profile::by_name(name).ok_or_else(|| format!("the profiles are {}", Profile::names()))
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
    pub(super) fn serialize<S: Serializer>(profile: &Profile, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(profile.name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_back_from_json() {
        let mut options = Options { seed: 7, ..Options::default() };
        options.scheme.profile = Profile::by_name("tensorrt").unwrap();
        options.scheme.first_last_bits = EndBits::Bits(6);
        options.solve.solver = Some(SolverName::GRAM);
        options.output.strip_names = Some(false);
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&json).unwrap(), options);
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        let unknown = serde_json::from_str::<Options>(r#"{"solve": {"solver_steps": 3}}"#);
        assert!(unknown.is_err_and(|error| error.to_string().contains("unknown field `solver_steps`")));
    }

    /// Trellis codes are the default of larger networks, where a target folds them and `gram` chooses them.
    #[test]
    fn few_bits_of_large_networks_are_trellis_codes() {
        let network = |columns: usize| {
            let source = format!(
                "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,512] x) => (float[1,{columns}] y)
                 <float[512,{columns}] w = {{{}}}> {{ y = MatMul (x, w) }}",
                vec!["1"; 512 * columns].join(", ")
            );
            msq_passes::ir::import(msq_passes::ir::text::parse(&source).unwrap()).unwrap()
        };
        let takes = |change: fn(&mut Options), columns: usize| {
            let mut options = Options::default();
            change(&mut options);
            options.takes_trellis(&network(columns))
        };
        assert!(takes(|_| {}, 256) && !takes(|_| {}, 255));
        assert!(takes(|options| options.scheme.profile = Profile::by_name("openvino").unwrap(), 256));
        assert!(!takes(|options| options.scheme.profile = Profile::by_name("tract").unwrap(), 256));
        assert!(!takes(|options| options.solve.rounding = RoundingMode::Stochastic, 256));
        assert!(!takes(|options| options.solve.solver = Some("round".parse().unwrap()), 256));
    }

    /// A word is the same for `Display`, `FromStr`, JSON and the command line.
    #[test]
    fn words_are_the_same_everywhere() {
        #[cfg(feature = "cli")]
        #[track_caller]
        fn same<T>()
        where
            T: clap::ValueEnum + std::str::FromStr + std::fmt::Display + Serialize + PartialEq + std::fmt::Debug,
        {
            for word in T::value_variants() {
                let text = word.to_string();
                assert!(text.parse().is_ok_and(|parsed: T| parsed == *word), "{text}");
                assert_eq!(serde_json::to_value(word).unwrap(), text);
                assert_eq!(word.to_possible_value().unwrap().get_name(), text);
            }
        }
        #[cfg(feature = "cli")]
        {
            same::<BatchNorm>();
            same::<crate::OutputKind>();
            same::<Format>();
            same::<Float16>();
            same::<RoundingMode>();
            same::<crate::PackingForm>();
            same::<crate::WeightGrid>();
            same::<crate::search::TapPosition>();
            same::<crate::search::imprint::Normalization>();
            same::<crate::search::imprint::ScaleWeight>();
        }
    }
}
