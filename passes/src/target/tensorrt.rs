//! `TensorRT`: every zero point is 0, biases and graph outputs stay float, a residual sum is fused into the
//! convolution before it when only the other operand is quantized.

use super::kernel::{ABSORBED, arithmetic, layer_or_float, residual_sum};
use super::{ActivationGrid, BiasForm, Blocks, Forms, Kernel, Profile, RuleId, Severity, WideActivations, note};

const KERNELS: &[Kernel] = &[
    layer_or_float("Conv"),
    layer_or_float("ConvTranspose"),
    layer_or_float("Gemm"),
    layer_or_float("MatMul"),
    residual_sum("Add"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
];

impl Profile {
    /// `TensorRT`.
    pub const TENSORRT: Self = Self {
        name: "tensorrt",
        runtime: "TensorRT 8.6 or newer",
        activations: ActivationGrid::Symmetric,
        wide_activations: WideActivations::Refused,
        per_channel: true,
        blocks: Some(Blocks { bits: &[4], sizes: &[64, 128], zero_points: false, partial: false }),
        bias: BiasForm::Float,
        rounds_float_bias: false,
        integers_only: false,
        quantized_outputs: false,
        half_quantizers: true,
        int4_cast: false,
        folds_decoders: false,
        folds_in_subgraphs: false,
        qlinear: false,
        integer: false,
        dynamic: false,
        functions: false,
        contrib: false,
        highest_opset: 22,
        kernels: &[KERNELS, ABSORBED],
        joins_sums: false,
        joins_activations: false,
        clamps_need_quantizer: false,
        forms: Forms::ALL,
        prices: None,
        leaves_slow: false,
        rules: &[
            (RuleId::ActivationType, Severity::Error),
            (RuleId::ActivationPerChannel, Severity::Error),
            (RuleId::WeightType, Severity::Error),
            (RuleId::WeightZeroPoint, Severity::Error),
            (RuleId::Int4NotBlocked, Severity::Error),
            (RuleId::FloatOperand, Severity::Warning),
        ],
        notes: &[note::INT2],
    };
}
