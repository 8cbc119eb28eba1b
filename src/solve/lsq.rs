//! Solver `lsq`: learned step sizes (Esser et al., *Learned step size quantization*, 2020) on what a layer computes.
//!
//! Latent weights w and the scales s are both learned. The weights used are v = s·q(w/s), q the nearest level; the
//! gradient passes through the rounding as if it were not there:
//!
//! `∂v/∂w = 1`, `∂v/∂s = q(w/s) − w/s` inside the grid; `∂v/∂w = 0`, `∂v/∂s = l` or `u` outside it
//!
//! for levels from l to u, u = `Q_P`. Starts from w = W and s = 2·E|w|/√`Q_P`, on codebooks and with more than 4
//! bits from the scale of plain rounding, and minimises the loss of `gradient` by Adam, rates falling
//! to 0 as half a cosine.
//!
//! **Gradient scale.** The paper multiplies ∂L/∂s by 1/√(N·`Q_P`), N the weights that share s, so that under SGD the
//! relative change of s is about that of w. Adam divides any factor out, and √N with it: all w move by the same amount.
//! What is left of the rule is the rate of s relative to that of w, 1/√`Q_P`. On a codebook both count in units of the
//! mean distance of its entries.
//!
//! Rows that are no better than rounded to nearest are rounded to nearest; with one scale for all, the layer as a whole.

use super::gradient::{Adam, Batches, Buffers, LearnedRows, Part, Reading, STEPS, choose, levels, of_each_row};
use super::{Grid, Problem, Solution, SolveError, Solver, StatisticsKind};
use crate::quant::{QuantizedWeight, normal_scale};
use crate::solve::SolverRow;
use rayon::prelude::*;

/// How many levels a weight can move at most, about: the learning rate times the number of steps. With more, weights
/// drift along what the columns say little about, and more steps make it worse.
const REACH: f32 = 10.0;
/// The largest learning rate.
const LARGEST_RATE: f32 = 0.03;
/// The last level up to which the first scale is that of the paper: with more levels it is several times too coarse.
const LAST_LEVEL: i32 = 7;
/// The least scale relative to the first.
const LEAST: f32 = 1e-3;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "lsq",
    help: "Weights and scales learned from what each layer reads",
    minimises: "Σ ‖f(W·x + b) − f(V·x̂ + b')‖²",
    time: "long",
    options: &["solver_steps"],
    solver: |options| Box::new(Lsq { steps: options.solver_steps.unwrap_or(STEPS) }),
    quick: None,
};

/// Learns latent weights and their scales.
#[derive(Clone, Copy, Debug)]
pub struct Lsq {
    /// Mini-batches per layer.
    pub steps: usize,
}

impl Solver for Lsq {
    fn name(&self) -> &str {
        ROW.name
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Columns
    }

    fn takes(&self, grid: &Grid) -> bool {
        matches!(grid, Grid::Uniform(_) | Grid::Codebook(_))
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        let weights = problem.weights();
        let plain = problem.nearest(&weights, &vec![1.0; weights.len()])?;
        let levels = levels(problem.grid, &plain);
        let least = least_scales(problem, weights.len() / problem.size.max(1));
        let scales = first_scales(problem, &weights, &plain, &least);
        let readings = Reading::all(problem);
        let parts = Part::all(problem, &readings, &scales);
        let mut learners: Vec<Learner> =
            parts.iter().map(|part| Learner::new(part, &levels, &least, problem.seed)).collect();
        if problem.per_channel() {
            learners.par_iter_mut().for_each(|learner| self.learn(std::slice::from_mut(learner), false));
        } else {
            self.learn(&mut learners, true);
        }
        let found = learners.iter().map(Learner::found).collect();
        Ok(choose(problem, &plain, &parts, found))
    }
}

impl Lsq {
    fn learn(self, learners: &mut [Learner], shared: bool) {
        let first = (REACH / self.steps.max(1) as f32).min(LARGEST_RATE);
        for step in 0..self.steps {
            let progress = step as f32 / self.steps as f32;
            let rate = first * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
            learners.par_iter_mut().for_each(Learner::backward);
            if shared {
                let total = learners.iter().flat_map(|learner| &learner.scale_gradient).sum::<f32>();
                for learner in &mut *learners {
                    learner.scale_gradient.fill(total);
                }
            }
            learners.par_iter_mut().for_each(|learner| learner.update(rate));
        }
    }
}

