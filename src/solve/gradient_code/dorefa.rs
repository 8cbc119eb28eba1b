//! An even grid: Zhou et al., *DoReFa-Net: training low bitwidth convolutional neural networks with low bitwidth gradients*,
//! 2016 (arXiv 1606.06160), equation (12).
//!
//! With m the largest magnitude of a bucket and n = 2^BITS − 1,
//!
//! `f(g) = 2m·(q/n − ½)`, `q = round(n·(g/2m + ½) + σ)`, σ uniform from −½ to ½.
//!
//! The noise σ is the paper's N(k) = σ/n, which makes the rounding stochastic: E[f(g)] = g. With one bit a value is m or −m.

use super::bits::{pack, take_float, unpack};
use super::{BUCKET, buckets};
use crate::data::random::Random;

pub(super) fn encode(values: &[f32], bits: u8, random: &mut Random, bytes: &mut Vec<u8>) {
    let highest = highest(bits);
    for values in values.chunks(BUCKET) {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        bytes.extend(largest.to_le_bytes());
        // round(x + σ) is ⌊x + u⌋ with u from 0 to 1. Where the largest magnitude is 0 this is no number, which becomes 0.
        let code = |&value: &f32| {
            let level = highest as f32 * (0.5 * (value / largest) + 0.5);
            ((level + random.unit()) as u32).min(highest)
        };
        pack(values.iter().map(code), u32::from(bits), bytes);
    }
}

pub(super) fn decode(len: usize, bits: u8, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(len);
    for count in buckets(len) {
        let largest = take_float(bytes)?;
        let value = |level: u32| largest * (2.0 * level as f32 / highest(bits) as f32 - 1.0);
        values.extend(unpack(bytes, u32::from(bits), count)?.into_iter().map(value));
    }
    Some(values)
}

/// The highest level.
fn highest(bits: u8) -> u32 {
    (1 << bits) - 1
}
