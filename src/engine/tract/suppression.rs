//! `NonMaxSuppression` whose limits are scalars.
//!
//! The operator set has `max_output_boxes_per_class`, `iou_threshold` and `score_threshold` of rank 0 or of one element;
//! tract reads those of rank 1 alone. Constants of rank 0 get a dimension here. What is computed stays as it is.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{Graph, Model, NodeId, TensorProto, ValueId};

/// Inputs that are limits.
const LIMITS: std::ops::Range<usize> = 2..5;

/// Every constant limit of rank 0, which gets a dimension.
pub(super) struct Limits;

impl Lowering for Limits {
    fn mends(&self, _: &Graph, _: NodeId) -> bool {
        false
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &mut model.graph;
        let sites: Vec<(NodeId, usize, TensorProto)> = scalars(graph);
        for (node, slot, tensor) in sites {
            let list = graph.add_initializer(TensorProto { dims: vec![1], ..tensor });
            graph.set_input(node, slot, Some(list));
        }
        Ok(())
    }
}

fn scalars(graph: &Graph) -> Vec<(NodeId, usize, TensorProto)> {
    let scalar = |value: ValueId| graph.constant(value).filter(|tensor| tensor.dims.is_empty()).cloned();
    let nodes = graph.nodes().filter(|(_, node)| node.is("NonMaxSuppression"));
    let limits = nodes.flat_map(|(id, node)| LIMITS.map(move |slot| (id, slot, node.input(slot))));
    limits.filter_map(|(id, slot, value)| Some((id, slot, scalar(value?)?))).collect()
}

#[cfg(test)]
mod tests {
    use crate::data::Array;
    use crate::engine::Backend;
    use crate::engine::tract::Tract;
    use msq_passes::ir;

    /// How many of three boxes are left, two of which are nearly the same.
    fn left(limits: &str) -> usize {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>\n\
             g (float[1,3,4] boxes, float[1,1,3] scores) => (int64[n,3] y)\n\
             <int64 k = {{5}}, float iou = {{0.5}}, float score = {{0.1}}, int64[1] ks = {{5}}, float[1] ious = {{0.5}}>\n\
             {{\n y = NonMaxSuppression (boxes, scores, {limits})\n}}"
        );
        let model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
        let boxes = vec![0.0, 0.0, 10.0, 10.0, 0.0, 0.0, 10.0, 9.5, 20.0, 20.0, 30.0, 30.0];
        let boxes = Array::from_f32(vec![1, 3, 4], boxes).unwrap();
        let scores = Array::from_f32(vec![1, 1, 3], vec![0.9, 0.8, 0.7]).unwrap();
        let plan = Tract.load(&model, &[vec![1, 3, 4], vec![1, 1, 3]]).unwrap();
        let outputs = plan.session().unwrap().run(&[boxes, scores]).unwrap();
        outputs[0].shape()[0]
    }

    #[test]
    fn limits_of_rank_zero_and_one() {
        for limits in ["k, iou", "ks, ious", "k, iou, score", "ks, iou, score"] {
            assert_eq!(left(limits), 2, "{limits}");
        }
    }
}
