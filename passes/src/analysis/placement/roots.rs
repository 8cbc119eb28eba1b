//! Roots of sums of squares and divisions by them, inside of which no quantizer of 8 bits may stand.
//!
//! ```text
//! r = √(mean(x²) + ε),   y = x / (r + δ)        and the same with a sum, a product with the reciprocal, or ReduceL2
//! ```
//!
//! With squares on 255 steps, a root below a sixteenth of the largest one is 0, and a row is divided by 0 or by a number
//! that is wrong by half. So the nodes from the square to the division stay in float; what they read and what they write
//! is quantized. Where the whole is one operator with a kernel, as `LayerNormalization`, there are no such nodes.

use crate::ir::{Graph, Node, NodeId, TensorProto, ValueId};

/// The nodes of every root of a sum of squares, and of the divisions by it.
pub(super) fn roots_of_squares(graph: &Graph) -> Vec<NodeId> {
    let mut found = Vec::new();
    for (id, node) in graph.nodes().filter(|(_, node)| node.domain().is_empty()) {
        let Some(squares) = root_of(graph, id, node) else { continue };
        found.extend(squares.into_iter().chain([id]));
        if let Some(root) = node.output(0) {
            follow(graph, root, is_inverse(graph, node), &mut found);
        }
    }
    found
}

/// The nodes between what is squared and the root that a node takes, where it takes one.
fn root_of(graph: &Graph, id: NodeId, node: &Node) -> Option<Vec<NodeId>> {
    if node.is("ReduceL2") {
        return Some(Vec::new());
    }
    let is_root = node.is("Sqrt") || (node.is("Pow") && exponent(graph, node).is_some_and(|e| e.abs() == 0.5));
    let mut value = node.input(0).filter(|_| is_root)?;
    let mut nodes = Vec::new();
    // An ε is added, or stands as a bound, and axes of length 1 come and go.
    loop {
        let (producer, before) = producer(graph, value)?;
        if producer == id {
            return None;
        }
        nodes.push(producer);
        value = match before.op() {
            "ReduceMean" | "ReduceSum" | "GlobalAveragePool" => {
                let (square, entry) = self::producer(graph, before.input(0)?)?;
                nodes.push(square);
                return is_square(graph, entry).then_some(nodes);
            }
            "ReduceSumSquare" => return Some(nodes),
            _ => passed(graph, before)?,
        };
    }
}

/// Nodes from a root to the divisions by it; whether there are any.
fn follow(graph: &Graph, value: ValueId, inverse: bool, nodes: &mut Vec<NodeId>) -> bool {
    let mut divides = false;
    for reader in graph.value(value).uses() {
        let node = graph.node(reader.node);
        if nodes.contains(&reader.node) || !node.domain().is_empty() {
            continue;
        }
        let divided = (node.is("Div") && reader.slot == 1) || (inverse && node.is("Mul"));
        if divided {
            nodes.push(reader.node);
            divides = true;
            continue;
        }
        let reciprocal = node.is("Reciprocal");
        let stays = reciprocal || passed(graph, node) == Some(value) || (node.is("Expand") && reader.slot == 0);
        let Some(output) = node.output(0).filter(|_| stays) else { continue };
        let mut behind = Vec::new();
        if follow(graph, output, inverse != reciprocal, &mut behind) {
            nodes.push(reader.node);
            nodes.extend(behind);
            divides = true;
        }
    }
    divides
}

/// The value that a node passes on, but for a constant that is added or a bound, or on other axes.
fn passed(graph: &Graph, node: &Node) -> Option<ValueId> {
    let constant = |value: ValueId| graph.constant(value).is_some();
    match node.op() {
        "Add" | "Max" => {
            let [a, b] = node.two_inputs()?;
            match (constant(a), constant(b)) {
                (false, true) => Some(a),
                (true, false) => Some(b),
                _ => None,
            }
        }
        "Clip" | "Relu" | "Reshape" | "Squeeze" | "Unsqueeze" => node.input(0),
        _ => None,
    }
}

fn is_square(graph: &Graph, node: &Node) -> bool {
    match node.op() {
        "Pow" => exponent(graph, node) == Some(2.0),
        "Mul" => node.two_inputs().is_some_and(|[a, b]| a == b),
        _ => false,
    }
}

/// Whether a root is taken of the reciprocal.
fn is_inverse(graph: &Graph, node: &Node) -> bool {
    node.is("Pow") && exponent(graph, node) == Some(-0.5)
}

fn exponent(graph: &Graph, node: &Node) -> Option<f32> {
    graph.constant(node.input(1)?).and_then(TensorProto::scalar_f32)
}

fn producer(graph: &Graph, value: ValueId) -> Option<(NodeId, &Node)> {
    let (id, _) = graph.value(value).producer()?;
    Some((id, graph.node(id))).filter(|(_, node)| node.domain().is_empty())
}
