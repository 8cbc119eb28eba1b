//! Signs with error feedback: Seide et al., *1-bit stochastic gradient descent and its application to data-parallel
//! distributed training of speech DNNs*, 2014.
//!
//! With e what was lost before, v = g + e. A bucket is sent as the mean of its values v ≥ 0, the mean of the others, and a
//! bit for each value: the two numbers of least squared error for these signs. What is lost, e ← v − v̂, is added to the
//! next gradient, so that Σ v̂ + e = Σ g over all steps. The paper has two means per column of a matrix; buckets take
//! their place, whose length does not depend on the layer.

use super::bits::{pack, take_float, unpack};
use super::{BUCKET, buckets};

pub(super) fn encode(values: &[f32], residual: &mut [f32], bytes: &mut Vec<u8>) {
    for (values, residual) in values.chunks(BUCKET).zip(residual.chunks_mut(BUCKET)) {
        let (mut sums, mut counts) = ([0.0; 2], [0_u32; 2]);
        for (error, value) in residual.iter_mut().zip(values) {
            *error += value;
            let sign = sign(*error);
            sums[sign] += f64::from(*error);
            counts[sign] += 1;
        }
        let means = [0, 1].map(|sign| (sums[sign] / f64::from(counts[sign].max(1))) as f32);
        bytes.extend(means.iter().flat_map(|mean| mean.to_le_bytes()));
        pack(residual.iter().map(|&value| sign(value) as u32), 1, bytes);
        for value in residual.iter_mut() {
            *value -= means[sign(*value)];
        }
    }
}

pub(super) fn decode(len: usize, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(len);
    for count in buckets(len) {
        let means = [take_float(bytes)?, take_float(bytes)?];
        values.extend(unpack(bytes, 1, count)?.into_iter().map(|sign| means[sign as usize]));
    }
    Some(values)
}

/// 1 for numbers that are not negative.
fn sign(value: f32) -> usize {
    usize::from(value >= 0.0)
}
