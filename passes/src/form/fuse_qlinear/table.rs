//! What there is on integers, as data.

/// How an operator becomes one on integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `QLinearConv`.
    Convolution,
    /// `QLinearMatMul`.
    Product,
    /// `QGemm` of onnxruntime, with or without quantized output.
    Layer,
    /// The operator itself, which moves or selects elements whatever they are, from this opset on.
    Movement(i64),
    /// The operator itself with the zero point as padding.
    Padding,
    /// The operator itself where all inputs are on the output's grid, else `QLinearConcat` of onnxruntime.
    Joining,
    /// An operator of onnxruntime with a scale and a zero point behind each operand and the result.
    Arithmetic {
        /// Its name.
        operator: &'static str,
        /// How many operands it has.
        operands: usize,
        /// The attributes it shares with the float operator.
        attributes: &'static [&'static str],
    },
    /// `QLinearSoftmax` of onnxruntime, which wants to be told the opset.
    Softmax,
}

const fn arithmetic(operator: &'static str, operands: usize, attributes: &'static [&'static str]) -> Form {
    Form::Arithmetic { operator, operands, attributes }
}

const AVERAGE: &[&str] = &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"];

/// Operators of the default domain with a form on integers.
const OPERATORS: &[(&str, Form)] = &[
    ("Add", arithmetic("QLinearAdd", 2, &[])),
    ("AveragePool", arithmetic("QLinearAveragePool", 1, AVERAGE)),
    ("Concat", Form::Joining),
    ("Conv", Form::Convolution),
    ("DepthToSpace", Form::Movement(1)),
    ("Expand", Form::Movement(8)),
    ("Flatten", Form::Movement(9)),
    ("Gather", Form::Movement(1)),
    ("GatherElements", Form::Movement(11)),
    ("GatherND", Form::Movement(11)),
    ("Gemm", Form::Layer),
    ("GlobalAveragePool", arithmetic("QLinearGlobalAveragePool", 1, &[])),
    ("Identity", Form::Movement(1)),
    ("LeakyRelu", arithmetic("QLinearLeakyRelu", 1, &["alpha"])),
    ("MatMul", Form::Product),
    ("MaxPool", Form::Movement(12)),
    ("Mul", arithmetic("QLinearMul", 2, &[])),
    ("Pad", Form::Padding),
    ("Reshape", Form::Movement(5)),
    ("Sigmoid", arithmetic("QLinearSigmoid", 1, &[])),
    ("Slice", Form::Movement(1)),
    ("Softmax", Form::Softmax),
    ("SpaceToDepth", Form::Movement(1)),
    ("Squeeze", Form::Movement(1)),
    ("Tile", Form::Movement(6)),
    ("Transpose", Form::Movement(1)),
    ("Unsqueeze", Form::Movement(1)),
];

/// The name and form of an operator of the default domain.
pub(super) fn find(operator: &str) -> Option<(&'static str, Form)> {
    OPERATORS.iter().copied().find(|(name, _)| *name == operator)
}

impl Form {
    /// The operator of onnxruntime's domain that the form always needs.
    pub(super) fn contrib(self) -> Option<&'static str> {
        match self {
            Self::Layer => Some("QGemm"),
            Self::Arithmetic { operator, .. } => Some(operator),
            Self::Softmax => Some("QLinearSoftmax"),
            Self::Convolution | Self::Product | Self::Movement(_) | Self::Padding | Self::Joining => None,
        }
    }
}
