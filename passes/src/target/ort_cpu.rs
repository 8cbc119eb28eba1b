//! onnxruntime on x86 CPUs with VNNI or AVX, and what its CPU kernels do on any processor.
//!
//! The linter's rule `stays-float` reads the rows of this table as onnxruntime 1.32 matches them, with every
//! optimization switched on; `tests/lint.rs` compares its predictions with real sessions.

use super::blocks;
use super::kernel::{ABSORBED, arithmetic, free, layer, layer_or_float, movement};
use super::price::{
    ConvolutionPrices, Counted, DepthwisePrices, FarPrices, GroupedPrices, IntegerProductPrices, KernelPrices,
    LookupPrices, OperatorPrice, Prices, ProductPrices,
};
use super::{ActivationGrid, BiasForm, Choice, Forms, Kernel, Note, Profile, RuleId, Severity, WideActivations, note};

/// What onnxruntime 1.21 and newer run on integers of either sign.
pub(super) const KERNELS: &[Kernel] = &[
    layer("Conv"),
    layer_or_float("Gemm"),
    layer_or_float("MatMul").two_activations(),
    arithmetic("Add"),
    arithmetic("Mul"),
    arithmetic("Sigmoid"),
    arithmetic("LeakyRelu"),
    arithmetic("GlobalAveragePool"),
    arithmetic("AveragePool"),
    arithmetic("Concat"),
    arithmetic("Where"),
    // Slower than in float.
    arithmetic("Softmax").not_placed(),
    movement("MaxPool").crossed(),
    movement("Reshape").crossed(),
    movement("Flatten"),
    movement("Transpose").crossed(),
    movement("Squeeze").crossed(),
    movement("Unsqueeze").crossed(),
    movement("Slice").crossed().on_integers(),
    movement("Pad").fused_only(),
    movement("Expand"),
    movement("Gather"),
    movement("GatherElements"),
    movement("ReduceMax"),
    movement("ReduceMin"),
    movement("Resize"),
    movement("Split"),
    movement("Tile"),
    free("ArgMax"),
    free("Cast"),
    free("Dropout"),
    free("Identity"),
    free("SpaceToDepth"),
];

/// Kernels for unsigned integers alone: those for signed ones are newer than 1.21.
const UNSIGNED: &[Kernel] = &[movement("DepthToSpace").fused_only()];

/// What the products on integers have in common.
const INTEGER_PRODUCT: ProductPrices =
    ProductPrices { node: 300.0, column: 0.0, weight: 0.0143, product: 0.0013, input: 0.12, output: 0.0 };

const FREE: KernelPrices = KernelPrices {
    product: 0.0,
    single_product: 0.0,
    position: 0.0,
    output: 0.0,
    row: 0.0,
    dilated_tap: 0.0,
    tap: 0.0,
    column: 0.0,
    strided_column: 0.0,
    far_column: 0.0,
};

/// The two kernels for integers.
const DIRECT: KernelPrices =
    KernelPrices { product: 0.0029, single_product: 0.0049, position: 2.1, output: 0.1, tap: 1.08, ..FREE };
const GATHERED: KernelPrices = KernelPrices {
    product: 0.0014,
    single_product: 0.0045,
    position: 3.6,
    output: 0.4,
    row: 6.4,
    dilated_tap: 2.3,
    column: 0.07,
    far_column: 0.15,
    ..FREE
};

/// Groups in float, with one axis, and with two of whole vectors and others. What a group takes includes what it takes more where
/// it gathers, which the fit states apart.
const GROUPED_SERIES: GroupedPrices =
    GroupedPrices { lanes: 1, group: 185.0, product: 0.015, column: 0.14, row: 0.0, output: 0.20 };
const GROUPED_VECTORS: GroupedPrices =
    GroupedPrices { lanes: 16, group: 520.0, product: 0.0105, column: 0.05, row: 0.0, output: 0.08 };
const GROUPED_FLOATS: GroupedPrices =
    GroupedPrices { lanes: 1, group: 420.0, product: 0.023, column: 0.285, row: 0.0, output: 0.13 };
const GROUPED_INTEGERS: GroupedPrices =
    GroupedPrices { lanes: 16, group: 310.0, product: 0.0015, column: 0.034, row: 8.6, output: 0.38 };

