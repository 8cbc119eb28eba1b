//! Reads quantized graphs of any tool: what integers are made of, and with how many bits.

use crate::engine::Facts;
use indexmap::IndexMap;
use msq_passes::ir::{DataType, Model, Node, TensorProto, ValueId};
use std::borrow::Cow;

/// A quantized model and its constants, those that the graph computes among them.
#[derive(Debug)]
pub(crate) struct Qdq<'a> {
    model: &'a Model,
    computed: IndexMap<String, TensorProto>,
}

/// Where integers come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A quantizer, by way of nodes that keep the tensor or `moved` it.
    Quantizer {
        /// The `QuantizeLinear`.
        node: &'a Node,
        /// Bits that a `Clip` behind it leaves.
        clipped: Option<u8>,
        /// Whether the integers are those of another tensor.
        moved: bool,
    },
    /// Constants alone.
    Constant,
    /// Anything else.
    Other,
}

/// Operators that move integers.
const MOVEMENTS: [&str; 7] = ["Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose"];

impl<'a> Qdq<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        let computed = Facts::infer(model).map(|facts| facts.constants).unwrap_or_default();
        Self { model, computed }
    }

    /// The node that computes a value.
    pub(crate) fn producer(&self, value: ValueId) -> Option<&'a Node> {
        self.model.graph.value(value).producer().map(|(id, _)| self.model.graph.node(id))
    }

    /// Whether nothing but constants goes into the value.
    pub(crate) fn is_constant(&self, value: ValueId) -> bool {
        self.model.graph.constant(value).is_some() || self.computed(value).is_some()
    }

    /// A constant that nodes compute from constants.
    pub(crate) fn computed(&self, value: ValueId) -> Option<&TensorProto> {
        self.computed.get(self.model.graph.value(value).name())
    }

    /// A constant, stored or computed; nothing for one that cannot be read.
    pub(crate) fn constant(&self, value: ValueId) -> Option<Cow<'_, TensorProto>> {
        match self.model.constant(value) {
            Some(stored) => stored.ok(),
            None => self.computed(value).map(Cow::Borrowed),
        }
    }

    /// Follows integers back to where they come from.
    pub(crate) fn source(&self, integers: ValueId) -> Source<'a> {
        let (mut value, mut clipped, mut moved) = (integers, None, false);
        while !self.is_constant(value) {
            let Some(node) = self.producer(value) else { return Source::Other };
            if is_quantizer(node) {
                return Source::Quantizer { node, clipped, moved };
            }
            let Some(input) = node.input(0) else { return Source::Other };
            match node.op() {
                "Clip" => clipped = clipped.or_else(|| self.clipped_bits(node)),
                op if MOVEMENTS.contains(&op) => moved = true,
                _ => return Source::Other,
            }
            value = input;
        }
        Source::Constant
    }

    /// Bits of the integers behind a value; nothing where they are not known.
    pub(crate) fn bits(&self, integers: ValueId) -> Option<u8> {
        match self.source(integers) {
            Source::Quantizer { clipped: Some(bits), .. } => Some(bits),
            Source::Quantizer { node, .. } => self.element(node, integers).map(bits_of),
            _ => self.element_of(integers).map(bits_of),
        }
    }

    /// The type of the integers of a quantizer or dequantizer: that of the zero point, uint8 if a quantizer has none.
    pub(crate) fn element(&self, node: &Node, integers: ValueId) -> Option<DataType> {
        let stated = node.int("output_dtype").filter(|&number| is_quantizer(node) && number != 0);
        let stated = stated.and_then(|number| DataType::from_number(i32::try_from(number).ok()?));
        let zero_point = node.input(2).and_then(|value| self.element_of(value));
        let implied = is_quantizer(node).then_some(DataType::Uint8);
        zero_point.or(stated).or_else(|| self.element_of(integers)).or(implied)
    }

    fn element_of(&self, value: ValueId) -> Option<DataType> {
        let stored = self.model.graph.constant(value).or_else(|| self.computed(value));
        stored.and_then(TensorProto::element_type).or_else(|| self.model.graph.value(value).element_type())
    }

    /// The bits b of a clip to 0 … 2^b − 1 or −2^(b−1) … 2^(b−1) − 1.
    fn clipped_bits(&self, clip: &Node) -> Option<u8> {
        let end = |slot| self.constant(clip.input(slot)?)?.to_i64().ok()?.first().copied();
        let (low, high) = (end(1).unwrap_or(0), end(2)?);
        let levels = high.checked_sub(low)?.checked_add(1)?;
        (levels > 1 && levels.count_ones() == 1).then(|| levels.trailing_zeros() as u8)
    }
}

fn bits_of(element: DataType) -> u8 {
    element.bits().map_or(8, |bits| bits as u8)
}

/// Whether a node is a `QuantizeLinear`, of ONNX or of onnxruntime.
pub(crate) fn is_quantizer(node: &Node) -> bool {
    node.op() == "QuantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}

/// Whether a node is a `DequantizeLinear`, of ONNX or of onnxruntime.
pub(crate) fn is_dequantizer(node: &Node) -> bool {
    node.op() == "DequantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}
