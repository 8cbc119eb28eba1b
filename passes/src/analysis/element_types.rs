//! Element types of values, declared or not.
//!
//! Files often declare no types for values in between. Most operators write what they read, so a walk in node order
//! fills the gaps: from inputs and initializers through operators whose schemas give output 0 the type of an input. A
//! type that does not follow from this stays unknown; nothing is guessed.

use crate::ir::{DataType, Graph, Node, TensorProto, ValueId};
use crate::ops::{Trait, facts, schema};
use std::collections::HashMap;

/// Operators that types are not followed through although their schemas would allow it. What the linter finds and
/// which models reach operator set 21 depends on the types that are known, so that each that goes from this list is a
/// change of behaviour of its own.
const NOT_FOLLOWED: &[&str] = &[
    "Acos",
    "Acosh",
    "AffineGrid",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Attention",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "CastLike",
    "CausalConvWithState",
    "Celu",
    "CenterCropPad",
    "Col2Im",
    "Compress",
    "Cos",
    "Cosh",
    "CumProd",
    "CumSum",
    "DFT",
    "DeformConv",
    "Det",
    "Einsum",
    "GatherElements",
    "GatherND",
    "GlobalLpPool",
    "GridSample",
    "Hardmax",
    "LinearAttention",
    "LpNormalization",
    "LpPool",
    "MaxRoiPool",
    "MaxUnpool",
    "MeanVarianceNormalization",
    "Mod",
    "NegativeLogLikelihoodLoss",
    "NonMaxSuppression",
    "Not",
    "OneHot",
    "RMSNormalization",
    "Range",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSumSquare",
    "ReverseSequence",
    "RoiAlign",
    "RotaryEmbedding",
    "STFT",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "SequenceErase",
    "SequenceInsert",
    "SequenceMap",
    "Shrink",
    "Sign",
    "Sin",
    "Sinh",
    "SoftmaxCrossEntropyLoss",
    "Softsign",
    "StringConcat",
    "StringNormalizer",
    "SwiGLU",
    "Tan",
    "TensorScatter",
    "ThresholdedRelu",
    "TopK",
    "Trilu",
    "Unique",
];

/// Element types of the graph's values, as far as they are declared or follow from what the nodes before them read.
pub(crate) fn element_types(graph: &Graph) -> HashMap<ValueId, DataType> {
    let mut types: HashMap<ValueId, DataType> =
        graph.values().filter_map(|(id, value)| Some((id, value.element_type()?))).collect();
    types.extend(graph.initializers().filter_map(|(id, tensor)| Some((id, tensor.element_type()?))));
    for (_, node) in graph.nodes() {
        let Some(written) = written(node, &types) else { continue };
        // Outputs behind the first may be masks and indices; those of `Split` are not.
        let outputs = if node.op() == "Split" { node.outputs() } else { node.outputs().get(..1).unwrap_or_default() };
        for &value in outputs.iter().flatten() {
            types.entry(value).or_insert(written);
        }
    }
    types
}

/// What a `QuantizeLinear` without zero point writes.
pub(crate) fn output_type(quantize: &Node) -> Option<DataType> {
    match quantize.int_or("output_dtype", 0) {
        0 => Some(DataType::Uint8),
        number => i32::try_from(number).ok().and_then(DataType::from_number),
    }
}

/// What the node writes into output 0.
fn written(node: &Node, types: &HashMap<ValueId, DataType>) -> Option<DataType> {
    if !node.domain().is_empty() {
        return None;
    }
    let read = |slot| node.input(slot).and_then(|v| types.get(&v)).copied();
    match node.op() {
        "Cast" => i32::try_from(node.int("to")?).ok().and_then(DataType::from_number),
        "Constant" => node.constant().as_ref().and_then(TensorProto::element_type),
        "QuantizeLinear" => read(2).or_else(|| output_type(node)),
        "DequantizeLinear" => read(1),
        "Shape" | "Size" | "ArgMax" | "ArgMin" => Some(DataType::Int64),
        op if NOT_FOLLOWED.contains(&op) => None,
        op => like_input(op, read),
    }
}

/// The type of output 0 where the operator's schema says that an input has it.
fn like_input(op: &str, read: impl Fn(usize) -> Option<DataType>) -> Option<DataType> {
    let (&first, others) = schema(op)?.like_output.split_first()?;
    // The second operand may be a constant, whose type is known, where the first one's is not.
    let facts = facts(op);
    let two_operands = facts.has(Trait::Arithmetic) || facts.float_layer().is_some();
    read(first).or_else(|| others.first().filter(|_| two_operands).and_then(|&second| read(second)))
}
