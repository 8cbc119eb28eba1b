//! Synthetic layers for the tests of solvers.

use crate::quant::Granularity;

/// One scale per channel, or one for all.
pub(super) fn granularity(per_channel: bool) -> Granularity {
    if per_channel { Granularity::Channel } else { Granularity::Tensor }
}

/// Values between −1 and 1, about normal, different for each seed.
pub(super) fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| (0..4).map(|_| next()).sum::<f32>() / 2.0 - 1.0).collect()
}

/// Columns `[P, K]` in which neighbours have much in common, none negative.
pub(super) fn correlated(columns: usize, size: usize, seed: u64) -> Vec<f32> {
    let base = noise(columns * size, seed);
    let mut result = Vec::with_capacity(base.len());
    for column in base.chunks(size) {
        let mut last = 0.0;
        for value in column {
            last = 0.9 * last + value;
            result.push(last.max(0.0));
        }
    }
    result
}
