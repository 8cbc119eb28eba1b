//! Rules about quantization parameters, those of activations above all.

use super::Site;
use super::view::View;
use crate::analysis::LayerOp;
use crate::analysis::quantized::{Parameters, QuantizedLayer, is_dequantizer, is_quantizer};
use crate::ir::{DataType, ValueId};
use crate::target::{ActivationGrid, WideActivations};
use std::collections::HashSet;

pub(super) fn scales(view: &View) -> Vec<Site> {
    let quantizers = view.graph.nodes().filter(|(_, node)| is_quantizer(node) || is_dequantizer(node));
    let quantizers = quantizers.filter_map(|(_, node)| node.input(1));
    let layers = view.layers().into_iter().flat_map(|layer| [layer.input, layer.weight]).flatten().map(|q| q.scale);
    let mut seen = HashSet::new();
    let scales = quantizers.chain(layers).filter(|&value| seen.insert(value));
    scales.filter_map(|value| Some((view.name(value), bad_scale(view, value)?))).collect()
}

fn bad_scale(view: &View, value: ValueId) -> Option<String> {
    let scales = view.floats(value)?;
    let (index, scale) = scales.iter().enumerate().find(|(_, s)| !(s.is_normal() && **s > 0.0))?;
    let problem = match scale {
        s if !s.is_finite() => "not finite",
        s if s.is_subnormal() => "subnormal",
        _ => "not positive",
    };
    Some(format!("scale {scale:e} at index {index} is {problem}"))
}

pub(super) fn types(view: &View) -> Vec<Site> {
    let (wanted, wide) = match view.profile.activations {
        ActivationGrid::Unsigned => (DataType::Uint8, DataType::Uint16),
        ActivationGrid::Signed => (DataType::Int8, DataType::Int16),
        ActivationGrid::Symmetric => (DataType::Int8, DataType::Int8),
    };
    let fits =
        |element| element == wanted || (view.profile.wide_activations != WideActivations::Refused && element == wide);
    let other = |q: &Parameters| q.element.filter(|&element| !fits(element));
    let found = view.activations().into_iter().filter_map(|q| Some((q.integers, other(&q)?)));
    let message = |element| format!("the activation is {element}; `{}` wants {wanted}", view.profile.name);
    found.map(|(value, element)| (view.name(value), message(element))).collect()
}

pub(super) fn zero_points(view: &View) -> Vec<Site> {
    let shifted = |q: &Parameters| view.zero_points(q)?.into_iter().find(|&z| z != 0);
    let found = view.activations().into_iter().filter_map(|q| Some((q.integers, shifted(&q)?)));
    found.map(|(value, zero)| (view.name(value), format!("the zero point of the activation is {zero}"))).collect()
}

pub(super) fn per_channel(view: &View) -> Vec<Site> {
    let several = |q: &Parameters| view.floats(q.scale).map(|s| s.len()).filter(|&n| n > 1);
    let found = view.activations().into_iter().filter_map(|q| Some((q.integers, several(&q)?)));
    found.map(|(value, count)| (view.name(value), format!("the activation has {count} scales"))).collect()
}

pub(super) fn missing_zero_points(view: &View) -> Vec<Site> {
    let activations = view.activations().into_iter().filter(|q| q.zero_point.is_none());
    let activations = activations.map(|q| (view.name(q.integers), "the activation has no zero point".to_owned()));
    let product = |layer: &QuantizedLayer| matches!(layer.op, LayerOp::Gemm | LayerOp::MatMul);
    let weights = view.layers().into_iter().filter(product).filter_map(|layer| layer.weight);
    // No integer kernel takes weights in blocks.
    let weights = weights.filter(|q| q.zero_point.is_none() && q.block == 0);
    activations.chain(weights.map(|q| (view.name(q.integers), "the weight has no zero point".to_owned()))).collect()
}