/// Fitted to 424 convolutions, 288 depthwise ones and 1,156 of groups (`bench/prices.py`), 60 shapes of products, lookups and other nodes
/// (`bench/node_prices.py`) in onnxruntime 1.31 and 1.32, on a CPU with VNNI. What any node takes is its time between others,
/// whose code leaves little of its own in the cache.
const PRICES: Prices = Prices {
    node: 700.0,
    integer_node: 1_000.0,
    quantize: 0.14,
    dequantize: 0.13,
    float_convolution: ConvolutionPrices {
        // One and three axes: products of matrices.
        lanes: [1, 16, 16],
        kernels: [
            [KernelPrices {
                product: 0.0115,
                single_product: 0.0115,
                position: 1.0,
                output: 0.08,
                column: 0.25,
                strided_column: 0.32,
                ..FREE
            }; 2],
            [
                KernelPrices { product: 0.0125, single_product: 0.0191, position: 0.27, output: 0.027, ..FREE },
                KernelPrices { product: 0.0116, single_product: 0.0174, output: 0.137, ..FREE },
            ],
            [KernelPrices { product: 0.0125, single_product: 0.0125, column: 0.55, ..FREE }; 2],
        ],
        direct_inputs: [16, 1],
        direct_outputs: 1,
        fills_inputs: true,
        skips_padding: true,
        weight: 0.045,
        grouped: [[GROUPED_SERIES; 2], [GROUPED_VECTORS, GROUPED_FLOATS], [GROUPED_FLOATS; 2]],
        depthwise: [
            [DepthwisePrices { tap: 0.73, ..depthwise(0.2) }; 2],
            [
                DepthwisePrices { lanes: 16, output: 0.18, ..depthwise(0.022) },
                DepthwisePrices { weight: 22.0, ..depthwise(0.195) },
            ],
            [DepthwisePrices { tap: 0.12, ..depthwise(0.53) }; 2],
        ],
        depthwise_multiple: 4,
    },
    integer_convolution: ConvolutionPrices {
        lanes: [16; 3],
        kernels: [
            [DIRECT, GATHERED],
            [DIRECT, GATHERED],
            [KernelPrices { tap: 5.0, ..DIRECT }, KernelPrices { row: 0.0, tap: 8.6, column: 0.7, ..GATHERED }],
        ],
        direct_inputs: [4, 4],
        direct_outputs: 16,
        fills_inputs: false,
        skips_padding: false,
        weight: 0.026,
        grouped: [[GROUPED_INTEGERS; 2]; 3],
        depthwise: [
            [DepthwisePrices { tap: 2.6, ..depthwise(0.055) }, DepthwisePrices { tap: 3.4, ..depthwise(0.14) }],
            [DepthwisePrices { tap: 1.7, ..depthwise(0.034) }, DepthwisePrices { tap: 2.3, ..depthwise(0.096) }],
            [DepthwisePrices { tap: 5.5, ..depthwise(0.025) }, DepthwisePrices { tap: 5.8, ..depthwise(0.085) }],
        ],
        depthwise_multiple: 16,
    },
    float_product: ProductPrices { node: 0.0, column: 0.0, weight: 0.037, product: 0.0105, input: 0.17, output: 0.18 },
    far: FarPrices { near_bytes: 1.5e6, weight: 0.085, integer: 0.035 },
    integer_gemm: IntegerProductPrices {
        floats: ProductPrices { column: 2.2, output: 0.47, ..INTEGER_PRODUCT },
        // The runtime computes the scale of every column in every run.
        integers: ProductPrices { node: 640.0, column: 7.3, output: 0.56, ..INTEGER_PRODUCT },
    },
    integer_product: IntegerProductPrices {
        floats: ProductPrices { node: 460.0, column: 2.8, output: 0.31, ..INTEGER_PRODUCT },
        integers: ProductPrices { node: 690.0, column: 1.7, output: 0.39, ..INTEGER_PRODUCT },
    },
    padded_columns: true,
    moves_quantizers: true,
    splits_slopes: true,
    repeated: 20.0,
    scattered: 5.3,
    planar_resize: 1.8,
    hard_swish: 0.3,
    lookup: LookupPrices { lookup: 1_100.0, row: 25.0, value: 0.2 },
    operators: &[
        price("Add", 0.15, 0.17),
        price("AveragePool", 0.03, 1.5).per(Counted::Windows).planar(2.7).float_planar(0.35),
        price("Concat", 0.2, 0.08),
        price("DepthToSpace", 1.9, 1.2),
        price("Flatten", 0.0, 0.0),
        price("GlobalAveragePool", 0.1, 0.2).per(Counted::Input).float_planar(0.2),
        price("LeakyRelu", 0.18, 0.28),
        price("MaxPool", 0.03, 0.021).per(Counted::Windows).planar(4.5).float_planar(0.35).position(9.0),
        price("Mul", 0.18, 0.25),
        // In float a product and a maximum, as the file has it.
        price("PRelu", 0.4, 0.4),
        price("Pad", 0.5, 0.5),
        price("ReduceMax", 0.17, 0.08).per(Counted::Input),
        price("ReduceMin", 0.17, 0.08).per(Counted::Input),
        price("Reshape", 0.0, 0.0),
        price("Resize", 0.2, 1.0),
        price("Sigmoid", 0.32, 0.28),
        price("Squeeze", 0.0, 0.0),
        price("Unsqueeze", 0.0, 0.0),
        price("Where", 3.8, 3.5),
    ],
    movement: price("", 0.17, 0.08),
};

