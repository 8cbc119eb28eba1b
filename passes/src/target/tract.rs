//! tract: one scale per tensor.

use super::kernel::{ABSORBED, MOVEMENTS, arithmetic, layer, layer_or_float};
use super::{ActivationGrid, BiasForm, Forms, Kernel, Profile, RuleId, Severity, WideActivations, note};

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
];

impl Profile {
    /// tract.
    pub const TRACT: Self = Self {
        name: "tract",
        runtime: "tract 0.23",
        activations: ActivationGrid::Unsigned,
        wide_activations: WideActivations::Refused,
        per_channel: false,
        blocks: None,
        bias: BiasForm::Int32,
        rounds_float_bias: true,
        integers_only: false,
        quantized_outputs: true,
        half_quantizers: false,
        int4_cast: false,
        folds_decoders: false,
        folds_in_subgraphs: false,
        qlinear: true,
        integer: true,
        dynamic: false,
        functions: false,
        contrib: false,
        highest_opset: 20,
        kernels: &[KERNELS, MOVEMENTS, ABSORBED],
        joins_sums: false,
        joins_activations: false,
        clamps_need_quantizer: false,
        forms: Forms::ALL,
        prices: None,
        leaves_slow: false,
        rules: &[(RuleId::FloatOperand, Severity::Warning)],
        notes: &[note::INT2],
    };
}
