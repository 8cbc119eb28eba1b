//! Content hashes: what a value is computed from and how, in one number.
//!
//! h(value) = hash(operator, attributes, hashes of the inputs, which output); of a constant, its type, shape and elements;
//! of a graph input, its name. Equal hashes mean, but for a collision of 64 bits, equal values for equal inputs, in
//! whatever graphs they stand: names of nodes and inner values do not count.

use crate::ir::{Graph, TensorProto, ValueId, encoded};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use twox_hash::XxHash3_64;

/// The content hash of every value of a graph. The same graph has the same hashes in every build.
pub fn content_hashes(graph: &Graph) -> HashMap<ValueId, u64> {
    let mut hashes: HashMap<ValueId, u64> = HashMap::new();
    for (id, value) in graph.values() {
        if let Some(tensor) = graph.initializer(id) {
            hashes.insert(id, of_tensor(tensor));
        } else if value.producer().is_none() {
            hashes.insert(id, hashed(&("input", value.name())));
        }
    }
    for (_, node) in graph.nodes() {
        let read = |value: &ValueId| hashes.get(value).copied().unwrap_or_default();
        let mut hasher = XxHash3_64::new();
        (node.domain(), node.op()).hash(&mut hasher);
        for attribute in node.attributes() {
            // Sub-graphs too: the message says all there is.
            encoded(attribute).hash(&mut hasher);
        }
        node.inputs().iter().map(|input| input.as_ref().map(read)).collect::<Vec<_>>().hash(&mut hasher);
        node.captures().iter().map(read).collect::<Vec<_>>().hash(&mut hasher);
        let node_hash = hasher.finish();
        for (slot, value) in node.outputs().iter().enumerate() {
            if let Some(value) = value {
                hashes.insert(*value, hashed(&(node_hash, slot)));
            }
        }
    }
    hashes
}

/// The content hash of all outputs of a graph together.
pub fn content_hash(graph: &Graph) -> u64 {
    let hashes = content_hashes(graph);
    hashed(&graph.outputs().map(|output| hashes.get(&output).copied()).collect::<Vec<_>>())
}

fn of_tensor(tensor: &TensorProto) -> u64 {
    let mut rest = tensor.clone();
    let raw = rest.raw_data.take();
    rest.name = None;
    rest.doc_string = None;
    hashed(&(raw.as_deref(), encoded(&rest)))
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = XxHash3_64::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    fn hash(body: &str, value: &str) -> u64 {
        let text = format!("<ir_version: 8, opset_import: [\"\": 17]>\ng (float[2] x) => (float[2] y)\n{body}");
        let model = import(text::parse(&text).unwrap()).unwrap();
        content_hashes(&model.graph)[&model.graph.find(value).unwrap()]
    }

    #[test]
    fn names_of_nodes_and_inner_values_do_not_count() {
        let one = hash("<float[1] w = {1}> { a = Add(x, w) y = LeakyRelu<alpha: float = 0.5>(a) }", "y");
        let other = hash("<float[1] v = {1}> { b = Add(x, v) y = LeakyRelu<alpha: float = 0.5>(b) }", "y");
        assert_eq!(one, other);
    }

    #[test]
    fn all_that_a_value_is_computed_from_counts() {
        let changes = [
            "<float[1] w = {1}> { a = Add(x, w) y = LeakyRelu<alpha: float = 0.5>(a) }",
            "<float[1] w = {2}> { a = Add(x, w) y = LeakyRelu<alpha: float = 0.5>(a) }",
            "<double[1] w = {1}> { a = Add(x, w) y = LeakyRelu<alpha: float = 0.5>(a) }",
            "<float[1] w = {1}> { a = Sub(x, w) y = LeakyRelu<alpha: float = 0.5>(a) }",
            "<float[1] w = {1}> { a = Add(w, x) y = LeakyRelu<alpha: float = 0.5>(a) }",
            "<float[1] w = {1}> { a = Add(x, w) y = LeakyRelu<alpha: float = 0.25>(a) }",
            "<float[1] w = {1}> { a = Add(x, w) y = Relu(a) }",
        ];
        let mut hashes: Vec<u64> = changes.iter().map(|body| hash(body, "y")).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), changes.len());
    }

    #[test]
    fn what_comes_behind_does_not_count() {
        let one = hash("<float[1] w = {1}> { a = Add(x, w) y = Relu(a) }", "a");
        let other = hash("<float[1] w = {1}> { a = Add(x, w) y = Exp(a) }", "a");
        assert_eq!(one, other);
    }
}
