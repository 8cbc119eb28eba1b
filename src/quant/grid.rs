//! The affine map between reals and the integers of a grid, with the arithmetic of ONNX `QuantizeLinear` and
//! `DequantizeLinear`.
//!
//! * quantize, (2) of the MSQ paper: `q = clip(round(x/s) + z, q_min, q_max)`, the quotient in single precision, ties
//!   to even. Clipping to `[q_min − z, q_max − z]` *before* rounding gives the same integer, since the limits are
//!   integers and rounding is monotone; it also keeps the numbers small enough for the fast rounding used here.
//! * dequantize, (1): `x̂ = s·(q − z)`.
//! * fake-quantize, (5): both in turn.
//!
//! NaN quantizes to the zero point, infinities to the ends of the grid.

use msq_passes::ActivationQuantizer;
use serde::{Deserialize, Serialize};

use super::rounding::{limit, round_half_even};

/// A grid of reals s·(q − z), for the integers q from `quantized_min` to `quantized_max`.
///
/// [`GridSpec::affine`](super::GridSpec::affine) makes valid ones: a positive normal scale, and integers within
/// 8 bits. Those written by hand may use up to 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    /// The distance s of two neighbours, in the units of the tensor.
    pub scale: f32,
    /// The integer z that stands for real zero.
    pub zero_point: i32,
    /// The smallest integer.
    pub quantized_min: i32,
    /// The largest integer.
    pub quantized_max: i32,
}

impl From<&ActivationQuantizer> for Affine {
    fn from(quantizer: &ActivationQuantizer) -> Self {
        let (quantized_min, quantized_max) = quantizer.interval();
        Self { scale: quantizer.scale, zero_point: quantizer.zero_point, quantized_min, quantized_max }
    }
}

impl Affine {
    /// q − z for the value, as a float that holds an integer.
    #[inline]
    fn centered(&self, value: f32) -> f32 {
        let quotient = value / self.scale;
        let quotient = if quotient.is_nan() { 0.0 } else { quotient };
        let low = (self.quantized_min - self.zero_point) as f32;
        let high = (self.quantized_max - self.zero_point) as f32;
        round_half_even(limit(quotient, low, high))
    }

    /// The integer of the grid nearest to `value`.
    #[inline]
    pub fn quantize(&self, value: f32) -> i32 {
        self.centered(value) as i32 + self.zero_point
    }

    /// The real that the integer `quantized` stands for.
    #[inline]
    pub fn dequantize(&self, quantized: i32) -> f32 {
        (quantized - self.zero_point) as f32 * self.scale
    }

    /// The real of the grid nearest to `value`.
    #[inline]
    pub fn fake_quantize(&self, value: f32) -> f32 {
        self.centered(value) * self.scale
    }

    /// [`quantize`](Self::quantize) for every value.
    pub fn quantize_slice(&self, values: &[f32]) -> Vec<i32> {
        values.iter().map(|&value| self.quantize(value)).collect()
    }

    /// [`quantize`](Self::quantize) for every value, into bytes; for grids within 0 to 255.
    pub fn quantize_u8(&self, values: &[f32]) -> Vec<u8> {
        values.iter().map(|&value| self.quantize(value) as u8).collect()
    }

    /// [`quantize`](Self::quantize) for every value, into signed bytes; for grids within −128 to 127.
    pub fn quantize_i8(&self, values: &[f32]) -> Vec<i8> {
        values.iter().map(|&value| self.quantize(value) as i8).collect()
    }

    /// [`dequantize`](Self::dequantize) for every integer, of any width up to 32 bits.
    pub fn dequantize_slice<T: Copy + Into<i32>>(&self, quantized: &[T]) -> Vec<f32> {
        quantized.iter().map(|&value| self.dequantize(value.into())).collect()
    }

    /// Replaces every value by the real of the grid nearest to it.
    pub fn fake_quantize_in_place(&self, values: &mut [f32]) {
        for value in values {
            *value = self.fake_quantize(*value);
        }
    }

    /// The reals at the two ends of the grid.
    pub fn range(&self) -> super::Range {
        super::Range::new(self.dequantize(self.quantized_min), self.dequantize(self.quantized_max))
    }
}
