//! `OpenVINO` on CPUs and integrated GPUs.

use super::kernel::{ABSORBED, MOVEMENTS, arithmetic, layer_or_float, movement};
use super::{ActivationGrid, BiasForm, Blocks, Forms, Kernel, Profile, RuleId, Severity, WideActivations, note};

/// What `OpenVINO` 2026.4.1 runs on 8 bits with quantizers in front and behind; without the one in front it moves floats.
/// `ConvTranspose` with one scale per channel, `SpaceToDepth`, `Tile` and linear `Resize` run in float either way, and a
/// `PRelu` is part of the convolution before it without any.
const KERNELS: &[Kernel] = &[
    layer_or_float("Conv"),
    layer_or_float("Gemm"),
    layer_or_float("MatMul"),
    arithmetic("Add"),
    arithmetic("Mul"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
    arithmetic("Concat"),
    movement("DepthToSpace"),
    movement("Gather"),
    movement("GlobalMaxPool"),
    movement("ReduceMax").leads(),
    movement("ReduceMin").leads(),
    movement("Resize"),
    movement("Split"),
];

impl Profile {
    /// `OpenVINO` on CPUs and integrated GPUs.
    pub const OPENVINO: Self = Self {
        name: "openvino",
        runtime: "OpenVINO 2024.0 or newer",
        activations: ActivationGrid::Unsigned,
        wide_activations: WideActivations::Refused,
        per_channel: true,
        blocks: Some(Blocks { bits: &[4, 8], sizes: &[16, 32, 64, 128, 256], zero_points: true, partial: false }),
        bias: BiasForm::Float,
        rounds_float_bias: true,
        integers_only: false,
        quantized_outputs: true,
        half_quantizers: false,
        int4_cast: true,
        folds_decoders: true,
        folds_in_subgraphs: false,
        qlinear: false,
        integer: true,
        dynamic: false,
        functions: false,
        contrib: false,
        highest_opset: 21,
        kernels: &[KERNELS, MOVEMENTS, ABSORBED],
        joins_sums: false,
        joins_activations: true,
        clamps_need_quantizer: false,
        forms: Forms {
            decoded_weights: false,
            pads_zero_point: false,
            biases_of_open_shapes: false,
            decoded_by_vector: false,
            doubles: false,
        },
        prices: None,
        leaves_slow: false,
        rules: &[
            (RuleId::FloatOperand, Severity::Warning),
            (RuleId::DecodedWeight, Severity::Error),
            (RuleId::PaddedAverage, Severity::Error),
            (RuleId::OpenShapeBias, Severity::Error),
            (RuleId::DecodedByVector, Severity::Error),
            (RuleId::DoubleValue, Severity::Error),
        ],
        notes: &[note::INT4, note::INT2],
    };
}
