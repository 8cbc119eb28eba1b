//! The columns a group reads, as they enter the loss.

use crate::solve::{Problem, Statistics};
use rayon::prelude::*;

/// Magnitudes from which on a column is left out: squares are still finite.
const LARGEST: f32 = 1e18;

/// What a group reads.
#[derive(Debug)]
pub(in crate::solve) struct Reading<'a> {
    pub(super) size: usize,
    float: &'a [f32],
    quantized: &'a [f32],
    /// The columns used.
    usable: Vec<usize>,
    /// What is taken off x and off x̂.
    pub(super) float_center: Vec<f32>,
    quantized_center: Vec<f32>,
    /// u.
    pub(super) unit: f32,
}

impl<'a> Reading<'a> {
    /// The readings of all groups.
    pub(in crate::solve) fn all(problem: &Problem<'a>) -> Vec<Self> {
        problem.groups.par_iter().map(|group| Self::new(group.statistics, problem)).collect()
    }

    fn new(statistics: Statistics<'a>, problem: &Problem) -> Self {
        let size = problem.size.max(1);
        let (float, quantized): (&[f32], &[f32]) = match statistics {
            Statistics::Columns(columns) if columns.size == problem.size => (&columns.float, &columns.quantized),
            _ => (&[], &[]),
        };
        let sound = |values: &[f32]| values.iter().all(|v| v.abs() < LARGEST);
        let pairs = float.chunks_exact(size).zip(quantized.chunks_exact(size)).enumerate();
        let usable: Vec<usize> = pairs.filter(|(_, (x, y))| sound(x) && sound(y)).map(|(at, _)| at).collect();
        let center = |values: &[f32]| {
            let mut sums = vec![0.0; size];
            for &at in usable.iter().filter(|_| problem.centered) {
                sums.iter_mut().zip(&values[at * size..]).for_each(|(sum, &v)| *sum += f64::from(v));
            }
            sums.into_iter().map(|sum| (sum / usable.len().max(1) as f64) as f32).collect()
        };
        let (float_center, quantized_center): (Vec<f32>, Vec<f32>) = (center(float), center(quantized));
        let square = |&at: &usize| -> f64 {
            let column = quantized[at * size..][..size].iter().zip(&quantized_center);
            column.map(|(&v, &c)| f64::from(v - c).powi(2)).sum()
        };
        let mean = usable.iter().map(square).sum::<f64>() / (usable.len() * size).max(1) as f64;
        let unit = if mean > 0.0 { (mean.sqrt() as f32).max(f32::MIN_POSITIVE) } else { 1.0 };
        Self { size, float, quantized, usable, float_center, quantized_center, unit }
    }

    /// Number of columns used.
    pub(super) fn count(&self) -> usize {
        self.usable.len()
    }

    /// Columns `[B, K]` of x or x̂, about their means, in units.
    pub(super) fn gather(&self, columns: impl Iterator<Item = usize>, float: bool, block: &mut Vec<f32>) {
        let (values, center) =
            if float { (self.float, &self.float_center) } else { (self.quantized, &self.quantized_center) };
        block.clear();
        for column in columns {
            let column = &values[self.usable[column] * self.size..][..self.size];
            block.extend(column.iter().zip(center).map(|(v, c)| (v - c) / self.unit));
        }
    }
}
