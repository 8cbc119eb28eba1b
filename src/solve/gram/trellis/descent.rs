//! Columns and scales improved in turns.

use super::rows::{Rows, product};
use crate::quant::trellis::Encoder;
use crate::solve::gram::system::Form;
use crate::solve::trellis::Targets;
use faer::Mat;
use msq_passes::TrellisCode;
use rayon::prelude::*;
use std::ops::Range;

/// A turn that lowers the error by less than this share is the last one.
const LEAST_GAIN: f64 = 1e-3;

/// Inputs in a block.
pub(super) const BLOCK: usize = 64;

/// All rows of a layer.
pub(super) struct Descent<'a> {
    pub(super) rows: Vec<Rows<'a>>,
    /// The windows of each column, one after the other.
    pub(super) windows: Vec<u8>,
    /// Whether each row has a scale of its own.
    pub(super) per_channel: bool,
}

impl Descent<'_> {
    /// The error of all rows, in units of the moments.
    pub(super) fn error(&self) -> f64 {
        self.rows.iter().flat_map(Rows::errors).sum()
    }

    /// Improves scales and columns in so many turns at most.
    pub(super) fn descend(&mut self, code: TrellisCode, turns: usize) {
        let count: usize = self.rows.iter().map(|rows| rows.range.len()).sum();
        let mut encoder = Encoder::new(code, count);
        let mut before = f64::INFINITY;
        for turn in 0..turns {
            self.refit();
            let error = self.error();
            // Seams stay as they are: those of one turn lie in the middle of the next one's columns.
            let seam = if turn % 2 == 0 { count / 2 } else { 0 };
            if error > before * (1.0 - LEAST_GAIN) || !self.sweep(&mut encoder, seam) {
                break;
            }
            before = error;
        }
        self.refit();
    }

    /// Sets the best scales for the integers.
    pub(super) fn refit(&mut self) {
        let fits = |rows: &Rows| (0..rows.range.len()).map(|row| rows.fit(row)).collect::<Vec<_>>();
        let fits: Vec<Vec<(f64, f64)>> = self.rows.par_iter().map(fits).collect();
        let weighed = self.rows.iter().zip(&fits).flat_map(|(rows, fits)| fits.iter().map(|fit| (rows.weight(), fit)));
        let total = weighed.fold((0.0, 0.0), |sum, (weight, fit)| (sum.0 + weight * fit.0, sum.1 + weight * fit.1));
        let limits = |rows: &Rows| rows.range.clone().map(|row| rows.group.least[row]).fold(0.0, f64::max);
        let largest = self.rows.iter().map(limits).fold(0.0, f64::max);
        for (rows, fits) in self.rows.iter_mut().zip(fits) {
            for ((row, scale), fit) in rows.range.clone().zip(&mut rows.scales).zip(fits) {
                let ((mixed, square), least) =
                    if self.per_channel { (fit, rows.group.least[row]) } else { (total, largest) };
                if mixed > 0.0 && square > 0.0 {
                    *scale = rows.group.rule.scale(mixed / square, least);
                }
            }
        }
    }

    /// Encodes each column once, with its windows as they are where row `seam` begins; whether any changed.
    fn sweep(&mut self, encoder: &mut Encoder, seam: usize) -> bool {
        let Some(size) = self.rows.first().map(|rows| rows.integers.nrows()) else { return false };
        let mut any = false;
        let mut end = size;
        while end > 0 {
            let block = end.saturating_sub(BLOCK)..end;
            any |= self.improve(encoder, seam, block.clone());
            end = block.start;
        }
        self.rows.par_iter_mut().for_each(Rows::finish);
        any
    }

    /// Encodes the columns of a block once; whether any changed.
    fn improve(&mut self, encoder: &mut Encoder, seam: usize, block: Range<usize>) -> bool {
        let mut open: Vec<Open> = self.rows.par_iter().map(|rows| Open::new(rows, block.clone())).collect();
        let count: usize = self.rows.iter().map(|rows| rows.range.len()).sum();
        let mut targets = Targets::default();
        let mut any = false;
        for at in (0..block.len()).rev() {
            let input = block.start + at;
            targets.clear();
            for (rows, open) in self.rows.iter().zip(&open) {
                let diagonal = open.form[(at, at)];
                for (row, scale) in rows.scales.iter().enumerate() {
                    let target = rows.integers[(input, row)] - open.slope(rows, at, row) / diagonal;
                    targets.push(target, rows.weight() * scale * scale * diagonal);
                }
            }
            let windows = &mut self.windows[input * count..][..count];
            let found = targets.improve(encoder, windows, seam).to_vec();
            let mut integers = found.iter().map(|&window| f64::from(encoder.integer(window)));
            let mut change = 0.0;
            for (rows, open) in self.rows.iter().zip(&mut open) {
                let diagonal = open.form[(at, at)];
                for (row, scale) in rows.scales.iter().enumerate() {
                    let step = integers.next().unwrap_or_default() - rows.integers[(input, row)];
                    let parabola = step * (step * diagonal + 2.0 * open.slope(rows, at, row));
                    change += rows.weight() * scale * scale * parabola;
                    open.steps[(at, row)] = step;
                }
            }
            if change < 0.0 {
                any = true;
                windows.copy_from_slice(&found);
            }
            for open in &mut open {
                if change < 0.0 {
                    open.carry(at);
                } else {
                    open.steps.row_mut(at).fill(0.0);
                }
            }
        }
        self.rows.par_iter_mut().zip(&open).for_each(|(rows, open)| rows.close(block.clone(), open.steps.as_ref()));
        any
    }
}

/// A block of inputs on its way down.
struct Open {
    first: usize,
    /// A of the block.
    form: Mat<f64>,
    /// A·q, `[B, R]`, with the columns of the block as they are by now.
    product: Mat<f64>,
    /// By how much the integers have changed, `[B, R]`.
    steps: Mat<f64>,
}

impl Open {
    fn new(rows: &Rows, block: Range<usize>) -> Self {
        let form = match &rows.group.system.form {
            Form::Full { matrix, .. } => {
                matrix.submatrix(block.start, block.start, block.len(), block.len()).to_owned()
            }
            Form::Thin(thin) => {
                let columns = thin.columns().subcols(block.start, block.len());
                let mut form = product(columns.transpose(), columns);
                for (at, input) in block.clone().enumerate() {
                    form[(at, at)] += thin.damping(input);
                }
                form
            }
        };
        let steps = Mat::zeros(block.len(), rows.range.len());
        Self { first: block.start, form, product: rows.open(block), steps }
    }

    /// Half the slope of a row's error in an integer, over s².
    fn slope(&self, rows: &Rows, at: usize, row: usize) -> f64 {
        self.product[(at, row)] - rows.target_product(self.first + at, row) / rows.scales[row]
    }

    /// Adds what the change of a column does to those that are still to come.
    fn carry(&mut self, at: usize) {
        let column = &self.form.col_as_slice(at)[..at];
        for row in 0..self.steps.ncols() {
            let step = self.steps[(at, row)];
            if step != 0.0 {
                let product = &mut self.product.col_as_slice_mut(row)[..at];
                product.iter_mut().zip(column).for_each(|(product, value)| *product += step * value);
            }
        }
    }
}
