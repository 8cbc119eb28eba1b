//! Operators of `ai.onnx.ml` that stand around networks of scikit-learn, as those of the default domain; tract does not know
//! them.
//!
//! | operator | becomes |
//! |---|---|
//! | `Scaler` | (x − offset)·scale, in floats |
//! | `Binarizer` | 1 where x is above the threshold, else 0 |
//! | `ArrayFeatureExtractor` | `Gather` along the last axis |
//! | `ZipMap` | its input: no array holds the maps from classes to probabilities, but the probabilities are the same |

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

const DOMAIN: &str = "ai.onnx.ml";

/// Every such node.
pub(super) struct Classical;

impl Lowering for Classical {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        is_replaced(graph, graph.node(id))
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &mut model.graph;
        let found: Vec<NodeId> = graph.nodes().filter(|(_, node)| is_replaced(graph, node)).map(|(id, _)| id).collect();
        for id in found {
            let node = graph.node(id).clone();
            let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { continue };
            graph.remove_node(id);
            let mut site = Site { graph, name: node.name().to_owned() };
            let (last, operands) = match node.op() {
                "Scaler" => site.scaled(&node, input),
                "Binarizer" => site.binary(&node, input),
                "ArrayFeatureExtractor" => site.features(&node, input),
                _ => (NodeProto::of("Identity", node.name(), Vec::new()), vec![input]),
            };
            let operands: Vec<Option<ValueId>> = operands.into_iter().map(Some).collect();
            site.graph.add_node(last, &operands, &[Some(output)]);
        }
        Ok(())
    }
}

fn is_replaced(graph: &Graph, node: &Node) -> bool {
    node.domain() == DOMAIN
        && match node.op() {
            "Scaler" | "Binarizer" | "ZipMap" => true,
            "ArrayFeatureExtractor" => node.input(0).is_some_and(|value| rank(graph, value).is_some()),
            _ => false,
        }
}

fn rank(graph: &Graph, value: ValueId) -> Option<usize> {
    let constant = graph.constant(value).map(|tensor| tensor.dims.len());
    constant.or_else(|| Some(graph.value(value).shape()?.len()))
}

fn floats<'a>(node: &'a Node, name: &str) -> &'a [f32] {
    node.attribute(name).map_or(&[], |attribute| &attribute.floats)
}

/// The place of a node. What is built in front of its last operator, and that operator with what it reads.
struct Site<'a> {
    graph: &'a mut Graph,
    name: String,
}

