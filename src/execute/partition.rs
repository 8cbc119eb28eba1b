//! Where a graph can be cut, and which values cross a cut.
//!
//! With the nodes in an order in which everything is computed before it is read, n₀ … nₖ, a cut stands in front of one of
//! them. A value is *live* there if it exists by then, as an input or computed by a node in front, and is still wanted:
//! read by a node behind, or an output. Exactly the live values have to be handed across the cut.
//!
//! A value that depends on no input is never handed on: it follows from constants, and is computed where it is read.

use msq_passes::ir::{Graph, NodeId, ValueId};
use std::collections::{HashMap, HashSet};

/// The nodes of a graph, or some of them, in an order, with the values that are live between them.
#[derive(Debug)]
pub(crate) struct Partition {
    pub nodes: Vec<NodeId>,
    /// The initializers that each node reads, or that constant inputs of it are computed from.
    pub weights: Vec<HashSet<ValueId>>,
    spans: Vec<Span>,
}

/// From where to where a value is live.
#[derive(Clone, Copy, Debug)]
struct Span {
    value: ValueId,
    /// How many nodes have to be run for it to exist.
    defined: usize,
    /// Position of the last node that reads it; the number of nodes for an output.
    last: usize,
}

impl Partition {
    /// Of nodes in an order in which whatever one of them needs comes before it. `wanted` live to the end.
    pub(crate) fn new(graph: &Graph, nodes: Vec<NodeId>, wanted: impl Iterator<Item = ValueId>) -> Self {
        let initializers = graph.initializers().map(|(value, _)| (value, HashSet::from([value])));
        let mut constants: HashMap<ValueId, HashSet<ValueId>> = initializers.collect();
        // Of each value that depends on the inputs: where it is defined, and the last reader so far.
        let mut spans: HashMap<ValueId, (usize, Option<usize>)> =
            graph.runtime_inputs().map(|value| (value, (0, None))).collect();
        // Inputs first, then in the order in which they are computed.
        let mut order: Vec<ValueId> = graph.runtime_inputs().collect();
        let mut weights = Vec::new();
        for (at, &id) in nodes.iter().enumerate() {
            let node = graph.node(id);
            let read: Vec<ValueId> = node.inputs().iter().flatten().chain(node.captures()).copied().collect();
            let own: HashSet<ValueId> = read.iter().filter_map(|v| constants.get(v)).flatten().copied().collect();
            let outputs = node.outputs().iter().flatten().copied();
            let mut varies = false;
            for value in read {
                if let Some((_, last)) = spans.get_mut(&value) {
                    (*last, varies) = (Some(at), true);
                }
            }
            if varies {
                order.extend(outputs.clone());
                spans.extend(outputs.map(|value| (value, (at + 1, None))));
                weights.push(own);
            } else {
                constants.extend(outputs.map(|value| (value, own.clone())));
                weights.push(HashSet::new());
            }
        }
        for value in wanted {
            spans.entry(value).and_modify(|(_, last)| *last = Some(nodes.len()));
        }
        let span = |value: ValueId| {
            let &(defined, last) = spans.get(&value)?;
            Some(Span { value, defined, last: last? })
        };
        Self { nodes, weights, spans: order.into_iter().filter_map(span).collect() }
    }

    /// Of all nodes of a graph. `wanted` live to the end.
    pub(crate) fn of_graph(graph: &Graph, wanted: impl Iterator<Item = ValueId>) -> Self {
        Self::new(graph, graph.node_ids().collect(), wanted)
    }

    /// The values to be handed across a cut behind the first `at` nodes: inputs first, then in the order in which they
    /// are computed.
    pub(crate) fn crossing(&self, at: usize) -> Vec<ValueId> {
        let across = self.spans.iter().filter(|span| span.defined <= at && span.last >= at);
        across.map(|span| span.value).collect()
    }
}

