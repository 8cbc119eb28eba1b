//! Weights that stand transposed in other files.
//!
//! An engine that infers what is constant does not read large tensors of other files. A matrix behind a `Transpose`, as a
//! language model's table is that its last layer reads too, would be no weight of a layer then.

use super::PrepareError;
use indexmap::IndexMap;
use msq_passes::analysis::LayerOp;
use msq_passes::ir::{DataType, Model, Node, TensorProto};

/// Bytes that are read at most.
const MOST: usize = 1 << 29;

/// Transposes of matrices in other files that layers read, by name.
pub(super) fn transposed(model: &Model) -> Result<IndexMap<String, TensorProto>, PrepareError> {
    let mut found = IndexMap::new();
    let mut left = MOST;
    for (_, node) in model.graph.nodes() {
        let Some((name, tensor)) = site(model, node) else { continue };
        let Some(rest) = tensor.byte_count().and_then(|bytes| left.checked_sub(bytes)) else { continue };
        left = rest;
        let loaded = model.loaded(tensor)?;
        found.extend(transpose(name, &loaded).map(|tensor| (name.to_owned(), tensor)));
    }
    Ok(found)
}

/// The matrix behind a `Transpose` whose output a layer reads, and the name of that.
fn site<'a>(model: &'a Model, node: &Node) -> Option<(&'a str, &'a TensorProto)> {
    let graph = &model.graph;
    let tensor = graph.constant(node.input(0).filter(|_| node.is("Transpose"))?)?;
    let output = graph.value(node.output(0)?);
    let layer = output.uses().iter().any(|reader| reader.slot < 2 && LayerOp::of(graph.node(reader.node)).is_some());
    let matrix = tensor.is_external() && tensor.element_type() == Some(DataType::Float) && tensor.dims.len() == 2;
    let swaps = matches!(node.ints("perm"), [] | [1, 0]);
    (layer && matrix && swaps).then(|| (output.name(), tensor))
}

fn transpose(name: &str, tensor: &TensorProto) -> Option<TensorProto> {
    let &[rows, columns] = &tensor.shape().ok()?[..] else { return None };
    let values = tensor.to_f32().ok()?;
    let turned: Vec<f32> = (0..rows * columns).map(|at| values[at % rows * columns + at / rows]).collect();
    Some(TensorProto::from_f32(name, &[columns, rows], &turned))
}
