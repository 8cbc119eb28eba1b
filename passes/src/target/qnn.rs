//! QNN on Hexagon NPUs, by way of onnxruntime's QNN execution provider: what is not quantized runs elsewhere.

use super::kernel::{ABSORBED, Limit, arithmetic, index, layer, movement};
use super::{ActivationGrid, BiasForm, Choice, Forms, Kernel, Note, Profile, RuleId, Severity, WideActivations, note};

/// What onnxruntime matches as one node with its quantizers (`qdq_transformer/selectors_actions/shared/utils.cc`, 1.31) and
/// its provider for QNN translates for the NPU (`providers/qnn/builder/opbuilder`, March 2026), within the limits stated
/// there. Left out are those that 8 bits do not serve: `Log`, `Reciprocal`, `Sin`, `Cos`, `CumSum` and `GridSample` need
/// their input more exactly, `Floor`, `Ceil`, `Round` and `Sign` jump.
const KERNELS: &[Kernel] = &[
    layer("Conv"),
    layer("ConvTranspose"),
    layer("Gemm"),
    layer("MatMul").two_activations(),
    arithmetic("Add"),
    arithmetic("Sub"),
    arithmetic("Mul"),
    arithmetic("Div"),
    arithmetic("Neg"),
    arithmetic("Abs"),
    arithmetic("Exp"),
    arithmetic("Sqrt"),
    arithmetic("Pow").within(&[Limit::PositiveNumber(1)]),
    arithmetic("Max").within(&[Limit::Inputs(2)]),
    arithmetic("Min").within(&[Limit::Inputs(2)]),
    arithmetic("Sigmoid"),
    arithmetic("HardSigmoid"),
    arithmetic("HardSwish"),
    arithmetic("Tanh"),
    arithmetic("Softmax"),
    arithmetic("LogSoftmax"),
    arithmetic("Gelu"),
    arithmetic("LayerNormalization").within(&[Limit::LastAxis, Limit::Constant(1), Limit::Constant(2)]),
    arithmetic("InstanceNormalization").within(&[Limit::Axes(3, 4), Limit::Constant(1), Limit::Constant(2)]),
    arithmetic("LpNormalization").within(&[Limit::Integer("p", 2)]),
    arithmetic("LRN"),
    arithmetic("Where"),
    arithmetic("LeakyRelu"),
    arithmetic("PRelu"),
    arithmetic("Elu"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
    arithmetic("ReduceMean").within(REDUCTIONS),
    arithmetic("ReduceSum").within(REDUCTIONS),
    arithmetic("Concat"),
    movement("MaxPool"),
    movement("GlobalMaxPool"),
    movement("ReduceMax").within(REDUCTIONS),
    movement("ReduceMin").within(REDUCTIONS),
    movement("Reshape"),
    movement("Flatten"),
    movement("Transpose"),
    movement("Squeeze"),
    movement("Unsqueeze"),
    movement("Slice"),
    movement("Pad"),
    movement("Gather"),
    movement("GatherElements"),
    movement("Split"),
    movement("Expand").within(&[Limit::Constant(1)]),
    movement("Tile").within(&[Limit::Constant(1)]),
    movement("DepthToSpace"),
    movement("SpaceToDepth"),
    movement("Resize").interpolates().within(RESIZES),
    index("ArgMax").within(INDICES),
    index("ArgMin").within(INDICES),
];

const REDUCTIONS: &[Limit] = &[Limit::Axes(1, 5), Limit::Constant(1), Limit::Integer("noop_with_empty_axes", 0)];

const INDICES: &[Limit] = &[Limit::Axes(1, 4), Limit::Integer("select_last_index", 0)];

const COORDINATES: &str = "coordinate_transformation_mode";

const RESIZES: &[Limit] = &[
    Limit::Axes(3, 5),
    Limit::Text("mode", &["nearest", "linear"]),
    Limit::Text(COORDINATES, &["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    Limit::Integer("antialias", 0),
    Limit::Never(&[NEAREST, (COORDINATES, "half_pixel", "pytorch_half_pixel")]),
    Limit::Never(&[NEAREST, ASYMMETRIC, (ROUNDING, "round_prefer_floor", "round_prefer_floor")]),
    Limit::Never(&[NEAREST, ASYMMETRIC, (ROUNDING, "round_prefer_floor", "ceil")]),
];

const ROUNDING: &str = "nearest_mode";
const NEAREST: (&str, &str, &str) = ("mode", "nearest", "nearest");
const ASYMMETRIC: (&str, &str, &str) = (COORDINATES, "half_pixel", "asymmetric");

impl Profile {
    /// QNN on Hexagon NPUs.
    pub const QNN: Self = Self {
        name: "qnn",
        runtime: "onnxruntime's QNN execution provider",
        activations: ActivationGrid::Unsigned,
        wide_activations: WideActivations::Kernels,
        per_channel: true,
        blocks: None,
        bias: BiasForm::Int32,
        rounds_float_bias: false,
        integers_only: true,
        quantized_outputs: true,
        half_quantizers: false,
        int4_cast: false,
        folds_decoders: false,
        folds_in_subgraphs: false,
        qlinear: false,
        integer: false,
        dynamic: false,
        functions: false,
        contrib: false,
        highest_opset: 21,
        kernels: &[KERNELS, ABSORBED],
        joins_sums: false,
        joins_activations: false,
        clamps_need_quantizer: false,
        forms: Forms::ALL,
        prices: None,
        leaves_slow: false,
        rules: &[
            // The graph is compiled ahead of time.
            (RuleId::DynamicShape, Severity::Error),
            (RuleId::WeightZeroPoint, Severity::Error),
            (RuleId::FloatOperand, Severity::Warning),
            (RuleId::FloatOperator, Severity::Warning),
        ],
        notes: &[
            note::INT2,
            Note {
                about: Choice::OpenShapes,
                text: "QNN compiles the graph ahead of time and refuses open axes of inputs: state their lengths when you export \
                       the model, or with `python -m onnxruntime.tools.make_dynamic_shape_fixed`",
            },
        ],
    };
}
