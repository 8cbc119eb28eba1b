//! The source of integers, and their bits.

use super::{InferredFacts, QuantizedGraph, is_quantizer};
use crate::ir::{DataType, Node, ValueId};
use crate::ops::facts;

/// The source of integers.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A quantizer, possibly through nodes that preserve the tensor or, if `moved`, move its elements.
    Quantizer {
        /// The `QuantizeLinear`.
        node: &'a Node,
        /// Bits after a `Clip` behind the quantizer.
        clipped: Option<u8>,
        /// Whether the integers are those of another tensor.
        moved: bool,
    },
    /// Constants alone.
    Constant,
    /// Anything else.
    Other {
        /// Bits after a `Clip`.
        clipped: Option<u8>,
    },
}

/// Operators that integers are followed through, besides those that every file on integers may have: runtimes write
/// these on integers too.
const SELECTIONS: [&str; 4] = ["ReduceMax", "ReduceMin", "Resize", "Split"];

fn moves(node: &Node) -> bool {
    node.domain().is_empty() && (facts(node.op()).is_movement() || SELECTIONS.contains(&node.op()))
}

impl<'a, F: InferredFacts> QuantizedGraph<'a, F> {
    /// Follows integers back to their source.
    pub fn source(&self, integers: ValueId) -> Source<'a> {
        let (mut value, mut clipped, mut moved) = (integers, None, false);
        while !self.is_constant(value) {
            let Some(node) = self.producer(value) else { return Source::Other { clipped } };
            if is_quantizer(node) {
                return Source::Quantizer { node, clipped, moved };
            }
            let Some(input) = node.input(0) else { return Source::Other { clipped } };
            match node.op() {
                "Clip" => clipped = clipped.or_else(|| self.clipped_bits(node)),
                "Identity" => {}
                _ if moves(node) => moved = true,
                _ => return Source::Other { clipped },
            }
            value = input;
        }
        Source::Constant
    }

    /// Bits of the integers behind a value; `None` where they are unknown.
    pub fn bits(&self, integers: ValueId) -> Option<u8> {
        match self.source(integers) {
            Source::Quantizer { clipped: Some(bits), .. } | Source::Other { clipped: Some(bits) } => Some(bits),
            Source::Quantizer { node, .. } => self.element(node, integers).map(bits_of),
            _ => self.element_of(integers).map(bits_of),
        }
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
