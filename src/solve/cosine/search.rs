//! The search for the scales of weights, given the input's, and for the input's, given the weights.

use super::sample::{Sample, Sums};
use crate::quant::{Affine, QuantError, QuantizedWeight, normal_scale};
use crate::solve::levels::Levels;
use crate::solve::{Grid, Problem};
use rayon::prelude::*;
use std::borrow::Cow;

/// Candidates, evenly from the first factor to the last.
const CANDIDATES: usize = 100;
const FACTORS: (f64, f64) = (0.5, 2.0);
/// Candidates on either side of the best one, evenly up to its neighbours.
const FINE: i32 = 4;

/// What is searched, and on what columns.
#[derive(Debug)]
pub(super) struct Search<'a> {
    problem: &'a Problem<'a>,
    weights: Vec<f32>,
    samples: Vec<Sample>,
}

/// Integers and scales.
#[derive(Clone, Debug)]
pub(super) struct ScaleCandidate {
    /// The quantizer of the input, where it may be changed.
    pub(super) input: Option<Affine>,
    pub(super) integers: Vec<i8>,
    /// One a unit: a row, or all rows.
    pub(super) scales: Vec<f32>,
    /// Of each row, for ŷ = q·x̂ without the scale.
    pub(super) sums: Vec<Sums>,
    /// The same for plain rounding on the same input.
    pub(super) plain_sums: Vec<Sums>,
    /// cos(y, ŷ) over all rows.
    pub(super) similarity: f64,
}

/// What the scales of weights are searched with.
struct Ready<'a> {
    /// x̂ of each group.
    inputs: Vec<Cow<'a, [f32]>>,
    levels: Levels,
    /// What candidates are multiples of, for each unit.
    bases: Vec<f64>,
    /// Lower limits.
    least: Vec<f32>,
}

/// The best scale of a unit.
#[derive(Clone, Copy, Debug)]
struct Best {
    cosine: f64,
    scale: f32,
    /// Whether it is plain rounding.
    plain: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(problem: &'a Problem<'a>) -> Self {
        let samples = problem.groups.par_iter().map(|group| Sample::new(group, problem.size)).collect();
        Self { problem, weights: problem.weights(), samples }
    }

    /// The index of the scale that a row has.
    pub(super) fn unit(&self, row: usize) -> usize {
        if self.problem.per_channel() { row } else { 0 }
    }

    /// Sums of what shares a scale.
    pub(super) fn units(&self, rows: &[Sums]) -> Vec<Sums> {
        if self.problem.per_channel() {
            rows.to_vec()
        } else {
            vec![rows.iter().fold(Sums::default(), |total, &row| total.plus(row, 1.0))]
        }
    }

    /// The scales of weights that suit an input best.
    pub(super) fn weights(&self, input: Option<Affine>) -> Result<ScaleCandidate, QuantError> {
        let least = self.least_scales(input);
        let problem = Problem { least_scales: &least, ..*self.problem };
        let plain = problem.nearest(&self.weights, &vec![1.0; self.weights.len()])?;
        let levels = match self.problem.grid {
            Grid::Uniform(grid) | Grid::Scaled(grid, _) => Levels::uniform(grid),
            Grid::Levels(levels) => Levels::listed(levels),
            Grid::Codebook(_) | Grid::Trellis(_) => Levels::entries(plain.data.iter().map(|&q| f64::from(q)).collect()),
        };
        let ready = Ready { inputs: self.inputs(input), levels, bases: self.bases(&plain), least };
        let plain_sums = self.sums(plain.data.iter().map(|&q| f32::from(q)), &ready.inputs);
        let start = self.units(&plain_sums).into_iter().zip(&plain.scales);
        let mut best: Vec<Best> =
            start.map(|(unit, &scale)| Best { cosine: unit.cosine(), scale, plain: true }).collect();
        for steps in [coarse(), fine()] {
            self.improve(&mut best, &steps, &ready);
        }
        let scales: Vec<f32> = best.iter().map(|best| best.scale).collect();
        let size = self.problem.size.max(1);
        let found = self.round(&ready.levels, &scales).zip(&plain.data).enumerate();
        let keeps = |i: usize| best[self.unit(i / size)].plain;
        let integers: Vec<i8> = found.map(|(i, (q, &plain))| if keeps(i) { plain } else { q as i8 }).collect();
        let sums = self.sums(integers.iter().map(|&q| f32::from(q)), &ready.inputs);
        let similarity = self.similarity(&sums, &scales);
        Ok(ScaleCandidate { input, integers, scales, sums, plain_sums, similarity })
    }

    /// Replaces scales by better candidates.
    fn improve(&self, best: &mut [Best], steps: &Steps, ready: &Ready) {
        let center: Vec<f64> = best.iter().map(|best| steps.center(f64::from(best.scale))).collect();
        let candidate = |factor: &f64| {
            let scale = |(unit, base): (usize, &f64)| {
                normal_scale(center[unit] + factor * base).max(least_of(&ready.least, unit))
            };
            let scales: Vec<f32> = ready.bases.iter().enumerate().map(scale).collect();
            let integers = self.round(&ready.levels, &scales);
            let units = self.units(&self.sums(integers.map(|q| q as f32), &ready.inputs));
            (scales, units)
        };
        let scored: Vec<(Vec<f32>, Vec<Sums>)> = steps.factors.par_iter().map(candidate).collect();
        for (scales, units) in scored {
            for ((best, scale), unit) in best.iter_mut().zip(scales).zip(units) {
                let cosine = unit.cosine();
                if cosine > best.cosine {
                    *best = Best { cosine, scale, plain: false };
                }
            }
        }
    }

