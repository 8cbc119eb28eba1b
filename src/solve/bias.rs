//! The bias of a layer as it is written: int32 on the grid of the accumulator, or float.
//!
//! A runtime that rounds float biases by itself takes b to `round(b / (s_x·s))`. For such a runtime the floats written are
//! the very multiples of `s_x·s`, or halves that it rounds to the same integers.

use super::SolveError;
use super::rounding::{LayerInput, Rounding};
use crate::quant::{quantize_bias, round_to_half};
use msq_passes::analysis::Layer;
use msq_passes::{BiasForm, LayerBias};

/// Integers from here on are all that floats of single precision can be: a quotient is whole before it is rounded.
const WHOLE: u32 = 1 << 23;

/// Smaller biases become 0: the pool of half constants has room for 2^−26 and above.
const LEAST: f32 = 1.0 / (1 << 20) as f32;

/// Rounds a bias to half precision, which moves it by 2^−12 of itself at most, where that is no more than a sixteenth
/// of the step in which the layer's output is counted. Says whether it did.
fn halve_bias(bias: &mut [f32], output_step: f32) -> bool {
    let half = |value: &f32| if value.abs() < LEAST { 0.0 } else { round_to_half(*value) };
    let halves: Vec<f32> = bias.iter().map(half).collect();
    let close = |(half, value): (&f32, &f32)| half.is_finite() && (half - value).abs() <= output_step / 16.0;
    let fits = halves.iter().zip(bias.iter()).all(close);
    if fits {
        bias.copy_from_slice(&halves);
    }
    fits
}

/// The bias, and the same in half precision where the runtime rounds it to the very integers.
pub(super) fn round_bias(
    mut bias: Vec<f32>,
    layer: &Layer,
    scales: &[f32],
    input: LayerInput,
    rounding: Rounding,
) -> Result<(LayerBias, Option<Vec<f32>>), SolveError> {
    let halved = input.output_scale.is_some_and(|step| rounding.half_scales && halve_bias(&mut bias, step));
    if rounding.bias == BiasForm::Float {
        return Ok((LayerBias::Float(bias), None));
    }
    let failed = |error| SolveError::from(error).of(&layer.name);
    let mut quantized = quantize_bias(&bias, input.scale, scales).map_err(failed)?;
    if quantized.saturated > 0 {
        tracing::warn!(layer = layer.name, saturated = quantized.saturated, "bias does not fit int32");
    }
    if !rounding.bias_as_floats {
        return Ok((LayerBias::Int32(quantized.data), None));
    }
    // As the runtime rounds: the quotient in single precision, ties to even.
    let of_runtime = |b: f32, step: f32| (b / step).round_ties_even();
    for ((q, &b), &step) in quantized.data.iter_mut().zip(&bias).zip(quantized.scales.iter().cycle()) {
        if q.unsigned_abs() >= WHOLE {
            *q = of_runtime(b, step) as i32;
        }
    }
    let steps = || quantized.scales.iter().cycle();
    let alike = |((&b, &q), &step): ((&f32, &i32), &f32)| of_runtime(b, step) == q as f32;
    let halves = halved && bias.iter().zip(&quantized.data).zip(steps()).all(alike);
    let value = |((&q, &b), &step): ((&i32, &f32), &f32)| {
        if q.unsigned_abs() >= WHOLE { b } else { (f64::from(q) * f64::from(step)) as f32 }
    };
    let floats = quantized.data.iter().zip(&bias).zip(steps()).map(value).collect();
    Ok((LayerBias::Float(floats), halves.then_some(bias)))
}
