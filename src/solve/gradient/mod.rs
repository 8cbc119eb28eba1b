//! Shared by the solvers that follow gradients: the loss, mini-batches, Adam, and the choice in the end.
//!
//! With x the columns of the float network, x̂ those of the quantized one, and f = max(0, ·) where the layer is
//! rectified, else the identity,
//!
//! `L(V) = mean ‖f(W·x + b) − f(V·x̂ + b')‖²`, `∂L/∂V = 2·mean e·x̂ᵀ`
//!
//! e being the error where the output V·x̂ + b' is not cut off, and 0 where it is. Where the layer's bias takes up the
//! mean error ([`Problem::centered`]), b' = b + E\[W·x\] − E\[V·x̂\] is the bias the layer will have; else b' = b. With
//! columns about their means both sides have the same offset b + W·E\[x\], and b' follows V by itself.
//!
//! **Units.** A row counts in units of its scale s and of the root mean square u of x̂: V is a matrix of integers,
//! inputs are about 1, an error of one level in one weight costs about 1, whatever the layer and its bits. f commutes
//! with such factors.
//!
//! **Rows** do not influence each other unless they share a scale, so a few at a time are a task of their own; all draw
//! the same mini-batches, and the result does not depend on the number of threads. Columns with values that are not
//! finite, or beyond all reason, are left out.

mod choice;
mod descent;
mod reading;
#[cfg(test)]
mod tests;

use super::{Grid, Problem};
use crate::quant::QuantizedWeight;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

pub(super) use choice::{LearnedRows, choose};
pub(super) use descent::{Adam, Batches};
pub(super) use reading::Reading;

/// Mini-batches per layer, unless the options say otherwise.
pub(super) const STEPS: usize = 2_000;
/// Columns of which all outputs are computed at a time.
const BLOCK: usize = 512;
/// Rows in a task.
const ROWS: usize = 16;

/// The integers a weight may take, in rising order: those of the grid, or the codebook that plain rounding found.
pub(super) fn levels(grid: Grid, plain: &QuantizedWeight) -> Vec<f32> {
    let mut levels: Vec<f32> = match grid {
        Grid::Uniform(grid) | Grid::Scaled(grid, _) => {
            (grid.quantized_min()..=grid.quantized_max()).map(|q| q as f32).collect()
        }
        Grid::Codebook(_) | Grid::Trellis(_) => plain.data.iter().map(|&q| f32::from(q)).collect(),
        Grid::Levels(levels) => levels.iter().map(|&q| f32::from(q)).collect(),
    };
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    levels
}

/// The scale of each row, of scales one per row or one for all.
pub(super) fn of_each_row(scales: &[f32], rows: usize, default: f32) -> Vec<f32> {
    (0..rows).map(|row| scales.get(row).or(scales.first()).copied().unwrap_or(default)).collect()
}

/// Some rows of a group.
#[derive(Debug)]
pub(super) struct Part<'a> {
    reading: &'a Reading<'a>,
    /// The number of its first row among those of the layer.
    pub(super) first: usize,
    /// W in units of each row's scale, `[R, K]`.
    pub(super) weights: Vec<f32>,
    /// The scale of each row.
    pub(super) scales: Vec<f32>,
    /// What both sides of the loss have in common; 0 where that makes no difference.
    offsets: Vec<f32>,
    rectified: bool,
    /// f(W·x + b), `[P, R]`.
    target: Vec<f32>,
}

/// Memory to work in.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    batch: Vec<usize>,
    block: Vec<f32>,
    outputs: Vec<f32>,
}

