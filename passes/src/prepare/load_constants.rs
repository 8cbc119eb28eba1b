//! Pass `load-constants`: constants become tensors that are in the model, element for element.
//!
//! * External tensors of at most 4 KiB, and those of integers of at most 1 MiB, are read into the model: shapes, axes
//!   and biases, which every pass looks at, and which runtimes that infer shapes must find. Exporters write tensors of
//!   every size to the file beside the model. Larger ones stay where they are until their elements are needed. Tensors
//!   inside nodes and sub-graphs are read whatever their size, since nothing looks for files there.
//! * Sparse initializers, and `Constant` nodes of a sparse tensor, become dense ones: zeros except for the elements
//!   that are listed, with their places as numbers over the whole tensor or as one index per axis.
//!
//! Declined: a sparse tensor whose places do not fit its shape, or which is larger than 256 MiB.

use crate::ir::{AttributeProto, DataType, GraphProto, Model, NodeProto, SparseTensorProto, TensorProto, export};
use crate::pass::{Outcome, Pass, PassError};

/// Reads small external tensors and writes sparse ones out.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadConstants;

/// External tensors of no more bytes are read.
const SMALL: usize = 4 << 10;
/// External tensors of integers of no more bytes are read.
const SMALL_INTEGERS: usize = 1 << 20;
/// Dense tensors of more bytes are not made.
const LARGEST: usize = 1 << 28;

impl Pass for LoadConstants {
    fn name(&self) -> &'static str {
        "load-constants"
    }

    fn about(&self) -> &'static str {
        "small external tensors are read, sparse tensors are written out"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        if !has_work(model) {
            return Ok(Outcome::default());
        }
        let mut message = export(model);
        let mut loading = Loading { model, outcome: Outcome::default() };
        if let Some(graph) = &mut message.graph {
            loading.graph(graph, false)?;
        }
        for node in message.functions.iter_mut().flat_map(|function| &mut function.node) {
            loading.node(node)?;
        }
        let outcome = loading.outcome;
        if outcome.changed > 0 {
            model.replace(message)?;
        }
        Ok(outcome)
    }
}

/// Whether there is anything to load: most models are not copied for nothing.
fn has_work(model: &Model) -> bool {
    let graph = &model.graph;
    let external = graph.initializers().any(|(_, tensor)| tensor.is_external() && is_small(tensor));
    let sparse = graph.values().any(|(value, _)| graph.is_sparse_initializer(value));
    let in_nodes = graph.nodes().any(|(_, node)| node.attributes().iter().any(holds));
    external || sparse || in_nodes || model.has_functions()
}

fn holds(attribute: &AttributeProto) -> bool {
    let external = attribute.t.iter().chain(&attribute.tensors).any(TensorProto::is_external);
    let graphs = attribute.g.iter().chain(&attribute.graphs);
    external
        || attribute.sparse_tensor.is_some()
        || graphs.into_iter().any(|graph| {
            graph.initializer.iter().any(TensorProto::is_external)
                || !graph.sparse_initializer.is_empty()
                || graph.node.iter().any(|node| node.attribute.iter().any(holds))
        })
}

struct Loading<'a> {
    model: &'a Model,
    outcome: Outcome,
}

impl Loading<'_> {
    fn graph(&mut self, graph: &mut GraphProto, nested: bool) -> Result<(), PassError> {
        for tensor in &mut graph.initializer {
            if nested || is_small(tensor) {
                self.load(tensor)?;
            }
        }
        for sparse in std::mem::take(&mut graph.sparse_initializer) {
            match self.dense(&sparse)? {
                Ok(tensor) => {
                    graph.initializer.push(tensor);
                    self.outcome.count();
                }
                Err(reason) => {
                    self.outcome.decline(sparse.values.as_ref().map_or("", TensorProto::name), reason);
                    graph.sparse_initializer.push(sparse);
                }
            }
        }
        graph.node.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &mut NodeProto) -> Result<(), PassError> {
        for attribute in &mut node.attribute {
            for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
                self.load(tensor)?;
            }
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.graph(graph, true)?;
            }
        }
        let is_constant = node.op_type() == "Constant";
        let [attribute] = &mut node.attribute[..] else { return Ok(()) };
        let Some(sparse) = attribute.sparse_tensor.as_ref().filter(|_| is_constant) else { return Ok(()) };
        match self.dense(sparse)? {
            Ok(tensor) => {
                *attribute = AttributeProto::tensor("value", tensor);
                self.outcome.count();
            }
            Err(reason) => self.outcome.decline(node.output.first().map_or("", String::as_str), reason),
        }
        Ok(())
    }

    fn load(&mut self, tensor: &mut TensorProto) -> Result<(), PassError> {
        if tensor.is_external() {
            *tensor = self.model.loaded(tensor)?.into_owned();
            self.outcome.count();
        }
        Ok(())
    }

    /// The dense tensor, or why there is none.
    fn dense(&self, sparse: &SparseTensorProto) -> Result<Result<TensorProto, String>, PassError> {
        let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
            return Ok(Err("it has no elements or no places".to_owned()));
        };
        Ok(dense(&sparse.dims, &*self.model.loaded(values)?, &*self.model.loaded(indices)?))
    }
}

fn is_small(tensor: &TensorProto) -> bool {
    let integers = tensor.element_type().is_some_and(|element| !element.is_float());
    tensor.byte_count().is_some_and(|bytes| bytes <= if integers { SMALL_INTEGERS } else { SMALL })
}

