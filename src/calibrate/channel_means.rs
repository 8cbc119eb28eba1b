//! Mean of each channel of an activation.

use super::dyadic::Sum;
use crate::kernels::Keep;
use serde::{Deserialize, Serialize};

/// Sums along one axis of an activation; parts merge. Sums are floating-point: the same parts in the same order give
/// the same bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelMeans {
    sums: Vec<f64>,
    /// Number of values per channel.
    count: u64,
}

impl ChannelMeans {
    /// Adds an activation of the given shape whose channels lie along `axis`. An activation with another number of
    /// channels than the first is ignored.
    pub fn observe(&mut self, values: &[f32], shape: &[usize], axis: usize) {
        let Some(&channels) = shape.get(axis) else { return };
        let inner: usize = shape[axis + 1..].iter().product();
        let size = channels * inner;
        if size == 0 || (!self.sums.is_empty() && self.sums.len() != channels) {
            return;
        }
        self.sums.resize(channels, 0.0);
        for outer in values.chunks_exact(size) {
            for (sum, channel) in self.sums.iter_mut().zip(outer.chunks_exact(inner)) {
                *sum += sum_of(channel);
            }
        }
        self.count += (values.len() / channels) as u64;
    }

    /// Adds the elements of an activation that count, given their indices.
    pub(crate) fn observe_kept(&mut self, values: &[f32], shape: &[usize], axis: usize, keep: Keep) {
        let Some(&channels) = shape.get(axis) else { return };
        let inner: usize = shape[axis + 1..].iter().product();
        if channels * inner == 0 || (!self.sums.is_empty() && self.sums.len() != channels) {
            return;
        }
        self.sums.resize(channels, 0.0);
        let mut kept = 0;
        for (at, &value) in values.iter().enumerate().filter(|(at, _)| keep(*at)) {
            self.sums[at / inner % channels] += f64::from(value);
            kept += 1;
        }
        self.count += kept / channels as u64;
    }

    /// Adds the sums of a part that is later in order.
    pub fn merge(&mut self, later: &Self) {
        if self.sums.is_empty() {
            self.clone_from(later);
        } else if self.sums.len() == later.sums.len() {
            self.sums.iter_mut().zip(&later.sums).for_each(|(a, b)| *a += b);
            self.count = self.count.saturating_add(later.count);
        }
    }

    /// The means, in the units of the activation; empty before the first activation.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.count.max(1) as f64).collect()
    }
}

impl Sum for ChannelMeans {
    fn add(&mut self, later: &Self) {
        self.merge(later);
    }
}

/// Sum in eight interleaved parts, which the compiler turns into vector adds; the order is fixed.
fn sum_of(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<8>();
    let mut parts = [0.0_f32; 8];
    let mut total = 0.0_f64;
    for run in blocks.chunks(64) {
        for block in run {
            parts.iter_mut().zip(block).for_each(|(part, value)| *part += value);
        }
        total += parts.iter().map(|&p| f64::from(p)).sum::<f64>();
        parts = [0.0; 8];
    }
    total + rest.iter().map(|&v| f64::from(v)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_two_images() {
        let mut means = ChannelMeans::default();
        means.observe(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], &[1, 2, 3], 1);
        let mut other = ChannelMeans::default();
        other.observe(&[4.0, 5.0, 6.0, 40.0, 50.0, 60.0], &[1, 2, 3], 1);
        means.merge(&other);
        assert_eq!(means.means(), [3.5, 35.0]);
    }

    #[test]
    fn positions_that_count_nowhere() {
        let mut means = ChannelMeans::default();
        means.observe_kept(&[1.0, 10.0, 3.0, 30.0, 99.0, 99.0], &[1, 3, 2], 2, &|at| at < 4);
        assert_eq!(means.means(), [2.0, 20.0]);
    }

    #[test]
    fn last_axis_and_long_channels() {
        let values: Vec<f32> = (0..6000).map(|i| (i % 3) as f32).collect();
        let mut means = ChannelMeans::default();
        means.observe(&values, &[1, 2000, 3], 2);
        assert_eq!(means.means(), [0.0, 1.0, 2.0]);
        let mut long = ChannelMeans::default();
        long.observe(&values, &[1, 1, 6000], 1);
        assert_eq!(long.means(), [1.0]);
    }
}
