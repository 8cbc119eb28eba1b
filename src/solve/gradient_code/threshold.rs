//! Only what is beyond a threshold: Strom, *Scalable distributed DNN training using commodity GPU cloud computing*, 2015.
//!
//! With e what was not sent before, v = g + e. Where v > τ, τ is sent and e ← v − τ; where v < −τ, −τ is sent and
//! e ← v + τ; elsewhere nothing is sent and e ← v. The paper chooses τ beforehand, in units of the gradients of its network.
//! Here τ is a multiple of the root mean square of a tensor's first gradient, and stays then.
//!
//! Written as τ, the number of values sent, and for each of them twice the distance to the one before, plus 1 where the
//! sign is negative, in seven bits per byte: mostly one byte where the paper takes four.

use super::bits::{put_number, take_float, take_number};

/// The root mean square of values, if that is a number other than 0.
pub(super) fn unit(values: &[f32]) -> Option<f32> {
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    let mean = (squares / values.len().max(1) as f64).sqrt() as f32;
    (mean > 0.0 && mean.is_finite()).then_some(mean)
}

pub(super) fn encode(values: &[f32], residual: &mut [f32], threshold: f32, bytes: &mut Vec<u8>) {
    let mut sent = Vec::new();
    for (at, (error, value)) in residual.iter_mut().zip(values).enumerate() {
        *error += value;
        if error.abs() > threshold {
            sent.push((at, *error < 0.0));
            *error -= threshold.copysign(*error);
        }
    }
    bytes.extend(threshold.to_le_bytes());
    put_number(sent.len(), bytes);
    let mut next = 0;
    for (at, negative) in sent {
        put_number(2 * (at - next) + usize::from(negative), bytes);
        next = at + 1;
    }
}

pub(super) fn decode(len: usize, bytes: &mut &[u8]) -> Option<Vec<f32>> {
    let (threshold, sent) = (take_float(bytes)?, take_number(bytes)?);
    let (mut values, mut next) = (vec![0.0; len], 0_usize);
    for _ in 0..sent {
        let code = take_number(bytes)?;
        let at = next.checked_add(code / 2)?;
        *values.get_mut(at)? = if code % 2 == 1 { -threshold } else { threshold };
        next = at + 1;
    }
    Some(values)
}