impl<'a> Part<'a> {
    /// The rows of a layer in parts, with one scale per row.
    pub(super) fn all(problem: &Problem, readings: &'a [Reading<'a>], scales: &[f32]) -> Vec<Self> {
        let size = problem.size.max(1);
        let mut places = Vec::new();
        let mut row = 0;
        for (group, reading) in problem.groups.iter().zip(readings) {
            for weights in group.weights.chunks(ROWS * size) {
                places.push((row, weights, reading));
                row += weights.len() / size;
            }
        }
        places
            .into_par_iter()
            .map(|(row, weights, reading)| Self::new(problem, row, weights, reading, scales))
            .collect()
    }

    fn new(problem: &Problem, first: usize, own: &[f32], reading: &'a Reading<'a>, scales: &[f32]) -> Self {
        let size = reading.size;
        let scales = scales[first..first + own.len() / size].to_vec();
        let weights = own.chunks(size).zip(&scales).flat_map(|(row, s)| row.iter().map(move |w| w / s)).collect();
        let offset = |(row, (weights, &scale)): (usize, (&[f32], &f32))| {
            let mean: f64 = weights.iter().zip(&reading.float_center).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let bias = f64::from(problem.bias.get(first + row).copied().unwrap_or(0.0));
            let offset = (bias + mean) / (f64::from(scale) * f64::from(reading.unit));
            // Beyond that nothing is left of the products in single precision.
            if problem.rectified { offset.clamp(-1e12, 1e12) as f32 } else { 0.0 }
        };
        let offsets = own.chunks(size).zip(&scales).enumerate().map(offset).collect();
        let mut part =
            Self { reading, first, weights, scales, offsets, rectified: problem.rectified, target: Vec::new() };
        let (mut target, mut block) = (vec![0.0; part.rows() * reading.count()], Vec::new());
        for (outputs, from) in target.chunks_mut(part.rows() * BLOCK).zip((0..).step_by(BLOCK)) {
            reading.gather(from..(from + BLOCK).min(reading.count()), true, &mut block);
            part.outputs(&block, &part.weights, outputs);
        }
        part.target = target;
        part
    }

    /// Number of rows, R.
    pub(super) fn rows(&self) -> usize {
        self.scales.len()
    }

    /// Values in a row, K.
    pub(super) fn size(&self) -> usize {
        self.reading.size
    }

    /// f of the outputs `[B, R]` for columns `[B, K]` and weights `[R, K]`.
    fn outputs(&self, columns: &[f32], weights: &[f32], outputs: &mut [f32]) {
        let (rows, size) = (self.rows(), self.size());
        let count = columns.len() / size;
        let columns = MatRef::from_row_major_slice(columns, count, size);
        let weights = MatRef::from_row_major_slice(weights, rows, size);
        let product = MatMut::from_row_major_slice_mut(&mut *outputs, count, rows);
        matmul(product, Accum::Replace, columns, weights.transpose(), 1.0, Par::Seq);
        if self.rectified {
            for outputs in outputs.chunks_exact_mut(rows) {
                outputs.iter_mut().zip(&self.offsets).for_each(|(y, offset)| *y = (*y + offset).max(0.0));
            }
        }
    }

    /// ∂L/∂V over a mini-batch, V and the gradient `[R, K]` in units. False where nothing was seen.
    pub(super) fn gradient(
        &self,
        batches: &mut Batches,
        values: &[f32],
        buffers: &mut Buffers,
        gradient: &mut [f32],
    ) -> bool {
        let Buffers { batch, block, outputs } = buffers;
        batches.draw(self.reading.count(), batch);
        if batch.is_empty() {
            return false;
        }
        let (rows, size) = (self.rows(), self.size());
        self.reading.gather(batch.iter().copied(), false, block);
        outputs.resize(batch.len() * rows, 0.0);
        self.outputs(block, values, outputs);
        let factor = 2.0 / batch.len() as f32;
        for (outputs, &column) in outputs.chunks_exact_mut(rows).zip(&*batch) {
            for (y, target) in outputs.iter_mut().zip(&self.target[column * rows..]) {
                *y = if self.rectified && *y <= 0.0 { 0.0 } else { factor * (*y - target) };
            }
        }
        let errors = MatRef::from_row_major_slice(&*outputs, batch.len(), rows).transpose();
        let columns = MatRef::from_row_major_slice(&*block, batch.len(), size);
        let product = MatMut::from_row_major_slice_mut(gradient, rows, size);
        matmul(product, Accum::Replace, errors, columns, 1.0, Par::Seq);
        true
    }

    /// P·L of each row over all columns, in the layer's own units.
    fn errors(&self, values: &[f32]) -> Vec<f64> {
        let (rows, count) = (self.rows(), self.reading.count());
        let (mut block, mut outputs) = (Vec::new(), vec![0.0; rows * BLOCK]);
        let mut sums = vec![0.0; rows];
        for (target, from) in self.target.chunks(rows * BLOCK).zip((0..).step_by(BLOCK)) {
            self.reading.gather(from..(from + BLOCK).min(count), false, &mut block);
            self.outputs(&block, values, &mut outputs[..target.len()]);
            for (y, t) in outputs.chunks_exact(rows).zip(target.chunks_exact(rows)) {
                sums.iter_mut().zip(y.iter().zip(t)).for_each(|(sum, (y, t))| *sum += f64::from(y - t).powi(2));
            }
        }
        self.in_own_units(sums)
    }

    /// Σ f(W·x + b)² of each row over all columns, in the layer's own units.
    fn signal(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.rows()];
        for target in self.target.chunks_exact(self.rows()) {
            sums.iter_mut().zip(target).for_each(|(sum, &t)| *sum += f64::from(t).powi(2));
        }
        self.in_own_units(sums)
    }

    fn in_own_units(&self, mut sums: Vec<f64>) -> Vec<f64> {
        for (sum, &scale) in sums.iter_mut().zip(&self.scales) {
            *sum *= (f64::from(scale) * f64::from(self.reading.unit)).powi(2);
        }
        sums
    }

    /// Integers times scales, in units.
    fn values(&self, found: &LearnedRows) -> Vec<f32> {
        let rows = found.integers.chunks(self.size()).zip(found.scales.iter().zip(&self.scales));
        rows.flat_map(|(row, (scale, unit))| row.iter().map(move |&q| f32::from(q) * (scale / unit))).collect()
    }
}