/// Names of the values that what leads to `done` hands to what leads to the nodes `waiting`, and of those among `kept`
/// that exist by then. Values that neither needs do not count.
pub(crate) fn boundary(graph: &Graph, done: &[&str], waiting: &[NodeId], kept: &[String]) -> Vec<String> {
    let run = ancestors(graph, done.iter().filter_map(|name| graph.find(name)));
    let read = |&id: &NodeId| {
        let node = graph.node(id);
        node.inputs().iter().flatten().chain(node.captures()).copied().collect::<Vec<_>>()
    };
    let mut needed = ancestors(graph, waiting.iter().flat_map(read));
    needed.extend(waiting);
    let (before, behind): (Vec<NodeId>, Vec<NodeId>) =
        graph.node_ids().filter(|id| run.contains(id) || needed.contains(id)).partition(|id| run.contains(id));
    let at = before.len();
    let kept = kept.iter().filter_map(|name| graph.find(name));
    let crossing = Partition::new(graph, [before, behind].concat(), kept).crossing(at);
    crossing.into_iter().map(|value| graph.value(value).name().to_owned()).collect()
}

/// The nodes that lead to some values.
pub(crate) fn ancestors(graph: &Graph, values: impl Iterator<Item = ValueId>) -> HashSet<NodeId> {
    let producer = |value: ValueId| graph.value(value).producer().map(|(node, _)| node);
    let mut found = HashSet::new();
    let mut open: Vec<NodeId> = values.filter_map(producer).collect();
    while let Some(node) = open.pop() {
        if found.insert(node) {
            let node = graph.node(node);
            open.extend(node.inputs().iter().flatten().chain(node.captures()).copied().filter_map(producer));
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use msq_passes::ir::{Model, import, text};

    /// A sum around a node, a constant that is computed, and a value that nobody wants.
    const NETWORK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
        g (float[2] x, float[2] late) => (float[2] y, float[2] early) <float[2] w = {1, 2}>
        { c = Neg (w)  early = Relu (x)  a = Mul (early, c)  b = Exp (a)  d = Add (b, x)  lost = Abs (d)
          e = Mul (d, c)  y = Add (e, late) }";

    fn model() -> Model {
        import(text::parse(NETWORK).unwrap()).unwrap()
    }

    fn names(model: &Model, values: &[ValueId]) -> Vec<String> {
        values.iter().map(|&value| model.graph.value(value).name().to_owned()).collect()
    }

    #[test]
    fn what_is_live_crosses() {
        let model = model();
        let partition = Partition::of_graph(&model.graph, model.graph.outputs());
        let crossing = |at| names(&model, &partition.crossing(at));
        assert_eq!(crossing(1), ["x", "late"]);
        assert_eq!(crossing(2), ["x", "late", "early"]);
        assert_eq!(crossing(4), ["x", "late", "early", "b"]);
        // The sum is done: x is not needed any more. What is computed of the weight alone is not handed on.
        assert_eq!(crossing(5), ["late", "early", "d"]);
        assert_eq!(crossing(8), ["early", "y"]);
        let weights: Vec<usize> = partition.weights.iter().map(HashSet::len).collect();
        assert_eq!(weights, [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn between_what_is_done_and_what_waits() {
        let model = model();
        let node = |output: &str| model.graph.value(model.graph.find(output).unwrap()).producer().unwrap().0;
        assert_eq!(boundary(&model.graph, &["a"], &[node("e")], &[]), ["x", "a"]);
        assert_eq!(boundary(&model.graph, &["a", "d"], &[node("e")], &[]), ["d"]);
        assert_eq!(boundary(&model.graph, &[], &[node("a")], &[]), ["x"]);
        assert_eq!(boundary(&model.graph, &["y"], &[node("e")], &[]), Vec::<String>::new());
        // An output that is computed early is kept, one that is still to come is not handed on.
        let outputs = ["y", "early"].map(str::to_owned);
        assert_eq!(boundary(&model.graph, &["d"], &[node("y")], &outputs), ["late", "early", "d"]);
    }
}
