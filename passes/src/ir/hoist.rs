//! Moves constants of sub-graphs to the main graph, where the sub-graphs read them by name.

use super::{Graph, GraphProto, NodeId, NodeProto, TensorProto, subgraph};
use std::collections::HashSet;

/// A constant taken out of a sub-graph that reads it under a name of its own until it has one in the main graph.
struct Taken {
    holder: NodeId,
    read_as: String,
    tensor: TensorProto,
}

impl Graph {
    /// Makes constants of sub-graphs, at any depth, initializers of this graph where `wanted` says so: initializers, and
    /// values of `Constant` nodes. They keep their names where these are free. Inputs and outputs of sub-graphs stay.
    /// Returns how many there were.
    pub fn hoist_constants(&mut self, wanted: impl Fn(&TensorProto) -> bool) -> usize {
        let mut taken = Vec::new();
        let holders: Vec<NodeId> = self.node_ids().filter(|&id| self.node(id).subgraphs().next().is_some()).collect();
        for &holder in &holders {
            let node = self.nodes[holder.index()].as_mut();
            for body in node.into_iter().flat_map(super::Node::subgraphs_mut) {
                take(body, holder, &wanted, &mut taken);
            }
        }
        if taken.is_empty() {
            return 0;
        }
        // Names that only what was taken had are free now.
        let mut reserved = HashSet::new();
        for (_, node) in self.nodes() {
            node.subgraphs().for_each(|body| subgraph::all_names(body, &mut reserved));
        }
        self.reserved = reserved;
        let count = taken.len();
        for Taken { holder, read_as, tensor } in taken {
            let value = self.add_initializer(tensor);
            let name = self.value(value).name().to_owned();
            if let Some(node) = self.nodes[holder.index()].as_mut() {
                node.subgraphs_mut().for_each(|body| subgraph::rename_free(body, &read_as, &name));
                node.captures.push(value);
            }
            if let Some(value) = self.values[value.index()].as_mut() {
                value.captures.push(holder);
            }
        }
        count
    }
}

fn take(body: &mut GraphProto, holder: NodeId, wanted: &impl Fn(&TensorProto) -> bool, taken: &mut Vec<Taken>) {
    let ports: HashSet<String> = body.input.iter().chain(&body.output).map(|port| port.name().to_owned()).collect();
    let mut found = Vec::new();
    for tensor in std::mem::take(&mut body.initializer) {
        if wanted(&tensor) && !ports.contains(tensor.name()) {
            found.push(tensor);
        } else {
            body.initializer.push(tensor);
        }
    }
    for node in std::mem::take(&mut body.node) {
        match constant(&node).filter(|tensor| wanted(tensor) && !ports.contains(tensor.name())) {
            Some(tensor) => found.push(tensor),
            None => body.node.push(node),
        }
    }
    for tensor in found {
        // No value of a file is called so: the number makes it unique among those taken.
        let read_as = format!("\u{1}{}", taken.len());
        body.value_info.retain(|info| info.name() != tensor.name());
        subgraph::rename_free(body, tensor.name(), &read_as);
        taken.push(Taken { holder, read_as, tensor });
    }
    for node in &mut body.node {
        for nested in node.subgraphs_mut() {
            take(nested, holder, wanted, taken);
        }
    }
}

/// The tensor of a `Constant` node, under the name of the node's output.
fn constant(node: &NodeProto) -> Option<TensorProto> {
    let [attribute] = &node.attribute[..] else { return None };
    let output = node.output.first()?;
    let plain = node.op_type() == "Constant" && super::normal_domain(node.domain()).is_empty();
    let tensor = attribute.t.as_ref().filter(|_| plain && attribute.name() == "value")?;
    Some(TensorProto { name: Some(output.clone()), ..tensor.clone() })
}
