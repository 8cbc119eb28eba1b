//! Rows of scores as probabilities, the answer of a row, and how far two rows are apart.

use crate::quant::lanes::{exp, largest, ln, sums, sums_of};

/// The probability that a divergence takes smaller ones of the network for: without it one class could make it infinite.
const LEAST: f64 = 1e-12;

/// Index of the largest entry; the first of equals, and of entries of which the first is no number.
pub fn argmax(row: &[f32]) -> usize {
    if row.first().is_none_or(|first| first.is_nan()) {
        return 0;
    }
    let most = largest(row);
    row.iter().position(|&entry| entry == most).unwrap_or(0)
}

/// A row of scores, and what makes it probabilities.
#[derive(Clone, Copy)]
enum Scores<'r> {
    /// Probabilities, and their sum.
    Shares(&'r [f32], f64),
    /// Logits, the largest, and Σ e^(logit − largest).
    Logits(&'r [f32], f64, f64),
}

impl<'r> Scores<'r> {
    fn of(row: &'r [f32]) -> Self {
        let [sum, outside] = sums_of(row, |v| [f64::from(v), f64::from(u8::from(!(0.0..=1.0).contains(&v)))]);
        if outside == 0.0 && (sum - 1.0).abs() < 1e-2 {
            return Self::Shares(row, sum);
        }
        let top = f64::from(largest(row));
        let [sum] = sums_of(row, |v| [exp(f64::from(v) - top)]);
        Self::Logits(row, top, sum)
    }

    fn probabilities(self) -> Vec<f64> {
        match self {
            Self::Shares(row, sum) => row.iter().map(|&v| f64::from(v) / sum).collect(),
            Self::Logits(row, top, sum) => row.iter().map(|&v| exp(f64::from(v) - top) / sum).collect(),
        }
    }
}

/// Of two rows in nats KL(p ‖ q), p = softmax(a) and q = softmax(b), rows that are probabilities already taken as they are; and
/// T²·KL(softmax(a/T) ‖ softmax(b/T)) at the temperature T = 2: for two rows close to each other about the divergence that they
/// would have if the answers were less certain (Hinton, Vinyals, Dean 2015).
///
/// At this temperature probabilities are √p / Σ√p, so that with P = Σ√p and Q = Σ√q
///
/// KL = Σ √p·ln(p/q) / 2P + ln(Q/P)
pub(crate) fn divergences(a: &[f32], b: &[f32]) -> [f64; 2] {
    let least = LEAST.ln();
    let of_shares = |p: f64, q: f64| weighted(p, q, ln(p / if q > LEAST { q } else { LEAST }));
    let [divergence, p, q, softened] = match (Scores::of(a), Scores::of(b)) {
        (Scores::Shares(a, sum_a), Scores::Shares(b, sum_b)) => {
            sums(a, b, |a, b| of_shares(f64::from(a) / sum_a, f64::from(b) / sum_b))
        }
        (Scores::Logits(a, top_a, sum_a), Scores::Logits(b, top_b, sum_b)) => {
            let (log_a, log_b) = (sum_a.ln(), sum_b.ln());
            sums(a, b, |a, b| {
                let (log_p, log_q) = (f64::from(a) - top_a - log_a, f64::from(b) - top_b - log_b);
                let (p, q) = (exp(log_p), exp(log_q));
                let apart = log_p - if log_q > least { log_q } else { least };
                weighted(p, q, apart)
            })
        }
        (a, b) => {
            let pairs = a.probabilities().into_iter().zip(b.probabilities());
            pairs
                .map(|(p, q)| of_shares(p, q))
                .fold([0.0; 4], |sums, terms| std::array::from_fn(|n| sums[n] + terms[n]))
        }
    };
    let softened = if p > 0.0 && q > 0.0 { 4.0 * (softened / (2.0 * p) + (q / p).ln()) } else { 4.0 * divergence };
    // Never negative but for rounding.
    [divergence.max(0.0), softened.max(0.0)]
}

/// What a pair of probabilities with this logarithm of their ratio adds to Σ p·ln(p/q), Σ √p, Σ √q and Σ √p·ln(p/q).
fn weighted(p: f64, q: f64, apart: f64) -> [f64; 4] {
    let finite = |value: f64| if value > 0.0 { value } else { 0.0 };
    let (p, q) = (finite(p), finite(q));
    let [shares, roots] = [p, p.sqrt()].map(|share| if p > 0.0 { share * apart } else { 0.0 });
    [shares, p.sqrt(), q.sqrt(), roots]
}

/// Whether a row holds probabilities: none negative, their sum 1.
pub(crate) fn is_probabilities(row: &[f32]) -> bool {
    matches!(Scores::of(row), Scores::Shares(..))
}

/// A row as probabilities, by softmax unless it holds them already.
pub(crate) fn probabilities(row: &[f32]) -> Vec<f64> {
    Scores::of(row).probabilities()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_two_known_rows() {
        let [found, _] = divergences(&[0.5, 0.5], &[0.25, 0.75]);
        let expected = 0.5 * 2_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    /// Of logits, of probabilities, and of the two mixed, with classes that the network gives no probability to.
    #[test]
    fn divergences_are_those_of_the_formula() {
        let mut random = crate::data::random::Random::new(7, 0, 0);
        for width in [2, 15, 16, 17, 1000] {
            let logits = |random: &mut crate::data::random::Random| -> Vec<f32> {
                (0..width).map(|_| 8.0 * random.normal()).collect()
            };
            let shares = |logits: &[f32]| -> Vec<f32> { probabilities(logits).iter().map(|&p| p as f32).collect() };
            let (a, mut b) = (logits(&mut random), logits(&mut random));
            b[1] = -1e4;
            for (a, b) in [(a.clone(), b.clone()), (shares(&a), shares(&b)), (shares(&a), b.clone())] {
                let (p, q) = (probabilities(&a), probabilities(&b));
                let terms = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
                let expected = terms.map(|(&p, &q)| p * (p / q.max(1e-12)).ln()).sum::<f64>().max(0.0);
                let [found, _] = divergences(&a, &b);
                assert!((found - expected).abs() < 1e-12 * expected.max(1.0), "{width}: {found} {expected}");
            }
        }
        // Softmax of nothing but NaN has lost all.
        assert!(divergences(&[1.0, 2.0, 3.0], &[f32::NAN; 3]).iter().all(|lost| *lost > 20.0));
    }

    #[test]
    fn the_largest_entry() {
        assert_eq!([argmax(&[1.0, 3.0, 3.0]), argmax(&[]), argmax(&[2.0, f32::NAN, 1.0])], [1, 0, 0]);
        assert_eq!([argmax(&[f32::NAN, 3.0]), argmax(&[f32::NEG_INFINITY; 3])], [0, 0]);
    }

    /// At temperature 2 the powers of {9, 1} are {3, 1}. A row of logits has the same as the row of its probabilities.
    #[test]
    fn softened_divergence_is_that_of_roots() {
        let (a, b) = ([0.9, 0.1], [0.5, 0.5]);
        let expected = 4.0 * (0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln());
        let softened = |a: &[f32], b: &[f32]| divergences(a, b)[1];
        assert!((softened(&a, &b) - expected).abs() < 1e-6, "{} {expected}", softened(&a, &b));
        let logits = |row: [f32; 2]| row.map(|p| p.ln() + 3.0);
        assert!((softened(&logits(a), &logits(b)) - expected).abs() < 1e-5);
        assert!((softened(&logits(a), &b) - expected).abs() < 1e-5);
        assert!(softened(&a, &a) < 1e-12);
    }

    /// An error in the logits of a certain row hardly shows in the divergence, and far more in the softened one.
    #[test]
    fn certain_rows_count_when_softened() {
        let of = |row: [f32; 2], moved: [f32; 2]| divergences(&row, &moved);
        let certain = of([12.0, 0.0], [11.0, 0.0]);
        let open = of([0.5, 0.0], [-0.5, 0.0]);
        assert!(certain[1] / certain[0] > 100.0, "{certain:?}");
        assert!((open[1] / open[0] - 1.0).abs() < 0.1, "{open:?}");
    }
}
