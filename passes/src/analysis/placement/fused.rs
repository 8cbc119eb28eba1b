//! What other float kernels take in: activations of two operators and more.

use super::pays::Account;
use crate::ir::{Node, ValueId};

impl Account<'_> {
    fn producer(&self, value: ValueId) -> Option<&Node> {
        self.graph.value(value).producer().map(|(id, _)| self.graph.node(id))
    }

    fn only_reader(&self, node: &Node) -> Option<&Node> {
        node.output(0).and_then(|value| self.graph.only_use(value)).map(|only| self.graph.node(only.node))
    }

    /// Whether another float kernel does the node's work too: x·σ(x) is one operator, as is x·clip(x + c, 0, h), which a
    /// convolution takes in, and a convolution adds what it is given.
    pub(super) fn is_fused_in_float(&self, node: &Node) -> bool {
        let Some([a, b]) = node.two_inputs() else { return false };
        let convolution = |value: ValueId| {
            self.producer(value).is_some_and(|node| node.is("Conv")) && self.graph.only_use(value).is_some()
        };
        match node.op() {
            "Mul" => self.is_in_swish(node) || self.is_hard_swish(node),
            "Add" => convolution(a) || convolution(b) || self.is_in_hard_swish(node),
            _ => false,
        }
    }

    /// Whether a node is the gate or the product of x·σ(x).
    pub(super) fn is_in_swish(&self, node: &Node) -> bool {
        let is_gate = |gate: &Node, x: ValueId| gate.is("Sigmoid") && gate.input(0) == Some(x);
        let multiplies = |product: &Node| {
            product.is("Mul")
                && product.two_inputs().is_some_and(|[a, b]| {
                    [(a, b), (b, a)]
                        .into_iter()
                        .any(|(x, gate)| self.producer(gate).is_some_and(|gate| is_gate(gate, x)))
                })
        };
        multiplies(node) || node.is("Sigmoid") && self.only_reader(node).is_some_and(multiplies)
    }

    /// Whether a node is the product of x·clip(x + c, 0, h) behind a convolution.
    pub(super) fn is_hard_swish(&self, node: &Node) -> bool {
        let shifts = |value: ValueId, x: ValueId| {
            self.producer(value).is_some_and(|sum| sum.is("Add") && sum.inputs().contains(&Some(x)))
        };
        let clips = |x: ValueId, value: ValueId| {
            let clip = self.producer(value).filter(|clip| clip.is("Clip"));
            let convolved = self.producer(x).is_some_and(|node| node.is("Conv"));
            convolved && clip.and_then(|clip| clip.input(0)).is_some_and(|sum| shifts(sum, x))
        };
        node.is("Mul") && node.two_inputs().is_some_and(|[a, b]| clips(a, b) || clips(b, a))
    }

    /// Whether a node is the sum or the product of such a function, or the product with a number behind it.
    pub(super) fn is_in_hard_swish(&self, node: &Node) -> bool {
        let clip = |node: &Node| self.only_reader(node).filter(|clip| clip.is("Clip"));
        let sum = || clip(node).and_then(|clip| self.only_reader(clip)).is_some_and(|product| product.is("Mul"));
        let scaled = || {
            let factor = node.inputs().iter().flatten().any(|&value| self.graph.constant(value).is_some());
            let products = node.inputs().iter().flatten().filter_map(|&value| self.producer(value));
            factor && products.into_iter().any(|product| self.is_hard_swish(product))
        };
        match node.op() {
            "Add" => sum(),
            "Mul" => self.is_hard_swish(node) || scaled(),
            _ => false,
        }
    }
}
