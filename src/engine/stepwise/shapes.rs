//! Which nodes can be prepared together: those whose shapes follow from what is known before they run.

use crate::data::Array;
use crate::engine::extent::{Extent, asks_for_shape, extent, is_random};
use msq_passes::ir::{Graph, GraphProto, Node, NodeId, NodeProto, ValueId};
use std::collections::{HashMap, HashSet};

fn extent_of(node: &Node) -> Extent {
    match extent(node.op()) {
        Extent::Shapes if node.subgraphs().any(is_open) => Extent::Open,
        found => found,
    }
}

/// Whether shapes in a sub-graph depend on values.
fn is_open(graph: &GraphProto) -> bool {
    let open = |node: &NodeProto| matches!(extent(node.op_type()), Extent::Open | Extent::Steps);
    graph.node.iter().any(|node| open(node) || node.subgraphs().any(is_open))
}

/// What a node reads, in its sub-graphs too.
pub(super) fn read(node: &Node) -> impl Iterator<Item = ValueId> + '_ {
    node.inputs().iter().flatten().chain(node.captures()).copied()
}

/// Of the nodes that wait, those that can be run next with all shapes known beforehand, in graph order. Where a node's shapes
/// only show when it runs, those that read it go on waiting. `constants` are the values at hand that are known as such.
pub(super) fn next(
    graph: &Graph,
    waiting: &[NodeId],
    at_hand: &HashSet<ValueId>,
    constants: &HashSet<ValueId>,
) -> Vec<NodeId> {
    let initial = graph.initializers().map(|(value, _)| value).filter(|&value| !graph.is_input(value));
    let mut known: HashSet<ValueId> = initial.chain(constants.iter().copied()).collect();
    let mut shaped: HashSet<ValueId> = at_hand.union(&known).copied().collect();
    let mut taken = Vec::new();
    for &id in waiting {
        let node = graph.node(id);
        if !read(node).all(|value| shaped.contains(&value)) {
            continue;
        }
        let written = node.outputs().iter().flatten().copied();
        let extent = extent_of(node);
        let is_known = read(node).all(|value| known.contains(&value)) && !is_random(node.op());
        let asked = |slot: &usize| node.input(*slot).is_none_or(|value| known.contains(&value));
        match extent {
            Extent::Steps => continue,
            _ if is_known || asks_for_shape(node.op()) => {
                known.extend(written.clone());
                shaped.extend(written);
            }
            Extent::Shapes => shaped.extend(written),
            Extent::Values(slots) if slots.iter().all(asked) => shaped.extend(written),
            Extent::Values(_) => continue,
            Extent::Open => {}
        }
        taken.push(id);
    }
    taken
}

/// Values of so many elements at most are made constants for what is computed from them.
const FEW: usize = 64;

/// The values at hand that shapes are computed from.
pub(super) fn constants(graph: &Graph, waiting: &[NodeId], at_hand: &HashMap<ValueId, Array>) -> HashSet<ValueId> {
    let mut found = HashSet::new();
    let mut seen = HashSet::new();
    let mut open: Vec<(ValueId, bool)> = Vec::new();
    for &id in waiting {
        if let Extent::Values(slots) = extent_of(graph.node(id)) {
            open.extend(slots.iter().filter_map(|&slot| Some((graph.node(id).input(slot)?, true))));
        }
    }
    while let Some((value, directly)) = open.pop() {
        if let Some(array) = at_hand.get(&value) {
            if directly || array.len() <= FEW {
                found.insert(value);
            }
            continue;
        }
        let Some((producer, _)) = graph.value(value).producer().filter(|_| seen.insert(value)) else { continue };
        let node = graph.node(producer);
        // What an operator yields whose shape only shows when it runs is at hand then, and no constant before.
        if !asks_for_shape(node.op()) && extent_of(node) != Extent::Open {
            open.extend(read(node).map(|value| (value, false)));
        }
    }
    found
}

/// Whether not all shapes of a graph follow from those of its inputs.
pub(super) fn depend_on_values(graph: &Graph) -> bool {
    let inputs: HashSet<ValueId> = graph.inputs().collect();
    let nodes: Vec<NodeId> = graph.node_ids().collect();
    next(graph, &nodes, &inputs, &HashSet::new()).len() < nodes.len()
}
