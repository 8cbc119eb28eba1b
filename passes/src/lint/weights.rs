//! Rules about quantized weights.

use super::Site;
use super::view::View;
use crate::analysis::LayerOp;
use crate::analysis::quantized::{Parameters, QuantizedLayer};
use crate::ir::{DataType, axis_of};
use crate::ops::facts;
use std::collections::HashSet;

/// One finding a weight, however many layers share it.
fn weights(view: &View, problem: impl Fn(&QuantizedLayer, &Parameters) -> Option<String>) -> Vec<Site> {
    let mut seen = HashSet::new();
    let layers = view.layers();
    let found = layers.iter().filter_map(|layer| {
        let weight = layer.weight?;
        let message = problem(layer, &weight)?;
        seen.insert(weight.integers).then(|| (view.name(weight.integers), message))
    });
    found.collect()
}

/// What is wrong with weights but for those in blocks that products in float read: these have kernels of their own.
fn without_blocks(view: &View, problem: impl Fn(&QuantizedLayer, &Parameters) -> Option<String>) -> Vec<Site> {
    weights(view, |layer, weight| if runs_in_blocks(layer, weight) { None } else { problem(layer, weight) })
}

fn runs_in_blocks(layer: &QuantizedLayer, weight: &Parameters) -> bool {
    weight.block != 0 && layer.input.is_none()
}

fn is_two_bits(element: DataType) -> bool {
    matches!(element, DataType::Int2 | DataType::Uint2)
}

fn is_four_bits(element: DataType) -> bool {
    matches!(element, DataType::Int4 | DataType::Uint4)
}

pub(super) fn types(view: &View) -> Vec<Site> {
    without_blocks(view, |_, weight| {
        let element = weight.element?;
        let byte = element != DataType::Int8 && !is_two_bits(element) && !is_four_bits(element);
        byte.then(|| format!("the weight is {element}, not int8"))
    })
}

pub(super) fn zero_points(view: &View) -> Vec<Site> {
    without_blocks(view, |_, weight| {
        let zeros = view.zero_points(weight)?;
        let shifted = zeros.iter().filter(|&&z| z != 0).count();
        let channels =
            if zeros.len() > 1 { format!(" for {shifted} of {} channels", zeros.len()) } else { String::new() };
        (shifted > 0).then(|| format!("the zero point of the weight is not 0{channels}"))
    })
}

pub(super) fn axes(view: &View) -> Vec<Site> {
    weights(view, |layer, weight| {
        let node = view.graph.node(layer.node);
        let rank = view.shape(weight.integers)?.len() as i64;
        let scales = view.floats(weight.scale)?.len();
        let layout = facts(LayerOp::of(node)?.name()).operands?.layout;
        let outputs = layout.output_axis(1, rank as usize, |attribute| node.int_or(attribute, 0) != 0);
        // A vector has no axis of outputs.
        let expected = outputs.map_or(rank - 1, |axis| axis as i64);
        let axis = if weight.axis < 0 { weight.axis + rank } else { weight.axis };
        let wrong = scales > 1 && weight.block == 0 && axis != expected;
        wrong.then(|| format!("scales lie along axis {axis} of the weight, output channels along {expected}"))
    })
}

pub(super) fn per_channel(view: &View) -> Vec<Site> {
    weights(view, |_, weight| {
        let count = view.floats(weight.scale)?.len();
        (count > 1).then(|| format!("the weight has {count} scales"))
    })
}

pub(super) fn four_bits(view: &View) -> Vec<Site> {
    weights(view, |layer, weight| {
        let element = weight.element.filter(|&e| is_four_bits(e))?;
        let own_kernel = matches!(layer.op, LayerOp::MatMul | LayerOp::Gemm) && layer.input.is_none();
        (!own_kernel).then(|| format!("the weight is {element} and dequantized from that"))
    })
}

pub(super) fn two_bits(view: &View) -> Vec<Site> {
    without_blocks(view, |_, weight| {
        let element = weight.element.filter(|&e| is_two_bits(e))?;
        Some(format!("the weight is {element} and dequantized from that"))
    })
}

pub(super) fn int4_blocks(view: &View) -> Vec<Site> {
    weights(view, |layer, weight| {
        let element = weight.element.filter(|&e| is_four_bits(e) || is_two_bits(e))?;
        match (element, weight.block, layer.input) {
            (DataType::Int4, 1.., None) => None,
            (DataType::Int4, 1.., Some(_)) => Some("the activation of an int4 weight is quantized".to_owned()),
            (DataType::Int4, ..) => Some("the int4 weight has no scale per block".to_owned()),
            _ => Some(format!("the weight is {element}, not int4")),
        }
    })
}

pub(super) fn blocks(view: &View) -> Vec<Site> {
    weights(view, |_, weight| {
        (weight.block != 0).then(|| format!("the weight has one scale per block of {}", weight.block))
    })
}

/// Also of embedding tables, and whatever reads the weight.
pub(super) fn partial_blocks(view: &View) -> Vec<Site> {
    let blocked = view.graph.nodes().filter(|(_, node)| node.is("DequantizeLinear"));
    let found = blocked.filter_map(|(_, node)| {
        let block = usize::try_from(node.int("block_size")?).ok().filter(|&block| block > 0)?;
        let integers = node.input(0)?;
        let shape = view.shape(integers)?;
        let length = shape[axis_of(node.int_or("axis", 1), shape.len())?];
        let message = format!("{length} values are not divided by blocks of {block}");
        (length % block != 0).then(|| (view.name(integers), message))
    });
    found.collect()
}

pub(super) fn casts(view: &View) -> Vec<Site> {
    let narrow = |value| view.element_of(value).filter(|&e| is_four_bits(e) || is_two_bits(e));
    let casts = view.graph.nodes().filter(|(_, node)| node.is("Cast"));
    let found = casts.filter_map(|(id, node)| Some((id, narrow(node.input(0)?)?)));
    found.map(|(id, element)| (view.label(id), format!("casts from {element}"))).collect()
}
