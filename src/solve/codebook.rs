//! Weights from a codebook: w ≈ s·e with e one of 2^b integers of 8 bits chosen for the layer, s a channel's scale.
//!
//! Minimises Σ h·(w − s·e(w))² by turns, h how much an error of the weight matters (1 unless given):
//!
//! * given the scales: w/s is rounded to integers from −127 to 127 whose counts, weighed with h·s², are a histogram of
//!   255 bins; the best 2^b integers for it are found exactly, by dynamic programming over the intervals that share an
//!   entry (one-dimensional k-means: the optimum is a partition into intervals);
//! * given the entries: each weight takes the nearest one, and s = Σ h·w·e / Σ h·e² over a channel is exact least
//!   squares.
//!
//! Starts from s = max|w|/127 and keeps the best of a few turns. Runtimes see int8 weights, so a grid that is not
//! uniform costs nothing.

use crate::quant::ZERO_CHANNEL_SCALE;

/// The largest entry.
const REACH: i32 = 127;
/// Bins of the histogram.
const BINS: usize = 2 * REACH as usize + 1;
/// How often scales and entries are improved in turns.
const TURNS: usize = 6;

/// A weight of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) channel: usize,
    pub(super) value: f32,
    /// How much an error of it matters, h.
    pub(super) importance: f64,
}

/// Integers and scales of weights of `channels` channels.
pub(super) fn fit(weights: &[Weight], channels: usize, bits: u8, least: &[f32]) -> (Vec<i8>, Vec<f32>) {
    let at_least = |channel: usize| least.get(if least.len() == 1 { 0 } else { channel }).copied().unwrap_or(0.0);
    let mut scales: Vec<f32> = vec![0.0; channels];
    for &Weight { channel, value, .. } in weights {
        scales[channel] = scales[channel].max(value.abs() / REACH as f32);
    }
    let normal = |(channel, scale): (usize, &f32)| {
        let scale = if *scale > 0.0 { scale.max(f32::MIN_POSITIVE) } else { ZERO_CHANNEL_SCALE };
        scale.max(at_least(channel))
    };
    scales = scales.iter().enumerate().map(normal).collect();
    let mut best = (f64::INFINITY, Vec::new(), scales.clone());
    for _ in 0..TURNS {
        let entries = entries(&histogram(weights, &scales), 1 << bits);
        let nearest = Nearest::new(&entries);
        let integers: Vec<i8> = weights.iter().map(|w| nearest.of(w.value / scales[w.channel])).collect();
        let error = error(weights, &integers, &scales);
        if error < best.0 {
            best = (error, integers.clone(), scales.clone());
        }
        for (channel, refitted) in refit(weights, &integers, channels).into_iter().enumerate() {
            if let Some(scale) = refitted {
                scales[channel] = scale.max(at_least(channel)).max(f32::MIN_POSITIVE);
            }
        }
    }
    (best.1, best.2)
}

fn histogram(weights: &[Weight], scales: &[f32]) -> Vec<f64> {
    let mut bins = vec![0.0; BINS];
    for &Weight { channel, value, importance } in weights {
        let scale = scales[channel];
        let integer = (value / scale).round_ties_even().clamp(-REACH as f32, REACH as f32) as i32;
        bins[(integer + REACH) as usize] += importance * f64::from(scale).powi(2);
    }
    bins
}