/// Lower limits of the scales, one per row.
fn least_scales(problem: &Problem, rows: usize) -> Vec<f32> {
    if problem.per_channel() {
        of_each_row(problem.least_scales, rows, 0.0)
    } else {
        vec![problem.least_scales.iter().copied().fold(0.0, f32::max); rows]
    }
}

/// 2·E|w|/√`Q_P` for each row, or over all; on codebooks and fine grids the scales of plain rounding.
fn first_scales(problem: &Problem, weights: &[f32], plain: &QuantizedWeight, least: &[f32]) -> Vec<f32> {
    let last = match problem.grid {
        Grid::Uniform(grid) if grid.quantized_max() <= LAST_LEVEL => grid.quantized_max(),
        _ => return of_each_row(&plain.scales, least.len(), 1.0),
    };
    let root = f64::from(last).sqrt();
    let scale = |weights: &[f32]| {
        let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
        (2.0 * sum / weights.len().max(1) as f64 / root) as f32
    };
    let shared = scale(weights);
    let first = |(row, (weights, &least)): (usize, (&[f32], &f32))| {
        let scale = if problem.per_channel() { scale(weights) } else { shared }.max(least);
        let plain = plain.scales.get(row).or(plain.scales.first()).copied().unwrap_or(1.0);
        if scale.is_normal() { scale } else { plain }
    };
    weights.chunks(problem.size.max(1)).zip(least).enumerate().map(first).collect()
}

/// The rows of a part while they are learned.
struct Learner<'a> {
    part: &'a Part<'a>,
    levels: &'a [f32],
    batches: Batches,
    buffers: Buffers,
    /// w and s in units of the first scale.
    latent: Vec<f32>,
    scales: Vec<f32>,
    /// Lower limits of the scales as they are.
    least: &'a [f32],
    values: Vec<f32>,
    gradient: Vec<f32>,
    scale_gradient: Vec<f32>,
    adam: [Adam; 2],
}

impl<'a> Learner<'a> {
    fn new(part: &'a Part<'a>, levels: &'a [f32], least: &'a [f32], seed: u64) -> Self {
        let (rows, count) = (part.rows(), part.weights.len());
        Self {
            part,
            levels,
            batches: Batches::new(seed),
            buffers: Buffers::default(),
            latent: part.weights.clone(),
            scales: vec![1.0; rows],
            least: &least[part.first..],
            values: vec![0.0; count],
            gradient: vec![0.0; count],
            scale_gradient: vec![0.0; rows],
            adam: [Adam::new(count), Adam::new(rows)],
        }
    }

    /// The gradients of w and s over a mini-batch.
    fn backward(&mut self) {
        let size = self.part.size();
        for ((values, latent), &scale) in self.values.chunks_mut(size).zip(self.latent.chunks(size)).zip(&self.scales) {
            values.iter_mut().zip(latent).for_each(|(v, w)| *v = scale * nearest(self.levels, w / scale));
        }
        if !self.part.gradient(&mut self.batches, &self.values, &mut self.buffers, &mut self.gradient) {
            self.scale_gradient.fill(0.0);
            return;
        }
        let rows = self.gradient.chunks_mut(size).zip(self.latent.chunks(size)).zip(self.values.chunks(size));
        for ((((gradient, latent), values), &scale), sum) in rows.zip(&self.scales).zip(&mut self.scale_gradient) {
            *sum = straight_through(self.levels, scale, gradient, latent, values);
        }
    }

    /// Moves w and s.
    fn update(&mut self, rate: f32) {
        let (first, last) = ends(self.levels);
        let gap = ((last - first) / (self.levels.len().max(2) - 1) as f32).max(1.0);
        let [weights, scales] = &mut self.adam;
        weights.update(&mut self.latent, &self.gradient, rate * gap);
        scales.update(&mut self.scales, &self.scale_gradient, rate / (last / gap).max(1.0).sqrt());
        for ((scale, least), unit) in self.scales.iter_mut().zip(self.least).zip(&self.part.scales) {
            *scale = scale.max(least / unit).max(LEAST);
        }
    }

