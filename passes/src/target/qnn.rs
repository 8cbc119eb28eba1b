//! QNN on Hexagon NPUs, by way of onnxruntime's QNN execution provider: what is not quantized runs elsewhere.

use super::kernel::{ABSORBED, MOVEMENTS, arithmetic, layer, movement};
use super::{ActivationGrid, BiasForm, Forms, Kernel, Profile, RuleId, Severity, WideActivations, note};

const KERNELS: &[Kernel] = &[
    layer("Conv"),
    layer("ConvTranspose"),
    layer("Gemm"),
    layer("MatMul").two_activations(),
    arithmetic("Add"),
    arithmetic("Sub"),
    arithmetic("Mul"),
    arithmetic("Div"),
    arithmetic("Sigmoid"),
    arithmetic("Tanh"),
    arithmetic("Softmax"),
    arithmetic("Gelu"),
    arithmetic("LayerNormalization"),
    arithmetic("Where"),
    arithmetic("LeakyRelu"),
    arithmetic("Elu"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
    arithmetic("ReduceMean"),
    arithmetic("Concat"),
    movement("Gather"),
    movement("Split"),
];

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
        kernels: &[KERNELS, MOVEMENTS, ABSORBED],
        joins_sums: false,
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
        notes: &[note::INT2],
    };
}
