//! Rules about biases.

use super::Site;
use super::view::View;
use crate::analysis::quantized::{Bias, Parameters, QuantizedLayer};

/// The rounding that f32 products may differ by.
const ROUNDING: f32 = 1e-6;

pub(super) fn quantized(view: &View) -> Vec<Site> {
    let layers = view.layers().into_iter().filter(|layer| matches!(layer.bias, Bias::Quantized(_)));
    layers.map(|layer| (view.label(layer.node), "its bias is behind a DequantizeLinear".to_owned())).collect()
}

pub(super) fn float(view: &View) -> Vec<Site> {
    let whole = |layer: &QuantizedLayer| layer.input.is_some() && layer.weight.is_some();
    let layers = view.layers().into_iter().filter(|layer| whole(layer) && matches!(layer.bias, Bias::Float));
    layers.map(|layer| (view.label(layer.node), "its bias is float".to_owned())).collect()
}

pub(super) fn scales(view: &View) -> Vec<Site> {
    let found = view.layers().into_iter().filter_map(|layer| {
        let (Some(input), Some(weight), Bias::Quantized(bias)) = (layer.input, layer.weight, layer.bias) else {
            return None;
        };
        Some((view.label(layer.node), wrong_scale(view, &input, &weight, &bias)?))
    });
    found.collect()
}

/// `s_b = s_x·s_w` for every channel.
fn wrong_scale(view: &View, input: &Parameters, weight: &Parameters, bias: &Parameters) -> Option<String> {
    let input = view.float(input.scale)?;
    let (weights, biases) = (view.floats(weight.scale)?, view.floats(bias.scale)?);
    let at = |scales: &[f32], i: usize| scales.get(if scales.len() == 1 { 0 } else { i }).copied();
    let wrong = (0..weights.len().max(biases.len())).find_map(|i| {
        let (weight, bias) = (at(&weights, i)?, at(&biases, i)?);
        let product = input * weight;
        ((bias - product).abs() > ROUNDING * product.abs()).then_some((i, bias, product))
    });
    let (channel, found, product) = wrong?;
    Some(format!("the bias scale of channel {channel} is {found:e}, input scale × weight scale is {product:e}"))
}
