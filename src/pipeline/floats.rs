//! Constants that are float in the float model and in the quantized graph as well, with where they are read: what a note
//! names where a file has not become smaller.

use crate::report::numbers::{bytes, counted};
use msq_passes::ir::{Graph, GraphProto, Model, NodeProto, TensorProto};
use std::collections::HashSet;

/// Bytes of a constant from which on it is looked at.
const LEAST: usize = 512;
/// Such constants are named where they are one of so many parts of the file.
const PART: usize = 8;
/// Constants that are named.
const NAMED: usize = 4;

/// A constant that stays float.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Float {
    name: String,
    bytes: usize,
    /// The operator or the node that reads it.
    place: String,
}

/// What is to be said of the constants of a quantized graph that stay float, if they are a large part of it.
pub(super) fn staying(float: &Model, quantized: &Model) -> Option<String> {
    let before: HashSet<String> = constants(&float.graph).into_iter().map(|constant| constant.name).collect();
    let mut found = constants(&quantized.graph);
    found.retain(|constant| before.contains(&constant.name));
    let total: usize = found.iter().map(|constant| constant.bytes).sum();
    if found.is_empty() || PART as u64 * (total as u64) < quantized.stored_bytes() {
        return None;
    }
    found.sort_by_key(|constant| std::cmp::Reverse(constant.bytes));
    let named =
        |constant: &Float| format!("`{}` ({}, {})", constant.name, bytes(constant.bytes as u64), constant.place);
    let names: Vec<String> = found.iter().take(NAMED).map(named).collect();
    let more = found.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let stay = if found.len() == 1 { "stays" } else { "stay" };
    let constants = counted(found.len(), "constant");
    Some(format!("{constants} of {} {stay} float: {}{more}", bytes(total as u64), names.join(", ")))
}

/// The float constants of a graph and of its sub-graphs.
fn constants(graph: &Graph) -> Vec<Float> {
    let mut found = Vec::new();
    for (value, tensor) in graph.initializers() {
        let value = graph.value(value);
        let place = match (value.uses().first(), value.captures().first()) {
            (Some(first), _) => format!("read by `{}`", graph.node(first.node).op()),
            (None, Some(&holder)) => format!("read in a sub-graph of `{}`", graph.node(holder).label(graph)),
            (None, None) => "an output".to_owned(),
        };
        add(&mut found, tensor, value.name(), &place);
    }
    for (_, node) in graph.nodes() {
        let place = format!("in a sub-graph of `{}`", node.label(graph));
        node.subgraphs().for_each(|body| inside(&mut found, body, &place));
    }
    found
}

fn inside(found: &mut Vec<Float>, body: &GraphProto, place: &str) {
    for tensor in &body.initializer {
        add(found, tensor, tensor.name(), place);
    }
    for node in &body.node {
        let tensors = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
        let constant = tensors.filter(|_| node.op_type() == "Constant").zip(&node.output);
        constant.for_each(|(tensor, name)| add(found, tensor, name, place));
    }
    body.node.iter().flat_map(NodeProto::subgraphs).for_each(|nested| inside(found, nested, place));
}

fn add(found: &mut Vec<Float>, tensor: &TensorProto, name: &str, place: &str) {
    let size = tensor.byte_count().unwrap_or_default();
    if tensor.is_float() && size >= LEAST {
        found.push(Float { name: name.to_owned(), bytes: size, place: place.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn model(constants: &[(&str, usize)], body: &str) -> Model {
        let text =
            format!("<ir_version: 8, opset_import: [\"\": 17]> net (float[1,16] x, bool c) => (float[1,16] y) {body}");
        let mut proto = text::parse(&text).unwrap();
        let fill = |name: &str| {
            let &(_, rows) = constants.iter().find(|(known, _)| *known == name).unwrap();
            TensorProto::from_f32(name, &[rows, 16], &vec![0.5; 16 * rows])
        };
        let graph = proto.graph.as_mut().unwrap();
        graph.initializer.iter_mut().for_each(|tensor| *tensor = fill(tensor.name()));
        for body in graph.node.iter_mut().flat_map(NodeProto::subgraphs_mut) {
            body.initializer.iter_mut().for_each(|tensor| *tensor = fill(tensor.name()));
        }
        import(proto).unwrap()
    }

    #[test]
    fn constants_of_sub_graphs_are_named_with_their_place() {
        let body = "<float[16,16] w = {}, float[16,16] z = {}> { a = Add (x, z) y = If <
            then_branch = t () => (float[1,16] p) <float[32,16] v = {}> { k = MatMul (v, w) p = Add (x, k) },
            else_branch = e () => (float[1,16] q) { q = Neg (a) }> (c) }";
        let found = model(&[("w", 16), ("v", 32), ("z", 16)], body);
        assert_eq!(
            staying(&found, &found).unwrap(),
            "3 constants of 5 KB stay float: `v` (3 KB, in a sub-graph of `y`), `w` (2 KB, read in a sub-graph of `y`), \
             `z` (2 KB, read by `Add`)"
        );
    }

    #[test]
    fn scales_and_small_constants_are_not_named() {
        let float = model(&[("w", 4)], "<float[4,16] w = {}> { y = Add (x, w) }");
        let quantized = model(
            &[("w", 4), ("scale", 64)],
            "<float[4,16] w = {}, float[64,16] scale = {}> { s = Add (x, w) y = Add (s, scale) }",
        );
        assert_eq!(staying(&float, &quantized), None);
    }
}
