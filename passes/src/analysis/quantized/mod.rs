//! The one reader of quantized graphs, whoever wrote them: which integers a value stands for, with which parameters.
//!
//! A value x is quantized where `x = DequantizeLinear(q, s, z)` defines it, x = (q − z)·s, or where a
//! `QuantizeLinear` reads it. Weights may be unpacked from fewer bits by nodes of their own: a value counts as
//! constant where nothing but constants goes into it, since runtimes compute such values once.
//!
//! [`QuantizedGraph`] answers what the linter, inspection and the exchange of parameters ask. What only an engine can
//! tell of a graph (types, shapes and constants that nodes compute) may be handed in as [`InferredFacts`]. The passes
//! that rewrite patterns ask `Qdq`, which is stricter and says why a pattern does not fit.

mod constants;
mod layers;
mod parameters;
mod patterns;
mod source;

pub(crate) use layers::{Bias, QuantizedLayer};
pub(crate) use parameters::Parameters;
pub(crate) use patterns::{Constant, EIGHT_BITS, Qdq, Quantized};
pub use source::Source;

use super::dataflow::constant_values;
use super::element_types::{element_types, output_type};
use crate::ir::{DataType, Graph, Model, Node, TensorProto, ValueId};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What was inferred of the values of a graph, by name. Nothing is known by default.
pub trait InferredFacts {
    /// The element type.
    fn element(&self, _value: &str) -> Option<DataType> {
        None
    }

    /// The shape, where all of it is known.
    fn shape(&self, _value: &str) -> Option<Vec<usize>> {
        None
    }

    /// What nodes compute from constants alone.
    fn constant(&self, _value: &str) -> Option<&TensorProto> {
        None
    }
}

/// Nothing was inferred.
impl InferredFacts for () {}

/// A quantized model with its constants, those that the graph computes among them, and element types.
#[derive(Debug)]
pub struct QuantizedGraph<'a, F = ()> {
    pub(crate) model: &'a Model,
    pub(crate) graph: &'a Graph,
    inferred: F,
    /// Values that only constants go into.
    constants: HashSet<ValueId>,
    types: HashMap<ValueId, DataType>,
}

impl<'a> QuantizedGraph<'a> {
    /// Reads a model with what its file says.
    pub fn new(model: &'a Model) -> Self {
        Self::with_facts(model, ())
    }
}

impl<'a, F: InferredFacts> QuantizedGraph<'a, F> {
    /// Reads a model with what its file says and what was inferred.
    pub fn with_facts(model: &'a Model, inferred: F) -> Self {
        let graph = &model.graph;
        Self { model, graph, inferred, constants: constant_values(graph), types: element_types(graph) }
    }

    /// The name of a value.
    pub fn name(&self, value: ValueId) -> &'a str {
        self.graph.value(value).name()
    }

    /// The node that computes a value.
    pub fn producer(&self, value: ValueId) -> Option<&'a Node> {
        self.graph.value(value).producer().map(|(id, _)| self.graph.node(id))
    }

    /// Whether nothing but constants goes into the value.
    pub fn is_constant(&self, value: ValueId) -> bool {
        self.constants.contains(&value)
    }

    /// The element type of a value.
    pub fn element_of(&self, value: ValueId) -> Option<DataType> {
        let stored = self.graph.constant(value).and_then(TensorProto::element_type);
        stored.or_else(|| self.inferred.element(self.name(value))).or_else(|| self.types.get(&value).copied())
    }

    /// The type of the integers of a quantizer or dequantizer: that of the zero point, or that which a quantizer
    /// states; uint8 if a quantizer has neither.
    pub fn element(&self, node: &Node, integers: ValueId) -> Option<DataType> {
        let zero_point = node.input(2).and_then(|value| self.element_of(value));
        let stated = || output_type(node).filter(|_| is_quantizer(node) && node.int_or("output_dtype", 0) != 0);
        let implied = || is_quantizer(node).then_some(DataType::Uint8);
        zero_point.or_else(stated).or_else(|| self.element_of(integers)).or_else(implied)
    }

    /// Whether there is anything quantized at all.
    pub(crate) fn is_quantized(&self) -> bool {
        self.graph.nodes().any(|(_, node)| {
            let integers = [
                "QLinear",
                "ConvInteger",
                "MatMulInteger",
                "QGemm",
                "DynamicQuantizeLinear",
                "DynamicQuantizeLSTM",
                "MatMulNBits",
                "GatherBlockQuantized",
            ];
            is_quantizer(node) || is_dequantizer(node) || integers.iter().any(|op| node.op().starts_with(op))
        })
    }

    /// A stored tensor that no caller can change, or why it cannot be read.
    pub(crate) fn stored(&self, value: ValueId) -> Option<Result<Cow<'a, TensorProto>, String>> {
        Some(self.model.constant(value)?.map_err(|error| error.to_string()))
    }
}

