//! Target profiles: what a runtime has integer kernels for and how it wants numbers written, as data.

/// How an operator takes part in an integer region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// A layer with constant weight: always quantized. `float_output`: the kernel can write floats, so the output is
    /// quantized only where an integer kernel reads it.
    Layer {
        /// Whether the kernel can write floats.
        float_output: bool,
    },
    /// Computes new values from quantized inputs: each output has its own parameters.
    Arithmetic,
    /// A sum that a layer's kernel takes in: one operand is what the layer computes, unquantized, the other is
    /// quantized.
    ResidualSum,
    /// Moves or selects elements: the output has the input's parameters.
    Movement,
    /// A clamp the output's quantizer does by saturating: the node goes, or stays right before the quantizer where zero
    /// points are 0.
    Clamp,
    /// A factor and an offset a channel: right after a layer they go into its scales and bias.
    Affine,
}

/// The integers of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationGrid {
    /// 0 to 255, the zero point follows the range.
    Unsigned,
    /// −128 to 127, the zero point follows the range.
    Signed,
    /// −128 to 127, the zero point is 0.
    Symmetric,
}

/// How the bias of a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// int32 at input scale × weight scale.
    Int32,
    /// As it is: the runtime rounds it, or adds it in float.
    Float,
}

/// A target.
#[derive(Clone, Copy, Debug, PartialEq)]
// A table of what a target can do, each column a fact of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Profile {
    /// The name on the command line.
    pub name: &'static str,
    /// The runtime in words, with the oldest version the default form of a packed file runs at full speed on.
    pub runtime: &'static str,
    /// The integers of activations.
    pub activations: ActivationGrid,
    /// Whether weights have one scale a channel rather than one a tensor.
    pub per_channel: bool,
    /// How biases are written.
    pub bias: BiasForm,
    /// Whether convolutions with a float bias run on integers all the same, so that the smallest file keeps it float.
    pub rounds_float_bias: bool,
    /// Whether graph outputs are quantized when an integer kernel computes them; never where false.
    pub quantized_outputs: bool,
    /// Whether INT4 constants may be cast to int8.
    pub int4_cast: bool,
    /// Whether `QLinearConv` and `QLinearMatMul` are run.
    pub qlinear: bool,
    /// Whether `ConvInteger` and `MatMulInteger` are run.
    pub integer: bool,
    /// Whether functions of the model itself are run.
    pub functions: bool,
    /// Whether operators of the domain `com.microsoft` are run.
    pub contrib: bool,
    /// The highest operator set of the default domain.
    pub highest_opset: i64,
    /// Operators of the default domain with integer kernels.
    pub ops: &'static [(&'static str, Support)],
}

/// Movements every runtime does on 8-bit integers.
macro_rules! with_movements {
    ($($op:tt)*) => {
        &[
            $($op)*
            ("MaxPool", Support::Movement),
            ("Reshape", Support::Movement),
            ("Flatten", Support::Movement),
            ("Transpose", Support::Movement),
            ("Squeeze", Support::Movement),
            ("Unsqueeze", Support::Movement),
            ("Slice", Support::Movement),
            ("Pad", Support::Movement),
            ("Relu", Support::Clamp),
            ("Clip", Support::Clamp),
            ("BatchNormalization", Support::Affine),
        ]
    };
}

/// What onnxruntime's CPU kernels do, on any processor.
const ORT_OPS: &[(&str, Support)] = with_movements![
    ("Conv", Support::Layer { float_output: false }),
    ("Gemm", Support::Layer { float_output: true }),
    ("MatMul", Support::Layer { float_output: true }),
    ("Add", Support::Arithmetic),
    ("Mul", Support::Arithmetic),
    ("Sigmoid", Support::Arithmetic),
    ("LeakyRelu", Support::Arithmetic),
    ("GlobalAveragePool", Support::Arithmetic),
    ("AveragePool", Support::Arithmetic),
    ("Concat", Support::Arithmetic),
];

impl Profile {
    /// onnxruntime on x86 CPUs with VNNI or AVX: unsigned activations, signed weights with a scale a channel.
    pub const ORT_CPU: Self = Self {
        name: "ort-cpu",
        runtime: "onnxruntime 1.21 or newer on x86 CPUs",
        activations: ActivationGrid::Unsigned,
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
        ops: ORT_OPS,
    };

    /// onnxruntime on ARM CPUs, whose kernels multiply signed with signed.
    pub const ORT_ARM: Self = Self {
        name: "ort-arm",
        runtime: "onnxruntime 1.21 or newer on ARM CPUs",
        activations: ActivationGrid::Signed,
        ..Self::ORT_CPU
    };

