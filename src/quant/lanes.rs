//! Sums over slices, and the exponential and logarithm in them.
//!
//! Sums are kept in [`LANES`] parts, with no branches, which the compiler turns into vectors of whatever the processor has.
//! The order of the additions is the same on each, and so is the result.

// Compiled into the function that chose the vectors.
#![allow(clippy::inline_always)]

use pulp::{Arch, Simd, WithSimd};

/// Partial sums.
const LANES: usize = 16;

/// Σ `terms(value)` over values.
pub(crate) fn sums_of<const N: usize>(values: &[f32], terms: impl Fn(f32) -> [f64; N]) -> [f64; N] {
    sums(values, values, |value, _| terms(value))
}

/// Σ `terms(a, b)` over the pairs of two slices; what one of them has more does not count.
pub(crate) fn sums<const N: usize>(a: &[f32], b: &[f32], terms: impl Fn(f32, f32) -> [f64; N]) -> [f64; N] {
    let length = a.len().min(b.len());
    Arch::new().dispatch(Sums { a: &a[..length], b: &b[..length], terms })
}

struct Sums<'a, T> {
    a: &'a [f32],
    b: &'a [f32],
    terms: T,
}

impl<const N: usize, T: Fn(f32, f32) -> [f64; N]> WithSimd for Sums<'_, T> {
    type Output = [f64; N];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; N] {
        let Self { a, b, terms } = self;
        let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut parts = [[0.0; LANES]; N];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                let term = terms(a[lane], b[lane]);
                for (parts, term) in parts.iter_mut().zip(term) {
                    parts[lane] += term;
                }
            }
        }
        let mut totals = parts.map(|parts| parts.iter().sum::<f64>());
        for (&a, &b) in rest_a.iter().zip(rest_b) {
            totals.iter_mut().zip(terms(a, b)).for_each(|(total, term)| *total += term);
        }
        totals
    }
}

/// The largest number; −∞ where there is none.
pub(crate) fn largest(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane = if value > *lane { value } else { *lane });
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// Adding this to a number below 2^51 in magnitude leaves its nearest integer in the last bits.
const SHIFTER: f64 = 6_755_399_441_055_744.0;

/// e^x for x ≤ 0, within two units in the last place; 0 below −700, NaN of NaN.
///
/// With n the integer nearest to x / ln 2, e^x = 2^n · e^r, |r| ≤ ln 2 / 2, by a Taylor series.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    /// 1 / n! from n = 13 down to 0.
    const SERIES: [f64; 14] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    /// ln 2 in two parts: multiples of the first are exact.
    const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    let bounded = if x > -700.0 { x } else { -700.0 };
    let shifted = bounded * std::f64::consts::LOG2_E + SHIFTER;
    let whole = shifted - SHIFTER;
    let rest = bounded - whole * LN_2[0] - whole * LN_2[1];
    let mut power = SERIES[0];
    for coefficient in &SERIES[1..] {
        power = power * rest + coefficient;
    }
    // The last bits of `shifted` are those of n, two's complement.
    let scaled = power * f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let small = if x.is_nan() { f64::NAN } else { 0.0 };
    if x > -700.0 { scaled } else { small }
}

/// ln x of a positive normal number, within some units in the last place of it or of ln 2.
///
/// With x = 2^n · m, √½ ≤ m < √2, and s = (m − 1) / (m + 1), ln x = n·ln 2 + 2·(s + s³/3 + s⁵/5 + …).
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    /// 2 / (2n + 1) from n = 10 down to 0.
    const SERIES: [f64; 11] = [
        2.0 / 21.0,
        2.0 / 19.0,
        2.0 / 17.0,
        2.0 / 15.0,
        2.0 / 13.0,
        2.0 / 11.0,
        2.0 / 9.0,
        2.0 / 7.0,
        2.0 / 5.0,
        2.0 / 3.0,
        2.0,
    ];
    const ROOT_HALF: u64 = std::f64::consts::FRAC_1_SQRT_2.to_bits();
    /// 2^52, whose last bits are an integer, and what is added to n so that it is positive.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    const OFFSET: u64 = 1024;
    let above = x.to_bits().wrapping_sub(ROOT_HALF).wrapping_add(OFFSET << 52) >> 52;
    let exponent = f64::from_bits(WHOLE.to_bits() | above) - (WHOLE + OFFSET as f64);
    let mantissa = f64::from_bits(x.to_bits().wrapping_sub(above.wrapping_sub(OFFSET) << 52));
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let mut series = SERIES[0];
    for coefficient in &SERIES[1..] {
        series = series * square + coefficient;
    }
    exponent * std::f64::consts::LN_2 + ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_and_logarithms() {
        for at in 0..100_000 {
            let x = -0.0071 * f64::from(at);
            let (found, expected) = (exp(x), if x > -700.0 { x.exp() } else { 0.0 });
            assert!((found - expected).abs() <= 4e-16 * expected, "{x}: {found} {expected}");
            let x = (0.0069 * f64::from(at - 50_000)).exp();
            let (found, expected) = (ln(x), x.ln());
            assert!((found - expected).abs() <= 4e-16 * expected.abs().max(0.5), "{x}: {found} {expected}");
        }
        assert_eq!((exp(0.0), ln(1.0), exp(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    /// Whatever the length, and however the other slice is longer.
    #[test]
    fn sums_count_every_pair_once() {
        let values: Vec<f32> = (0..70).map(|at| at as f32).collect();
        for length in 0..values.len() {
            let expected = (0..length).map(|at| (at * at) as f64).sum::<f64>();
            let squares = |a: f32, b: f32| [f64::from(a) * f64::from(b), 1.0];
            assert_eq!(sums(&values[..length], &values, squares), [expected, length as f64]);
            assert_eq!(sums_of(&values[..length], |_| [1.0]), [length as f64]);
            assert_eq!(largest(&values[..length]), values[..length].last().copied().unwrap_or(f32::NEG_INFINITY));
        }
        assert_eq!(largest(&[f32::NAN, -1.0, f32::NAN]), -1.0);
    }
}
