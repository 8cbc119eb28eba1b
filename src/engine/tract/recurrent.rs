//! `DynamicQuantizeLSTM` of onnxruntime as an `LSTM` of floats, because tract does not know it.
//!
//! Input weights are W and R, integers `[D, I, 4·H]`, with one scale and zero point for each direction, `[D]`, or channel,
//! `[D, 4·H]`:
//!
//! ```text
//! LSTM(X, Transpose(Mul(Sub(Cast(W), Cast(Reshape(z, [0, 1, −1]))), Reshape(s, [0, 1, −1]))), …)
//! ```
//!
//! What the kernel rounds at run time, the input and the state, stays float.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

/// The name of the operator.
const OPERATOR: &str = "DynamicQuantizeLSTM";
const DOMAIN: &str = "com.microsoft";

/// Inputs of an `LSTM`.
const INPUTS: usize = 8;

/// Every such layer.
pub(super) struct IntegerLstm;

impl Lowering for IntegerLstm {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        is_replaced(graph.node(id))
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let found: Vec<NodeId> = model.graph.nodes().filter(|(_, node)| is_replaced(node)).map(|(id, _)| id).collect();
        for id in found {
            replace(&mut model.graph, id);
        }
        Ok(())
    }
}

fn is_replaced(node: &Node) -> bool {
    node.op() == OPERATOR && node.domain() == DOMAIN && [1, 2, 8, 10].iter().all(|&slot| node.input(slot).is_some())
}

fn replace(graph: &mut Graph, id: NodeId) {
    let node = graph.node(id);
    let (name, outputs, attributes) = (node.name().to_owned(), node.outputs().to_vec(), node.attributes().to_vec());
    let mut inputs: Vec<Option<ValueId>> = (0..INPUTS).map(|slot| node.input(slot)).collect();
    let parameters = [8, 10].map(|slot| [node.input(slot), node.input(slot + 1)]);
    graph.remove_node(id);
    for (slot, [scale, zero_point]) in (1..).zip(parameters) {
        inputs[slot] = dequantized(graph, [inputs[slot], scale, zero_point]);
    }
    graph.add_node(NodeProto::of("LSTM", &name, attributes), &inputs, &outputs);
}

/// The weight in floats, `[D, 4·H, I]`.
fn dequantized(graph: &mut Graph, [integers, scale, zero_point]: [Option<ValueId>; 3]) -> Option<ValueId> {
    let stem = graph.value(integers?).name().to_owned();
    let to = || vec![AttributeProto::element("to", DataType::Float)];
    let mut floats = graph.add_op("Cast", &[integers], to(), &format!("{stem}_float"));
    let shape = graph.add_initializer(TensorProto::from_i64(&format!("{stem}_channels"), &[3], &[0, 1, -1]));
    let mut scaled = |op: &str, floats: ValueId, value: Option<ValueId>| {
        let reshaped = graph.add_op("Reshape", &[value, Some(shape)], Vec::new(), &format!("{stem}_parameter"));
        let operand = graph.add_op("Cast", &[Some(reshaped)], to(), &format!("{stem}_operand"));
        graph.add_op(op, &[Some(floats), Some(operand)], Vec::new(), &format!("{stem}_dequantized"))
    };
    if zero_point.is_some() {
        floats = scaled("Sub", floats, zero_point);
    }
    floats = scaled("Mul", floats, scale);
    let order = vec![AttributeProto::ints("perm", &[0, 2, 1])];
    Some(graph.add_op("Transpose", &[Some(floats)], order, &format!("{stem}_rows")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir;

    fn operators(domain: &str, inputs: &str) -> Vec<String> {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17, \"{domain}\" : 1]>
             g (float[t,n,2] x) => (float[t,1,n,1] y)
             <int8[1,2,4] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, int8[1,1,4] r = {{1, 1, 1, 1}}, float[1,4] s = {{1, 2, 3, 4}},
              int8[1,4] z = {{0, 0, 0, 1}}>
             {{ y = {domain}.DynamicQuantizeLSTM <hidden_size = 1> (x, w, r, , , , , , {inputs}) }}"
        );
        let mut model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
        IntegerLstm.lower(&mut model).unwrap();
        let mut found: Vec<String> = model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn layers_read_floats() {
        let found = operators("com.microsoft", "s, z, s, z");
        let count = |op: &str| found.iter().filter(|found| *found == op).count();
        assert_eq!(["LSTM", "Sub", "Mul", "Transpose"].map(count), [1, 2, 2, 2], "{found:?}");
        assert_eq!(operators("com.microsoft", "s, , s").iter().filter(|op| *op == "Sub").count(), 0);
        assert_eq!(operators("acme", "s, z, s, z"), ["DynamicQuantizeLSTM"]);
        assert_eq!(operators("com.microsoft", "s, z"), ["DynamicQuantizeLSTM"]);
    }
}
