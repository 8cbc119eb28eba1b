//! Element types of values, declared or not.
//!
//! Files often declare no types for values in between. Most operators write what they read, so a walk in node order
//! fills the gaps: from inputs and initializers through the operators listed here. A type that does not follow from
//! this stays unknown; nothing is guessed.

use crate::ir::{DataType, Graph, Node, TensorProto, ValueId};
use std::collections::HashMap;

/// Operators whose output 0 has the type of input 0.
const SAME_TYPE: &[&str] = &[
    "Abs",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "RNN",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Selu",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sum",
    "Swish",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];

/// Operators that read two values of one type, so that a constant tells the type of what it meets.
const BOTH_SAME_TYPE: &[&str] = &["Add", "Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Mul", "Sub"];

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
        "DequantizeLinear" | "Where" => read(1),
        "QLinearConv" | "QLinearMatMul" => read(7),
        "Shape" | "Size" | "ArgMax" | "ArgMin" => Some(DataType::Int64),
        op if BOTH_SAME_TYPE.contains(&op) => read(0).or_else(|| read(1)),
        op if SAME_TYPE.contains(&op) => read(0),
        _ => None,
    }
}
