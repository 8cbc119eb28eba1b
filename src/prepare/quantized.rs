//! Reads quantized graphs from any tool: the source of integers, and their bits.

use crate::engine::{Facts, standard};
use msq_passes::ir::{DataType, Model, Node, TensorProto, ValueId};
use std::borrow::Cow;
use std::collections::HashSet;

/// A quantized model and its constants, including those that the graph computes.
#[derive(Debug)]
pub(crate) struct Qdq<'a> {
    model: &'a Model,
    facts: Facts,
    /// Values that depend only on constants.
    constants: HashSet<ValueId>,
}

/// The source of integers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A quantizer, possibly through nodes that preserve the tensor or, if `moved`, move its elements.
    Quantizer {
        /// The `QuantizeLinear`.
        node: &'a Node,
        /// Bits after a `Clip` behind the quantizer.
        clipped: Option<u8>,
        /// Whether the integers are those of another tensor.
        moved: bool,
    },
    /// Only constants.
    Constant,
    /// Anything else.
    Other {
        /// Bits after a `Clip`.
        clipped: Option<u8>,
    },
}

/// Operators that move integers.
const MOVEMENTS: [&str; 7] = ["Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose"];

impl<'a> Qdq<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        let graph = &model.graph;
        let mut constants: HashSet<ValueId> =
            graph.initializers().map(|(value, _)| value).filter(|&value| graph.constant(value).is_some()).collect();
        for (_, node) in graph.nodes() {
            if node.inputs().iter().flatten().chain(node.captures()).all(|value| constants.contains(value)) {
                constants.extend(node.outputs().iter().flatten());
            }
        }
        Self { model, facts: standard().infer(model).unwrap_or_default(), constants }
    }

    /// The node that computes a value.
    pub(crate) fn producer(&self, value: ValueId) -> Option<&'a Node> {
        self.model.graph.value(value).producer().map(|(id, _)| self.model.graph.node(id))
    }

    /// Whether the value depends only on constants.
    pub(crate) fn is_constant(&self, value: ValueId) -> bool {
        self.constants.contains(&value)
    }

    /// A constant that nodes compute from constants, unless it is large.
    pub(crate) fn computed(&self, value: ValueId) -> Option<&TensorProto> {
        self.facts.constants.get(self.model.graph.value(value).name())
    }

    /// The shape of a value, where it is fully known.
    pub(crate) fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        match self.model.graph.constant(value) {
            Some(stored) => stored.shape().ok(),
            None => self.facts.types.get(self.model.graph.value(value).name())?.shape()?.into_iter().collect(),
        }
    }

    /// A constant, stored or computed; `None` where it cannot be read.
    pub(crate) fn constant(&self, value: ValueId) -> Option<Cow<'_, TensorProto>> {
        match self.model.constant(value) {
            Some(stored) => stored.ok(),
            None => self.computed(value).map(Cow::Borrowed),
        }
    }

    /// Follows integers back to their source.
    pub(crate) fn source(&self, integers: ValueId) -> Source<'a> {
        let (mut value, mut clipped, mut moved) = (integers, None, false);
        while !self.is_constant(value) {
            let Some(node) = self.producer(value) else { return Source::Other { clipped } };
            if is_quantizer(node) {
                return Source::Quantizer { node, clipped, moved };
            }
            let Some(input) = node.input(0) else { return Source::Other { clipped } };
            match node.op() {
                "Clip" => clipped = clipped.or_else(|| self.clipped_bits(node)),
                op if MOVEMENTS.contains(&op) => moved = true,
                _ => return Source::Other { clipped },
            }
            value = input;
        }
        Source::Constant
    }

    /// Bits of the integers behind a value; `None` where they are unknown.
    pub(crate) fn bits(&self, integers: ValueId) -> Option<u8> {
        match self.source(integers) {
            Source::Quantizer { clipped: Some(bits), .. } | Source::Other { clipped: Some(bits) } => Some(bits),
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

    /// The element type of a value.
    pub(crate) fn element_of(&self, value: ValueId) -> Option<DataType> {
        let stored = self.model.graph.constant(value).and_then(TensorProto::element_type);
        let inferred = || self.facts.types.get(self.model.graph.value(value).name())?.element_type();
        stored.or_else(inferred).or_else(|| self.model.graph.value(value).element_type())
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