/// The `count` integers that represent the histogram with the least squared error; fewer if fewer are enough.
fn entries(bins: &[f64], count: usize) -> Vec<i8> {
    let used: Vec<usize> = (0..BINS).filter(|&i| bins[i] > 0.0).collect();
    let integer = |i: usize| i as i32 - REACH;
    if used.len() <= count {
        return used.into_iter().map(|i| integer(i) as i8).collect();
    }
    // Moments of the used bins before each one, so that those of an interval are differences.
    let mut moments = vec![[0.0; 3]];
    for &i in &used {
        let (weight, x) = (bins[i], f64::from(integer(i)));
        let [m0, m1, m2] = moments[moments.len() - 1];
        moments.push([m0 + weight, m1 + weight * x, m2 + weight * x * x]);
    }
    let interval = |from: usize, to: usize| {
        let [m0, m1, m2] = std::array::from_fn(|k| moments[to][k] - moments[from][k]);
        let entry = (m1 / m0).round_ties_even();
        (m2 - 2.0 * entry * m1 + entry * entry * m0, entry as i8)
    };
    // cost[j]: least error of the first j bins with the entries so far; from[k][j]: where the last interval starts.
    let mut cost: Vec<f64> = std::iter::once(0.0).chain((1..=used.len()).map(|j| interval(0, j).0)).collect();
    let mut starts = vec![vec![0; used.len() + 1]];
    for k in 1..count {
        let mut next = vec![f64::INFINITY; used.len() + 1];
        let mut from = vec![0; used.len() + 1];
        for j in k + 1..=used.len() {
            for (i, before) in cost.iter().enumerate().take(j).skip(k) {
                let total = before + interval(i, j).0;
                if total < next[j] {
                    (next[j], from[j]) = (total, i);
                }
            }
        }
        cost = next;
        starts.push(from);
    }
    let mut end = used.len();
    let mut found: Vec<i8> = Vec::with_capacity(count);
    for from in starts.iter().rev() {
        found.push(interval(from[end], end).1);
        end = from[end];
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The nearest entry of each value, by the borders between them.
struct Nearest<'a> {
    entries: &'a [i8],
    borders: Vec<f32>,
}

impl<'a> Nearest<'a> {
    fn new(entries: &'a [i8]) -> Self {
        let borders = entries.windows(2).map(|pair| f32::midpoint(f32::from(pair[0]), f32::from(pair[1]))).collect();
        Self { entries, borders }
    }

    fn of(&self, value: f32) -> i8 {
        self.entries.get(self.borders.partition_point(|&border| border < value)).copied().unwrap_or(0)
    }
}

fn error(weights: &[Weight], integers: &[i8], scales: &[f32]) -> f64 {
    let one = |(&Weight { channel, value, importance }, &q): (&Weight, &i8)| {
        importance * (f64::from(value) - f64::from(f32::from(q) * scales[channel])).powi(2)
    };
    weights.iter().zip(integers).map(one).sum()
}

/// Least-squares scale of each channel; none where all integers are 0 or the fit is not positive.
fn refit(weights: &[Weight], integers: &[i8], channels: usize) -> Vec<Option<f32>> {
    let mut sums = vec![(0.0, 0.0); channels];
    for (&Weight { channel, value, importance }, &q) in weights.iter().zip(integers) {
        let q = f64::from(q);
        sums[channel].0 += importance * f64::from(value) * q;
        sums[channel].1 += importance * q * q;
    }
    sums.into_iter().map(|(wq, qq)| (wq > 0.0 && qq > 0.0).then(|| (wq / qq) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_values_are_represented_exactly() {
        let value = |i: usize| [-1.27, 0.0, 0.4, 1.0][i % 4] * (1.0 + (i / 20) as f32);
        let weights: Vec<Weight> =
            (0..40).map(|i| Weight { channel: i / 20, value: value(i), importance: 1.0 }).collect();
        let (integers, scales) = fit(&weights, 2, 2, &[]);
        for (&Weight { channel, value, .. }, &q) in weights.iter().zip(&integers) {
            assert!((f32::from(q) * scales[channel] - value).abs() < 0.006, "{value}: {q}");
        }
        let mut entries = integers;
        entries.sort_unstable();
        entries.dedup();
        assert_eq!(entries.len(), 4);
    }

    #[test]
    fn the_partition_is_optimal() {
        let mut bins = vec![0.0; BINS];
        for (i, bin) in bins.iter_mut().enumerate() {
            *bin = f64::from((i * 7919 % 101) as u32);
        }
        let found = entries(&bins, 2);
        let cost = |entries: &[i8]| -> f64 {
            let one = |(i, w): (usize, &f64)| {
                let x = i as i32 - REACH;
                w * entries.iter().map(|&e| f64::from((x - i32::from(e)).pow(2))).fold(f64::INFINITY, f64::min)
            };
            bins.iter().enumerate().map(one).sum()
        };
        let best = cost(&found);
        for a in -127..=126_i8 {
            for b in a + 1..=127 {
                assert!(best <= cost(&[a, b]), "{found:?} is worse than {a} and {b}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let (integers, scales) = fit(&[Weight { channel: 0, value: 0.0, importance: 1.0 }; 2], 1, 2, &[]);
        assert_eq!((integers, scales), (vec![0, 0], vec![ZERO_CHANNEL_SCALE]));
    }
}
