//! Whether a quantized model, whoever wrote it, is one its target runs as meant.
//!
//! Every rule is an entry of [`RULES`]: where it applies, how much it matters there, the check, and why. Checks read
//! a `View` and return sites; none changes the model. What a target can do is not said here but in
//! [`Profile`]: rules read its kernel table and its fields. [`predict_float`] is the part that knows how onnxruntime
//! matches patterns.

mod activations;
mod biases;
mod file;
mod forms;
mod ort;
mod structure;
mod view;
mod weights;

pub use ort::{FloatNode, predict_float, predict_float_on};

use crate::ir::Model;
pub use crate::target::Severity;
use crate::target::{ActivationGrid, BiasForm, Profile, RuleId, Support};
use view::View;

/// Something a rule found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// How much it matters for the target.
    pub severity: Severity,
    /// The node or value.
    pub site: String,
    /// What is wrong with it.
    pub message: String,
}

/// A node or value and what is wrong with it.
type Site = (String, String);

/// A rule.
pub struct Rule {
    /// Its name, in kebab case.
    pub id: &'static str,
    /// What is wrong about what it finds.
    pub doc: &'static str,
    severity: fn(&Profile) -> Option<Severity>,
    check: fn(&View) -> Vec<Site>,
}

impl Rule {
    /// How much the rule matters for a target; nothing where it does not apply.
    pub fn severity(&self, profile: &Profile) -> Option<Severity> {
        (self.severity)(profile)
    }
}

/// Everything the rules find, in the order of the rules, then of the graph.
pub fn lint(model: &Model, profile: &Profile) -> Vec<Finding> {
    let view = View::new(model, profile);
    let rules = RULES.iter().filter_map(|rule| Some((rule, rule.severity(profile)?)));
    let findings = rules.flat_map(|(rule, severity)| {
        let sites = (rule.check)(&view);
        sites.into_iter().map(move |(site, message)| Finding { rule: rule.id, severity, site, message })
    });
    findings.collect()
}

// A rule's severity is one for every target, follows from a field of the profile, or is the one that the target lists.

const ERROR: Option<Severity> = Some(Severity::Error);
const WARNING: Option<Severity> = Some(Severity::Warning);

fn error(_: &Profile) -> Option<Severity> {
    ERROR
}

fn warning(_: &Profile) -> Option<Severity> {
    WARNING
}

fn only_if(severity: Option<Severity>, applies: bool) -> Option<Severity> {
    severity.filter(|_| applies)
}

