//! Three levels: Wen et al., *`TernGrad`: ternary gradients to reduce communication in distributed deep learning*, 2017
//! (arXiv 1705.07878), equations (1) and (2).
//!
//! Of a bucket the largest magnitude m is sent, and of each value sign(g)·b with b = 1 with probability |g|/m, else 0:
//! E[m·sign(g)·b] = g. Five values of three levels take a byte. The paper also clips gradients at 2.5 standard deviations,
//! which is not done here: what is decoded would not have the gradient as its mean.

use super::bits::{take, take_float};
use super::{BUCKET, buckets};
use crate::data::random::Random;

/// Values in a byte: 3⁵ = 243.
const IN_BYTE: usize = 5;

pub(super) fn encode(values: &[f32], random: &mut Random, bytes: &mut Vec<u8>) {
    for values in values.chunks(BUCKET) {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        bytes.extend(largest.to_le_bytes());
        let mut digit = |value: f32| {
            let sent = random.unit() < value.abs() / largest;
            if !sent {
                1
            } else if value < 0.0 {
                0
            } else {
                2
            }
        };
        bytes.extend(values.chunks(IN_BYTE).map(|values| {
            let digits: [u8; IN_BYTE] = std::array::from_fn(|at| values.get(at).map_or(0, |&value| digit(value)));
            digits.iter().rev().fold(0, |byte, digit| 3 * byte + digit)
        }));
    }
}

pub(super) fn decode(len: usize, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(len);
    for count in buckets(len) {
        let largest = take_float(bytes)?;
        let packed = take(bytes, count.div_ceil(IN_BYTE))?;
        let digit = |at: usize| packed[at / IN_BYTE] / 3_u8.pow((at % IN_BYTE) as u32) % 3;
        values.extend((0..count).map(|at| match digit(at) {
            0 => -largest,
            1 => 0.0,
            _ => largest,
        }));
    }
    Some(values)
}
