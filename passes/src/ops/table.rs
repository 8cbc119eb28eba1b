//! The facts of operators, in order of names. An operator without a row has none; a row states only what it has.

use super::facts::IntegerForm::{self, Convolution, Joining, Layer, Movement, Padding, Product, Softmax};
use super::facts::Trait::{
    Arithmetic, Binary, Clamp, Conversion, FusedLayer, Homogeneous, IdentityOfOne, Normalization, OneOperand, Pooling,
    Quantized, Random, Rearrangement, Rectifier, Recurrent, Selection, ShapeArithmetic, SinglePrecision, Unary,
};
use super::facts::{Facts, LayerOp, Operands, WeightLayout};

/// The domain of onnxruntime's own operators.
const ONNXRUNTIME: &str = "com.microsoft";

const AVERAGE: &[&str] = &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"];
const FILTER: WeightLayout = WeightLayout::Filter { output: 0, input: 1 };
const TRANSPOSED_FILTER: WeightLayout = WeightLayout::Filter { output: 1, input: 0 };
const MATRIX: WeightLayout = WeightLayout::Matrix { transposed: ["transA", "transB"] };

/// A row without facts, to which they are added.
const fn op(name: &'static str) -> Facts {
    Facts { name, ..Facts::NONE }
}

impl Facts {
    const fn of_onnxruntime(self) -> Self {
        Self { domain: ONNXRUNTIME, ..self }
    }

    const fn layer(self, layer: LayerOp) -> Self {
        Self { layer: Some(layer), ..self }
    }

    const fn operands(self, weight: &'static [usize], bias: Option<usize>, layout: WeightLayout) -> Self {
        Self { operands: Some(Operands { weight, bias, layout }), ..self }
    }

    const fn integer(self, form: IntegerForm) -> Self {
        Self { integer: Some(form), ..self }
    }

    const fn traits(self, traits: &'static [super::Trait]) -> Self {
        Self { traits, ..self }
    }
}

