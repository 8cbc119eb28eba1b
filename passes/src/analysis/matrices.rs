//! Tables of matrices, `[n, …, rows, columns]`, that a `Gather` looks whole matrices up in, such as the experts of a mixture:
//! the axes along which their scales lie.
//!
//! One scale per matrix would be that of its largest value. As in a layer, values that a product sums over share a scale:
//!
//! ```text
//! y = MatMul(x, Gather(W, i))    y_c = Σ_r x_r·W_irc    one scale per (i, c), of shape [n, 1, columns]
//! y = MatMul(Gather(W, i), x)    y_r = Σ_c W_irc·x_c    one scale per (i, r), of shape [n, rows, 1]
//! ```
//!
//! The product is found behind what moves matrices without taking them apart. Where none is found, or it sums over few values,
//! rows of the last axis share a scale. Where these are short as well, what is looked up by one index does: scales would take a
//! noticeable part of the file.

use crate::ir::{Graph, Node, NodeId, ValueId};
use crate::ops::facts;
use std::collections::HashSet;

/// Fewest values that share a scale: its four bytes are at most a sixteenth of theirs in 8 bits.
const LEAST: usize = 64;

/// The axes of the scales of a table of this shape that is looked up along an axis, and whether products read what is looked
/// up as matrices.
pub(super) fn axes_of_scales(graph: &Graph, table: ValueId, shape: &[usize], along: usize) -> (Vec<usize>, bool) {
    let rank = shape.len();
    if rank < 3 {
        return (vec![along], false);
    }
    // Elsewhere the number of axes of the indices decides which axis a product sums over.
    let summed = if along + 2 < rank { summed_axis(graph, table, rank) } else { None };
    let last = (0..rank).rev().find(|&axis| axis != along);
    let shared = [summed, last].into_iter().flatten().find(|&axis| shape[axis] >= LEAST);
    let axes = shared.map_or_else(|| vec![along], |shared| (0..rank).filter(|&axis| axis != shared).collect());
    (axes, summed.is_some())
}

/// The axis of a table with so many that the first product with what is looked up sums over.
fn summed_axis(graph: &Graph, table: ValueId, rank: usize) -> Option<usize> {
    let lookups = graph.value(table).uses().iter().filter(|read| read.slot == 0);
    let lookups = lookups.map(|read| graph.node(read.node)).filter(|node| node.is("Gather"));
    lookups.filter_map(|node| node.output(0)).find_map(|value| Some(rank - 1 - summed_behind(graph, value)?))
}

/// The axis of a value that a product sums over, counted from the last, which is 0.
fn summed_behind(graph: &Graph, value: ValueId) -> Option<usize> {
    // Whether rows and columns are swapped.
    let (mut open, mut seen) = (vec![(value, false)], HashSet::new());
    while let Some((value, swapped)) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        for read in graph.value(value).uses() {
            let node = graph.node(read.node);
            if let Some(axis) = summed_by(node, read.slot) {
                return Some(if swapped { 1 - axis } else { axis });
            }
            if let (Some(swaps), Some(output)) = (swaps(graph, read.node, read.slot), node.output(0)) {
                open.push((output, swapped != swaps));
            }
        }
    }
    None
}

/// Which of the last two axes of an operand a product sums over, counted from the last.
fn summed_by(node: &Node, slot: usize) -> Option<usize> {
    if node.is("Einsum") {
        return summed_by_einsum(node.string("equation")?, slot);
    }
    let operands = facts(node.op()).operands.filter(|_| node.domain().is_empty())?;
    let is_set = |attribute: &str| node.int_or(attribute, 0) != 0;
    // Of two axes, the one beside that of the outputs: counted from the last it has the other's number.
    operands.layout.output_axis(slot, 2, is_set).filter(|_| operands.weight.contains(&slot))
}

/// The same of an operand of `Einsum`: the only axis that the result does not have, if it is one of the last two.
fn summed_by_einsum(equation: &str, slot: usize) -> Option<usize> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = equation.split_once("->")?;
    let own = operands.split(',').nth(slot).filter(|own| own.chars().all(char::is_alphabetic))?;
    let mut summed = own.chars().rev().enumerate().filter(|(_, letter)| !result.contains(*letter));
    let (axis, _) = summed.next().filter(|(axis, _)| *axis < 2)?;
    summed.next().is_none().then_some(axis)
}

