//! Pass `share-constants`: initializers that hold the same tensor become one. No value changes.
//!
//! Two tensors are the same if element type, shape and the elements' bytes are: floats are told apart by their bits, so
//! that 0 and −0 stay two. Of those that are the same the first in the file stays and every reader of the others,
//! sub-graphs included, reads it.
//!
//! Left alone: tensors in a file of their own, whose elements would have to be read, strings, sparse tensors, and
//! initializers of sub-graphs. Declined: a tensor the caller knows by name, being a graph output or an input it can
//! override; one that a sub-graph reads while it, or another, calls a value of its own by the name of the first.

use crate::ir::{DataType, Graph, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError, Plan, Rewrite};
use std::borrow::Cow;
use std::collections::HashMap;

/// Makes equal initializers one.
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

/// What makes two tensors the same: element type, shape, and bytes of the elements.
type Key<'a> = (DataType, &'a [i64], Cow<'a, [u8]>);

/// Values with the earlier one that holds the same tensor. What the caller knows by name is never the first: it may be
/// overridden.
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

/// The elements in little-endian bytes. Types that have a narrower form in `raw_data` than in a typed field differ
/// in length between the two, so that no two tensors look the same that are not.
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
