//! One quantizer for what `Concat` joins and for what it writes.
//!
//! With quantizers of their own, the operands are rounded to their grids and then once more to that of the result. On the
//! result's grid they are rounded once, and the operator copies integers: onnxruntime looks every element up in a table
//! otherwise. An operand that nothing else reads takes the quantizer of the result. One with other readers takes it where
//! it hardly tells: where the result's range holds 0.98 of its own, and is no more than 1 / 0.9 times as wide, which costs
//! these readers less than a decibel.
//!
//! Not changed: quantizers of other bits, those that encodings give, those that multiply on the way, and those that stand
//! for a clamp that the other range would move.

use super::alike::{range, width};
use crate::quant::Range;
use crate::scheme::Scheme;
use indexmap::IndexMap;
use msq_passes::ActivationQuantizer;
use msq_passes::analysis::Role;
use msq_passes::ir::{Graph, Model, Node, NodeId, ValueId};

/// Share of an operand's range that the result's must hold, where something else reads the operand.
const HELD: f32 = 0.98;
/// Share of the result's range that such an operand must fill.
const FILLED: f32 = 0.9;

/// Gives operands of `Concat` the quantizer of the result. From the last node to the first: a result may be an operand.
pub(super) fn join(model: &Model, scheme: &Scheme, activations: &mut IndexMap<String, ActivationQuantizer>) {
    let graph = &model.graph;
    let joins =
        |&(id, node): &(NodeId, &Node)| node.is("Concat") && scheme.placement.nodes.get(&id) == Some(&Role::Arithmetic);
    let nodes: Vec<(NodeId, &Node)> = graph.nodes().filter(joins).collect();
    for (id, node) in nodes.into_iter().rev() {
        let Some(result) = node.output(0).map(|output| written(scheme, graph, output)) else { continue };
        let named = |root: ValueId| graph.value(root).name();
        let Some(target) = activations.get(named(result)).copied() else { continue };
        if scheme.placement.factor_of(graph, result) != 1.0 {
            continue;
        }
        for operand in node.inputs().iter().flatten() {
            let root = scheme.placement.root(*operand);
            let Some(own) = activations.get_mut(named(root)) else { continue };
            let alone = || is_read_by(scheme, graph, root, id);
            if may_move(scheme, graph, root, own, &target) && (alone() || is_alike(range(own), range(&target))) {
                *own = target;
            }
        }
    }
}

/// The value whose quantizer stands behind a node: what it writes, or the last of the nodes that the quantizer absorbs.
fn written(scheme: &Scheme, graph: &Graph, output: ValueId) -> ValueId {
    let mut value = output;
    while let Some(next) = graph.only_use(value).map(|u| u.node).filter(|n| scheme.placement.absorbed.contains_key(n)) {
        let Some(output) = graph.node(next).output(0) else { break };
        value = output;
    }
    scheme.placement.root(value)
}

/// Whether a value may have the quantizer of another.
fn may_move(
    scheme: &Scheme,
    graph: &Graph,
    value: ValueId,
    own: &ActivationQuantizer,
    target: &ActivationQuantizer,
) -> bool {
    let placement = &scheme.placement;
    let zero_is_least = target.zero_point == target.interval().0;
    (own.bits, own.signed) == (target.bits, target.signed)
        && !scheme.is_given(value)
        && placement.factor_of(graph, value) == 1.0
        && placement.floor_of(graph, value).is_none()
        && (!placement.is_clamped(graph, value) || zero_is_least)
        && placement.bound_of(graph, value).is_none_or(|bound| range(target).max <= bound)
}

/// Whether only this node reads a value, itself or moved.
fn is_read_by(scheme: &Scheme, graph: &Graph, root: ValueId, node: NodeId) -> bool {
    let placement = &scheme.placement;
    let reads = |reader: NodeId| reader == node || placement.nodes.get(&reader) == Some(&Role::Movement);
    let mut held = placement.values.iter().filter(|(_, from)| **from == root).map(|(&value, _)| value);
    held.all(|value| {
        let entry = graph.value(value);
        entry.uses().iter().all(|u| reads(u.node)) && entry.captures().is_empty() && !graph.is_output(value)
    })
}

/// Whether a quantizer for the one range serves values of the other about as well.
fn is_alike(own: Range, target: Range) -> bool {
    let held = own.max.min(target.max) - own.min.max(target.min);
    held >= HELD * width(own) && width(own) >= FILLED * width(target)
}
