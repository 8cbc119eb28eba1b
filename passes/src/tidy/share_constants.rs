//! Pass `share-constants`: merges initializers that hold the same tensor. No value changes.
//!
//! Two tensors are the same if their element types, shapes and bytes are equal: floats are compared by their bits, so 0
//! and −0 remain distinct. The first of equal tensors stays, and every reader of the others, sub-graphs included, reads
//! the first.
//!
//! Not changed: external tensors, whose elements would have to be read, strings, sparse tensors, and initializers of
//! sub-graphs. Declined: a tensor that the caller knows by name, as a graph output or an input it can override; a
//! tensor that a sub-graph reads, if any sub-graph defines a value with the name of the first.

use crate::ir::{DataType, Graph, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError, Plan, Rewrite};
use std::borrow::Cow;
use std::collections::HashMap;

/// Merges equal initializers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShareConstants;

impl Pass for ShareConstants {
    fn name(&self) -> &'static str {
        "share-constants"
    }

    fn about(&self) -> &'static str {
        "initializers that hold the same tensor become one"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut plan = Plan::default();
        for (value, first) in pairs(&model.graph) {
            let name = model.graph.value(value).name();
            plan.add(&model.graph, name, Ok(Some(Rewrite::default().forward(value, first))))?;
        }
        Ok(plan.apply(&mut model.graph))
    }
}

/// The key by which tensors are compared: element type, shape, and bytes of the elements.
type Key<'a> = (DataType, &'a [i64], Cow<'a, [u8]>);

/// Values with the earlier value that holds the same tensor. A value that the caller knows by name is never the first,
/// since the caller may override it.
fn pairs(graph: &Graph) -> Vec<(ValueId, ValueId)> {
    let mut firsts: HashMap<Key<'_>, ValueId> = HashMap::new();
    let mut pairs = Vec::new();
    for (value, tensor) in graph.initializers() {
        let Some(key) = key(tensor) else { continue };
        match firsts.get(&key) {
            Some(&first) => pairs.push((value, first)),
            None if graph.is_input(value) || graph.is_output(value) => {}
            None => drop(firsts.insert(key, value)),
        }
    }
    pairs
}

fn key(tensor: &TensorProto) -> Option<Key<'_>> {
    let element = tensor.element_type().filter(|&e| e != DataType::String)?;
    let here = !tensor.is_external() && tensor.segment.is_none();
    here.then(|| (element, &tensor.dims[..], bytes(tensor)))
}

/// The elements in little-endian bytes. A type with a narrower form in `raw_data` than in a typed field has different
/// lengths in the two, so that different tensors never compare equal.
fn bytes(tensor: &TensorProto) -> Cow<'_, [u8]> {
    if let Some(raw) = &tensor.raw_data {
        return Cow::Borrowed(raw);
    }
    let floats = tensor.float_data.iter().flat_map(|v| v.to_le_bytes());
    let doubles = tensor.double_data.iter().flat_map(|v| v.to_le_bytes());
    let integers = tensor.int32_data.iter().flat_map(|v| v.to_le_bytes());
    let long_integers = tensor.int64_data.iter().flat_map(|v| v.to_le_bytes());
    let unsigned = tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes());
    Cow::Owned(floats.chain(doubles).chain(integers).chain(long_integers).chain(unsigned).collect())
}

#[cfg(test)]
mod tests {
    use super::key;
    use crate::ir::TensorProto;

    #[test]
    fn typed_fields_are_the_same_as_raw_bytes_only_where_they_are_as_wide() {
        let raw = TensorProto::from_f32("raw", &[2], &[1.0, -0.0]);
        let typed = TensorProto { raw_data: None, float_data: vec![1.0, -0.0], ..raw.clone() };
        assert!(key(&raw).is_some() && key(&raw) == key(&typed));
        let raw = TensorProto::from_i8("raw", &[4], &[1, 0, 0, 0]);
        let typed = TensorProto { raw_data: None, int32_data: vec![1, 0, 0, 0], ..raw.clone() };
        assert!(key(&raw) != key(&typed) && key(&typed) == key(&typed.clone()));
    }
}