impl Site<'_> {
    fn op(&mut self, op: &str, inputs: &[ValueId], attributes: Vec<AttributeProto>) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.graph.add_op(op, &inputs, attributes, &format!("{}_{}", self.name, op.to_lowercase()))
    }

    fn list(&mut self, numbers: &[i64]) -> ValueId {
        self.graph.add_initializer(TensorProto::from_i64(&format!("{}_shape", self.name), &[numbers.len()], numbers))
    }

    /// One number per column, or one for all.
    fn numbers(&mut self, values: &[f32]) -> ValueId {
        let shape: &[usize] = if values.len() == 1 { &[] } else { &[values.len()] };
        self.graph.add_initializer(TensorProto::from_f32(&format!("{}_numbers", self.name), shape, values))
    }

    fn cast(&mut self, value: ValueId) -> ValueId {
        self.op("Cast", &[value], vec![AttributeProto::element("to", DataType::Float)])
    }

    fn scaled(&mut self, node: &Node, input: ValueId) -> (NodeProto, Vec<ValueId>) {
        let given = |name, default: f32| {
            let values = floats(node, name);
            if values.is_empty() { vec![default] } else { values.to_vec() }
        };
        let (offset, scale) = (given("offset", 0.0), given("scale", 1.0));
        let value = self.cast(input);
        let (offset, scale) = (self.numbers(&offset), self.numbers(&scale));
        let moved = self.op("Sub", &[value, offset], Vec::new());
        (NodeProto::of("Mul", &self.name, Vec::new()), vec![moved, scale])
    }

    fn binary(&mut self, node: &Node, input: ValueId) -> (NodeProto, Vec<ValueId>) {
        let value = self.cast(input);
        let threshold = self.numbers(&[node.float_or("threshold", 0.0)]);
        let above = self.op("Greater", &[value, threshold], Vec::new());
        let float = AttributeProto::element("to", DataType::Float);
        (NodeProto::of("Cast", &self.name, vec![float]), vec![above])
    }

    fn features(&mut self, node: &Node, input: ValueId) -> (NodeProto, Vec<ValueId>) {
        let Some(indices) = node.input(1) else {
            return (NodeProto::of("Identity", &self.name, Vec::new()), vec![input]);
        };
        let all = self.list(&[-1]);
        let flat = self.op("Reshape", &[indices, all], Vec::new());
        let axis = vec![AttributeProto::int("axis", -1)];
        if rank(self.graph, input) != Some(1) {
            return (NodeProto::of("Gather", &self.name, axis), vec![input, flat]);
        }
        // Of a list there comes a row.
        let picked = self.op("Gather", &[input, flat], axis);
        let row = self.list(&[1, -1]);
        (NodeProto::of("Reshape", &self.name, Vec::new()), vec![picked, row])
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Array, ArrayData};
    use crate::engine::standard;
    use msq_passes::ir::{import, text};

    /// What nodes make of x, [2, 3], as floats, with the shape.
    fn run(constants: &str, nodes: &str, x: &Array) -> (Vec<usize>, Vec<f32>) {
        let element = if x.dtype() == msq_passes::ir::DataType::Int64 { "int64" } else { "float" };
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17, \"ai.onnx.ml\": 3]>
             g ({element}[2,3] x) => (float y) <{constants}> {{ {nodes} }}"
        );
        let mut proto = text::parse(&text).unwrap();
        for output in proto.graph.iter_mut().flat_map(|graph| &mut graph.output) {
            output.r#type = None;
        }
        let model = import(proto).unwrap();
        assert_eq!(standard().unknown(&model), []);
        let outputs =
            standard().load(&model, &[vec![2, 3]]).unwrap().session().unwrap().run(std::slice::from_ref(x)).unwrap();
        (outputs[0].shape().to_vec(), outputs[0].to_f32().unwrap())
    }

    fn floats() -> Array {
        Array::from_f32(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()
    }

    #[test]
    fn scaled_and_binary() {
        let node = "y = ai.onnx.ml.Scaler <offset = [1.0, 2.0, 3.0], scale = [2.0, 1.0, 0.5]> (x)";
        let expected = (vec![2, 3], vec![0.0, 0.0, 0.0, 6.0, 3.0, 1.5]);
        assert_eq!(run("float c = {0}", node, &floats()), expected);
        let whole = Array::new(vec![2, 3], ArrayData::I64(vec![1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(run("float c = {0}", node, &whole), expected);
        let node = "y = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (x)";
        assert_eq!(run("float c = {0}", node, &floats()).1, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let node = "y = ai.onnx.ml.Binarizer <threshold = 3.0> (x)";
        assert_eq!(run("float c = {0}", node, &floats()).1, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn features_and_maps() {
        let constants = "int64[1,2] columns = {2, 0}, float[4] classes = {10, 11, 12, 13}, int64[2,1] picked = {3, 1}";
        let node = "y = ai.onnx.ml.ArrayFeatureExtractor (x, columns)";
        assert_eq!(run(constants, node, &floats()), (vec![2, 2], vec![3.0, 1.0, 6.0, 4.0]));
        let node = "y = ai.onnx.ml.ArrayFeatureExtractor (classes, picked)";
        assert_eq!(run(constants, node, &floats()), (vec![1, 2], vec![13.0, 11.0]));
        let node = "t = Neg (x)\n y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2]> (t)";
        assert_eq!(run(constants, node, &floats()), (vec![2, 3], vec![-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]));
    }
}