/// Every rule, those about the file first, then values, layers and what lies between.
pub const RULES: &[Rule] = &[
    Rule {
        id: "not-quantized",
        doc: "The model has neither quantizers nor integer operators: there is nothing to check but the file.",
        severity: warning,
        check: file::not_quantized,
    },
    Rule {
        id: "opset-too-new",
        doc: "The target does not read the operator set.",
        severity: error,
        check: file::opset,
    },
    Rule {
        id: "ir-version-too-new",
        doc: "The format version is newer than the operator set needs, which older runtimes refuse for no gain.",
        severity: warning,
        check: file::ir_version,
    },
    Rule {
        id: "function",
        doc: "The target does not run functions that the model defines itself.",
        severity: |p| only_if(ERROR, !p.functions),
        check: file::functions,
    },
    Rule {
        id: "contrib-operator",
        doc: "The target does not know operators of the domain `com.microsoft`.",
        severity: |p| only_if(ERROR, !p.contrib),
        check: file::contrib,
    },
    Rule {
        id: "dynamic-shape",
        doc: "The target compiles the graph ahead of time and needs every axis of every input.",
        severity: |p| p.listed(RuleId::DynamicShape),
        check: file::dynamic_shapes,
    },
    Rule {
        id: "scale-value",
        doc: "A scale that is not positive, not finite or subnormal stands for nothing, or for something else on \
              processors that flush subnormals to zero.",
        severity: error,
        check: activations::scales,
    },
    Rule {
        id: "activation-type",
        doc: "The target's kernels are made for the other 8-bit type, or for 8 bits: others are slow or refused.",
        severity: |p| p.listed(RuleId::ActivationType).or(WARNING),
        check: activations::types,
    },
    Rule {
        id: "activation-zero-point",
        doc: "The target takes activations whose zero point is 0 only.",
        severity: |p| only_if(ERROR, p.activations == ActivationGrid::Symmetric),
        check: activations::zero_points,
    },
    Rule {
        id: "activation-per-channel",
        doc: "No target has integer kernels for activations with one scale per channel; TensorRT refuses them.",
        severity: |p| p.listed(RuleId::ActivationPerChannel).or(WARNING),
        check: activations::per_channel,
    },
    Rule {
        id: "zero-point-missing",
        doc: "onnxruntime's patterns for `Gemm` and for operators that move data need the zero point written out, \
              also where it is 0.",
        severity: |p| p.listed(RuleId::ZeroPointMissing),
        check: activations::missing_zero_points,
    },
    Rule {
        id: "weight-type",
        doc: "Weights should be int8: uint8 ones need a zero point, which costs a pass over the input; TensorRT \
              refuses them.",
        severity: |p| p.listed(RuleId::WeightType).or(WARNING),
        check: weights::types,
    },
    Rule {
        id: "weight-zero-point",
        doc: "Weights with a zero point cost a pass over the input, up to half the speed; TensorRT and QNN refuse \
              them.",
        severity: |p| p.listed(RuleId::WeightZeroPoint).or(WARNING),
        check: weights::zero_points,
    },
    Rule {
        id: "weight-axis",
        doc: "Scales lie along another axis than output channels: runtimes that fuse the layer read them as if they \
              did not, and compute something else.",
        severity: error,
        check: weights::axes,
    },
    Rule {
        id: "weight-per-channel",
        doc: "The target's integer kernels are made for one scale per tensor: layers with one scale per channel may run \
              in float.",
        severity: |p| only_if(WARNING, !p.per_channel),
        check: weights::per_channel,
    },
    Rule {
        id: "blocks-refused",
        doc: "The target runs no weights with one scale per block.",
        severity: |p| only_if(ERROR, p.blocks.is_none()),
        check: weights::blocks,
    },
    Rule {
        id: "blocks-partial",
        doc: "The target loads no weights with one scale per block where the last block is shorter than the others.",
        severity: |p| only_if(ERROR, p.blocks.is_some_and(|blocks| !blocks.partial)),
        check: weights::partial_blocks,
    },
    Rule {
        id: "low-bit-weight",
        doc: "onnxruntime does not fold a `DequantizeLinear`: with integers below 8 bits the layer runs in float. An \
              int4 constant cast to int8 is folded and runs on integers.",
        severity: |p| p.listed(RuleId::LowBitWeight),
        check: weights::four_bits,
    },
    Rule {
        id: "two-bit-weight",
        doc: "onnxruntime fails on `DequantizeLinear` of 2-bit integers, but for those of blocks.",
        severity: |p| p.listed(RuleId::TwoBitWeight),
        check: weights::two_bits,
    },
    Rule {
        id: "int4-not-blocked",
        doc: "TensorRT takes INT4 weights only with one scale per block, and only where the activation is float.",
        severity: |p| p.listed(RuleId::Int4NotBlocked),
        check: weights::int4_blocks,
    },
    Rule {
        id: "int4-cast",
        doc: "The target does not cast integers below 8 bits.",
        severity: |p| only_if(ERROR, !p.int4_cast),
        check: weights::casts,
    },
    Rule {
        id: "bias-not-float",
        doc: "The target wants the bias as a float constant: behind a `DequantizeLinear` it is refused.",
        severity: |p| only_if(ERROR, p.bias == BiasForm::Float && !p.rounds_float_bias),
        check: biases::quantized,
    },
    Rule {
        id: "bias-not-int32",
        doc: "The target wants the bias of a quantized layer as int32.",
        severity: |p| only_if(ERROR, p.bias == BiasForm::Int32 && !p.rounds_float_bias),
        check: biases::float,
    },
    Rule {
        id: "bias-scale",
        doc: "Integer kernels add the bias at input scale × weight scale, whatever its own scale says: off by more \
              than 1 % onnxruntime leaves a `Conv` float, below that and in a `Gemm` it computes something else.",
        severity: |p| only_if(ERROR, p.bias == BiasForm::Int32),
        check: biases::scales,
    },
    Rule {
        id: "quantized-output",
        doc: "The target wants graph outputs float: a quantizer there costs accuracy and breaks a fusion.",
        severity: |p| only_if(WARNING, !p.quantized_outputs),
        check: structure::outputs,
    },
    Rule {
        id: "residual-sum",
        doc: "The target fuses a residual sum into the layer before it only if the layer's side of the sum is float.",
        severity: |p| only_if(WARNING, p.all_kernels().any(|kernel| kernel.support == Support::ResidualSum)),
        check: structure::residual_sums,
    },
    Rule {
        id: "float-operand",
        doc: "An operator with an integer kernel runs in float when one operand is float.",
        severity: |p| p.listed(RuleId::FloatOperand),
        check: structure::float_operands,
    },
    Rule {
        id: "float-operator",
        doc: "What is not quantized does not run on the accelerator: the graph is cut there.",
        severity: |p| p.listed(RuleId::FloatOperator),
        check: structure::float_operators,
    },
    Rule {
        id: "stays-float",
        doc: "onnxruntime finds no integer kernel for the node, or one of its patterns' conditions does not hold.",
        severity: |p| p.listed(RuleId::StaysFloat),
        check: structure::stays_float,
    },
    Rule {
        id: "operator-refused",
        doc: "onnxruntime's integer operators do not know every attribute of the float ones, and its change of layout \
              around convolutions not every input: the session fails although the file is valid.",
        severity: |p| p.listed(RuleId::OperatorRefused),
        check: structure::refused,
    },
    Rule {
        id: "decoded-weight",
        doc: "OpenVINO takes weights of `GRU`, of `LSTM` in one direction and of the body of a `Scan` as constants alone: \
              decoded from integers they are refused when the file is loaded.",
        severity: |p| p.listed(RuleId::DecodedWeight),
        check: forms::decoded_weights,
    },
    Rule {
        id: "padded-average",
        doc: "An `AveragePool` that counts its padding (`count_include_pad`) on integers whose zero point is not 0: OpenVINO \
              pads with 0 instead of the zero point.",
        severity: |p| p.listed(RuleId::PaddedAverage),
        check: forms::padded_averages,
    },
    Rule {
        id: "open-shape-bias",
        doc: "Where the first axis of an input is open and a `Shape` or a recurrent operator asks for lengths, OpenVINO adds the \
              bias of the first channel of a convolution to all its channels before a quantizer. State the axis, or write \
              the bias as an `Add`.",
        severity: |p| p.listed(RuleId::OpenShapeBias),
        check: forms::open_shape_biases,
    },
    Rule {
        id: "decoded-by-vector",
        doc: "OpenVINO refuses a `MatMul` of a weight decoded from integers on the left and a vector on the right.",
        severity: |p| p.listed(RuleId::DecodedByVector),
        check: forms::decoded_by_vectors,
    },
    Rule {
        id: "double-value",
        doc: "In a quantized model OpenVINO refuses an input of type double that a quantizer, or arithmetic with a constant, \
              reads behind a `Cast`: it takes these for the scale of integers. It runs the float model, and outputs of type \
              double. Make the input float32.",
        severity: |p| p.listed(RuleId::DoubleValue),
        check: forms::doubles,
    },
];
