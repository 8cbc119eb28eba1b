//! `QuantizeLinear` without a zero point, whose type is an attribute.
//!
//! tract 0.23 does not read `output_dtype`: without a zero point it writes uint8. For int8 a zero point of 0 is given here.
//! Quantizers of 16 bits are written anew elsewhere ([`super::wide`]).

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, TensorProto};

/// Every quantizer into int8 without a zero point, which gets one.
pub(super) struct ZeroPoints;

impl Lowering for ZeroPoints {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        zero_point(graph, graph.node(id)).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &mut model.graph;
        let zero = |(id, node)| Some((id, zero_point(graph, node)?));
        let found: Vec<(NodeId, TensorProto)> = graph.nodes().filter_map(zero).collect();
        for (id, zero) in found {
            let zero = graph.add_initializer(zero);
            graph.set_input(id, 2, Some(zero));
        }
        Ok(())
    }
}

/// A zero point of the shape of a constant scale.
fn zero_point(graph: &Graph, node: &Node) -> Option<TensorProto> {
    let is_int8 = node.int("output_dtype") == Some(i64::from(DataType::Int8.number()));
    if node.op() != "QuantizeLinear" || node.input(2).is_some() || !is_int8 {
        return None;
    }
    let shape = graph.constant(node.input(1)?)?.shape().ok()?;
    Some(TensorProto::from_i8("zero_point", &shape, &vec![0; shape.iter().product()]))
}

#[cfg(test)]
mod tests {
    use crate::data::Array;
    use crate::engine::Backend;
    use crate::engine::tract::Tract;
    use msq_passes::ir;

    #[test]
    fn the_attribute_gives_the_type() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]> g (float[3] x) => (float[3] y) <float s = {0.5}>
            { q = QuantizeLinear <output_dtype = 3> (x, s)  y = Cast <to = 1> (q) }";
        let model = ir::import(ir::text::parse(text).unwrap()).unwrap();
        let x = Array::from_f32(vec![3], vec![-1.0, 1.0, 100.0]).unwrap();
        let plan = Tract.load(&model, &[vec![3]]).unwrap();
        let outputs = plan.session().unwrap().run(&[x]).unwrap();
        assert_eq!(outputs[0].value().to_f32().unwrap(), [-2.0, 2.0, 127.0]);
    }
}