    /// `TensorRT`: every zero point is 0, biases and graph outputs stay float, a residual sum is fused into the
    /// convolution before it when only the other operand is quantized.
    pub const TENSORRT: Self = Self {
        name: "tensorrt",
        runtime: "TensorRT 8.6 or newer",
        activations: ActivationGrid::Symmetric,
        per_channel: true,
        bias: BiasForm::Float,
        rounds_float_bias: false,
        quantized_outputs: false,
        int4_cast: false,
        qlinear: false,
        integer: false,
        functions: false,
        contrib: false,
        highest_opset: 22,
        ops: &[
            ("Conv", Support::Layer { float_output: true }),
            ("ConvTranspose", Support::Layer { float_output: true }),
            ("Gemm", Support::Layer { float_output: true }),
            ("MatMul", Support::Layer { float_output: true }),
            ("Add", Support::ResidualSum),
            ("GlobalAveragePool", Support::Arithmetic),
            ("AveragePool", Support::Arithmetic),
            ("Relu", Support::Clamp),
            ("Clip", Support::Clamp),
            ("BatchNormalization", Support::Affine),
        ],
    };

    /// `OpenVINO` on CPUs and integrated GPUs.
    pub const OPENVINO: Self = Self {
        name: "openvino",
        runtime: "OpenVINO 2024.0 or newer",
        activations: ActivationGrid::Unsigned,
        per_channel: true,
        bias: BiasForm::Float,
        rounds_float_bias: true,
        quantized_outputs: true,
        int4_cast: true,
        qlinear: false,
        integer: true,
        functions: false,
        contrib: false,
        highest_opset: 21,
        ops: with_movements![
            ("Conv", Support::Layer { float_output: true }),
            ("Gemm", Support::Layer { float_output: true }),
            ("MatMul", Support::Layer { float_output: true }),
            ("Add", Support::Arithmetic),
            ("Mul", Support::Arithmetic),
            ("GlobalAveragePool", Support::Arithmetic),
            ("AveragePool", Support::Arithmetic),
            ("Concat", Support::Arithmetic),
        ],
    };

    /// QNN on Hexagon NPUs, by way of onnxruntime's QNN execution provider: what is not quantized runs elsewhere.
    pub const QNN: Self = Self {
        name: "qnn",
        runtime: "onnxruntime's QNN execution provider",
        activations: ActivationGrid::Unsigned,
        per_channel: true,
        bias: BiasForm::Int32,
        rounds_float_bias: false,
        quantized_outputs: true,
        int4_cast: false,
        qlinear: false,
        integer: false,
        functions: false,
        contrib: false,
        highest_opset: 21,
        ops: with_movements![
            ("Conv", Support::Layer { float_output: false }),
            ("ConvTranspose", Support::Layer { float_output: false }),
            ("Gemm", Support::Layer { float_output: false }),
            ("MatMul", Support::Layer { float_output: false }),
            ("Add", Support::Arithmetic),
            ("Sub", Support::Arithmetic),
            ("Mul", Support::Arithmetic),
            ("Div", Support::Arithmetic),
            ("Sigmoid", Support::Arithmetic),
            ("Tanh", Support::Arithmetic),
            ("Softmax", Support::Arithmetic),
            ("LeakyRelu", Support::Arithmetic),
            ("Elu", Support::Arithmetic),
            ("GlobalAveragePool", Support::Arithmetic),
            ("AveragePool", Support::Arithmetic),
            ("ReduceMean", Support::Arithmetic),
            ("Concat", Support::Arithmetic),
        ],
    };

    /// tract: one scale a tensor.
    pub const TRACT: Self = Self {
        name: "tract",
        runtime: "tract 0.23",
        activations: ActivationGrid::Unsigned,
        per_channel: false,
        bias: BiasForm::Int32,
        rounds_float_bias: true,
        quantized_outputs: true,
        int4_cast: false,
        qlinear: true,
        integer: true,
        functions: false,
        contrib: false,
        highest_opset: 20,
        ops: ORT_OPS,
    };

    /// Every profile.
    pub const ALL: [Self; 6] = [Self::ORT_CPU, Self::ORT_ARM, Self::TENSORRT, Self::OPENVINO, Self::QNN, Self::TRACT];

    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// What the target can do with an operator of the default domain.
    pub fn support(&self, op: &str) -> Option<Support> {
        self.ops.iter().find(|(name, _)| *name == op).map(|&(_, support)| support)
    }
}