/// Whether a node is a `QuantizeLinear`, of ONNX or of onnxruntime.
pub fn is_quantizer(node: &Node) -> bool {
    node.op() == "QuantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}

/// Whether a node is a `DequantizeLinear`, of ONNX or of onnxruntime.
pub fn is_dequantizer(node: &Node) -> bool {
    node.op() == "DequantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    /// A weight that nodes compute from constants, and an activation without a declared type.
    const TEXT: &str = "<ir_version: 10, opset_import: [\"\": 21]> g (float[2,4] x) => (float[2,4] y)
<float s = {0.5}, uint8 z = {0}, uint8 low = {0}, uint8 high = {15}, int8[4] table = {-2,-1,1,2},
int64[4,4] index = {0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3}>
{ q = QuantizeLinear(x, s, z) c = Clip(q, low, high) a = DequantizeLinear(c, s, z)
t = Gather(table, index) w = DequantizeLinear(t, s) y = MatMul(a, w) }";

    #[derive(Debug)]
    struct Told(TensorProto);

    impl InferredFacts for Told {
        fn shape(&self, value: &str) -> Option<Vec<usize>> {
            (value == "t").then(|| vec![4, 4])
        }

        fn constant(&self, value: &str) -> Option<&TensorProto> {
            (value == "t").then_some(&self.0)
        }
    }

    #[test]
    fn integers_are_followed_to_their_source() {
        let model = import(text::parse(TEXT).unwrap()).unwrap();
        let graph = QuantizedGraph::new(&model);
        let value = |name: &str| model.graph.find(name).unwrap();
        assert!(matches!(graph.source(value("c")), Source::Quantizer { clipped: Some(4), moved: false, .. }));
        assert!(matches!(graph.source(value("t")), Source::Constant));
        assert_eq!((graph.bits(value("c")), graph.bits(value("t"))), (Some(4), Some(8)));
        let layers = graph.layers();
        let layer = layers.first().unwrap();
        assert_eq!(layer.input.and_then(|q| q.element), Some(DataType::Uint8));
        assert_eq!(layer.weight.map(|q| q.integers), Some(value("t")));
    }

    #[test]
    fn what_was_inferred_counts() {
        let model = import(text::parse(TEXT).unwrap()).unwrap();
        let weight = model.graph.find("t").unwrap();
        let alone = QuantizedGraph::new(&model);
        assert_eq!((alone.shape(weight), alone.constant(weight).is_some()), (None, false));
        let told = QuantizedGraph::with_facts(&model, Told(TensorProto::from_i32("t", &[4, 4], &[1; 16])));
        assert_eq!(told.shape(weight), Some(vec![4, 4]));
        assert_eq!(told.computed(weight).unwrap().to_i64().unwrap(), [1; 16]);
    }

    #[test]
    fn what_is_drawn_at_random_is_not_constant() {
        let text = "<ir_version: 10, opset_import: [\"\": 21]> g (float[2] x) => (float[2] y)
{ r = RandomNormal<shape = [2]>() y = Add(x, r) }";
        let model = import(text::parse(text).unwrap()).unwrap();
        assert!(!QuantizedGraph::new(&model).is_constant(model.graph.find("r").unwrap()));
    }
}
