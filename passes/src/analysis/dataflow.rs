//! The graph as petgraph sees it: nodes and the values that join them.

use crate::ir::{Graph, NodeId, ValueId};
use crate::ops::{Trait, facts};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{HashMap, HashSet};

/// Values that only constants go into, but for what is drawn at random. Nodes are in topological order.
pub(super) fn constant_values(graph: &Graph) -> HashSet<ValueId> {
    let mut found: HashSet<ValueId> =
        graph.initializers().map(|(value, _)| value).filter(|&value| graph.constant(value).is_some()).collect();
    for (_, node) in graph.nodes() {
        let random = facts(node.op()).has(Trait::Random);
        let mut reads = node.inputs().iter().flatten().chain(node.captures());
        if !random && reads.all(|value| found.contains(value)) {
            found.extend(node.outputs().iter().flatten());
        }
    }
    found
}

/// A view with one vertex per node and one edge per read; reads of sub-graphs count too. Inputs and constants have no
/// vertex.
pub fn dataflow(graph: &Graph) -> DiGraph<NodeId, ValueId> {
    let mut view = DiGraph::with_capacity(graph.node_ids().len(), graph.node_ids().len());
    let vertices: HashMap<NodeId, NodeIndex> = graph.node_ids().map(|id| (id, view.add_node(id))).collect();
    for (id, node) in graph.nodes() {
        for &value in node.inputs().iter().flatten().chain(node.captures()) {
            if let Some((producer, _)) = graph.value(value).producer() {
                view.add_edge(vertices[&producer], vertices[&id], value);
            }
        }
    }
    view
}

/// The graph in Graphviz' DOT language: nodes by operator and name, edges by value.
pub fn dot(graph: &Graph) -> String {
    let view = dataflow(graph);
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from("digraph model {\n  node [shape=box];\n");
    for vertex in view.node_indices() {
        let node = graph.node(view[vertex]);
        let label = format!("{}\\n{}", escape(node.op()), escape(node.label(graph)));
        text.extend([&format!("  n{} [label=\"{label}\"];\n", vertex.index())[..]]);
    }
    for edge in view.edge_indices() {
        let Some((from, to)) = view.edge_endpoints(edge) else { continue };
        let label = escape(graph.value(view[edge]).name());
        text.extend([&format!("  n{} -> n{} [label=\"{label}\"];\n", from.index(), to.index())[..]]);
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use crate::ir::{import, text};

    #[test]
    fn values_that_depend_on_no_input() {
        let source = "<ir_version: 8, opset_import: [\"\": 17]>
            g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
              c = Constant <value = float[2] {3, 4}> ()  a = Relu (w)  b = Add (a, c)  r = RandomNormalLike (w)  s = Neg (r)
              y = Mul (b, x) }";
        let model = import(text::parse(source).unwrap()).unwrap();
        let constant = super::constant_values(&model.graph);
        let mut names: Vec<&str> = constant.into_iter().map(|value| model.graph.value(value).name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c", "w"]);
    }

    #[test]
    fn an_edge_for_each_read() {
        let source = "<ir_version: 8, opset_import: [\"\": 17]>\ng (float[1] x) => (float[1] y)\n{ a = Relu(x)\n b = Neg(a)\n y = Add(a, b) }";
        let model = import(text::parse(source).unwrap()).unwrap();
        let view = super::dataflow(&model.graph);
        assert_eq!((view.node_count(), view.edge_count()), (3, 3));
        assert!(petgraph::algo::toposort(&view, None).is_ok());
        assert!(super::dot(&model.graph).contains("n0 -> n2 [label=\"a\"]"));
    }
}
