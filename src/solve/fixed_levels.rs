//! Weights on a list of integers that is fixed in advance: w ≈ s·e(w), e(w) the level nearest to w/s.
//!
//! Minimises E(s) = Σ (w − s·e(w))². Of scales s = 2^(−k/8)·max|w|/max|e| the best is taken, and from
//! there s = Σ w·e / Σ e², exact least squares for the levels taken, and the levels nearest then follow in turns,
//! neither of which raises E.
//!
//! * Levels −1 and 1 are the sign of the weight, and s = Σ |w| / n, its mean magnitude: the binary weights of
//!   Rastegari et al. (2016).
//! * Levels 0 and ±2^k are the powers of two of Zhou et al. (2017, incremental network quantization), on a scale of the
//!   channel's own.

use super::levels::Levels;
use crate::quant::{ZERO_CHANNEL_SCALE, normal_scale};

/// −1 and 1.
pub(super) const SIGNS: [i8; 2] = [-1, 1];
/// Starting scales an octave.
const STEPS: i32 = 8;
/// Octaves of starting scales.
const OCTAVES: i32 = 5;
/// How often scale and levels are improved in turns.
const TURNS: usize = 12;

/// 0 and ±1, ±2, … ±2^(2^(b−1) − 2): as many as b bits number, less one. At most 4 bits fit a byte.
pub(super) fn powers_of_two(bits: u8) -> Vec<i8> {
    let exponents = (1_u32 << (bits.clamp(2, 4) - 1)) - 1;
    let powers = (0..exponents).map(|exponent| 1_i8 << exponent);
    let mut levels: Vec<i8> = powers.flat_map(|power| [-power, power]).chain([0]).collect();
    levels.sort_unstable();
    levels
}

/// The scale of the least error that is found for weights of one channel, not below `least`.
pub(super) fn scale(weights: &[f32], levels: &Levels, least: f32) -> f32 {
    let largest = weights.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
    if largest == 0.0 {
        // Without a level for zero the levels have to be as good as that.
        let scale = if levels.nearest(0.0) == 0.0 { 1.0 } else { f32::EPSILON } * ZERO_CHANNEL_SCALE;
        return scale.max(least);
    }
    let widest = f64::from(largest) / levels.reach().max(1.0);
    let starts = (0..=STEPS * OCTAVES).map(|step| widest * (-f64::from(step) / f64::from(STEPS)).exp2());
    let tried = starts.map(|start| {
        let scale = normal_scale(start).max(least);
        (error(weights, levels, scale), scale)
    });
    let mut best = tried.fold((f64::INFINITY, least), |best, tried| if tried.0 < best.0 { tried } else { best });
    for _ in 0..TURNS {
        let Some(refitted) = refit(weights, levels, best.1) else { break };
        let scale = normal_scale(refitted).max(least);
        let error = error(weights, levels, scale);
        if error >= best.0 {
            break;
        }
        best = (error, scale);
    }
    best.1
}

/// The levels nearest to the weights.
pub(super) fn round(weights: &[f32], levels: &Levels, scale: f32) -> Vec<i8> {
    weights.iter().map(|&w| level(w, levels, scale) as i8).collect()
}

fn level(weight: f32, levels: &Levels, scale: f32) -> f64 {
    levels.nearest(f64::from(weight) / f64::from(scale))
}

fn error(weights: &[f32], levels: &Levels, scale: f32) -> f64 {
    weights.iter().map(|&w| (f64::from(w) - f64::from(scale) * level(w, levels, scale)).powi(2)).sum()
}

/// Σ w·e / Σ e².
fn refit(weights: &[f32], levels: &Levels, scale: f32) -> Option<f64> {
    let (mixed, square) = weights.iter().fold((0.0, 0.0), |(mixed, square), &w| {
        let level = level(w, levels, scale);
        (mixed + f64::from(w) * level, square + level * level)
    });
    (square > 0.0).then(|| mixed / square)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(count: u32) -> Vec<f32> {
        (0..count).map(|i| (i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5).powi(3)).collect()
    }

    #[test]
    fn binary_weights_are_signs_times_the_mean_magnitude() {
        let mut weights = weights(501);
        weights[7] = 0.0;
        let levels = Levels::listed(&SIGNS);
        let scale = scale(&weights, &levels, 0.0);
        let mean = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / 501.0;
        assert_eq!(scale, mean as f32);
        let signs: Vec<i8> = weights.iter().map(|&w| if w >= 0.0 { 1 } else { -1 }).collect();
        assert_eq!(round(&weights, &levels, scale), signs);
    }

    #[test]
    fn powers_of_two_fill_their_bits() {
        assert_eq!(powers_of_two(2), [-1, 0, 1]);
        assert_eq!(powers_of_two(3), [-4, -2, -1, 0, 1, 2, 4]);
        assert_eq!(powers_of_two(4), [-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64]);
    }

    /// Against every scale of a fine grid, each weight taking its nearest power by comparison with all.
    #[test]
    fn no_scale_is_much_better() {
        let weights = weights(300);
        for bits in 2..=4 {
            let powers = powers_of_two(bits);
            let brute = |scale: f64| -> f64 {
                let of = |w: f64| powers.iter().map(move |&p| (w - scale * f64::from(p)).powi(2));
                weights.iter().map(|&w| of(w.into()).fold(f64::INFINITY, f64::min)).sum()
            };
            let best = (1..4000).map(|i| brute(f64::from(i) * 5e-5)).fold(f64::INFINITY, f64::min);
            let found = brute(scale(&weights, &Levels::listed(&powers), 0.0).into());
            assert!(found <= 1.01 * best, "{bits}: {found} {best}");
        }
    }

    #[test]
    fn scales_keep_above_their_limit_and_zeros_cost_nothing() {
        let (signs, powers) = (Levels::listed(&SIGNS), Levels::listed(&powers_of_two(3)));
        assert_eq!(scale(&weights(10), &powers, 3.0), 3.0);
        assert_eq!(scale(&[0.0; 4], &powers, 0.0), ZERO_CHANNEL_SCALE);
        assert!(scale(&[0.0; 4], &signs, 0.0) < 1e-9);
        assert_eq!(scale(&[0.0; 4], &signs, 0.5), 0.5);
    }
}
