//! Quantization parameters as values of the graph.

use super::{InferredFacts, QuantizedGraph, is_dequantizer, is_quantizer};
use crate::ir::{DataType, Node, ValueId};

/// Integers that stand for floats, and the values that say how: x ≈ (q − `zero_point`)·`scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameters {
    /// The integers.
    pub(crate) integers: ValueId,
    /// The scale input.
    pub(crate) scale: ValueId,
    /// The zero point input.
    pub(crate) zero_point: Option<ValueId>,
    /// The axis along which scales lie, where there are several.
    pub(crate) axis: i64,
    /// Length of a block, 0 where scales are not blocked.
    pub(crate) block: i64,
    /// The type of the integers, where it is known.
    pub(crate) element: Option<DataType>,
}

impl<F: InferredFacts> QuantizedGraph<'_, F> {
    /// The integers behind a value that a `DequantizeLinear` writes.
    pub(crate) fn dequantized(&self, value: ValueId) -> Option<Parameters> {
        let node = self.producer(value)?;
        if is_dequantizer(node) { self.parameters(node, node.input(0)?) } else { None }
    }

    /// The integers that a `QuantizeLinear` writes.
    pub(crate) fn quantizer(&self, node: &Node) -> Option<Parameters> {
        if is_quantizer(node) { self.parameters(node, node.output(0)?) } else { None }
    }

    /// What a quantizer or dequantizer says of its integers.
    pub(super) fn parameters(&self, node: &Node, integers: ValueId) -> Option<Parameters> {
        let element = self.element(node, integers);
        let (axis, block) = (node.int_or("axis", 1), node.int_or("block_size", 0));
        Some(Parameters { integers, scale: node.input(1)?, zero_point: node.input(2), axis, block, element })
    }

    /// Zero points; 0 where there are none.
    pub(crate) fn zero_points(&self, of: &Parameters) -> Option<Vec<i64>> {
        let Some(value) = of.zero_point else { return Some(vec![0]) };
        let tensor = self.constant(value)?;
        tensor.to_i64().ok().or_else(|| {
            // Types below 8 bits: only whether all are zero is ever asked.
            let zero = tensor.raw_data.as_ref().map_or(&[][..], |raw| raw).iter().all(|&byte| byte == 0);
            Some(vec![i64::from(!zero || tensor.int32_data.iter().any(|&v| v != 0))])
        })
    }

    /// The type that the file states for the integers.
    pub(crate) fn element_of_zero(&self, of: &Parameters) -> Option<DataType> {
        of.zero_point.map_or(of.element, |zero| self.element_of(zero))
    }

    /// Whether two quantizers say the same.
    pub(crate) fn alike(&self, a: &Parameters, b: &Parameters) -> bool {
        let same = |x: Option<Vec<f32>>, y: Option<Vec<f32>>| x.is_some() && x == y;
        let scales = a.scale == b.scale || same(self.floats(a.scale), self.floats(b.scale));
        let zeros = a.zero_point == b.zero_point || self.zero_points(a) == self.zero_points(b);
        let types = (self.element_of_zero(a), self.element_of_zero(b));
        scales && zeros && (types.0 == types.1 || types.0.is_none() || types.1.is_none())
    }
}