/// The form on integers that an operator of onnxruntime has.
const fn arithmetic(operator: &'static str, operands: usize, attributes: &'static [&'static str]) -> IntegerForm {
    IntegerForm::Arithmetic { operator, operands, attributes }
}

#[rustfmt::skip]
pub(super) const FACTS: &[Facts] = &[
    op("Abs").traits(&[Unary]),
    op("Add").integer(arithmetic("QLinearAdd", 2, &[])).traits(&[Arithmetic, Binary]),
    op("AveragePool").integer(arithmetic("QLinearAveragePool", 1, AVERAGE)).traits(&[Homogeneous, Pooling]),
    op("Bernoulli").traits(&[Random]),
    op("Cast").traits(&[Conversion, Rearrangement, ShapeArithmetic]),
    op("Celu").traits(&[Rectifier, Unary]),
    op("Clip").traits(&[Clamp, OneOperand, Rectifier, Unary]),
    op("Concat").integer(Joining).traits(&[IdentityOfOne, ShapeArithmetic]),
    op("Constant").traits(&[ShapeArithmetic]),
    op("ConstantOfShape").traits(&[ShapeArithmetic]),
    op("Conv").layer(LayerOp::Conv).operands(&[1], Some(2), FILTER).integer(Convolution),
    op("ConvInteger").layer(LayerOp::Conv).operands(&[1], None, FILTER).traits(&[Quantized]),
    op("ConvTranspose").layer(LayerOp::ConvTranspose).operands(&[1], Some(2), TRANSPOSED_FILTER),
    op("CumProd").traits(&[SinglePrecision]),
    op("CumSum").traits(&[SinglePrecision]),
    op("DeformConv").operands(&[1], Some(3), FILTER),
    op("DepthToSpace").integer(Movement),
    op("DequantizeLinear").traits(&[Conversion, Quantized]),
    op("Div").traits(&[Arithmetic, Binary]),
    op("DynamicQuantizeLinear").traits(&[Quantized]),
    op("Elu").traits(&[Rectifier, Unary]),
    op("Equal").traits(&[ShapeArithmetic]),
    op("Erf").traits(&[Unary]),
    op("Exp").traits(&[Unary]),
    op("Expand").integer(Movement).traits(&[ShapeArithmetic]),
    op("Flatten").integer(Movement).traits(&[Rearrangement]),
    op("FusedConv").of_onnxruntime().traits(&[FusedLayer]),
    op("FusedGemm").of_onnxruntime().traits(&[FusedLayer]),
    op("FusedMatMul").of_onnxruntime().traits(&[FusedLayer]),
    op("GRU").traits(&[Recurrent]),
    op("Gather").integer(Movement).traits(&[ShapeArithmetic]),
    op("GatherElements").integer(Movement),
    op("GatherND").integer(Movement),
    op("Gelu").traits(&[Unary]),
    op("Gemm").layer(LayerOp::Gemm).operands(&[1, 0], Some(2), MATRIX).integer(Layer),
    op("GlobalAveragePool").integer(arithmetic("QLinearGlobalAveragePool", 1, &[])).traits(&[Homogeneous, Pooling]),
    op("GlobalMaxPool").traits(&[Homogeneous, Pooling]),
    op("Greater").traits(&[ShapeArithmetic]),
    op("GridSample").traits(&[SinglePrecision]),
    op("HardSigmoid").traits(&[Unary]),
    op("HardSwish").traits(&[Unary]),
    op("Identity").integer(Movement).traits(&[Conversion, Homogeneous, Rearrangement, ShapeArithmetic]),
    op("InstanceNormalization").traits(&[Normalization]),
    op("LSTM").traits(&[Recurrent]),
    op("LayerNormalization").traits(&[Normalization]),
    op("LeakyRelu").integer(arithmetic("QLinearLeakyRelu", 1, &["alpha"])).traits(&[Homogeneous, Rectifier, Unary]),
    op("Less").traits(&[ShapeArithmetic]),
    op("Log").traits(&[Unary]),
    op("MatMul").layer(LayerOp::MatMul).operands(&[1, 0], None, WeightLayout::Stack).integer(Product),
    op("MatMulInteger").layer(LayerOp::MatMul).operands(&[1], None, WeightLayout::Stack).traits(&[Quantized]),
    op("Max").traits(&[Binary, IdentityOfOne]),
    op("MaxPool").integer(Movement).traits(&[Homogeneous, Pooling]),
    op("MaxRoiPool").traits(&[SinglePrecision]),
    op("Mean").traits(&[IdentityOfOne]),
    op("Min").traits(&[Binary, IdentityOfOne]),
    op("Mish").traits(&[Unary]),
    op("Mul").integer(arithmetic("QLinearMul", 2, &[])).traits(&[Arithmetic, Binary]),
    op("Multinomial").traits(&[Random]),
    op("Neg").traits(&[Unary]),
    op("Not").traits(&[ShapeArithmetic]),
    op("PRelu").traits(&[Homogeneous, Rectifier]),
    op("Pad").integer(Padding),
    op("Pow").traits(&[Binary]),
    op("QGemm").of_onnxruntime().layer(LayerOp::Gemm).operands(&[3], Some(6), MATRIX).traits(&[Quantized]),
    op("QLinearConv").layer(LayerOp::Conv).operands(&[3], Some(8), FILTER).traits(&[Quantized]),
    op("QLinearMatMul").layer(LayerOp::MatMul).operands(&[3], None, WeightLayout::Stack).traits(&[Quantized]),
    op("QuantizeLinear").traits(&[Conversion, Quantized]),
    op("RNN").traits(&[Recurrent]),
    op("RandomNormal").traits(&[Random]),
    op("RandomNormalLike").traits(&[Random]),
    op("RandomUniform").traits(&[Random]),
    op("RandomUniformLike").traits(&[Random]),
    op("Range").traits(&[ShapeArithmetic, SinglePrecision]),
    op("ReduceMax").traits(&[OneOperand]),
    op("ReduceMean").traits(&[OneOperand]),
    op("ReduceMin").traits(&[OneOperand]),
    op("ReduceSum").traits(&[OneOperand]),
    op("Relu").traits(&[Clamp, Homogeneous, Rectifier, Unary]),
    op("Reshape").integer(Movement).traits(&[Rearrangement, ShapeArithmetic]),
    op("RoiAlign").traits(&[SinglePrecision]),
    op("Selu").traits(&[Unary]),
    op("Shape").traits(&[ShapeArithmetic]),
    op("Sigmoid").integer(arithmetic("QLinearSigmoid", 1, &[])).traits(&[Unary]),
    op("Slice").integer(Movement).traits(&[ShapeArithmetic]),
    op("Softmax").integer(Softmax),
    op("Softplus").traits(&[Unary]),
    op("Softsign").traits(&[Unary]),
    op("SpaceToDepth").integer(Movement),
    op("Sqrt").traits(&[Unary]),
    op("Squeeze").integer(Movement).traits(&[Rearrangement, ShapeArithmetic]),
    op("Sub").traits(&[Arithmetic, Binary]),
    op("Sum").traits(&[IdentityOfOne]),
    op("Swish").traits(&[Unary]),
    op("Tanh").traits(&[Unary]),
    op("ThresholdedRelu").traits(&[Rectifier]),
    op("Tile").integer(Movement),
    op("TopK").traits(&[SinglePrecision]),
    op("Transpose").integer(Movement).traits(&[Rearrangement]),
    op("Unsqueeze").integer(Movement).traits(&[Rearrangement, ShapeArithmetic]),
    op("Where").traits(&[Selection, ShapeArithmetic]),
];
