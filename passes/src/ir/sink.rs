//! Moves what one sub-graph alone reads of the main graph into that sub-graph.

use super::{Graph, GraphProto, NodeProto, TensorProto, ValueId, subgraph};
use std::collections::HashSet;

/// What defines a value.
enum Definition {
    Tensor(TensorProto),
    Node(NodeProto),
}

impl Graph {
    /// Moves the constant or the node behind a value into the sub-graph, at any depth, that alone reads the value. The
    /// sub-graph reads by name what the node reads. Returns false, changing nothing, where more than one sub-graph or
    /// anything else reads the value, where the node has other outputs or sub-graphs, and where a sub-graph of the same node
    /// defines a name that the node reads.
    pub fn sink(&mut self, value: ValueId) -> bool {
        let entry = self.value(value);
        let &[holder] = entry.captures() else { return false };
        if !entry.uses().is_empty() || self.is_output(value) || self.is_input(value) {
            return false;
        }
        let (name, producer) = (entry.name().to_owned(), entry.producer());
        let readers: usize = self.node(holder).subgraphs().map(|body| subgraph::readers(body, &name)).sum();
        let mut inner = HashSet::new();
        self.node(holder).subgraphs().for_each(|body| subgraph::all_names(body, &mut inner));
        let read: Vec<ValueId> =
            producer.map_or(Vec::new(), |(id, _)| self.node(id).inputs().iter().flatten().copied().collect());
        if readers != 1 || read.iter().any(|&input| inner.contains(self.value(input).name())) {
            return false;
        }
        let mut definition = match producer {
            Some((id, _)) if self.node(id).outputs().len() == 1 && self.node(id).captures().is_empty() => {
                let names = |values: &[Option<ValueId>]| -> Vec<String> {
                    values.iter().map(|v| v.map_or_else(String::new, |v| self.value(v).name().to_owned())).collect()
                };
                let node = self.node(id);
                let moved =
                    NodeProto { input: names(node.inputs()), output: names(node.outputs()), ..node.proto.clone() };
                self.remove_node(id);
                Some(Definition::Node(moved))
            }
            Some(_) => None,
            None => self.take_initializer(value).map(Definition::Tensor),
        };
        if definition.is_none() {
            return false;
        }
        let node = self.node_mut(holder);
        node.captures.retain(|&captured| captured != value);
        node.subgraphs_mut().for_each(|body| define(body, &name, &mut definition));
        for input in read {
            let node = self.node_mut(holder);
            if !node.captures.contains(&input) {
                node.captures.push(input);
                self.value_mut(input).captures.push(holder);
            }
        }
        self.value_mut(value).captures.clear();
        self.remove_value(value);
        self.reserved.insert(name);
        true
    }
}

/// Puts a definition into the first graph that reads the name of the graph around.
fn define(graph: &mut GraphProto, name: &str, definition: &mut Option<Definition>) {
    if subgraph::reads(graph, name) {
        match definition.take() {
            Some(Definition::Tensor(tensor)) => graph.initializer.push(tensor),
            // What reads it stands behind.
            Some(Definition::Node(node)) => graph.node.insert(0, node),
            None => {}
        }
        return;
    }
    if subgraph::defines(graph, name) {
        return;
    }
    for nested in graph.node.iter_mut().flat_map(NodeProto::subgraphs_mut) {
        define(nested, name, definition);
    }
}
