//! Rounding to the nearest integer, ties to even, as ONNX `QuantizeLinear` asks.
//!
//! Adding and subtracting 1.5·2^(p−1), p the width of the significand, leaves no fraction bits and lets the default
//! rounding mode do the work. Unlike `round_ties_even` it needs no library call on a baseline x86-64 and vectorises.

/// Sums with this constant have a last place of exactly one.
const MAGIC: f32 = 12_582_912.0;
/// 1.5·2^52, the number that rounds in double precision.
const MAGIC_F64: f64 = 6_755_399_441_055_744.0;

/// The integer nearest to `value`, ties to even; exact for |value| ≤ 2^22. Never returns −0.
#[inline]
pub(crate) fn round_half_even(value: f32) -> f32 {
    (value + MAGIC) - MAGIC
}

/// The integer nearest to `value`, ties to even; exact for |value| ≤ 2^51. Never returns −0.
#[inline]
pub(crate) fn round_half_even_f64(value: f64) -> f64 {
    (value + MAGIC_F64) - MAGIC_F64
}

/// The nearest number with the 11 significant bits of half precision, ties to even, whatever its exponent: it moves by at
/// most 2^−12 of itself.
pub(crate) fn round_to_half(value: f32) -> f32 {
    const DROPPED: u32 = f32::MANTISSA_DIGITS - 11;
    let bits = value.to_bits();
    let (kept, rest) = (bits >> DROPPED, bits & ((1 << DROPPED) - 1));
    let tie = 1 << (DROPPED - 1);
    let up = rest > tie || (rest == tie && kept & 1 == 1);
    f32::from_bits((kept + u32::from(up)) << DROPPED)
}

/// `value` limited to `[low, high]`. Unlike `f32::clamp` this cannot panic and costs one minimum and one maximum.
#[inline]
pub(super) fn limit(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}
