//! The names of the values of a message, new names that differ from all of them, and new names for values that change.

use crate::ir::{Graph, GraphProto, TensorProto, ValueId, ValueInfoProto};
use std::collections::{HashMap, HashSet};

/// Names of the values of a graph and of its sub-graphs.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// The number with which the next search for a stem begins: names never become free.
    next: HashMap<String, u64>,
}

impl Names {
    /// The names of a graph, those in its sub-graphs included.
    pub(super) fn of(graph: &GraphProto) -> Self {
        let mut names = Self::default();
        names.add(graph);
        names
    }

    fn add(&mut self, graph: &GraphProto) {
        let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info).map(ValueInfoProto::name);
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        let tensors = graph.initializer.iter().chain(sparse).map(TensorProto::name);
        self.taken.extend(values.chain(tensors).map(str::to_owned));
        for node in &graph.node {
            self.taken.extend(node.input.iter().chain(&node.output).cloned());
            node.subgraphs().for_each(|graph| self.add(graph));
        }
    }

    /// A new name: `stem`, or that with the lowest number that makes it one.
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        let next = self.next.entry(stem.to_owned()).or_default();
        loop {
            let name = if *next == 0 { stem.to_owned() } else { format!("{stem}_{next}") };
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Gives a value that is no longer what the caller knows by its name another one. The node keeps the name it goes by.
pub(super) fn rename(graph: &mut Graph, value: ValueId, suffix: &str) {
    if let Some((producer, _)) = graph.value(value).producer() {
        let label = graph.node(producer).label(graph).to_owned();
        graph.set_node_name(producer, Some(label));
    }
    let name = graph.fresh_name(&format!("{}_{suffix}", graph.value(value).name()));
    graph.rename(value, &name);
}
