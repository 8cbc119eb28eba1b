//! Gradients in few bits, for processes that exchange them: the gradient quantizers that the survey of Guo (*A Survey on
//! Methods and Theories of Quantized Neural Networks*, arXiv 1808.04752) lists.
//!
//! | code | of a value g | bits per value | keeps |
//! |---|---|---|---|
//! | `float` | g | 32 | |
//! | `onebit` | the mean of the bucket's values of its sign | 1 | the error, which is added to the next gradient |
//! | `threshold:T` | ±τ where what has added up is beyond τ, else nothing | about 8 per value sent | what was not sent |
//! | `qsgd:BITS` | ‖g‖·sign·ξ/s, ξ one of the two whole numbers next to s·abs(g)/‖g‖ | BITS + 1 | |
//! | `terngrad` | max·sign·b, b = 1 with probability abs(g)/max | 1.6 | |
//! | `dorefa:BITS` | one of the two levels next to g of 2^BITS from −max to max | BITS | |
//!
//! Norms, means and maxima are those of a [bucket](BUCKET) of consecutive values, as in the experiments of QSGD; each takes
//! 4 bytes. The last three draw at random so that the expected value is g: they are unbiased and keep nothing. Values are
//! packed without gaps. What is decoded depends on the bytes alone, so that all processes decode the same numbers.

mod bits;
mod dorefa;
mod float;
mod onebit;
mod qsgd;
mod terngrad;
#[cfg(test)]
mod tests;
mod threshold;

use crate::data::random::Random;
pub(super) use crate::scheme::gradient_code::GradientCode;

/// Consecutive values with one scale.
pub(super) const BUCKET: usize = 512;

/// Encodes the gradients of one tensor, step after step.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    code: GradientCode,
    /// What was not sent so far, where the code keeps it.
    residual: Vec<f32>,
    /// The root mean square of the first gradient that was not all zeros, for thresholds.
    unit: Option<f32>,
}

impl Encoder {
    /// For a tensor of so many values.
    pub(super) fn new(code: GradientCode, len: usize) -> Self {
        let keeps = matches!(code, GradientCode::OneBit | GradientCode::Threshold(_));
        Self { code, residual: vec![0.0; if keeps { len } else { 0 }], unit: None }
    }

    /// Appends the code of a gradient.
    pub(super) fn encode(&mut self, values: &[f32], random: &mut Random, bytes: &mut Vec<u8>) {
        match self.code {
            GradientCode::Float => float::encode(values, bytes),
            GradientCode::OneBit => onebit::encode(values, &mut self.residual, bytes),
            GradientCode::Threshold(factor) => {
                let unit = self.unit.or_else(|| threshold::unit(values));
                self.unit = unit;
                threshold::encode(values, &mut self.residual, factor * unit.unwrap_or(0.0), bytes);
            }
            GradientCode::Qsgd(bits) => qsgd::encode(values, bits, random, bytes),
            GradientCode::TernGrad => terngrad::encode(values, random, bytes),
            GradientCode::DoReFa(bits) => dorefa::encode(values, bits, random, bytes),
        }
    }
}

/// Reads a gradient of so many values from the front of some bytes; `None` where they are no such code.
pub(super) fn decode(code: GradientCode, len: usize, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    match code {
        GradientCode::Float => float::decode(len, bytes),
        GradientCode::OneBit => onebit::decode(len, bytes),
        GradientCode::Threshold(_) => threshold::decode(len, bytes),
        GradientCode::Qsgd(bits) => qsgd::decode(len, bits, bytes),
        GradientCode::TernGrad => terngrad::decode(len, bytes),
        GradientCode::DoReFa(bits) => dorefa::decode(len, bits, bytes),
    }
}

/// Lengths of the buckets of so many values.
fn buckets(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(BUCKET).map(move |start| BUCKET.min(len - start))
}
