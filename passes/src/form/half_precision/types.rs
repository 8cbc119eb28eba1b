//! Element types of values, further than other passes follow them.

use crate::analysis::element_types::element_types;
use crate::ir::{DataType, Graph, ValueId};
use crate::ops::schema;
use std::collections::HashMap;

/// Operators that write truth values.
const TRUTH: [&str; 11] =
    ["And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor"];

/// Element types, as far as they are declared or follow from what nodes read, through every operator whose schema says so.
pub(super) fn types(graph: &Graph) -> HashMap<ValueId, DataType> {
    let mut types = element_types(graph);
    for (_, node) in graph.nodes().filter(|(_, node)| node.domain().is_empty()) {
        let read = |&slot: &usize| node.input(slot).and_then(|value| types.get(&value)).copied();
        let like = || schema(node.op()).and_then(|schema| schema.like_output.iter().find_map(read));
        let Some(written) = (if TRUTH.contains(&node.op()) { Some(DataType::Bool) } else { like() }) else { continue };
        // Outputs behind the first may be masks and indices; those of `Split` are not.
        let outputs = if node.is("Split") { node.outputs() } else { node.outputs().get(..1).unwrap_or_default() };
        for &value in outputs.iter().flatten() {
            types.entry(value).or_insert(written);
        }
    }
    types
}
