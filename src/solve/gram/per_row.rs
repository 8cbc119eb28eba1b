//! Rows with a scale of their own.

use super::descent::Row;
use super::{GroupSolution, Prepared, feedback};
use crate::solve::levels::Levels;
use faer::{ColRef, Mat, MatRef};
use rayon::prelude::*;

/// Rows solved together: wide enough for matrix products.
const CHUNK: usize = 32;

/// Solves a group.
pub(super) fn solve(group: &Prepared, levels: &Levels, bits: u8) -> GroupSolution {
    let rows = group.target.ncols();
    let chunks: Vec<usize> = (0..rows).step_by(CHUNK).collect();
    let solved: Vec<Vec<Solved>> =
        chunks.into_par_iter().map(|first| chunk(group, levels, bits, first, CHUNK.min(rows - first))).collect();
    let mut found = GroupSolution::new(group);
    for (row, solved) in solved.into_iter().flatten().enumerate() {
        found.set(row, &solved);
    }
    found
}

/// A row's integers, scale and error.
#[derive(Clone, Debug)]
pub(super) struct Solved {
    integers: Vec<f64>,
    scale: f64,
    error: f64,
    plain_error: f64,
}

impl GroupSolution {
    /// Plain rounding.
    pub(super) fn new(group: &Prepared) -> Self {
        let rows = group.target.ncols();
        Self {
            integers: group.plain.clone(),
            scales: group.plain_scales.clone(),
            errors: vec![0.0; rows],
            plain_errors: vec![0.0; rows],
        }
    }

    /// Takes over integers, scales and errors.
    pub(super) fn take(&mut self, rows: &[Row]) {
        for (at, row) in rows.iter().enumerate() {
            self.integers.col_as_slice_mut(at).copy_from_slice(&row.integers);
            self.scales[at] = row.scale;
            self.errors[at] = row.error();
        }
    }

    fn set(&mut self, row: usize, solved: &Solved) {
        self.integers.col_as_slice_mut(row).copy_from_slice(&solved.integers);
        self.scales[row] = solved.scale;
        self.errors[row] = solved.error;
        self.plain_errors[row] = solved.plain_error;
    }
}

/// Solves rows `first` to `first + count`.
fn chunk(group: &Prepared, levels: &Levels, bits: u8, first: usize, count: usize) -> Vec<Solved> {
    // A codebook need not have the integers of plain rounding.
    let plain = group.plain.subcols(first, count);
    let plain = Mat::from_fn(plain.nrows(), count, |i, row| levels.nearest(plain[(i, row)]));
    let mut best: Vec<Solved> = starts(group, first, plain.as_ref(), &group.plain_scales[first..])
        .into_iter()
        .map(|mut row| {
            let (plain_error, integers, scale) = (row.error(), row.integers.clone(), row.scale);
            if !group.quick {
                row.descend(&group.system, levels);
            }
            let plain = Solved { integers, scale, error: plain_error, plain_error };
            better(plain, &row)
        })
        .collect();
    let target = group.target.subcols(first, count);
    let mut attempt = |scales: &[f64]| {
        let integers = feedback::round(&group.system, target, scales, levels);
        for (at, mut row) in starts(group, first, integers.as_ref(), scales).into_iter().enumerate() {
            row.descend(&group.system, levels);
            let before = best[at].clone();
            best[at] = better(before, &row);
        }
        best.iter().map(|solved| solved.scale).collect::<Vec<_>>()
    };
    let mut fitted = Vec::new();
    let factors = group.rule.factors(bits);
    for factor in if group.quick { &factors[..1] } else { factors } {
        let scale = |row: usize| group.rule.scale(group.start_scales[row] * factor, group.least[row]);
        fitted = attempt(&(first..first + count).map(scale).collect::<Vec<_>>());
    }
    if !group.quick {
        attempt(&fitted);
    }
    best
}

/// What is found goes on from, with integers changed to those of other levels; the errors may be larger than they were.
pub(super) fn refined(
    group: &Prepared,
    found: &GroupSolution,
    levels: &Levels,
    change: impl Fn(f64) -> f64,
) -> GroupSolution {
    let mut next = found.clone();
    next.integers.col_iter_mut().for_each(|column| column.iter_mut().for_each(|q| *q = change(*q)));
    let mut rows = starts(group, 0, next.integers.as_ref(), &next.scales);
    rows.par_iter_mut().for_each(|row| row.descend(&group.system, levels));
    next.take(&rows);
    next
}

fn better(before: Solved, row: &Row) -> Solved {
    let error = row.error();
    if error < before.error {
        Solved { integers: row.integers.clone(), scale: row.scale, error, ..before }
    } else {
        before
    }
}

/// Rows from `first` on with the integers `[K, R]` and scales given.
pub(super) fn starts<'a>(group: &'a Prepared, first: usize, integers: MatRef<f64>, scales: &[f64]) -> Vec<Row<'a>> {
    let products = group.system.times(integers);
    let row = |(at, (integers, product)): (usize, (ColRef<f64>, ColRef<f64>))| Row {
        integers: integers.iter().copied().collect(),
        product: product.iter().copied().collect(),
        target: group.target.col_as_slice(first + at),
        target_product: group.product.col_as_slice(first + at),
        scale: scales[at],
        least: group.least[first + at],
        rule: group.rule,
        weight: group.system.unit(),
    };
    integers.col_iter().zip(products.col_iter()).enumerate().map(row).collect()
}
