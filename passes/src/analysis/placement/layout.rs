//! How integers lie in memory between operators: channels together as convolutions write them, or channel by channel.

use super::Role;
use super::pays::Account;
use crate::ir::{Node, ValueId};
use std::collections::HashSet;

/// How integers lie in memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Channel by channel, some of them at least.
    planar: bool,
    /// Whether arithmetic lies between them and convolutions.
    computed: bool,
}

impl Account<'_> {
    /// Whether a node pools integers that lie channel by channel: where not all of them come from convolutions on integers,
    /// and where no convolution follows. The runtime then changes the layout back right behind a convolution; `MaxPool`
    /// alone it takes along, as far as no arithmetic lies between.
    pub(super) fn is_planar_pool(&self, node: &Node) -> bool {
        let Some(read) = node.input(0) else { return false };
        let Layout { planar, computed } = self.layout(read, &mut HashSet::new());
        match node.op() {
            "MaxPool" => planar || computed && !self.feeds_convolution(node),
            "AveragePool" => planar || !self.feeds_convolution(node),
            _ => false,
        }
    }

    /// How the integers of a value lie.
    fn layout(&self, value: ValueId, seen: &mut HashSet<ValueId>) -> Layout {
        let of_convolution = Layout { planar: false, computed: false };
        if self.graph.constant(value).is_some() || !seen.insert(value) {
            return of_convolution;
        }
        let Some((id, _)) = self.graph.value(value).producer() else { return Layout { planar: true, computed: false } };
        let node = self.graph.node(id);
        let computes = match self.draft.roles.get(&id) {
            Some(Role::Layer(layer)) if layer.op.is_convolution() => return of_convolution,
            Some(Role::Arithmetic | Role::ResidualSum { .. }) => !node.is("Concat"),
            Some(Role::Movement) => false,
            None if self.draft.is_on_integers(id) => false,
            _ => return Layout { planar: true, computed: false },
        };
        let operands: Vec<Layout> = node.inputs().iter().flatten().map(|&operand| self.layout(operand, seen)).collect();
        // Two changes of the layout before a node become one behind it.
        let joins = operands.iter().all(|one| !one.planar && !one.computed) && self.is_of_two(node);
        operands.into_iter().fold(Layout { planar: false, computed: computes && !joins }, |all, one| Layout {
            planar: all.planar || one.planar,
            computed: all.computed || one.computed,
        })
    }

    /// Whether a node reads two activations of one shape.
    fn is_of_two(&self, node: &Node) -> bool {
        node.two_inputs().is_some_and(|[a, b]| {
            let constant = [a, b].iter().any(|&value| self.graph.constant(value).is_some());
            a != b && !constant && self.shape(a).is_some_and(|shape| self.shape(b) == Some(shape))
        })
    }

    /// Whether a convolution on integers follows a node.
    pub(super) fn feeds_convolution(&self, node: &Node) -> bool {
        let mut next: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
        let mut seen = HashSet::new();
        while let Some(value) = next.pop() {
            for reader in self.graph.value(value).uses() {
                match self.draft.roles.get(&reader.node) {
                    Some(Role::Layer(layer)) if layer.op.is_convolution() => return true,
                    None if !self.draft.is_on_integers(reader.node) => {}
                    _ if !seen.insert(reader.node) => {}
                    _ => next.extend(self.graph.node(reader.node).outputs().iter().flatten()),
                }
            }
        }
        false
    }
}
