//! Solver `round`: nearest integers on a scale that minimises the squared error of the weights themselves.
//!
//! q = round(w/s) clamped to the grid, s per channel by search (equations (1) to (5) of the MSQ paper with z = 0). The
//! bias becomes int32 at scale `s_x·s`; where that would overflow, s is raised until it fits, which costs nothing:
//! it happens only to channels whose weights are negligible beside their bias.

use super::bias_correction::mean_shift;
use crate::Error;
use crate::quant::{
    GridSpec, QuantError, QuantizedWeight, ScaleSearch, Sqnr, WeightQuantizer, minimum_weight_scales, quantize_bias,
};
use msq_passes::QuantizedLayer;
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// How weights are rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rounding {
    /// The integers allowed.
    pub grid: GridSpec,
    /// How scales are found.
    pub search: ScaleSearch,
    /// Whether each output channel has its own scale.
    pub per_channel: bool,
}

/// What a layer reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerInput<'a> {
    /// Scale its quantizer has.
    pub scale: f32,
    /// Mean of each channel; empty if not known.
    pub means: &'a [f64],
}

/// Rounds the weights and bias of a layer. The bias is corrected for the shift of the mean that rounding causes.
/// Returns them with the signal-to-quantization-noise ratio of the weights.
pub(crate) fn round_layer(
    model: &Model,
    layer: &Layer,
    input: LayerInput,
    rounding: Rounding,
) -> Result<(QuantizedLayer, Sqnr), Error> {
    let failed = |source| Error::Quant { layer: layer.name.clone(), source };
    let weight = constant(model, layer.weight)?.unwrap_or_default();
    let mut bias = layer.bias.map(|bias| constant(model, bias)).transpose()?.flatten();
    let rounded = round(&weight, layer, bias.as_deref(), input.scale, rounding).map_err(failed)?;
    let sqnr = rounded.sqnr(&weight);
    if let Some(bias) = &mut bias {
        let groups = usize::try_from(model.graph.node(layer.node).int_or("group", 1)).unwrap_or(1);
        let shift = mean_shift(layer, groups, &weight, &rounded.dequantize(), input.means).unwrap_or_default();
        bias.iter_mut().zip(shift).for_each(|(b, shift)| *b = (f64::from(*b) - shift) as f32);
    }
    let bias = bias.map(|b| quantize_bias(&b, input.scale, &rounded.scales)).transpose().map_err(failed)?;
    if let Some(saturated) = bias.as_ref().map(|b| b.saturated).filter(|&n| n > 0) {
        tracing::warn!(layer = layer.name, saturated, "bias does not fit int32");
    }
    let QuantizedWeight { data, scales, .. } = rounded;
    Ok((QuantizedLayer { weight: data, scales, bias: bias.map(|b| b.data) }, sqnr))
}

fn round(
    weight: &[f32],
    layer: &Layer,
    bias: Option<&[f32]>,
    input_scale: f32,
    rounding: Rounding,
) -> Result<QuantizedWeight, QuantError> {
    let axis = layer.axis.filter(|_| rounding.per_channel);
    let mut floor = bias.map(|b| minimum_weight_scales(b, input_scale)).unwrap_or_default();
    if axis.is_none() && !floor.is_empty() {
        floor = vec![floor.iter().copied().fold(0.0, f32::max)];
    }
    let quantizer = WeightQuantizer::new(rounding.grid, rounding.search)?;
    let quantizer = if floor.is_empty() { quantizer } else { quantizer.with_minimum_scales(&floor) };
    quantizer.quantize(weight, &layer.shape, axis)
}

fn constant(model: &Model, value: msq_passes::ir::ValueId) -> Result<Option<Vec<f32>>, Error> {
    model.constant(value).map(|tensor| Ok(tensor?.to_f32()?)).transpose()
}
