//! What the float network's numbers themselves say of an output.
//!
//! Logits are recognized by four things together, of which a regressor's coordinates or angles lack at least one: the
//! softmax is peaked, the best class differs between samples, it stands out from the second, and it is best because of
//! the sample and not because its column is always large.

use super::agreement::{argmax, is_probabilities, probabilities};
use crate::quant::lanes::sums_of;

/// Rows that are remembered at most.
const ROWS: usize = 64;
/// Elements that the remembered rows may have together.
const ELEMENTS: usize = 1 << 20;
/// Rows that it takes to tell logits from other numbers.
const ENOUGH: usize = 8;
/// Classes that it takes: the larger of three numbers always stands out.
const CLASSES: usize = 4;

/// What was seen; parts merge, in the order of samples.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(crate) struct Evidence {
    rows: Vec<Vec<f32>>,
    seen: bool,
    /// A row that holds no probabilities was seen.
    improbable: bool,
    /// A row was seen whose length is not 1.
    scaled: bool,
    negative: bool,
    elements: u64,
    /// Elements within a tenth of 0 or 1.
    saturated: u64,
    above_half: u64,
}

impl Evidence {
    /// Adds a row; `remember` says whether it is one of those that are looked at side by side.
    pub(crate) fn observe(&mut self, row: &[f32], remember: bool) {
        self.seen = true;
        self.improbable = self.improbable || row.len() < 2 || !is_probabilities(row);
        let count = |is_so: bool| f64::from(u8::from(is_so));
        let [length, negative, saturated, above_half] = sums_of(row, |v| {
            [f64::from(v) * f64::from(v), count(v < 0.0), count(!(0.1..=0.9).contains(&v)), count(v > 0.5)]
        });
        self.scaled = self.scaled || row.len() < 2 || (length - 1.0).abs() > 1e-3;
        self.negative = self.negative || negative > 0.0;
        self.elements += row.len() as u64;
        self.saturated += saturated as u64;
        self.above_half += above_half as u64;
        if remember && self.rows.len() < ROWS && (self.rows.len() + 1) * row.len() <= ELEMENTS {
            self.rows.push(row.to_vec());
        }
    }

