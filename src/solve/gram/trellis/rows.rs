//! Rows of a group on their way down: integers, scales, and what A makes of the integers.

use crate::solve::gram::system::{Form, dot};
use crate::solve::gram::{GroupSolution, Prepared};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;
use std::ops::Range;

/// The most rows that are kept together: wide enough for matrix products.
const TOGETHER: usize = 64;

/// Some rows of a group. Matrices `[K, R]` have a row of weights in each column.
pub(super) struct Rows<'a> {
    pub(super) group: &'a Prepared,
    /// Which group.
    at: usize,
    /// The rows of the group.
    pub(super) range: Range<usize>,
    /// q.
    pub(super) integers: Mat<f64>,
    pub(super) scales: Vec<f64>,
    /// A·q. Where the form is that of few columns, as it was before columns were changed until [`Rows::finish`].
    product: Mat<f64>,
    /// X·q where the form is that of few columns, `[P, R]`; empty elsewhere.
    outputs: Mat<f64>,
    /// w*·A·w* of each row.
    energies: Vec<f64>,
}

impl<'a> Rows<'a> {
    /// The rows of all groups in order, with the integers and scales of each group.
    pub(super) fn all(groups: &'a [Prepared], starts: impl IntoIterator<Item = (Mat<f64>, Vec<f64>)>) -> Vec<Self> {
        let parts: Vec<_> = groups
            .iter()
            .zip(starts)
            .enumerate()
            .flat_map(|(at, (group, (integers, scales)))| {
                parts(group).map(move |range| {
                    let own = integers.subcols(range.start, range.len()).to_owned();
                    (at, group, range.clone(), own, scales[range].to_vec())
                })
            })
            .collect();
        parts.into_par_iter().map(|(at, group, range, own, scales)| Self::new(at, group, range, own, scales)).collect()
    }

    fn new(at: usize, group: &'a Prepared, range: Range<usize>, integers: Mat<f64>, scales: Vec<f64>) -> Self {
        let outputs = match &group.system.form {
            Form::Thin(thin) => product(thin.columns(), integers.as_ref()),
            Form::Full { .. } => Mat::new(),
        };
        let energy = |row| dot(group.target.col_as_slice(row), group.product.col_as_slice(row));
        let energies = range.clone().map(energy).collect();
        let product = group.system.times(integers.as_ref());
        Self { group, at, range, integers, scales, product, outputs, energies }
    }

    /// A·q for a block of inputs, `[B, R]`.
    pub(super) fn open(&self, block: Range<usize>) -> Mat<f64> {
        match &self.group.system.form {
            Form::Full { .. } => self.product.subrows(block.start, block.len()).to_owned(),
            Form::Thin(thin) => {
                let columns = thin.columns().subcols(block.start, block.len());
                let mut found = product(columns.transpose(), self.outputs.as_ref());
                for row in 0..found.ncols() {
                    for (at, input) in block.clone().enumerate() {
                        found[(at, row)] += thin.damping(input) * self.integers[(input, row)];
                    }
                }
                found
            }
        }
    }

    /// Changes the integers of a block by `[B, R]`.
    pub(super) fn close(&mut self, block: Range<usize>, steps: MatRef<f64>) {
        if steps.col_iter().all(|column| column.iter().all(|step| *step == 0.0)) {
            return;
        }
        let mut own = self.integers.as_mut().subrows_mut(block.start, block.len());
        own += steps;
        let (to, left) = match &self.group.system.form {
            Form::Full { matrix, .. } => (&mut self.product, matrix.as_ref()),
            Form::Thin(thin) => (&mut self.outputs, thin.columns()),
        };
        let left = left.subcols(block.start, block.len());
        matmul(to.as_mut(), Accum::Add, left, steps, 1.0, Par::Seq);
    }

    /// Brings A·q up to date when all blocks are done.
    pub(super) fn finish(&mut self) {
        if let Form::Thin(_) = &self.group.system.form {
            self.product = self.open(0..self.integers.nrows());
        }
    }

    /// w*·A for an input, of a row.
    pub(super) fn target_product(&self, input: usize, row: usize) -> f64 {
        self.group.product[(input, self.range.start + row)]
    }

    /// What the form was divided by.
    pub(super) fn weight(&self) -> f64 {
        self.group.system.unit()
    }

    /// q·A·w* and q·A·q of a row.
    pub(super) fn fit(&self, row: usize) -> (f64, f64) {
        let integers = self.integers.col_as_slice(row);
        let target = self.group.product.col_as_slice(self.range.start + row);
        (dot(integers, target), dot(integers, self.product.col_as_slice(row)))
    }

    /// The error of each row, in units of the moments.
    pub(super) fn errors(&self) -> impl Iterator<Item = f64> {
        self.scales.iter().zip(&self.energies).enumerate().map(|(row, (scale, energy))| {
            let (mixed, square) = self.fit(row);
            // Rounding may leave less than nothing of an exact fit.
            self.weight() * (scale * scale * square - 2.0 * scale * mixed + energy).max(0.0)
        })
    }

    /// Writes integers, scales and errors into the solutions of all groups.
    pub(super) fn give(&self, found: &mut [GroupSolution]) {
        let found = &mut found[self.at];
        for (row, (at, error)) in self.range.clone().zip(self.errors()).enumerate() {
            found.integers.col_as_slice_mut(at).copy_from_slice(self.integers.col_as_slice(row));
            found.scales[at] = self.scales[row];
            found.errors[at] = error;
        }
    }
}

/// The rows of a group that are kept together.
pub(super) fn parts(group: &Prepared) -> impl Iterator<Item = Range<usize>> + use<> {
    let count = group.target.ncols();
    (0..count).step_by(TOGETHER).map(move |first| first..count.min(first + TOGETHER))
}

/// left·right.
pub(super) fn product(left: MatRef<f64>, right: MatRef<f64>) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    product
}
