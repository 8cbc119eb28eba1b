//! What rules look at in tract's typed models.

use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::internal::TractResult;
use tract_onnx::tract_core::model::{TypedModel, TypedNode};

/// The elements of a constant input, if they are floats.
pub(super) fn constant(model: &TypedModel, node: &TypedNode, input: usize) -> TractResult<Option<Vec<f32>>> {
    let fact = model.outlet_fact(node.inputs[input])?;
    let Some(tensor) = fact.konst.as_ref().filter(|tensor| tensor.datum_type() == DatumType::F32) else {
        return Ok(None);
    };
    if fact.is_exotic() {
        return Ok(None);
    }
    Ok(Some(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
}

/// The only reader of a node that is no output of the model, where it keeps the node's shape.
pub(super) fn behind<'a>(model: &'a TypedModel, node: &TypedNode) -> TractResult<Option<&'a TypedNode>> {
    let next = model.single_succ(node.id)?.filter(|_| !model.outputs.contains(&node.id.into()));
    let Some(next) = next.filter(|next| next.outputs.len() == 1) else { return Ok(None) };
    let same = model.outlet_fact(next.id.into())?.shape == model.outlet_fact(node.id.into())?.shape;
    Ok(Some(next).filter(|_| same))
}

/// Which input of a reader of a node is not that node.
pub(super) fn other_input(node: &TypedNode, reader: &TypedNode) -> Option<usize> {
    reader.inputs.iter().position(|input| input.node != node.id)
}
