//! Levels of the norm: Alistarh et al., *QSGD: communication-efficient SGD via gradient quantization and encoding*, 2017
//! (arXiv 1610.02132), section 3.1.
//!
//! Of a bucket the norm ‖g‖ is sent, and of each value its sign and ξ, one of the two whole numbers next to
//! s·|g|/‖g‖, the nearer with the greater probability: E[‖g‖·sign·ξ/s] = g, with a variance of at most
//! min(n/s², √n/s)·‖g‖² for n values. s = 2^BITS − 1; ξ takes BITS bits, where the paper has Elias' code of variable length.

use super::bits::{pack, take_float, unpack};
use super::{BUCKET, buckets};
use crate::data::random::Random;

pub(super) fn encode(values: &[f32], bits: u8, random: &mut Random, bytes: &mut Vec<u8>) {
    let levels = levels(bits);
    for values in values.chunks(BUCKET) {
        let norm = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt() as f32;
        bytes.extend(norm.to_le_bytes());
        let code = |&value: &f32| {
            // Of a norm of 0 or an infinite one this is no number, which becomes 0.
            let level = (levels as f32 * (value.abs() / norm) + random.unit()) as u32;
            2 * level.min(levels) + u32::from(value < 0.0)
        };
        pack(values.iter().map(code), u32::from(bits) + 1, bytes);
    }
}

pub(super) fn decode(len: usize, bits: u8, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(len);
    for count in buckets(len) {
        let norm = take_float(bytes)?;
        let value = |code: u32| {
            let size = norm * ((code / 2) as f32 / levels(bits) as f32);
            if code % 2 == 1 { -size } else { size }
        };
        values.extend(unpack(bytes, u32::from(bits) + 1, count)?.into_iter().map(value));
    }
    Some(values)
}

/// The highest level.
fn levels(bits: u8) -> u32 {
    (1 << bits) - 1
}