    /// Adds what a later part has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.seen |= other.seen;
        self.improbable |= other.improbable;
        self.scaled |= other.scaled;
        self.negative |= other.negative;
        self.elements += other.elements;
        self.saturated += other.saturated;
        self.above_half += other.above_half;
        for row in &other.rows {
            if self.rows.len() < ROWS && (self.rows.len() + 1) * row.len() <= ELEMENTS {
                self.rows.push(row.clone());
            }
        }
    }

    /// Whether all rows are probabilities.
    pub(crate) fn is_probabilities(&self) -> bool {
        self.seen && !self.improbable
    }

    /// Whether all rows have length 1 and are no probabilities.
    pub(crate) fn is_normalized(&self) -> bool {
        self.seen && !self.scaled && self.negative
    }

    /// Whether numbers between 0 and 1 are decisions: most are near one of the two, and both occur.
    pub(crate) fn is_decided(&self) -> bool {
        let most = 5 * self.saturated >= 4 * self.elements;
        most && self.above_half > 0 && self.above_half < self.elements
    }

    /// Whether the rows look like logits.
    pub(crate) fn is_logits(&self) -> bool {
        let Some(width) = self.rows.first().map(Vec::len) else { return false };
        let even = self.rows.iter().all(|row| row.len() == width && row.iter().all(|v| v.is_finite()));
        if self.rows.len() < ENOUGH || width < CLASSES || !even {
            return false;
        }
        self.is_peaked() && self.varies(width) && self.stands_out(width) && self.is_own(width)
    }

    fn is_peaked(&self) -> bool {
        let best = |row: &Vec<f32>| probabilities(row).into_iter().fold(0.0, f64::max);
        median(self.rows.iter().map(best)) >= 0.5
    }

    /// Whether no class is the best of nearly all rows, and there are more than two where there could be many.
    fn varies(&self, width: usize) -> bool {
        let mut counts = vec![0_usize; width];
        self.rows.iter().for_each(|row| counts[argmax(row)] += 1);
        let different = counts.iter().filter(|&&count| count > 0).count();
        let most = counts.iter().copied().max().unwrap_or_default();
        10 * most <= 9 * self.rows.len() && different >= if width >= 10 { 3 } else { 2 }
    }

    /// Whether the best stands farther from the second than the largest of so many random numbers would.
    fn stands_out(&self, width: usize) -> bool {
        let gap = |row: &Vec<f32>| {
            let best = argmax(row);
            let second = row.iter().enumerate().filter(|(at, _)| *at != best).map(|(_, &v)| v);
            let second = second.fold(f32::NEG_INFINITY, f32::max);
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
            f64::from(row[best] - second) / variance.sqrt().max(f64::MIN_POSITIVE)
        };
        median(self.rows.iter().map(gap)) >= if width < 16 { 1.0 } else { 0.7 }
    }

    /// Whether the best class of most rows is still the best when every column's mean is taken away.
    fn is_own(&self, width: usize) -> bool {
        let mut means = vec![0.0_f64; width];
        for row in &self.rows {
            means.iter_mut().zip(row).for_each(|(mean, &v)| *mean += f64::from(v) / self.rows.len() as f64);
        }
        let centred = |row: &Vec<f32>| -> Vec<f32> {
            row.iter().zip(&means).map(|(&v, mean)| (f64::from(v) - mean) as f32).collect()
        };
        let kept = self.rows.iter().filter(|row| argmax(row) == argmax(&centred(row))).count();
        3 * kept >= 2 * self.rows.len()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [−1, 1), the same every time.
    fn noise(at: u32) -> f32 {
        (at.wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x9E37_79B9) >> 8) as f32 / 8_388_608.0 - 1.0
    }

    fn evidence(rows: impl Iterator<Item = Vec<f32>>) -> Evidence {
        let mut evidence = Evidence::default();
        rows.for_each(|row| evidence.observe(&row, true));
        evidence
    }

    #[test]
    fn logits_of_a_classifier() {
        let row =
            |sample: u32| (0..10).map(move |c| 2.0 * noise(10 * sample + c) + if c == sample % 7 { 9.0 } else { 0.0 });
        assert!(evidence((0..32).map(|sample| row(sample).collect())).is_logits());
    }

    /// Landmarks in pixels, in shares of the image, and the angles of joints.
    #[test]
    fn numbers_of_regressors_are_no_logits() {
        let mean = [38.0, 51.0, 73.0, 51.0, 56.0, 71.0, 41.0, 92.0, 70.0, 92.0];
        let moved = |sample: u32, c: u32| 30.0 * noise(sample) + 4.0 * noise(1000 + 10 * sample + c);
        let pixels = |sample: u32| (0..10).map(|c| mean[c as usize] + moved(sample, c)).collect::<Vec<f32>>();
        assert!(!evidence((0..64).map(pixels)).is_logits());
        assert!(!evidence((0..64).map(|s| pixels(s).into_iter().map(|v| v / 112.0).collect())).is_logits());
        let angles = |sample: u32| (0..7).map(|c| 60.0 * noise(7 * sample + c)).collect::<Vec<f32>>();
        assert!(!evidence((0..64).map(angles)).is_logits());
        let pose = |sample: u32| (0..3).map(|c| 40.0 * noise(3 * sample + c)).collect::<Vec<f32>>();
        assert!(!evidence((0..64).map(pose)).is_logits());
    }

    #[test]
    fn vectors_of_length_one() {
        let row = |sample: u32| {
            let row: Vec<f32> = (0..16).map(|c| noise(16 * sample + c)).collect();
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.into_iter().map(|v| v / length).collect::<Vec<f32>>()
        };
        assert!(evidence((0..8).map(row)).is_normalized());
        assert!(!evidence((0..8).map(|_| vec![1.0, 0.0])).is_normalized());
    }
}
