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

use crate::quant::{Affine, Range};
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
        let placement = &scheme.placement;
        let Some(output) = node.output(0) else { continue };
        let result = placement.root(placement.written_behind(graph, output));
        let named = |root: ValueId| graph.value(root).name();
        let Some(target) = activations.get(named(result)).copied() else { continue };
        if placement.factor_of(graph, result) != 1.0 {
            continue;
        }
        for operand in node.inputs().iter().flatten() {
            let root = placement.root(*operand);
            let Some(own) = activations.get_mut(named(root)) else { continue };
            let alone = || scheme.is_read_by_one(graph, root, id);
            if may_move(scheme, graph, root, own, &target)
                && (alone() || is_alike(Affine::from(&*own).range(), Affine::from(&target).range()))
            {
                *own = target;
            }
        }
    }
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
        && placement.bound_of(graph, value).is_none_or(|bound| Affine::from(target).range().max <= bound)
}

/// Whether a quantizer for the one range serves values of the other about as well.
fn is_alike(own: Range, target: Range) -> bool {
    let held = own.max.min(target.max) - own.min.max(target.min);
    held >= HELD * own.width() && own.width() >= FILLED * target.width()
}
