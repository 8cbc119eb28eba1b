//! Scales that are powers of two, read off the exponent: exact, and the same on any machine.
//!
//! With 2^e ≤ x < 2^(e+1), `floor` is 2^e; `ceiling` is 2^(e+1) unless x is 2^e; `nearest` changes from one to the other
//! at 1.5·2^e; `shift`, 2^round(log2 x), at √2·2^e. All stay within the normal single-precision floats.

use super::normal_scale;

/// The bits of a double's fraction.
const FRACTION: u64 = (1 << 52) - 1;
/// The largest power of two in single precision.
const LARGEST: f32 = (1_u128 << 127) as f32;

/// The largest power of two that is not above `value`.
fn floor(value: f64) -> f32 {
    let normal = f64::from(normal_scale(value));
    f64::from_bits(normal.to_bits() & !FRACTION) as f32
}

fn doubled(power: f32) -> f32 {
    if power < LARGEST { 2.0 * power } else { power }
}

/// The smallest power of two that is not below `value`.
pub(crate) fn ceiling(value: f64) -> f32 {
    let below = floor(value);
    if f64::from(below) < value { doubled(below) } else { below }
}

/// The power of two nearest to `value`.
pub(crate) fn nearest(value: f64) -> f32 {
    let below = floor(value);
    if value > 1.5 * f64::from(below) { doubled(below) } else { below }
}

/// 2^round(log2 of `value`).
pub(crate) fn shift(value: f64) -> f32 {
    let below = floor(value);
    if value > std::f64::consts::SQRT_2 * f64::from(below) { doubled(below) } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_where_the_formulas_put_them() {
        for exponent in -100..=100 {
            let power = 2_f32.powi(exponent);
            for step in 0..64 {
                let value = f64::from(power) * (1.0 + f64::from(step) / 64.0);
                assert_eq!(ceiling(value), if step == 0 { power } else { 2.0 * power });
                assert_eq!(nearest(value), if step <= 32 { power } else { 2.0 * power });
                assert_eq!(shift(value), value.log2().round().exp2() as f32);
            }
        }
    }

    #[test]
    fn the_ends_are_normal_powers() {
        for of in [ceiling, nearest, shift] {
            assert_eq!(of(0.0), f32::MIN_POSITIVE);
            assert_eq!(of(f64::MAX), LARGEST);
            assert_eq!(of(f64::NAN), f32::MIN_POSITIVE);
        }
    }
}