    fn found(&self) -> LearnedRows {
        let rows = self.latent.chunks(self.part.size()).zip(&self.scales);
        let integers = rows.flat_map(|(row, s)| row.iter().map(move |w| nearest(self.levels, w / s) as i8)).collect();
        let units = self.part.scales.iter().zip(self.least);
        let scale = |(s, (unit, least)): (&f32, (&f32, &f32))| normal_scale(f64::from(s * unit)).max(*least);
        LearnedRows { integers, scales: self.scales.iter().zip(units).map(scale).collect() }
    }
}

/// Turns ∂L/∂v of a row into ∂L/∂w and gives ∂L/∂s.
fn straight_through(levels: &[f32], scale: f32, gradient: &mut [f32], latent: &[f32], values: &[f32]) -> f32 {
    let (first, last) = ends(levels);
    let mut sum = 0.0;
    for ((gradient, w), v) in gradient.iter_mut().zip(latent).zip(values) {
        let quotient = w / scale;
        let inside = first < quotient && quotient < last;
        sum += *gradient * (v / scale - if inside { quotient } else { 0.0 });
        if !inside {
            *gradient = 0.0;
        }
    }
    sum
}

/// The first and the last level.
fn ends(levels: &[f32]) -> (f32, f32) {
    levels.first().copied().zip(levels.last().copied()).unwrap_or_default()
}

/// The level nearest to `value`.
fn nearest(levels: &[f32], value: f32) -> f32 {
    let above = levels.partition_point(|&level| level < value);
    let below = levels[..above].last().or(levels.first()).copied().unwrap_or(0.0);
    let above = levels.get(above).copied().unwrap_or(below);
    if value - below < above - value { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [f32; 4] = [-2.0, -1.0, 0.0, 1.0];

    #[test]
    fn the_nearest_level() {
        for (value, level) in [(-9.0, -2.0), (-1.4, -1.0), (-1.6, -2.0), (0.2, 0.0), (0.9, 1.0), (9.0, 1.0)] {
            assert_eq!(nearest(&LEVELS, value), level, "{value}");
        }
        assert_eq!(nearest(&[3.0], -7.0), 3.0);
        assert_eq!(nearest(&[], 1.0), 0.0);
    }

    /// The slopes of Σ g·v by w and by s, with the error of rounding q(w/s) − w/s held where it is.
    #[test]
    fn gradients_pass_through_the_rounding() {
        let (latent, scale, slopes) = ([-1.3_f32, 0.2, 0.33, 4.0, -9.0], 0.7_f32, [0.5_f32, -2.0, 0.25, 3.0, 1.5]);
        let values: Vec<f32> = latent.iter().map(|w| scale * nearest(&LEVELS, w / scale)).collect();
        let rest: Vec<f32> = latent.iter().map(|w| nearest(&LEVELS, w / scale) - w / scale).collect();
        let total = |latent: &[f32], scale: f32| -> f64 {
            let value = |(w, rest): (&f32, &f32)| {
                let quotient = w / scale;
                let inside = -2.0 < quotient && quotient < 1.0;
                scale * if inside { quotient + rest } else { quotient.clamp(-2.0, 1.0) }
            };
            latent.iter().zip(&rest).map(value).zip(slopes).map(|(v, g)| f64::from(v * g)).sum()
        };
        let mut gradient = slopes;
        let by_scale = straight_through(&LEVELS, scale, &mut gradient, &latent, &values);
        let step = 1e-3_f32;
        let slope = (total(&latent, scale + step) - total(&latent, scale - step)) / f64::from(2.0 * step);
        assert!((slope - f64::from(by_scale)).abs() < 1e-2, "{slope} {by_scale}");
        for i in 0..latent.len() {
            let moved = |by: f32| {
                let mut latent = latent;
                latent[i] += by;
                total(&latent, scale)
            };
            let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            assert!((slope - f64::from(gradient[i])).abs() < 1e-2, "{i}: {slope} {}", gradient[i]);
        }
    }
}
