//! Topological order of nodes.

use super::{Graph, NodeId};

/// The nodes form a cycle through the named value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the nodes form a cycle through value `{value}`")]
pub struct CycleError {
    /// A value on the cycle.
    pub value: String,
}

impl Graph {
    /// Puts nodes in topological order: a node that stands behind a reader of its outputs moves directly before the
    /// first such reader. A sorted graph is not changed.
    pub fn sort(&mut self) -> Result<(), CycleError> {
        self.order = sorted(self)?;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Visits the nodes depth-first in their present order, dependencies first: a sorted graph keeps its order, and a node
/// appended at the end moves directly before the first node that reads it. Iterative, so that deep graphs need no
/// stack.
fn sorted(graph: &Graph) -> Result<Vec<NodeId>, CycleError> {
    let mut marks = vec![Mark::New; graph.nodes.len()];
    let mut sorted = Vec::with_capacity(graph.order.len());
    let mut stack = Vec::new();
    for root in graph.node_ids() {
        stack.push((root, 0));
        while let Some((node, next)) = stack.pop() {
            if marks[node.index()] == Mark::Done {
                continue;
            }
            marks[node.index()] = Mark::Open;
            let Some((at, dependency)) = next_dependency(graph, node, next, &marks) else {
                marks[node.index()] = Mark::Done;
                sorted.push(node);
                continue;
            };
            if marks[dependency.index()] == Mark::Open {
                let value = graph.node(dependency).outputs().iter().flatten().next();
                return Err(CycleError {
                    value: value.map_or_else(String::new, |&v| graph.value(v).name().to_owned()),
                });
            }
            stack.push((node, at + 1));
            stack.push((dependency, 0));
        }
    }
    Ok(sorted)
}

/// The first unfinished producer of an input of `node`, from input number `from` on.
fn next_dependency(graph: &Graph, node: NodeId, from: usize, marks: &[Mark]) -> Option<(usize, NodeId)> {
    let node = graph.node(node);
    let reads = node.inputs().iter().copied().chain(node.captures().iter().map(|&v| Some(v)));
    reads.enumerate().skip(from).find_map(|(i, value)| {
        let (producer, _) = graph.value(value?).producer()?;
        (marks[producer.index()] != Mark::Done).then_some((i, producer))
    })
}
