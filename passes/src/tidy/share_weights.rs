//! Pass `share-weights`: large constants that hold the same elements are stored once. No value changes.
//!
//! * Equal tensors (element type, shape and bytes) become one initializer, as in `share-constants`.
//! * A tensor with the bytes of another and a different shape is that one behind a `Reshape`.
//! * A matrix that is another one transposed is that one behind a `Transpose`. Axes of length 1 do not count, and leading
//!   or trailing axes count as one where that makes a matrix: `[I, O]` of a `MatMul` is the transpose of `[O, I, 1, 1]`
//!   of a `Conv`, and of an embedding table of O rows.
//!
//! The nodes read constants alone, so runtimes evaluate them once, when they load the model, and then find the weights
//! where they look for them.
//!
//! The first of several stays. Not changed: tensors of fewer than 256 bytes, or 1,024 where a node is needed, external
//! tensors, strings, and initializers that the caller knows by name as an input or output of the graph.

use crate::ir::{AttributeProto, DataType, Graph, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use bytes::Bytes;
use std::collections::HashMap;

/// Stores large constants with the same elements once.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShareWeights;

/// Bytes from which on a tensor is looked at, and those from which on it is worth a node.
const LEAST: usize = 256;
const WORTH_A_NODE: usize = 1024;

impl Pass for ShareWeights {
    fn name(&self) -> &'static str {
        "share-weights"
    }

    fn about(&self) -> &'static str {
        "large constants with the same elements are stored once, reshaped or transposed where need be"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for (value, first, view) in matches(&model.graph) {
            if hidden(&model.graph, value, first) {
                let reason = "a sub-graph that reads it has a value called as the one that holds the same elements";
                outcome.decline(model.graph.value(value).name(), reason);
                continue;
            }
            replace(&mut model.graph, value, first, &view);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// Whether the name of the first means something else in a sub-graph that reads the value.
fn hidden(graph: &Graph, value: ValueId, first: ValueId) -> bool {
    !graph.value(value).captures().is_empty() && graph.is_reserved(graph.value(first).name())
}

/// How one tensor is made of another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum View {
    Same,
    Reshaped,
    /// The other seen as a matrix of these axes, transposed.
    Transposed([usize; 2]),
}

/// A tensor that can be shared.
struct Candidate<'a> {
    value: ValueId,
    dims: &'a [i64],
    raw: &'a Bytes,
    width: usize,
}

/// Values with an earlier value of the same elements.
fn matches(graph: &Graph) -> Vec<(ValueId, ValueId, View)> {
    let mut alike: HashMap<(DataType, usize), Vec<Candidate>> = HashMap::new();
    let mut order = Vec::new();
    for (value, tensor) in graph.initializers() {
        let Some((element, candidate)) = candidate(graph, value, tensor) else { continue };
        let key = (element, candidate.raw.len());
        let group = alike.entry(key).or_insert_with(|| {
            order.push(key);
            Vec::new()
        });
        group.push(candidate);
    }
    order.iter().flat_map(|key| matches_in(&alike[key])).collect()
}

fn candidate<'a>(graph: &Graph, value: ValueId, tensor: &'a TensorProto) -> Option<(DataType, Candidate<'a>)> {
    let element = tensor.element_type().filter(|&e| e != DataType::String)?;
    let raw = tensor.raw_data.as_ref().filter(|raw| raw.len() >= LEAST)?;
    let known = graph.is_input(value) || graph.is_output(value);
    let here = !tensor.is_external() && tensor.segment.is_none() && !known && graph.is_used(value);
    // Elements narrower than a byte cannot be moved as bytes.
    let width = element.bits().filter(|bits| bits.is_multiple_of(8))? / 8;
    here.then_some((element, Candidate { value, dims: &tensor.dims, raw, width }))
}

fn matches_in(group: &[Candidate]) -> Vec<(ValueId, ValueId, View)> {
    let mut firsts: Vec<&Candidate> = Vec::new();
    let mut found = Vec::new();
    for candidate in group {
        let earlier = firsts.iter().find_map(|first| Some((first.value, candidate.view_of(first)?)));
        match earlier {
            Some((first, view)) => found.push((candidate.value, first, view)),
            None => firsts.push(candidate),
        }
    }
    found
}

