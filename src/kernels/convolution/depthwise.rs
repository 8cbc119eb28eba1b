//! Convolutions in which every output channel reads one input channel.

use crate::kernels::product::Activation;
use pulp::{Simd, WithSimd};

/// Vectors that are summed at once: enough to hide how long one product takes.
const VECTORS: usize = 8;

/// Values that a buffer must have behind the last column.
pub(super) const SLACK: usize = VECTORS * 16;

/// One channel and one band.
pub(super) struct Depthwise<'a> {
    /// One weight per tap.
    pub(super) weights: &'a [f32],
    pub(super) bias: f32,
    pub(super) activation: Activation,
    /// The planes of the channel.
    pub(super) source: &'a [f32],
    /// Where each tap starts reading.
    pub(super) offsets: &'a [usize],
    /// Distance between output rows in `source`.
    pub(super) stride: usize,
    /// Outputs in a row.
    pub(super) width: usize,
    /// Written, row after row.
    pub(super) output: &'a mut [f32],
    /// Room for sums, with those between the rows.
    pub(super) scratch: &'a mut Vec<f32>,
}

impl WithSimd for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weights, bias, activation, source, offsets, stride, width, output, scratch } = self;
        let lanes = S::F32_LANES;
        let rows = output.len() / width.max(1);
        // Up to the last output: behind it a long kernel would read past the planes.
        let length = if rows == 0 { 0 } else { (rows - 1) * stride + width };
        scratch.resize(length + SLACK, 0.0);
        let mut at = 0;
        while at < length {
            let (source, to) = (&source[at..], &mut scratch[at..]);
            let left = (length - at).div_ceil(lanes);
            at += lanes
                * match left {
                    1 => sums::<S, 1>(simd, weights, bias, activation, source, offsets, to),
                    2 | 3 => sums::<S, 2>(simd, weights, bias, activation, source, offsets, to),
                    4..VECTORS => sums::<S, 4>(simd, weights, bias, activation, source, offsets, to),
                    _ => sums::<S, VECTORS>(simd, weights, bias, activation, source, offsets, to),
                };
        }
        let sums = &scratch[..];
        for y in 0..rows {
            for x in (0..width).step_by(lanes) {
                // What a vector writes behind its row, the next row writes over.
                let to = &mut output[y * width + x..];
                let value = S::as_simd_f32s(&sums[y * stride + x..y * stride + x + lanes]).0[0];
                if to.len() >= lanes {
                    S::as_mut_simd_f32s(&mut to[..lanes]).0[0] = value;
                } else {
                    simd.partial_store_f32s(to, value);
                }
            }
        }
    }
}

/// Sums for `V` vectors of neighbouring positions; returns how many.
#[inline(always)]
fn sums<S: Simd, const V: usize>(
    simd: S,
    weights: &[f32],
    bias: f32,
    activation: Activation,
    source: &[f32],
    offsets: &[usize],
    to: &mut [f32],
) -> usize {
    let chunk = V * S::F32_LANES;
    let mut sums = [simd.splat_f32s(bias); V];
    for (&weight, &offset) in weights.iter().zip(offsets) {
        let weight = simd.splat_f32s(weight);
        let columns = S::as_simd_f32s(&source[offset..offset + chunk]).0;
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = simd.mul_add_f32s(weight, *column, *sum);
        }
    }
    for (to, sum) in S::as_mut_simd_f32s(&mut to[..chunk]).0.iter_mut().zip(sums) {
        *to = activation.apply(simd, sum);
    }
    V
}
