//! Quantized activations and layers, between quantizers or as operators on integers.

use super::{InferredFacts, Parameters, QuantizedGraph, is_dequantizer};
use crate::analysis::LayerOp;
use crate::ir::{Node, NodeId};
use std::collections::HashSet;

/// The bias of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    None,
    Float,
    Quantized(Parameters),
    /// int32 without a scale of its own, as `QLinearConv` has it.
    Implied,
}

/// A layer with at least one quantized operand.
#[derive(Clone, Debug)]
pub(crate) struct QuantizedLayer {
    pub(crate) op: LayerOp,
    pub(crate) node: NodeId,
    pub(crate) input: Option<Parameters>,
    /// Quantized weights that are constant.
    pub(crate) weight: Option<Parameters>,
    pub(crate) bias: Bias,
}

impl<F: InferredFacts> QuantizedGraph<'_, F> {
    /// Integers that a caller or a node provides, each once, in graph order.
    pub(crate) fn activations(&self) -> Vec<Parameters> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for (_, node) in self.graph.nodes() {
            let read = node.input(0).filter(|_| is_dequantizer(node)).and_then(|v| self.parameters(node, v));
            let operands = self.qlinear_operands(node);
            for quantized in read.into_iter().chain(self.quantizer(node)).chain(operands) {
                if !self.is_constant(quantized.integers) && seen.insert(quantized.integers) {
                    found.push(quantized);
                }
            }
        }
        found
    }

    /// Layers with a quantized input or weight.
    pub(crate) fn layers(&self) -> Vec<QuantizedLayer> {
        let layers = self.graph.nodes().filter_map(|(id, node)| {
            LayerOp::of(node).and_then(|op| self.layer(op, id, node)).or_else(|| self.qlinear_layer(id, node))
        });
        layers.collect()
    }

    fn layer(&self, op: LayerOp, node: NodeId, of: &Node) -> Option<QuantizedLayer> {
        let input = self.dequantized(of.input(0)?);
        let weight = self.dequantized(of.input(1)?).filter(|q| self.is_constant(q.integers));
        let bias = match of.input(2) {
            None => Bias::None,
            Some(value) => self.dequantized(value).map_or(Bias::Float, Bias::Quantized),
        };
        (input.is_some() || weight.is_some()).then_some(QuantizedLayer { op, node, input, weight, bias })
    }

    fn qlinear_layer(&self, node: NodeId, of: &Node) -> Option<QuantizedLayer> {
        let op = if of.is("QLinearConv") { LayerOp::Conv } else { LayerOp::MatMul };
        if !of.is("QLinearConv") && !of.is("QLinearMatMul") {
            return None;
        }
        let operand = |slot| self.triple(of, slot);
        let weight = operand(3).filter(|q| self.is_constant(q.integers));
        let bias = of.input(8).map_or(Bias::None, |_| Bias::Implied);
        Some(QuantizedLayer { op, node, input: operand(0), weight, bias })
    }

    /// Integers, scale and zero point in three inputs from `slot` on.
    fn triple(&self, node: &Node, slot: usize) -> Option<Parameters> {
        let (integers, zero_point) = (node.input(slot)?, node.input(slot + 2));
        let element = zero_point.and_then(|z| self.element_of(z)).or_else(|| self.element_of(integers));
        Some(Parameters { integers, scale: node.input(slot + 1)?, zero_point, axis: 0, block: 0, element })
    }

    fn qlinear_operands(&self, node: &Node) -> Vec<Parameters> {
        if !node.is("QLinearConv") && !node.is("QLinearMatMul") {
            return Vec::new();
        }
        let written = node.output(0).zip(node.input(6)).map(|(integers, scale)| Parameters {
            integers,
            scale,
            zero_point: node.input(7),
            axis: 0,
            block: 0,
            element: node.input(7).and_then(|z| self.element_of(z)),
        });
        [self.triple(node, 0), self.triple(node, 3), written].into_iter().flatten().collect()
    }
}
