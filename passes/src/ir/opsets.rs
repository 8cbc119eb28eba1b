//! When operators of the default domain appeared, and which format version each operator set needs.

/// Operators by the opset that introduced them, after the ONNX 1.23 operator schemas.
const INTRODUCED: &[(i64, &[&str])] = &[
    (1, &["Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Dropout", "Elu", "Equal", "Exp", "Flatten", "Floor", "GRU", "Gather", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "HardSigmoid", "Hardmax", "Identity", "If", "InstanceNormalization", "LRN", "LSTM", "LeakyRelu", "Less", "Log", "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "MaxRoiPool", "Mean", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "RNN", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Selu", "Shape", "Sigmoid", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Upsample", "Xor"]),
    (7, &["Acos", "Asin", "Atan", "Cos", "Multinomial", "Sin", "Tan"]),
    (8, &["Expand", "Scan"]),
    (9, &["Acosh", "Asinh", "Atanh", "Compress", "ConstantOfShape", "Cosh", "Erf", "EyeLike", "IsNaN", "MaxUnpool", "MeanVarianceNormalization", "NonZero", "OneHot", "Scatter", "Shrink", "Sign", "Sinh", "TfIdfVectorizer", "Where"]),
    (10, &["ConvInteger", "DequantizeLinear", "IsInf", "MatMulInteger", "Mod", "NonMaxSuppression", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Resize", "ReverseSequence", "RoiAlign", "StringNormalizer", "ThresholdedRelu"]),
    (11, &["BitShift", "ConcatFromSequence", "CumSum", "Det", "DynamicQuantizeLinear", "GatherElements", "GatherND", "Range", "Round", "ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence", "Unique"]),
    (12, &["Celu", "Einsum", "GreaterOrEqual", "LessOrEqual", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]),
    (14, &["HardSwish", "Trilu"]),
    (15, &["Bernoulli", "CastLike", "Optional", "OptionalGetElement", "OptionalHasElement"]),
    (16, &["GridSample"]),
    (17, &["BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "LayerNormalization", "MelWeightMatrix", "STFT", "SequenceMap"]),
    (18, &["BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"]),
    (19, &["DeformConv"]),
    (20, &["AffineGrid", "Gelu", "ImageDecoder", "RegexFullMatch", "StringConcat", "StringSplit"]),
    (23, &["Attention", "RMSNormalization", "RotaryEmbedding"]),
    (24, &["Swish", "TensorScatter"]),
    (26, &["BitCast", "CumProd"]),
    (27, &["CausalConvWithState", "LinearAttention"]),
    (28, &["SwiGLU"]),
];

/// The lowest format version that may state a given default opset, where it grew: pairs of (opset, IR version).
const IR_OF_OPSET: &[(i64, i64)] = &[
    (1, 3),
    (9, 4),
    (10, 5),
    (11, 6),
    (12, 7),
    (15, 8),
    (19, 9),
    (21, 10),
    (23, 11),
    (24, 12),
    (25, 13),
    (28, 14),
];

/// The first opset of the default domain that has the operator; nothing for an operator the format does not have.
pub fn first_opset(op: &str) -> Option<i64> {
    INTRODUCED.iter().find(|(_, ops)| ops.contains(&op)).map(|&(version, _)| version)
}

/// The format version released with a default opset.
pub fn ir_version_of_opset(opset: i64) -> i64 {
    IR_OF_OPSET.iter().rev().find(|&&(first, _)| first <= opset).map_or(3, |&(_, ir)| ir)
}
