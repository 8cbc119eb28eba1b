//! Sub-graphs (bodies of If, Loop, Scan) read outer values by name; these functions find and rename such reads.

use super::GraphProto;
use std::collections::HashSet;

/// Names that a sub-graph defines: inputs, initializers and node outputs.
fn defined(graph: &GraphProto) -> HashSet<&str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref());
    let inputs = graph.input.iter().map(super::ValueInfoProto::name);
    let constants = graph.initializer.iter().chain(sparse).map(super::TensorProto::name);
    inputs.chain(constants).chain(graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str))).collect()
}

/// Appends the outer names that the sub-graph, or one nested in it, reads, in order of first use.
pub(super) fn free_names(graph: &GraphProto, found: &mut Vec<String>) {
    let defined = defined(graph);
    let mut inner = Vec::new();
    for node in &graph.node {
        inner.extend(node.input.iter().filter(|n| !n.is_empty()).cloned());
        for nested in node.subgraphs() {
            free_names(nested, &mut inner);
        }
    }
    inner.extend(graph.output.iter().map(|o| o.name().to_owned()));
    found.extend(inner.into_iter().filter(|n| !defined.contains(n.as_str())));
}

/// Renames an outer value in every place where the sub-graph reads it.
pub(crate) fn rename_free(graph: &mut GraphProto, from: &str, to: &str) {
    if defined(graph).contains(from) {
        return;
    }
    for node in &mut graph.node {
        node.input.iter_mut().filter(|n| *n == from).for_each(|n| to.clone_into(n));
        for nested in node.subgraphs_mut() {
            rename_free(nested, from, to);
        }
    }
    for output in graph.output.iter_mut().filter(|o| o.name() == from) {
        output.name = Some(to.to_owned());
    }
}

/// Every name defined in the sub-graph and in those nested in it.
pub(crate) fn all_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(defined(graph).into_iter().filter(|n| !n.is_empty()).map(str::to_owned));
    for node in &graph.node {
        for nested in node.subgraphs() {
            all_names(nested, names);
        }
    }
}

/// Whether the sub-graph itself defines a name.
pub(super) fn defines(graph: &GraphProto, name: &str) -> bool {
    defined(graph).contains(name)
}

/// Whether the sub-graph itself, not only one nested in it, reads an outer value.
pub(super) fn reads(graph: &GraphProto, name: &str) -> bool {
    let by_nodes = graph.node.iter().any(|node| node.input.iter().any(|input| input == name));
    (by_nodes || graph.output.iter().any(|output| output.name() == name)) && !defines(graph, name)
}

/// How many graphs, of the sub-graph and those nested in it, read an outer value.
pub(super) fn readers(graph: &GraphProto, name: &str) -> usize {
    if defines(graph, name) {
        return 0;
    }
    let nested = graph.node.iter().flat_map(super::NodeProto::subgraphs);
    usize::from(reads(graph, name)) + nested.map(|nested| readers(nested, name)).sum::<usize>()
}
