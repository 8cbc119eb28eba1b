//! onnxruntime on x86 CPUs with VNNI or AVX, and what its CPU kernels do on any processor.
//!
//! The linter's rule `stays-float` reads the rows of this table as onnxruntime 1.31 matches them, with every
//! optimization switched on; `tests/lint.rs` compares its predictions with real sessions.

use super::kernel::{ABSORBED, arithmetic, free, layer, layer_or_float, movement};
use super::{ActivationGrid, BiasForm, Choice, Kernel, Note, Profile, RuleId, Severity, note};

const KERNELS: &[Kernel] = &[
    layer("Conv"),
    layer_or_float("Gemm"),
    layer_or_float("MatMul"),
    arithmetic("Add"),
    arithmetic("Mul"),
    arithmetic("Sigmoid"),
    arithmetic("LeakyRelu"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
    arithmetic("Concat"),
    arithmetic("Softmax").not_placed(),
    arithmetic("Where").not_placed(),
    movement("MaxPool").crossed(),
    movement("Reshape").crossed(),
    movement("Flatten"),
    movement("Transpose").crossed(),
    movement("Squeeze").crossed(),
    movement("Unsqueeze").crossed(),
    movement("Slice").crossed(),
    movement("Pad").fused_only(),
    movement("Expand").not_placed(),
    movement("Gather").not_placed(),
    movement("GatherElements").not_placed(),
    movement("ReduceMax").not_placed(),
    movement("ReduceMin").not_placed(),
    movement("Resize").not_placed(),
    movement("Split").not_placed(),
    movement("Tile").not_placed(),
    free("Cast"),
    free("DepthToSpace"),
    free("Dropout"),
    free("Identity"),
    free("SpaceToDepth"),
];

const NOTES: &[Note] = &[
    Note {
        about: Choice::NarrowWeights,
        text: "weights of at most 7 bits: sums do not saturate on CPUs without VNNI either",
    },
    Note {
        about: Choice::IntegerFormat,
        text: "onnxruntime runs ConvInteger on CPUs slower than float, and 1.23 or older refuses it for int8",
    },
    Note { about: Choice::Functions, text: "unpacked by functions of the model: for onnxruntime" },
    note::INT4,
    note::INT2,
];

impl Profile {
    /// onnxruntime on x86 CPUs with VNNI or AVX: unsigned activations, signed weights with one scale per channel.
    pub const ORT_CPU: Self = Self {
        name: "ort-cpu",
        runtime: "onnxruntime 1.21 or newer on x86 CPUs",
        activations: ActivationGrid::Unsigned,
        wide_activations: false,
        per_channel: true,
        bias: BiasForm::Int32,
        rounds_float_bias: true,
        quantized_outputs: true,
        int4_cast: true,
        qlinear: true,
        integer: true,
        functions: true,
        contrib: true,
        highest_opset: 26,
        kernels: &[KERNELS, ABSORBED],
        rules: &[
            (RuleId::ZeroPointMissing, Severity::Warning),
            (RuleId::LowBitWeight, Severity::Warning),
            (RuleId::TwoBitWeight, Severity::Error),
            (RuleId::StaysFloat, Severity::Warning),
        ],
        notes: NOTES,
    };
}
