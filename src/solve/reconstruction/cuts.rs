//! Where a network falls into blocks.
//!
//! A cut is a place where exactly one value is live ([`Partition`]), so that a block has one input and one output: a
//! residual block is one, and in a chain of layers each layer with what follows it.

use crate::execute::partition::Partition;
use msq_passes::ir::{DataType, Graph, NodeId, ValueId};
use std::collections::HashSet;

/// The values at the cuts, in order: each the last one in front of a layer, with a layer between any two of them and in
/// front of the first.
pub(super) fn cuts(graph: &Graph, layers: &HashSet<NodeId>) -> Vec<ValueId> {
    let partition = Partition::of_graph(graph, graph.outputs());
    let (mut found, mut passed, mut cut_at) = (Vec::new(), 0, 0);
    let mut last: Option<(ValueId, usize)> = None;
    for (at, node) in partition.nodes.iter().enumerate() {
        if let [value] = partition.crossing(at)[..]
            && graph.value(value).producer().is_some()
            && graph.value(value).element_type().is_none_or(|element| element == DataType::Float)
        {
            last = Some((value, passed));
        }
        if !layers.contains(node) {
            continue;
        }
        if let Some((value, count)) = last.take().filter(|(_, count)| *count > cut_at) {
            found.push(value);
            cut_at = count;
        }
        passed += 1;
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use msq_passes::ir::{Model, import, text};

    fn cut(source: &str) -> Vec<String> {
        let head = "<ir_version: 8, opset_import: [\"\": 17]> g (float[2,2] x) => (float[2,2] y) \
                    <float[2,2] w = {1, 2, 3, 4}>";
        let model: Model = import(text::parse(&format!("{head} {{ {source} }}")).unwrap()).unwrap();
        let layers = model.graph.nodes().filter(|(_, node)| node.is("MatMul")).map(|(id, _)| id).collect();
        cuts(&model.graph, &layers).into_iter().map(|v| model.graph.value(v).name().to_owned()).collect()
    }

    #[test]
    fn a_chain_is_cut_in_front_of_each_layer() {
        let chain = "a = MatMul (x, w)  b = Relu (a)  c = MatMul (b, w)  d = Relu (c)  y = MatMul (d, w)";
        assert_eq!(cut(chain), ["b", "d"]);
    }

    #[test]
    fn a_residual_block_is_not_cut() {
        let blocks = "a = MatMul (x, w)  b = Relu (a)  c = MatMul (b, w)  d = Relu (c)  e = MatMul (d, w) \
                      f = Add (e, b)  g = Relu (f)  h = MatMul (g, w)  y = Add (h, g)";
        assert_eq!(cut(blocks), ["b", "g"]);
        // The input of the network lives on to the end.
        assert!(cut("a = MatMul (x, w)  b = MatMul (a, w)  y = Add (b, x)").is_empty());
    }
}
