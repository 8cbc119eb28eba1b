//! How integers lie in memory between operators: channels together as convolutions write them, or channel by channel.

use super::Role;
use super::pays::Account;
use crate::ir::{Node, ValueId};
use crate::ops::{Trait, facts};
use std::collections::HashSet;

/// Axes of an image with its samples and channels.
const IMAGE_AXES: usize = 4;

/// A transposition in float that changes the layout as convolutions on integers want or write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transposition {
    /// Whether it stands beside the convolution, with nothing between.
    pub(super) beside: bool,
}

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

    /// Whether a transposition parts channels that lie together and that a `Reshape` has put on several axes, as a channel
    /// shuffle does.
    pub(super) fn scatters_channels(&self, node: &Node) -> bool {
        let Some(read) = node.input(0).filter(|_| node.is("Transpose")) else { return false };
        let axes = self.shape(read).map_or(0, |shape| shape.len());
        axes > IMAGE_AXES && !self.layout(read, &mut HashSet::new()).planar
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
            // Behind it they lie as they are counted.
            Some(Role::Movement) if Self::scatters_axes(node) => return Layout { planar: true, computed: false },
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

    /// Whether a node transposes more axes than an image has.
    fn scatters_axes(node: &Node) -> bool {
        node.is("Transpose") && node.ints("perm").len() > IMAGE_AXES
    }

    /// The transposition that puts channels last behind what a region writes, or from the last place in front of what it
    /// reads, where one stands there alone with axes of length 1 and, behind it, functions of one element at most between. The
    /// runtime joins it with the change of the layout, and nothing is left of both.
    pub(super) fn changed_already(&self, value: ValueId) -> Option<Transposition> {
        let producer = self.graph.value(value).producer().map(|(id, _)| id);
        if producer.is_some_and(|id| self.draft.is_on_integers(id)) {
            return self.to_channels_last(value);
        }
        let (mut value, mut beside) = (value, true);
        loop {
            let (producer, _) = self.graph.value(value).producer()?;
            let node = self.graph.node(producer);
            if node.is("Transpose") {
                return is_change(node.ints("perm"), false).then_some(Transposition { beside });
            }
            value = node.input(0).filter(|_| node.is("Squeeze") || node.is("Unsqueeze"))?;
            self.graph.only_use(value)?;
            beside = false;
        }
    }

    fn to_channels_last(&self, mut value: ValueId) -> Option<Transposition> {
        let mut beside = true;
        loop {
            let node = self.graph.node(self.graph.only_use(value)?.node);
            if node.is("Transpose") {
                return is_change(node.ints("perm"), true).then_some(Transposition { beside });
            }
            let constant = |value: &ValueId| self.graph.constant(*value).is_some();
            let others = || node.inputs().iter().flatten().filter(|other| **other != value).all(constant);
            let passed = matches!(node.op(), "Squeeze" | "Unsqueeze" | "Add" | "Mul" | "Sub" | "Div")
                || facts(node.op()).has(Trait::Rectifier)
                || matches!(node.op(), "Sigmoid" | "Tanh" | "Erf");
            value = node.output(0).filter(|_| node.domain().is_empty() && passed && others())?;
            beside = false;
        }
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

/// Whether a permutation puts channels last, or channels that are last behind the samples.
fn is_change(perm: &[i64], last: bool) -> bool {
    let axes = perm.len() as i64;
    let to_last = (0..axes).map(|at| if at == 0 { 0 } else { at % (axes - 1) + 1 });
    let from_last = (0..axes).map(|at| match at {
        0 => 0,
        1 => axes - 1,
        _ => at - 1,
    });
    axes > 2 && if last { perm.iter().copied().eq(to_last) } else { perm.iter().copied().eq(from_last) }
}
