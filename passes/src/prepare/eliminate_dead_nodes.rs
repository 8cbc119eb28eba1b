//! Pass `eliminate-dead-nodes`: what no graph output depends on goes.
//!
//! Backwards from the graph outputs every node and initializer that is read, by a node or by name from a sub-graph,
//! is marked; the rest is removed, with its declared types. Graph inputs stay, used or not: they are the model's
//! interface.

use crate::ir::{Model, NodeId, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use std::collections::HashSet;

/// Removes nodes, initializers and declared types that no graph output depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct EliminateDeadNodes;

impl Pass for EliminateDeadNodes {
    fn name(&self) -> &'static str {
        "eliminate-dead-nodes"
    }

    fn about(&self) -> &'static str {
        "nodes and initializers that no graph output depends on go"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let alive = alive(model);
        let dead: HashSet<NodeId> = model.graph.node_ids().filter(|id| !alive.contains(id)).collect();
        model.graph.remove_nodes(&dead);
        let unread: Vec<ValueId> = model.graph.values().map(|(id, _)| id).collect();
        let constants = unread.iter().filter(|&&v| model.graph.initializer(v).is_some());
        let before = constants.count();
        for value in unread {
            model.graph.remove_value(value);
        }
        outcome.changed = dead.len() + before - model.graph.initializers().len();
        Ok(outcome)
    }
}

fn alive(model: &Model) -> HashSet<NodeId> {
    let graph = &model.graph;
    let producer = |value: ValueId| graph.value(value).producer().map(|(node, _)| node);
    let mut alive = HashSet::new();
    let mut open: Vec<NodeId> = graph.outputs().filter_map(producer).collect();
    while let Some(node) = open.pop() {
        if alive.insert(node) {
            let node = graph.node(node);
            let reads = node.inputs().iter().flatten().chain(node.captures());
            open.extend(reads.copied().filter_map(producer));
        }
    }
    alive
}
