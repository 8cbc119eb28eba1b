//! The rules by operator.

use super::site::{Handed, Site};
use super::{
    activations, arithmetic, arrange, functions, layers, normalize, pool, quantizers, reduce, resample, select,
};
use crate::ir::{DataType, Graph, Node, ValueId};

/// How an operator hands gradients on.
pub(super) type Rule = fn(&mut Site) -> Handed;

/// All rules, by operator of the default domain.
static RULES: &[(&str, Rule)] = &[
    ("Abs", functions::abs),
    ("Add", arithmetic::add),
    ("AveragePool", pool::average),
    ("BatchNormalization", normalize::batch),
    ("Cast", quantizers::cast),
    ("Ceil", functions::constant),
    ("Celu", activations::celu),
    ("Clip", activations::clip),
    ("Concat", arrange::concat),
    ("Conv", layers::conv),
    ("ConvTranspose", layers::conv_transpose),
    ("Cos", functions::cos),
    ("DepthToSpace", arrange::depth_to_space),
    ("DequantizeLinear", quantizers::dequantize),
    ("Div", arithmetic::div),
    ("Dropout", functions::identity),
    ("Elu", activations::elu),
    ("Erf", functions::erf),
    ("Exp", functions::exp),
    ("Expand", arrange::expand),
    ("Flatten", arrange::reshape),
    ("Floor", functions::constant),
    ("Gather", select::gather),
    ("Gelu", activations::gelu),
    ("Gemm", layers::gemm),
    ("GlobalAveragePool", pool::global_average),
    ("GlobalMaxPool", pool::global_max),
    ("HardSigmoid", activations::hard_sigmoid),
    ("HardSwish", activations::hard_swish),
    ("Identity", functions::identity),
    ("InstanceNormalization", normalize::instance),
    ("LayerNormalization", normalize::layer),
    ("LeakyRelu", activations::leaky_relu),
    ("Log", functions::log),
    ("LogSoftmax", normalize::log_softmax),
    ("MatMul", layers::matmul),
    ("Max", arithmetic::extreme),
    ("MaxPool", pool::max),
    ("Mean", arithmetic::mean),
    ("Min", arithmetic::extreme),
    ("Mish", activations::mish),
    ("Mul", arithmetic::mul),
    ("Neg", functions::neg),
    ("PRelu", activations::prelu),
    ("Pad", arrange::pad),
    ("Pow", arithmetic::pow),
    ("QuantizeLinear", quantizers::quantize),
    ("Reciprocal", functions::reciprocal),
    ("ReduceL1", reduce::l1),
    ("ReduceL2", reduce::l2),
    ("ReduceLogSum", reduce::log_sum),
    ("ReduceLogSumExp", reduce::log_sum_exp),
    ("ReduceMax", reduce::extreme),
    ("ReduceMean", reduce::mean),
    ("ReduceMin", reduce::extreme),
    ("ReduceProd", reduce::prod),
    ("ReduceSum", reduce::sum),
    ("ReduceSumSquare", reduce::sum_square),
    ("Relu", activations::relu),
    ("Reshape", arrange::reshape),
    ("Resize", resample::resize),
    ("Round", functions::constant),
    ("Selu", activations::selu),
    ("Sigmoid", activations::sigmoid),
    ("Sign", functions::constant),
    ("Sin", functions::sin),
    ("Slice", arrange::slice),
    ("Softmax", normalize::softmax),
    ("Softplus", activations::softplus),
    ("Softsign", activations::softsign),
    ("SpaceToDepth", arrange::space_to_depth),
    ("Split", arrange::split),
    ("Sqrt", functions::sqrt),
    ("Squeeze", arrange::reshape),
    ("Sub", arithmetic::sub),
    ("Sum", arithmetic::add),
    ("Tanh", functions::tanh),
    ("ThresholdedRelu", activations::thresholded_relu),
    ("Tile", arrange::tile),
    ("Transpose", arrange::transpose),
    ("Unsqueeze", arrange::reshape),
    ("Where", select::choose),
];

/// The rule of a node's operator.
pub(super) fn rule_of(node: &Node) -> Option<Rule> {
    let row = RULES.binary_search_by_key(&node.op(), |&(op, _)| op).ok().filter(|_| node.domain().is_empty())?;
    RULES.get(row).map(|&(_, rule)| rule)
}

/// The operators that have a rule.
pub(super) fn operators() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|&(op, _)| op)
}

/// Whether changes of what a node reads can show in its output, so that a gradient has to pass there: in floats, and in
/// integers that stand for floats.
pub(super) fn carries(graph: &Graph, node: &Node, output: ValueId) -> bool {
    let element = graph.value(output).element_type();
    element.is_none_or(DataType::is_float) && !gives_integers(node.op()) || quantizers::holds_integers(graph, output)
}

/// Operators whose results are counts, positions or truth values, where types are not stated.
fn gives_integers(op: &str) -> bool {
    let known = ["Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Equal", "Greater", "GreaterOrEqual", "Less"];
    known.contains(&op) || ["LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf"].contains(&op)
}

#[cfg(test)]
mod tests {
    use super::RULES;

    #[test]
    fn rules_are_sorted_and_of_known_operators() {
        assert!(RULES.is_sorted_by(|a, b| a.0 < b.0));
        for (op, _) in RULES {
            assert!(crate::ops::schema(op).is_some(), "{op}");
        }
    }
}
