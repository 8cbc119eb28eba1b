//! Sums and products one operand of which is repeated: biases behind products, vectors for every row, gates for every
//! position.

use super::pays::Account;
use crate::analysis::LayerOp;
use crate::ir::{Node, ValueId};

impl Account<'_> {
    /// Whether a node adds a constant vector to a product, which the runtime joins to a `Gemm` in float; a node for the
    /// shape is left.
    pub(super) fn is_bias(&self, node: &Node) -> bool {
        let product = |value: ValueId| {
            let producer = self.graph.value(value).producer().map(|(id, _)| id);
            let layer = producer.and_then(|id| self.draft.layers.get(&id));
            layer.is_some_and(|layer| layer.op == LayerOp::MatMul) && self.graph.only_use(value).is_some()
        };
        let vector = |value: ValueId| self.graph.constant(value).is_some_and(|tensor| tensor.dims.len() == 1);
        let joined = |[a, b]: [ValueId; 2]| product(a) && vector(b) || product(b) && vector(a);
        self.draft.profile.joins_sums && node.is("Add") && node.two_inputs().is_some_and(joined)
    }

    /// Rows along the last axis of what a product or sum writes, where an operand is repeated for each of them.
    pub(super) fn repeated_rows(&self, node: &Node) -> f64 {
        let rows = || {
            let operands = node.two_inputs().filter(|_| node.is("Mul") || node.is("Add"))?;
            let written = self.shape(node.output(0)?)?;
            let (&last, leading) = written.split_last().filter(|&(&last, _)| last > 1)?;
            let is_row = |value: ValueId| {
                let shape = self.shape(value).or_else(|| self.graph.constant(value)?.shape().ok());
                shape.and_then(|shape| {
                    let (&own, before) = shape.split_last()?;
                    Some(own == last && before.iter().all(|&length| length == 1))
                })
            };
            let repeats = operands.into_iter().any(|value| is_row(value) == Some(true));
            Some(leading.iter().product::<usize>()).filter(|&rows| repeats && rows > 1)
        };
        rows().map_or(0.0, |rows| rows as f64)
    }

    /// Whether a node on integers meets one value per channel with each position, channels together: a gate, as that of
    /// squeeze and excitation.
    pub(super) fn repeats_channels(&self, node: &Node) -> bool {
        let Some(operands) = node.two_inputs().filter(|_| node.is("Mul") || node.is("Add")) else { return false };
        let gate = |value: ValueId| {
            let shape = self.shape(value).filter(|_| self.graph.constant(value).is_none());
            shape.is_some_and(|shape| shape.len() > 2 && shape[2..].iter().all(|&length| length == 1))
        };
        operands.into_iter().any(gate) && self.feeds_convolution(node)
    }

    /// Positions of what a node writes: the lengths behind samples and channels.
    pub(super) fn positions(&self, node: &Node) -> Option<f64> {
        let shape = self.shape(node.output(0)?)?;
        let positions = shape.iter().skip(2).map(|&length| length as f64).product();
        Some(if positions > 1.0 { positions } else { 0.0 })
    }
}
