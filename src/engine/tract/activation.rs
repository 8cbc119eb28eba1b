//! Functions of every element behind layers of our own become part of them, where nothing else reads what lies between:
//! bounds, `x · sigmoid(x)`, and `x · clamp(x + c)` with its factor and offset.

use super::own::{Kernel, Own};
use super::typed::{behind, constant, other_input};
use crate::kernels::product::Activation;
use tract_onnx::tract_core::internal::TractResult;
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::{Add, Max, Min, Mul};
use tract_onnx::tract_core::ops::nn::Silu;

/// The rule: takes what stands behind a layer into it.
pub(super) fn fused<K: Kernel>(
    model: &TypedModel,
    node: &TypedNode,
    op: &Own<K>,
) -> TractResult<Option<TypedModelPatch>> {
    let before = op.kernel.activation();
    if let Some(next) = behind(model, node)? {
        let Some(activation) = followed(model, node, next, before)? else { return Ok(None) };
        return TypedModelPatch::fuse_with_next(model, node, op.with(|kernel| kernel.with_activation(activation)))
            .map(Some);
    }
    if before != Activation::Identity {
        return Ok(None);
    }
    let Some((product, activation)) = gate(model, node)? else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let inputs = patch.taps(model, &node.inputs)?;
    let output = patch.wire_node(&node.name, op.with(|kernel| kernel.with_activation(activation)), &inputs)?;
    patch.shunt_outside(model, product.id.into(), output[0])?;
    Ok(Some(patch))
}

/// A function followed by the next node, as one function.
fn followed(
    model: &TypedModel,
    node: &TypedNode,
    next: &TypedNode,
    activation: Activation,
) -> TractResult<Option<Activation>> {
    match activation {
        Activation::Identity if next.op_as::<ElementWiseOp>().is_some_and(|op| op.0.is::<Silu>()) => {
            Ok(Some(Activation::Silu))
        }
        Activation::Identity => bounded(model, node, next, f32::NEG_INFINITY, f32::INFINITY),
        Activation::Clamp { low, high } => bounded(model, node, next, low, high),
        Activation::Silu => Ok(None),
        Activation::Gate { shift, low, high, scale, offset } => {
            let Some(op) = next.op_as::<TypedBinOp>() else { return Ok(None) };
            let Some(value) = scalar(model, node, next)? else { return Ok(None) };
            let (scale, offset) = match () {
                () if op.0.is::<Mul>() && offset == 0.0 => (scale * value, offset),
                () if op.0.is::<Add>() && offset == 0.0 => (scale, value),
                () => return Ok(None),
            };
            Ok(Some(Activation::Gate { shift, low, high, scale, offset }))
        }
    }
}

/// Bounds with the bound that the next node is, if it is one.
fn bounded(
    model: &TypedModel,
    node: &TypedNode,
    next: &TypedNode,
    low: f32,
    high: f32,
) -> TractResult<Option<Activation>> {
    let Some(op) = next.op_as::<TypedBinOp>() else { return Ok(None) };
    let Some(value) = scalar(model, node, next)? else { return Ok(None) };
    let (low, high) = match () {
        () if op.0.is::<Max>() => (low.max(value), high),
        () if op.0.is::<Min>() => (low, high.min(value)),
        () => return Ok(None),
    };
    Ok((low <= high).then_some(Activation::Clamp { low, high }))
}

/// The one constant number that a node takes besides another node.
fn scalar(model: &TypedModel, node: &TypedNode, next: &TypedNode) -> TractResult<Option<f32>> {
    let Some(at) = other_input(node, next) else { return Ok(None) };
    let value = constant(model, next, at)?.filter(|values| values.len() == 1).map(|values| values[0]);
    Ok(value.filter(|value| !value.is_nan()))
}

/// The product of a node with its bounded sum, and the function that it is of the node.
fn gate<'a>(model: &'a TypedModel, node: &TypedNode) -> TractResult<Option<(&'a TypedNode, Activation)>> {
    let readers: Vec<&TypedNode> = node.outputs[0].successors.iter().map(|inlet| model.node(inlet.node)).collect();
    let [first, second] = readers[..] else { return Ok(None) };
    let is_sum = |node: &TypedNode| node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Add>());
    let (sum, product) = if is_sum(first) { (first, second) } else { (second, first) };
    let is_product = product.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Mul>());
    if model.outputs.contains(&node.id.into()) || !is_sum(sum) || !is_product {
        return Ok(None);
    }
    let Some(shift) = scalar(model, node, sum)? else { return Ok(None) };
    let (mut last, mut bounds) = (sum, Activation::Identity);
    while let Some(next) = behind(model, last)?.filter(|next| next.id != product.id) {
        let Some(further) = followed(model, last, next, bounds)? else { return Ok(None) };
        (last, bounds) = (next, further);
    }
    let Activation::Clamp { low, high } = bounds else { return Ok(None) };
    let same = model.outlet_fact(product.id.into())?.shape == model.outlet_fact(node.id.into())?.shape;
    let gated = same && other_input(node, product).is_some_and(|at| product.inputs[at] == last.id.into());
    Ok(gated.then_some((product, Activation::Gate { shift, low, high, scale: 1.0, offset: 0.0 })))
}