impl Candidate<'_> {
    fn view_of(&self, first: &Self) -> Option<View> {
        if self.raw == first.raw {
            let same = self.dims == first.dims;
            let worth = same || self.raw.len() >= WORTH_A_NODE;
            return worth.then_some(if same { View::Same } else { View::Reshaped });
        }
        if self.raw.len() < WORTH_A_NODE {
            return None;
        }
        // A transposed matrix starts and ends with the same elements.
        let end = self.raw.len() - self.width;
        if self.raw[..self.width] != first.raw[..self.width] || self.raw[end..] != first.raw[end..] {
            return None;
        }
        let own = self.matrices();
        let matrix = |[rows, columns]: [usize; 2]| {
            (own.contains(&[columns, rows]) && self.is_transpose(first, rows, columns)).then_some([rows, columns])
        };
        first.matrices().into_iter().find_map(matrix).map(View::Transposed)
    }

    /// The matrices that the tensor is where leading or trailing axes count as one.
    fn matrices(&self) -> Vec<[usize; 2]> {
        let shape: Vec<usize> = self.dims.iter().map(|&n| n as usize).filter(|&n| n != 1).collect();
        let mut cuts: Vec<[usize; 2]> =
            (1..shape.len()).map(|at| [shape[..at].iter().product(), shape[at..].iter().product()]).collect();
        cuts.dedup();
        cuts
    }

    /// Whether this is `first`, `[rows, columns]`, transposed.
    fn is_transpose(&self, first: &Self, rows: usize, columns: usize) -> bool {
        let width = self.width;
        let element = |index: usize| index * width..(index + 1) * width;
        let row =
            |r: usize| (0..columns).all(|c| first.raw[element(r * columns + c)] == self.raw[element(c * rows + r)]);
        (0..rows).all(row)
    }
}

/// Makes all that reads `value` read `first`, seen so.
fn replace(graph: &mut Graph, value: ValueId, first: ValueId, view: &View) {
    let name = graph.value(value).name().to_owned();
    let (shape, held): (Vec<i64>, Vec<i64>) = {
        let dims = |v: ValueId| graph.initializer(v).map(|tensor| tensor.dims.clone()).unwrap_or_default();
        (dims(value), dims(first))
    };
    let mut made = first;
    let mut now = held;
    if let View::Transposed([rows, columns]) = *view {
        let matrix = [rows as i64, columns as i64];
        made = reshaped(graph, made, &now, &matrix, &name);
        let perm = AttributeProto::ints("perm", &[1, 0]);
        made = graph.add_op("Transpose", &[Some(made)], vec![perm], &format!("{name}_transposed"));
        now = vec![matrix[1], matrix[0]];
    }
    made = reshaped(graph, made, &now, &shape, &name);
    graph.replace_uses(value, made);
    graph.remove_value(value);
}

fn reshaped(graph: &mut Graph, value: ValueId, from: &[i64], to: &[i64], stem: &str) -> ValueId {
    if from == to {
        return value;
    }
    let shape = graph.add_initializer(TensorProto::from_i64(&format!("{stem}_shape"), &[to.len()], to));
    graph.add_op("Reshape", &[Some(value), Some(shape)], Vec::new(), &format!("{stem}_reshaped"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{export, import, text};
    use crate::pass::run_pass;

    const TEXT: &str = "<ir_version: 8, opset_import: [\"\": 17]>
net (float[1,24,2,2] x, float[n,24] v) => (float[n,48] y, float[1,48,2,2] z)
<float[24,48] w = {}, float[48,24,1,1] filter = {}> { y = MatMul (v, w) z = Conv (x, filter) }";

    #[test]
    fn a_matrix_is_another_one_transposed() {
        let mut model = import(text::parse(TEXT).unwrap()).unwrap();
        let find = |model: &Model, name: &str| model.graph.find(name).unwrap();
        let values = model.graph.initializer(find(&model, "w")).unwrap().to_f32().unwrap();
        let turned: Vec<f32> = (0..values.len()).map(|at| values[at % 24 * 48 + at / 24]).collect();
        let filter = find(&model, "filter");
        model.graph.set_initializer(filter, TensorProto::from_f32("filter", &[48, 24, 1, 1], &turned));
        assert_eq!(run_pass(&ShareWeights, &mut model, true).unwrap().outcome.changed, 1);
        let text = text::print(&export(&model));
        for line in ["Transpose <perm = [1, 0]> (w)", "Reshape (filter_transposed, filter_shape)"] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(model.graph.initializers().len(), 2);
    }

    #[test]
    fn other_elements_are_no_transpose() {
        let mut model = import(text::parse(TEXT).unwrap()).unwrap();
        assert_eq!(run_pass(&ShareWeights, &mut model, true).unwrap().outcome.changed, 0);
    }
}
