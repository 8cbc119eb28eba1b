//! Constants that a few bytes of a file make huge.
//!
//! tract computes what only depends on constants while it loads a model, and ends the process where there is no memory
//! for it. Operators whose constant inputs say how much they make are looked at before.

use crate::engine::EngineError;
use crate::runtime::memory;
use msq_passes::ir::{GraphProto, NodeProto, TensorProto};
use std::collections::HashMap;

/// Lists of dimensions are no longer than this.
const DIMENSIONS: usize = 64;
/// Bytes of the widest element.
const WIDEST: u64 = 8;

/// What is known of the values of a graph.
#[derive(Clone, Default)]
struct Known<'a> {
    /// Whole numbers of short constants.
    numbers: HashMap<&'a str, Vec<i64>>,
    /// How many elements a value has, at least.
    elements: HashMap<&'a str, u64>,
}

/// Refuses a graph with an operator that makes more than there is memory for of constants.
pub(super) fn refuse(graph: &GraphProto) -> Result<(), EngineError> {
    refuse_inside(graph, Known::default())
}

fn refuse_inside<'a>(graph: &'a GraphProto, mut known: Known<'a>) -> Result<(), EngineError> {
    for tensor in &graph.initializer {
        known.add(tensor.name(), tensor);
    }
    for node in &graph.node {
        if let Some(elements) = known.made_by(node) {
            let bytes = usize::try_from(elements.saturating_mul(WIDEST)).unwrap_or(usize::MAX);
            let named = node.name.as_ref().filter(|name| !name.is_empty()).or(node.output.first());
            if !memory::is_there(bytes) {
                let label = named.map_or("", String::as_str);
                let reason = format!("there is no memory for the {elements} elements that node `{label}` makes");
                return Err(EngineError::Memory { reason });
            }
            known.elements.extend(node.output.first().map(|output| (output.as_str(), elements)));
        }
        for attribute in &node.attribute {
            if let (Some("Constant"), Some(tensor), [output]) =
                (node.op_type.as_deref(), &attribute.t, &node.output[..])
            {
                known.add(output, tensor);
            }
            for graph in attribute.g.iter().chain(&attribute.graphs) {
                refuse_inside(graph, known.clone())?;
            }
        }
    }
    Ok(())
}

impl<'a> Known<'a> {
    fn add(&mut self, name: &'a str, tensor: &TensorProto) {
        let Ok(count) = tensor.element_count() else { return };
        self.elements.insert(name, count as u64);
        if count <= DIMENSIONS && !tensor.is_float() && !tensor.is_external() {
            self.numbers.extend(tensor.to_i64().ok().map(|numbers| (name, numbers)));
        }
    }

    /// How many elements a node makes, as far as constants say.
    fn made_by(&self, node: &NodeProto) -> Option<u64> {
        let numbers = |slot: usize| Some(self.numbers.get(node.input.get(slot)?.as_str())?.as_slice());
        let elements = |slot: usize| node.input.get(slot).and_then(|name| self.elements.get(name.as_str()).copied());
        let from = elements(0).unwrap_or(1);
        match node.op_type.as_deref()? {
            "ConstantOfShape" => Some(product(1, numbers(0)?)),
            // Where a dimension is 1 it is that of the input.
            "Expand" => Some(product(1, numbers(1)?).max(from)),
            "Tile" | "OneHot" => Some(product(from, numbers(1)?)),
            "Resize" => Some(product(1, numbers(3)?)),
            "Range" => match (numbers(0)?, numbers(1)?, numbers(2)?) {
                (&[start], &[limit], &[step]) if step != 0 => {
                    let (span, step) = (i128::from(limit) - i128::from(start), i128::from(step));
                    Some(u64::try_from((span / step).max(0)).unwrap_or(u64::MAX))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// The product of dimensions, those that stand for others left out.
fn product(from: u64, dimensions: &[i64]) -> u64 {
    let dimensions = dimensions.iter().filter_map(|&n| u64::try_from(n).ok());
    dimensions.fold(from, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::text;

    fn said(body: &str) -> Option<String> {
        let text = format!("<ir_version: 8, opset_import: [\"\": 17]> net (float[N] x) => (float[M] y) {body}");
        let graph = text::parse(&text).unwrap().graph.unwrap();
        refuse(&graph).err().map(|error| error.to_string())
    }

    #[test]
    fn huge_constants_are_refused() {
        for (body, elements) in [
            ("<int64[2] s = {1099511627776, 1048576}> { y = ConstantOfShape (s) }", 1_u64 << 60),
            ("{ s = Constant <value = int64[1] {1152921504606846976}> ()  y = ConstantOfShape (s) }", 1 << 60),
            ("<float[1] c = {1}, int64[2] s = {1073741824, 1073741824}> { y = Expand (c, s) }", 1 << 60),
            (
                "<float[4] c = {1, 2, 3, 4}, int64[1] s = {65536}, int64[1] l = {4398046511104}>
                 { t = Tile (c, s)  y = Tile (t, l) }",
                1 << 60,
            ),
            ("<int64 a = {0}, int64 b = {2305843009213693952}, int64 c = {2}> { y = Range (a, b, c) }", 1 << 60),
            ("<int64[3] s = {9223372036854775807, 2, 2}> { y = ConstantOfShape (s) }", u64::MAX),
        ] {
            let said = said(body).unwrap_or_else(|| panic!("{body}"));
            let expected = format!("no memory for the {elements} elements that node `y` makes");
            assert!(said.contains(&expected), "{body}: {said}");
        }
    }

    #[test]
    fn inside_sub_graphs_too() {
        let inner = "g () => (float[M] z) { z = ConstantOfShape (s) }";
        let body = format!(
            "<int64[1] s = {{1152921504606846976}}, bool b = {{1}}>
             {{ y = If (b) <then_branch = {inner}, else_branch = {inner}> }}"
        );
        assert!(said(&body).unwrap().contains("node `z`"));
    }

    #[test]
    fn ordinary_ones_are_not() {
        assert_eq!(said("<int64[2] s = {-1, 1048576}> { y = Expand (x, s) }"), None);
        assert_eq!(said("<int64 a = {9}, int64 b = {0}, int64 c = {1}> { y = Range (a, b, c) }"), None);
        assert_eq!(said("<float[2] c = {1, 2}, int64[1] s = {0}> { y = Tile (c, s) }"), None);
        assert_eq!(said("{ s = Shape (x)  y = ConstantOfShape (s) }"), None);
    }
}