/// Prices of a depthwise convolution, per product.
const fn depthwise(product: f64) -> DepthwisePrices {
    DepthwisePrices { lanes: 1, tap: 0.0, product, output: 0.0, weight: 0.0 }
}

/// Prices of an operator in float and on integers, per element of its output.
const fn price(op: &'static str, float: f64, integer: f64) -> OperatorPrice {
    OperatorPrice { op, counted: Counted::Output, float, float_planar: float, integer, planar: integer, position: 0.0 }
}

impl OperatorPrice {
    const fn per(self, counted: Counted) -> Self {
        Self { counted, ..self }
    }

    const fn float_planar(self, float_planar: f64) -> Self {
        Self { float_planar, ..self }
    }

    const fn planar(self, planar: f64) -> Self {
        Self { planar, ..self }
    }

    const fn position(self, position: f64) -> Self {
        Self { position, ..self }
    }
}

const NOTES: &[Note] = &[
    Note {
        about: Choice::NarrowWeights,
        text: "weights of at most 7 bits: sums do not saturate on CPUs without VNNI either",
    },
    Note {
        about: Choice::IntegerFormat,
        text: "onnxruntime runs ConvInteger on CPUs slower than float, and 1.23 or older refuses it for int8",
    },
    Note {
        about: Choice::Float16,
        text: "onnxruntime has float16 kernels on GPUs and NPUs; on CPUs it mostly computes in float32 between casts, and \
               option `float16=weights` is as small and faster",
    },
    Note {
        about: Choice::WideActivations,
        text: "activations of 16 bits: onnxruntime's CPU kernels compute in float between them, slower than without \
               quantizers; they are meant for NPUs, profile `qnn`",
    },
    Note {
        about: Choice::Blocks,
        text: "weights in blocks: onnxruntime unpacks them in every run, which saves time where large weights meet few rows \
               at a time; elsewhere it runs slower than in float, and option `granularity=channel` faster",
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
        wide_activations: WideActivations::Float,
        per_channel: true,
        blocks: Some(blocks::ORT),
        bias: BiasForm::Int32,
        rounds_float_bias: true,
        integers_only: false,
        quantized_outputs: true,
        half_quantizers: false,
        int4_cast: true,
        folds_decoders: true,
        folds_in_subgraphs: true,
        qlinear: true,
        integer: true,
        dynamic: true,
        functions: true,
        contrib: true,
        highest_opset: 26,
        kernels: &[KERNELS, UNSIGNED, ABSORBED],
        joins_sums: true,
        joins_activations: false,
        clamps_need_quantizer: true,
        forms: Forms::ALL,
        prices: Some(&PRICES),
        leaves_slow: true,
        rules: &[
            (RuleId::ZeroPointMissing, Severity::Warning),
            (RuleId::LowBitWeight, Severity::Warning),
            (RuleId::TwoBitWeight, Severity::Error),
            (RuleId::StaysFloat, Severity::Warning),
            (RuleId::OperatorRefused, Severity::Error),
        ],
        notes: NOTES,
    };
}