fn dense(dims: &[i64], values: &TensorProto, indices: &TensorProto) -> Result<TensorProto, String> {
    let text = |error: crate::ir::TensorError| error.to_string();
    let name = values.name();
    let shape = TensorProto { dims: dims.to_vec(), ..TensorProto::from_i64(name, &[], &[]) }.shape().map_err(text)?;
    let element = values.element_type().unwrap_or(DataType::Float);
    let width = element.bits().filter(|bits| bits % 8 == 0).ok_or("its elements are no whole bytes")? / 8;
    let count: usize = shape.iter().product();
    if count.checked_mul(width).is_none_or(|bytes| bytes > LARGEST) {
        return Err(format!("with its zeros it has {count} elements"));
    }
    let elements = bytes(values, element)?;
    let places = places(&shape, &indices.to_i64().map_err(text)?, indices.dims.len() > 1)?;
    if elements.len() != places.len() * width {
        return Err(format!("it has {} places and {} bytes of elements", places.len(), elements.len()));
    }
    let mut raw = Vec::new();
    raw.try_reserve_exact(count * width).map_err(|_| "there is no memory for its zeros")?;
    raw.resize(count * width, 0);
    for (place, element) in places.into_iter().zip(elements.chunks_exact(width)) {
        let place = raw.get_mut(place * width..(place + 1) * width).ok_or("an element lies outside its shape")?;
        place.copy_from_slice(element);
    }
    Ok(TensorProto::from_raw(name, element, &shape, raw))
}

/// The elements as little-endian bytes.
fn bytes(values: &TensorProto, element: DataType) -> Result<Vec<u8>, String> {
    if let Some(raw) = &values.raw_data {
        return Ok(raw.to_vec());
    }
    let text = |error: crate::ir::TensorError| error.to_string();
    Ok(match element {
        DataType::Float => values.to_f32().map_err(text)?.into_iter().flat_map(f32::to_le_bytes).collect(),
        DataType::Double => values.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int64 => values.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Int32 => values.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataType::Float16 => values.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
        _ => return Err(format!("its elements are {element}")),
    })
}

/// The place of every element in storage order.
fn places(shape: &[usize], indices: &[i64], per_axis: bool) -> Result<Vec<usize>, String> {
    let outside = || "an element lies outside its shape".to_owned();
    if !per_axis {
        return indices.iter().map(|&index| usize::try_from(index).map_err(|_| outside())).collect();
    }
    let place = |index: &[i64]| {
        index.iter().zip(shape).try_fold(0, |place: usize, (&at, &length)| {
            let at = usize::try_from(at).ok().filter(|&at| at < length).ok_or_else(outside)?;
            Ok(place * length + at)
        })
    };
    indices.chunks(shape.len().max(1)).map(place).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ir::{ModelProto, import, text};

    /// A graph whose initializer `c` is a sparse tensor, and whose node `k` holds one.
    fn model(indices: &TensorProto, dims: &[i64]) -> Model {
        let source = "<ir_version: 8, opset_import: [\"\": 17]> g (float[2,3] x) => (float[2,3] y)
            <float[2,3] c = {0, 0, 0, 0, 0, 0}> { k = Constant <value_float = 0.0> ()  t = Add (x, c)  y = Add (t, k) }";
        let ModelProto { graph, .. } = text::parse(source).unwrap();
        let mut graph = graph.unwrap();
        let sparse = |name: &str| SparseTensorProto {
            values: Some(TensorProto::from_f32(name, &[2], &[1.5, -2.0])),
            indices: Some(indices.clone()),
            dims: dims.to_vec(),
        };
        graph.initializer.clear();
        graph.sparse_initializer = vec![sparse("c")];
        graph.node[0].attribute = vec![AttributeProto {
            name: Some("sparse_value".to_owned()),
            sparse_tensor: Some(sparse("")),
            ..AttributeProto::default()
        }];
        let message = ModelProto { graph: Some(graph), ..text::parse(source).unwrap() };
        import(message).unwrap()
    }

    #[test]
    fn sparse_tensors_are_written_out() {
        let linear = TensorProto::from_i64("i", &[2], &[1, 5]);
        let per_axis = TensorProto::from_i64("i", &[2, 2], &[0, 1, 1, 2]);
        for indices in [linear, per_axis] {
            let mut model = model(&indices, &[2, 3]);
            assert_eq!(LoadConstants.run(&mut model).unwrap().changed, 2);
            let wanted = [0.0, 1.5, 0.0, 0.0, 0.0, -2.0];
            let tensor = model.graph.initializer(model.graph.find("c").unwrap()).unwrap();
            assert_eq!((tensor.shape().unwrap(), tensor.to_f32().unwrap()), (vec![2, 3], wanted.to_vec()));
            let (_, constant) = model.graph.nodes().next().unwrap();
            assert_eq!(constant.constant().unwrap().to_f32().unwrap(), wanted);
            assert_eq!(LoadConstants.run(&mut model).unwrap(), Outcome::default());
        }
    }

    #[test]
    fn sparse_tensors_that_do_not_fit_are_declined() {
        let outside = TensorProto::from_i64("i", &[2], &[1, 6]);
        let too_few = TensorProto::from_i64("i", &[1], &[1]);
        let axis = TensorProto::from_i64("i", &[2, 2], &[0, 1, 2, 0]);
        let inside = TensorProto::from_i64("i", &[2], &[1, 2]);
        let cases = [(&outside, [2, 3]), (&too_few, [2, 3]), (&axis, [2, 3]), (&inside, [1 << 20, 1 << 20])];
        for (indices, dims) in cases {
            let outcome = LoadConstants.run(&mut model(indices, &dims)).unwrap();
            assert_eq!((outcome.changed, outcome.declined.len()), (0, 2), "{outcome}");
        }
    }
}
