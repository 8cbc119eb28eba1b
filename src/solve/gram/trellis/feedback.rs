//! Rounding with error feedback, a column at a time (`gram::feedback` has the sums).

use super::descent::BLOCK;
use super::rows::{parts, product};
use crate::quant::trellis::Encoder;
use crate::solve::gram::Prepared;
use crate::solve::gram::system::Form;
use crate::solve::trellis::Targets;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use msq_passes::TrellisCode;
use rayon::prelude::*;
use std::ops::Range;

/// Integers `[K, O]` of all groups on the scales of each, and the windows of each column, one after the other.
pub(super) fn round(groups: &[Prepared], scales: &[Vec<f64>], code: TrellisCode) -> (Vec<Mat<f64>>, Vec<u8>) {
    let mut integers: Vec<Mat<f64>> =
        groups.iter().map(|group| Mat::zeros(group.target.nrows(), group.target.ncols())).collect();
    let mut rows: Vec<Rows> = groups
        .iter()
        .enumerate()
        .flat_map(|(at, group)| parts(group).map(move |range| Rows::new(at, group, range)))
        .collect();
    let size = groups.first().map_or(0, |group| group.target.nrows());
    let count = rows.iter().map(|rows| rows.range.len()).sum();
    let mut encoder = Encoder::new(code, count);
    let mut windows = vec![0; size * count];
    let mut targets = Targets::default();
    let mut end = size;
    while end > 0 {
        let block = end.saturating_sub(BLOCK)..end;
        rows.par_iter_mut().for_each(|rows| rows.open(block.clone()));
        for at in (0..block.len()).rev() {
            let input = block.start + at;
            targets.clear();
            for rows in &rows {
                let weight = rows.group.system.unit() * rows.pivots[input];
                for (row, &scale) in rows.range.clone().zip(&scales[rows.at][rows.range.clone()]) {
                    let wanted = rows.group.target[(input, row)] - rows.later[(at, row - rows.range.start)];
                    targets.push(wanted / scale, weight * scale * scale);
                }
            }
            let found = targets.encode(&mut encoder);
            windows[input * count..][..count].copy_from_slice(found);
            let mut found = windows[input * count..][..count].iter().map(|&w| f64::from(encoder.integer(w)));
            for rows in &mut rows {
                for (row, &scale) in rows.range.clone().zip(&scales[rows.at][rows.range.clone()]) {
                    let integer = found.next().unwrap_or_default();
                    integers[rows.at][(input, row)] = integer;
                    let error = scale * integer - rows.group.target[(input, row)];
                    rows.errors[(input, row - rows.range.start)] = error;
                }
                rows.carry(at, input);
            }
        }
        rows.par_iter_mut().for_each(|rows| rows.close(block.clone()));
        end = block.start;
    }
    (integers, windows)
}

/// Some rows of a group, with the errors made so far. Matrices have a row of weights in each column.
struct Rows<'a> {
    group: &'a Prepared,
    at: usize,
    range: Range<usize>,
    /// `D_j`.
    pivots: Vec<f64>,
    /// e, `[K, R]`.
    errors: Mat<f64>,
    /// Where the form is that of few columns, X·e `[P, R]`; empty elsewhere.
    carried: Mat<f64>,
    /// `M_ij` of the block at hand, i the later input.
    factors: Mat<f64>,
    /// `Σ_i e_i·M_ij` of the block at hand, `[B, R]`.
    later: Mat<f64>,
}

impl<'a> Rows<'a> {
    fn new(at: usize, group: &'a Prepared, range: Range<usize>) -> Self {
        let (size, count) = (group.target.nrows(), range.len());
        let (pivots, columns) = match &group.system.form {
            Form::Full { .. } => (group.system.pivots(), 0),
            Form::Thin(thin) => (thin.pivots().to_vec(), thin.columns().nrows()),
        };
        let (errors, carried) = (Mat::zeros(size, count), Mat::zeros(columns, count));
        Self { group, at, range, pivots, errors, carried, factors: Mat::new(), later: Mat::new() }
    }

    /// Goes on to a block: the sums over all later ones.
    fn open(&mut self, block: Range<usize>) {
        let (begin, length, end) = (block.start, block.len(), block.end);
        match &self.group.system.form {
            Form::Full { unit_lower, .. } => {
                self.factors = unit_lower.submatrix(begin, begin, length, length).to_owned();
                let rest = unit_lower.nrows() - end;
                let left = unit_lower.submatrix(end, begin, rest, length).transpose();
                self.later = product(left, self.errors.subrows(end, rest));
            }
            Form::Thin(thin) => {
                let (columns, gains) = (thin.columns().subcols(begin, length), thin.gains().subcols(begin, length));
                self.factors = product(columns.transpose(), gains);
                self.later = product(gains.transpose(), self.carried.as_ref());
                for (at, pivot) in self.pivots[block].iter().enumerate() {
                    self.factors.col_mut(at).iter_mut().for_each(|value| *value /= pivot);
                    self.later.row_mut(at).iter_mut().for_each(|value| *value /= pivot);
                }
            }
        }
    }

    /// Adds what the errors of a column do to those of the block that are still to come.
    fn carry(&mut self, at: usize, input: usize) {
        let factors: Vec<f64> = (0..at).map(|to| self.factors[(at, to)]).collect();
        for row in 0..self.range.len() {
            let error = self.errors[(input, row)];
            let later = &mut self.later.col_as_slice_mut(row)[..at];
            later.iter_mut().zip(&factors).for_each(|(later, factor)| *later += error * factor);
        }
    }

    /// Leaves a block.
    fn close(&mut self, block: Range<usize>) {
        if let Form::Thin(thin) = &self.group.system.form {
            let columns = thin.columns().subcols(block.start, block.len());
            let errors = self.errors.subrows(block.start, block.len());
            matmul(self.carried.as_mut(), Accum::Add, columns, errors, 1.0, Par::Seq);
        }
    }
}
