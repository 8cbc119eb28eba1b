//! The better of what was found and of plain rounding.

use super::Part;
use crate::quant::{QuantizedWeight, Sqnr};
use crate::solve::{Group, Problem, Solution};
use rayon::prelude::*;

/// Integers and scales for the rows of a part.
#[derive(Clone, Debug)]
pub(in crate::solve) struct LearnedRows {
    pub(in crate::solve) integers: Vec<i8>,
    pub(in crate::solve) scales: Vec<f32>,
}

impl LearnedRows {
    /// Those of plain rounding.
    fn plain(plain: &QuantizedWeight, part: &Part) -> Self {
        let (rows, size) = (part.first..part.first + part.rows(), part.size());
        let scale = |row: usize| plain.scales.get(row).or(plain.scales.first()).copied().unwrap_or(1.0);
        Self { integers: plain.data[rows.start * size..rows.end * size].to_vec(), scales: rows.map(scale).collect() }
    }
}

/// A part's rows as found and as plain rounding has them.
struct ComparedRows {
    found: LearnedRows,
    plain: LearnedRows,
    errors: Vec<f64>,
    plain_errors: Vec<f64>,
    signal: Vec<f64>,
}

/// The better of what was found and of plain rounding: row by row, or for the whole layer where rows share a scale that
/// differs.
pub(in crate::solve) fn choose(
    problem: &Problem,
    plain: &QuantizedWeight,
    parts: &[Part],
    found: Vec<LearnedRows>,
) -> Solution {
    let compare = |(part, found): (&Part, LearnedRows)| {
        let plain = LearnedRows::plain(plain, part);
        let (errors, plain_errors) = (part.errors(&part.values(&found)), part.errors(&part.values(&plain)));
        ComparedRows { found, plain, errors, plain_errors, signal: part.signal() }
    };
    let mut compared: Vec<ComparedRows> = parts.par_iter().zip(found).map(compare).collect();
    let together = !problem.per_channel() && compared.iter().any(|part| part.found.scales != part.plain.scales);
    let total = |errors: fn(&ComparedRows) -> &Vec<f64>| compared.iter().flat_map(errors).sum::<f64>();
    let all_better = total(|part| &part.errors) < total(|part| &part.plain_errors);
    for part in &mut compared {
        part.keep_better(problem.size, together.then_some(all_better));
    }
    assemble(problem, &compared)
}

impl ComparedRows {
    /// Puts plain rounding in the place of rows that are no better, or of all if so told.
    fn keep_better(&mut self, size: usize, better: Option<bool>) {
        for row in 0..self.errors.len() {
            if better.unwrap_or(self.errors[row] < self.plain_errors[row]) {
                continue;
            }
            let values = row * size..(row + 1) * size;
            self.found.integers[values.clone()].copy_from_slice(&self.plain.integers[values]);
            self.found.scales[row] = self.plain.scales[row];
            self.errors[row] = self.plain_errors[row];
        }
    }
}

fn assemble(problem: &Problem, compared: &[ComparedRows]) -> Solution {
    let integers: Vec<i8> = compared.iter().flat_map(|part| &part.found.integers).copied().collect();
    let mut scales: Vec<f32> = compared.iter().flat_map(|part| &part.found.scales).copied().collect();
    let (mut ratio, mut plain_ratio) = (Sqnr::default(), Sqnr::default());
    for part in compared {
        for (row, &signal) in part.signal.iter().enumerate() {
            let sums = |noise| Sqnr { signal, noise, count: problem.size as u64 };
            ratio.merge(&sums(part.errors[row]));
            plain_ratio.merge(&sums(part.plain_errors[row]));
        }
    }
    let wide: Vec<f64> = scales.iter().map(|&s| f64::from(s)).collect();
    let bias_shift = bias_shift(problem, &integers, &wide);
    if !problem.per_channel() {
        scales.truncate(1);
    }
    Solution { integers, scales, zero_points: Vec::new(), bias_shift, input_scale: None, ratio, plain_ratio }
}

fn bias_shift(problem: &Problem, integers: &[i8], scales: &[f64]) -> Option<Vec<f64>> {
    let size = problem.size.max(1);
    let mut first = 0;
    let shift = |group: &Group| {
        let rows = first..first + group.weights.len() / size;
        first = rows.end;
        group.bias_shift(&integers[rows.start * size..rows.end * size], &scales[rows])
    };
    let shifts: Option<Vec<Vec<f64>>> = problem.groups.iter().map(shift).collect();
    shifts.map(|shifts| shifts.concat())
}
