//! Levels that are sums of binary bases: `w ≈ s·Σ_i α_i·b_i`, each b −1 or 1 (Guo et al., 2017, network sketching; Lin
//! et al., 2017, ABC-Net). Here the α are integers that the channels of a layer share, and s a channel's scale.
//!
//! With v a weight over the mean magnitude of its channel, the α start from the greedy sketch: each is the mean
//! magnitude of what is left of v, and its b the sign of that. Then, in turns, each v takes the nearest of the 2^m sums
//! of the α with either sign, which settles its b, and α = (BᵀB)⁻¹·Bᵀv is exact least squares, for which counts and
//! sums of the v that share their b are enough. At last the α are laid over −127 to 127 and rounded.

use faer::Mat;
use faer::linalg::solvers::Solve;

/// The largest sum.
const REACH: i32 = 127;
/// How often signs and factors are improved in turns.
const TURNS: usize = 10;

/// The sums of `bases` bases for the weights of channels of `size` values, in rising order.
pub(super) fn levels(weights: &[f32], size: usize, bases: u8) -> Vec<i8> {
    let values: Vec<f64> = weights.chunks(size.max(1)).flat_map(normalized).collect();
    let mut factors = sketch(&values, bases);
    for _ in 0..TURNS {
        match refitted(&values, &factors) {
            Some(next) if next != factors => factors = next,
            _ => break,
        }
    }
    let mut levels: Vec<i8> = sums(&integers(&factors)).into_iter().map(|(sum, _)| sum as i8).collect();
    levels.dedup();
    levels
}

/// The weights of a channel over their mean magnitude; zeros where there is none.
fn normalized(channel: &[f32]) -> impl Iterator<Item = f64> {
    let mean = channel.iter().map(|&w| f64::from(w).abs()).sum::<f64>() / channel.len() as f64;
    channel.iter().map(move |&w| if mean > 0.0 { f64::from(w) / mean } else { 0.0 })
}

/// The greedy α.
fn sketch(values: &[f64], bases: u8) -> Vec<f64> {
    let mut rest = values.to_vec();
    let one = |_| {
        let factor = rest.iter().map(|v| v.abs()).sum::<f64>() / rest.len().max(1) as f64;
        for v in &mut rest {
            *v -= if *v >= 0.0 { factor } else { -factor };
        }
        factor
    };
    (0..bases).map(one).collect()
}

/// All sums in rising order, with the signs of the factors as bits, 1 for plus.
fn sums(factors: &[f64]) -> Vec<(f64, usize)> {
    let sum = |signs: usize| factors.iter().enumerate().map(|(i, f)| sign(signs, i) * f).sum();
    let mut sums: Vec<(f64, usize)> = (0..1 << factors.len()).map(|signs| (sum(signs), signs)).collect();
    sums.sort_by(|a, b| a.0.total_cmp(&b.0));
    sums
}

fn sign(signs: usize, base: usize) -> f64 {
    if signs >> base & 1 == 1 { 1.0 } else { -1.0 }
}

/// The least-squares α for the signs of the nearest sums; none if the bases depend on each other.
fn refitted(values: &[f64], factors: &[f64]) -> Option<Vec<f64>> {
    let sums = sums(factors);
    let middles: Vec<f64> = sums.windows(2).map(|pair| f64::midpoint(pair[0].0, pair[1].0)).collect();
    let mut shares = vec![(0.0, 0.0); sums.len()];
    for value in values {
        let share = &mut shares[middles.partition_point(|middle| middle <= value)];
        *share = (share.0 + 1.0, share.1 + value);
    }
    let count = factors.len();
    let mut square: Mat<f64> = Mat::zeros(count, count);
    let mut mixed: Mat<f64> = Mat::zeros(count, 1);
    for (&(_, signs), &(members, total)) in sums.iter().zip(&shares) {
        for i in 0..count {
            mixed[(i, 0)] += sign(signs, i) * total;
            for j in 0..count {
                square[(i, j)] += sign(signs, i) * sign(signs, j) * members;
            }
        }
    }
    let solution = square.llt(faer::Side::Lower).ok()?.solve(mixed);
    let next: Vec<f64> = (0..count).map(|i| solution[(i, 0)]).collect();
    next.iter().all(|factor| factor.is_finite()).then_some(next)
}

/// The α as integers whose sum is at most 127.
fn integers(factors: &[f64]) -> Vec<f64> {
    let total: f64 = factors.iter().map(|factor| factor.abs()).sum();
    if total <= 0.0 {
        // Nothing to go by.
        return (0..factors.len()).map(|i| (1_u32 << i).into()).collect();
    }
    let integer = |factor: &f64| (factor.abs() * f64::from(REACH) / total).round_ties_even().max(1.0);
    let mut integers: Vec<f64> = factors.iter().map(integer).collect();
    integers.sort_by(f64::total_cmp);
    let excess = integers.iter().sum::<f64>() - f64::from(REACH);
    if let Some(largest) = integers.last_mut() {
        *largest -= excess.max(0.0);
    }
    integers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights that are such sums.
    fn exact(factors: &[f64], count: usize) -> Vec<f32> {
        let sums = sums(factors);
        (0..count).map(|i| sums[i * 7919 % sums.len()].0 as f32).collect()
    }

    #[test]
    fn one_base_is_the_sign() {
        assert_eq!(levels(&[0.5, -3.0, 1.0], 3, 1), [-127, 127]);
    }

    #[test]
    fn factors_are_found_again() {
        let weights = exact(&[0.8, 0.3, 0.17], 800);
        // 127·(0.8, 0.3, 0.17)/1.27.
        assert_eq!(levels(&weights, 400, 3), [-127, -93, -67, -33, 33, 67, 93, 127]);
    }

    #[test]
    fn turns_lower_the_error() {
        let values: Vec<f64> = (0..2000).map(|i| (f64::from(i * 7919 % 2000) / 1000.0 - 1.0).powi(3)).collect();
        let error = |factors: &[f64]| -> f64 {
            let sums = sums(factors);
            let one = |v: &f64| sums.iter().map(|(sum, _)| (v - sum).powi(2)).fold(f64::INFINITY, f64::min);
            values.iter().map(one).sum()
        };
        let mut factors = sketch(&values, 3);
        let mean = values.iter().map(|v| v.abs()).sum::<f64>() / 2000.0;
        assert!((factors[0] - mean).abs() < 1e-12);
        let first = error(&factors);
        for _ in 0..5 {
            let next = refitted(&values, &factors).unwrap();
            assert!(error(&next) <= error(&factors) * (1.0 + 1e-12));
            factors = next;
        }
        assert!(error(&factors) < 0.9 * first, "{} {first}", error(&factors));
    }

    #[test]
    fn levels_are_symmetric_and_fit_a_byte() {
        for bases in 1..=6 {
            for weights in [vec![0.0; 12], exact(&[1.0, 1.0], 40), exact(&[1.0, 1e-9], 40), exact(&[3.0, 2.0, 0.5], 99)]
            {
                let levels = levels(&weights, 4, bases);
                assert!((2..=1 << bases).contains(&levels.len()), "{levels:?}");
                assert!(levels.iter().zip(levels.iter().rev()).all(|(&a, &b)| i32::from(a) == -i32::from(b)));
            }
        }
    }
}
