//! Which layer loses bits next: steps 3 and 4 of algorithm 1.
//!
//! `Diff_i = |Acc_i − Acc_(i−1)|` is what layer i adds to what can be predicted; the layer with the smallest one among
//! those that can still go lower is next. The paper starts at i = 2, so the first layer keeps its bits; with the
//! accuracy of a guess as `Acc_0` it takes part.

use std::cmp::Reverse;

/// Accuracies that differ by less count as equal. They are ratios of counts, whose differences ties must not depend on
/// how they were rounded.
const RESOLUTION: f64 = 1.0 / (1_u64 << 40) as f64;

/// A layer, in topological order, under the present configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// `Acc_i`: the share its predictor gets right, in [0, 1].
    pub accuracy: f64,
    /// The number of its weights, for ties.
    pub weights: usize,
    /// Whether its bits are above the least.
    pub can_go_lower: bool,
}

/// Indices from 0 of the layers to lower, at most `count`, the one that adds least first; none when no layer is left.
///
/// `chance`, if given, is `Acc_0`, the accuracy of a guess, and puts the first layer in. Of equal layers that with more
/// weights comes first, then the later one. A layer whose difference is NaN comes last.
pub fn search_step(layers: &[Candidate], chance: Option<f64>, count: usize) -> Vec<usize> {
    let before = |i: usize| i.checked_sub(1).map_or(chance, |previous| Some(layers[previous].accuracy));
    let gain = |i: usize| Some(((layers[i].accuracy - before(i)?).abs() / RESOLUTION).round());
    let open = (0..layers.len()).filter(|&i| layers[i].can_go_lower);
    let mut order: Vec<(f64, usize)> = open.filter_map(|i| Some((gain(i)?, i))).collect();
    order.sort_by(|(a, i), (b, j)| {
        let ties = |i: usize| Reverse((layers[i].weights, i));
        a.total_cmp(b).then_with(|| ties(*i).cmp(&ties(*j)))
    });
    order.into_iter().take(count).map(|(_, i)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_do_not_depend_on_rounding() {
        // 0.3 − 0.2 and 0.4 − 0.3 differ as doubles.
        let layer = |accuracy: f64, weights: usize| Candidate { accuracy, weights, can_go_lower: true };
        assert_eq!(search_step(&[layer(0.2, 1), layer(0.3, 5), layer(0.4, 9)], None, 1), [2]);
        assert_eq!(search_step(&[layer(0.2, 1), layer(0.3, 9), layer(0.4, 5)], None, 1), [1]);
        assert_eq!(search_step(&[layer(0.2, 1), layer(0.3, 5), layer(0.4, 5)], None, 3), [2, 1]);
        assert_eq!(search_step(&[layer(0.2, 1), layer(f64::NAN, 5), layer(0.4, 9), layer(0.9, 1)], None, 1), [3]);
        assert!(search_step(&[layer(0.2, 1)], None, 1).is_empty());
        assert_eq!(search_step(&[layer(0.2, 1)], Some(0.1), 1), [0]);
        assert!(search_step(&[], Some(0.1), 1).is_empty());
    }

    proptest! {
        #[test]
        fn the_step_takes_the_layer_that_adds_least(
            layers in prop::collection::vec((0_u32..20, 0_usize..3, any::<bool>()), 0..9),
            with_first in any::<bool>(),
            count in 0_usize..4,
        ) {
            // Counts right out of 19, so that ties are exact; a guess is right once in 19.
            let right: Vec<i64> = layers.iter().map(|l| i64::from(l.0)).collect();
            let mut open: Vec<usize> = (usize::from(!with_first)..layers.len()).filter(|&i| layers[i].2).collect();
            let mut expected = Vec::new();
            while expected.len() < count && !open.is_empty() {
                let gain = |i: usize| (right[i] - if i == 0 { 1 } else { right[i - 1] }).abs();
                let beats = |i: usize, j: usize| {
                    let heavier = layers[i].1 > layers[j].1 || layers[i].1 == layers[j].1 && i > j;
                    gain(i) < gain(j) || gain(i) == gain(j) && heavier
                };
                let best = *open.iter().find(|&&i| open.iter().all(|&j| i == j || beats(i, j))).unwrap();
                expected.push(best);
                open.retain(|&i| i != best);
            }
            let candidate = |l: &(u32, usize, bool)| {
                Candidate { accuracy: f64::from(l.0) / 19.0, weights: l.1, can_go_lower: l.2 }
            };
            let candidates: Vec<Candidate> = layers.iter().map(candidate).collect();
            prop_assert_eq!(search_step(&candidates, with_first.then_some(1.0 / 19.0), count), expected);
        }
    }
}