/// Whether a node that moves whole matrices swaps their rows and columns; `None` for one that does anything else.
fn swaps(graph: &Graph, id: NodeId, slot: usize) -> Option<bool> {
    let node = graph.node(id);
    if slot != 0 || !node.domain().is_empty() {
        return None;
    }
    match node.op() {
        "Cast" | "Identity" => Some(false),
        "Transpose" => {
            let [.., a, b] = *node.ints("perm") else { return None };
            let last = node.ints("perm").len() as i64 - 1;
            let last_two = a.min(b) == last - 1 && a.max(b) == last;
            last_two.then_some(a > b)
        }
        "Expand" | "Reshape" | "Squeeze" | "Unsqueeze" => {
            let matrix = |value: Option<ValueId>| match graph.value(value?).shape()?[..] {
                [.., rows, columns] => rows.zip(columns),
                _ => None,
            };
            let read = matrix(node.input(0))?;
            (matrix(node.output(0)) == Some(read)).then_some(false)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    /// The axes of the scales of a table `t`, and whether products read what is looked up.
    fn found(table: [usize; 3], nodes: &str) -> (Vec<usize>, bool) {
        let [n, rows, columns] = table;
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (int64[k] i, int64 one, float[k,a,b] x) => (float[k,c,d] y)
             <float[{n},{rows},{columns}] t = {{}}, int64[1] first = {{0}}> {{ {nodes} }}"
        );
        let model = import(text::parse(&text).unwrap()).unwrap();
        let value = model.graph.find("t").unwrap();
        let (_, gather) = model.graph.nodes().find(|(_, node)| node.is("Gather")).unwrap();
        let along = gather.int_or("axis", 0) as usize;
        axes_of_scales(&model.graph, value, &table, along)
    }

    #[test]
    fn values_that_a_product_sums_over_share_a_scale() {
        let columns = (vec![0, 2], true);
        let rows = (vec![0, 1], true);
        for (nodes, expected) in [
            ("e = Gather (t, i) y = MatMul (x, e)", &columns),
            ("e = Gather (t, i) y = MatMul (e, x)", &rows),
            ("e = Gather (t, i) f = Transpose <perm = [0, 2, 1]> (e) y = MatMul (x, f)", &rows),
            ("e = Gather (t, i) f = Transpose <perm = [0, 2, 1]> (e) y = MatMul (f, x)", &columns),
            ("e = Gather (t, i) h = Cast <to = 1> (e) y = Einsum <equation = \"kad, kdf -> kaf\"> (x, h)", &columns),
            ("e = Gather (t, i) y = Einsum <equation = \"kad,kfd->kaf\"> (x, e)", &rows),
            ("e = Gather (t, one) y = Gemm <transB = 1> (x, e)", &rows),
            ("e = Gather (t, one) y = Gemm (x, e)", &columns),
            ("e = Gather (t, i) f = Neg (e) y = Gather (t, i) z = MatMul (x, y)", &columns),
        ] {
            assert_eq!(found([8, 96, 192], nodes), *expected, "{nodes}");
        }
    }

    #[test]
    fn rows_share_a_scale_where_no_product_is_found() {
        let rows = (vec![0, 1], false);
        for nodes in [
            "e = Gather (t, i) y = Relu (e)",
            "e = Gather (t, i) f = Transpose <perm = [2, 0, 1]> (e) y = MatMul (x, f)",
            "e = Gather (t, i) y = Einsum <equation = \"kad,kdf->ka\"> (x, e)",
            "e = Gather (t, i) y = Einsum <equation = \"...d,...df->...f\"> (x, e)",
            // Which axis this is depends on the indices.
            "e = Gather <axis = 1> (t, i) y = MatMul (x, e)",
        ] {
            assert_eq!(found([8, 96, 192], nodes), rows, "{nodes}");
        }
        // What is looked up by one index has a scale of its own in any case.
        assert_eq!(found([8, 96, 192], "e = Gather <axis = 2> (t, i) y = Relu (e)"), (vec![0, 2], false));
    }

    #[test]
    fn few_values_do_not_have_a_scale_of_their_own() {
        let product = "e = Gather (t, i) y = MatMul (x, e)";
        assert_eq!(found([8, 32, 192], product), (vec![0, 1], true));
        assert_eq!(found([8, 32, 63], product), (vec![0], true));
        assert_eq!(found([8, 32, 64], product), (vec![0, 1], true));
    }

    /// A reshape that takes matrices apart ends the search, one that puts them together does not.
    #[test]
    fn shapes_tell_whether_matrices_stay_whole() {
        let text = |to: &str| {
            format!(
                "<ir_version: 8, opset_import: [\"\": 17]> g (int64[1] i, float[4,a] x) => (float[4,b] y)
                 <float[8,96,192] t = {{}}, int64[2] to = {{{to}}}, float[1,96,192] e, float[{to}] f>
                 {{ e = Gather (t, i) f = Reshape (e, to) y = MatMul (x, f) }}"
            )
        };
        for (to, axes) in [("96,192", vec![0, 2]), ("192,96", vec![0, 1])] {
            let model = import(text::parse(&text(to)).unwrap()).unwrap();
            let table = model.graph.find("t").unwrap();
            assert_eq!(axes_of_scales(&model.graph, table, &[8, 96, 192], 0).0, axes, "{to}");
        }
    }
}
