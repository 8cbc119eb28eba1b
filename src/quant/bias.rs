//! Biases as 32-bit integers on the grid of the accumulator.
//!
//! A layer accumulates `Σ q_x·q_w`, worth `s_x·s_w` each, so its bias must use that very scale: `b_q = round(b / (s_x·s_w))`.
//! The product is taken in single precision because runtimes multiply the two floats and compare. A channel whose
//! weights are tiny against its bias does not fit into 32 bits; [`minimum_weight_scales`] says how large the weight
//! scale must be, and [`quantize_bias`] counts what was clipped where nobody asked.

use super::QuantError;
use super::spec::normal_scale;

/// A bias in 32-bit integers, one per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedBias {
    /// The integers `b_q`.
    pub data: Vec<i32>,
    /// The scale `s_x·s_w` of each channel, or one for all.
    pub scales: Vec<f32>,
    /// How many values were clipped to the ends of the 32-bit interval, or were not finite.
    pub saturated: usize,
}

/// Rounds `bias` to multiples of `input_scale`·`weight_scales`, where there is one weight scale per channel, or one for all.
pub fn quantize_bias(bias: &[f32], input_scale: f32, weight_scales: &[f32]) -> Result<QuantizedBias, QuantError> {
    if weight_scales.len() != 1 && weight_scales.len() != bias.len() {
        return Err(QuantError::ChannelCount { expected: bias.len(), found: weight_scales.len() });
    }
    let scales: Vec<f32> = weight_scales.iter().map(|scale| scale * input_scale).collect();
    let mut saturated = 0;
    let data = bias
        .iter()
        .zip(scales.iter().cycle())
        .map(|(&value, &scale)| {
            let rounded = (f64::from(value) / f64::from(scale)).round_ties_even();
            let exact = value == 0.0 || (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded);
            saturated += usize::from(!exact);
            // The cast saturates and maps NaN to 0.
            rounded as i32
        })
        .collect();
    Ok(QuantizedBias { data, scales, saturated })
}

/// For each channel, the smallest weight scale with which its bias fits into 32 bits, half the interval left as
/// room for the accumulated products, and with which the scale of the bias, `s_x·s_w`, is a normal number: weights of
/// less than that have died, and processors that flush subnormal numbers would divide by zero.
pub fn minimum_weight_scales(bias: &[f32], input_scale: f32) -> Vec<f32> {
    let room = f64::from(input_scale) * f64::from(i32::MAX / 2);
    // Twice the least normal number, so that no rounding of the product leads below it.
    let normal = 2.0 * f64::from(f32::MIN_POSITIVE) / f64::from(input_scale);
    bias.iter()
        .map(|&value| if value.is_finite() { f64::from(value.abs()) / room } else { 0.0 })
        .map(|least| least.max(normal))
        .map(normal_scale)
        .collect()
}