    /// The quantizer of the input that suits the weights best; none where that is the one they have.
    pub(super) fn input(&self, choice: &ScaleCandidate) -> Option<Affine> {
        let (given, mut best) = (self.problem.input?, choice.input?);
        let now = best;
        let mut similarity = choice.similarity;
        let integers: Vec<f32> = choice.integers.iter().map(|&q| f32::from(q)).collect();
        for steps in [coarse(), fine()] {
            let center = steps.center(f64::from(best.scale));
            let scored = steps.factors.par_iter().map(|factor| {
                let scale = normal_scale(center + factor * f64::from(given.scale));
                let input = Affine { scale, ..given };
                let sums = self.sums(integers.iter().copied(), &self.inputs(Some(input)));
                (self.similarity(&sums, &choice.scales), input)
            });
            let scored: Vec<(f64, Affine)> = scored.collect();
            for (found, input) in scored {
                if found > similarity {
                    (similarity, best) = (found, input);
                }
            }
        }
        (best != now).then_some(best)
    }

    fn inputs(&self, quantizer: Option<Affine>) -> Vec<Cow<'_, [f32]>> {
        self.samples.iter().map(|sample| sample.inputs(quantizer)).collect()
    }

    /// Sums of every row, for integers `[G·O, K]`.
    fn sums(&self, integers: impl Iterator<Item = f32>, inputs: &[Cow<[f32]>]) -> Vec<Sums> {
        let integers: Vec<f32> = integers.collect();
        let length = integers.len() / self.samples.len().max(1);
        let groups = self.samples.iter().zip(inputs).zip(integers.chunks(length.max(1)));
        groups.flat_map(|((sample, inputs), integers)| sample.sums(integers, inputs)).collect()
    }

    /// The integers nearest to the weights, `[G·O, K]`.
    fn round<'b>(&'b self, levels: &'b Levels, scales: &'b [f32]) -> impl Iterator<Item = f64> + 'b {
        let rows = self.weights.chunks(self.problem.size.max(1)).enumerate();
        rows.flat_map(move |(row, weights)| {
            let scale = f64::from(scales[self.unit(row)]);
            weights.iter().map(move |&w| levels.nearest(f64::from(w) / scale))
        })
    }

    /// cos(y, ŷ) over all rows, each with its scale.
    fn similarity(&self, rows: &[Sums], scales: &[f32]) -> f64 {
        let add = |total: Sums, (row, &sums): (usize, &Sums)| total.plus(sums, f64::from(scales[self.unit(row)]));
        rows.iter().enumerate().fold(Sums::default(), add).cosine()
    }

    /// The scales that candidates are multiples of: those that clip nothing, or those of a codebook.
    fn bases(&self, plain: &QuantizedWeight) -> Vec<f64> {
        let Grid::Uniform(grid) = self.problem.grid else {
            return plain.scales.iter().map(|&scale| f64::from(scale)).collect();
        };
        let mut bases = vec![0.0_f64; plain.scales.len()];
        for (row, weights) in self.weights.chunks(self.problem.size.max(1)).enumerate() {
            let base = &mut bases[self.unit(row)];
            let magnitude = |w: &f32| f64::from(w.abs()) / f64::from(grid.quantized_max());
            *base = weights.iter().map(magnitude).fold(*base, f64::max);
        }
        bases
    }

    /// The least scales with another input: a bias is counted in steps of the product of both.
    fn least_scales(&self, input: Option<Affine>) -> Vec<f32> {
        let ratio =
            self.problem.input.zip(input).map_or(1.0, |(given, now)| f64::from(given.scale) / f64::from(now.scale));
        let least =
            self.problem.least_scales.iter().map(|&least| (f64::from(least) * ratio).min(f64::from(f32::MAX)) as f32);
        if self.problem.per_channel() || self.problem.least_scales.is_empty() {
            return least.collect();
        }
        vec![least.fold(0.0, f32::max)]
    }
}

/// Candidates as multiples of a base, to be added to what is best so far or not.
struct Steps {
    factors: Vec<f64>,
    around: bool,
}

impl Steps {
    fn center(&self, best: f64) -> f64 {
        if self.around { best } else { 0.0 }
    }
}

/// The distance of two candidates.
const STEP: f64 = (FACTORS.1 - FACTORS.0) / (CANDIDATES - 1) as f64;

fn coarse() -> Steps {
    Steps { factors: (0..CANDIDATES).map(|i| FACTORS.0 + i as f64 * STEP).collect(), around: false }
}

fn fine() -> Steps {
    let factor = |i: i32| f64::from(i) * STEP / f64::from(FINE + 1);
    Steps { factors: (-FINE..=FINE).filter(|&i| i != 0).map(factor).collect(), around: true }
}

/// The lower limit of a unit's scale.
fn least_of(least: &[f32], unit: usize) -> f32 {
    least.get(if least.len() == 1 { 0 } else { unit }).copied().unwrap_or(0.0)
}
