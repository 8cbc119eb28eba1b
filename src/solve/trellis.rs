//! Weights rounded to a trellis code one column at a time, and scales fitted to them.
//!
//! Scales start where the weights of a row are as spread as the entries of the table. Then columns are encoded, each by its
//! own search, and scales fitted by least squares, in turns. A row that is 0 throughout gets a scale at which the integers
//! it has to take, since no string is 0 throughout, weigh next to nothing.

use super::Problem;
use crate::quant::trellis::{Encoder, spread};
use crate::quant::{ZERO_CHANNEL_SCALE, normal_scale};
use msq_passes::TrellisCode;
use rayon::prelude::*;

/// How often columns are encoded and scales fitted in turns.
const TURNS: usize = 2;

/// The scale of a row of zeros, as a share of the largest scale.
const NEGLIGIBLE: f64 = 1.0 / (1 << 20) as f64;

/// The scale for a row of zeros beside others.
pub(super) fn negligible_scale(others: impl Iterator<Item = f32>) -> f32 {
    let largest = others.fold(0.0_f32, f32::max);
    let largest = if largest > 0.0 { largest } else { ZERO_CHANNEL_SCALE };
    normal_scale(f64::from(largest) * NEGLIGIBLE)
}

/// Integers and scales of weights `[O, K]`, errors weighed by the importance of each.
pub(super) fn nearest(
    problem: &Problem,
    code: TrellisCode,
    weights: &[f32],
    importance: &[f64],
) -> (Vec<i8>, Vec<f32>) {
    let size = problem.size.max(1);
    let rows = weights.len() / size;
    let mut scales = first_scales(problem, &code, weights);
    let mut integers = Vec::new();
    for _ in 0..TURNS {
        integers = encode(code, weights, importance, size, &scales);
        if problem.fixed_scales {
            break;
        }
        fit(problem, weights, importance, &integers, &mut scales);
    }
    if !problem.per_channel() && !problem.fixed_scales {
        scales.truncate(1);
    } else if problem.fixed_scales && problem.least_scales.len() < rows {
        scales.truncate(problem.least_scales.len().max(1));
    }
    (integers, scales)
}

/// The scale of each row to start from.
fn first_scales(problem: &Problem, code: &TrellisCode, weights: &[f32]) -> Vec<f32> {
    let size = problem.size.max(1);
    let rows = weights.len() / size;
    if problem.fixed_scales {
        let last = problem.least_scales.last().copied().unwrap_or(1.0);
        return (0..rows).map(|row| problem.least_scales.get(row).copied().unwrap_or(last)).collect();
    }
    let spread = spread(code.table());
    let magnitude = |part: &[f32]| {
        let squares: f64 = part.iter().map(|&w| f64::from(w).powi(2)).sum();
        (squares / part.len().max(1) as f64).sqrt() / spread
    };
    let own: Vec<f32> = if problem.per_channel() {
        weights.chunks(size).map(|row| magnitude(row) as f32).collect()
    } else {
        vec![magnitude(weights) as f32; rows]
    };
    let none = negligible_scale(own.iter().copied());
    let scale = |(row, &own): (usize, &f32)| normal_scale(f64::from(own.max(none).max(problem.least_scale(row))));
    own.iter().enumerate().map(scale).collect()
}

/// The integers of all columns on the scales of rows.
fn encode(code: TrellisCode, weights: &[f32], importance: &[f64], size: usize, scales: &[f32]) -> Vec<i8> {
    let rows = scales.len();
    let column = |encoder: &mut Encoder, input: usize| -> Vec<i8> {
        let mut targets = Targets::default();
        for (row, &scale) in scales.iter().enumerate() {
            let (at, scale) = (row * size + input, f64::from(scale));
            targets.push(f64::from(weights[at]) / scale, importance[at] * scale.powi(2));
        }
        let windows = targets.encode(encoder).to_vec();
        windows.into_iter().map(|window| encoder.integer(window)).collect()
    };
    let columns: Vec<Vec<i8>> = (0..size)
        .into_par_iter()
        .map_init(|| Encoder::new(code, rows), |encoder, input| column(encoder, input))
        .collect();
    let mut integers = vec![0; weights.len()];
    for (input, column) in columns.iter().enumerate() {
        column.iter().enumerate().for_each(|(row, &q)| integers[row * size + input] = q);
    }
    integers
}

/// What a column is to come close to, in the units of the integers, and how much each error counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    wanted: Vec<f32>,
    weights: Vec<f64>,
    importance: Vec<f32>,
}

impl Targets {
    pub(super) fn clear(&mut self) {
        self.wanted.clear();
        self.weights.clear();
    }

    /// Adds a row.
    pub(super) fn push(&mut self, wanted: f64, weight: f64) {
        // Beyond that a target is as good as at the end, and single precision holds all sums.
        const FAR: f64 = 1e4;
        self.wanted.push(if wanted.is_nan() { 0.0 } else { wanted.clamp(-FAR, FAR) as f32 });
        self.weights.push(weight);
    }

    /// The windows that come closest.
    pub(super) fn encode<'a>(&mut self, encoder: &'a mut Encoder) -> &'a [u8] {
        self.weigh();
        encoder.encode(&self.wanted, &self.importance)
    }

    /// The closest windows of those that are as they were where row `seam` begins.
    pub(super) fn improve<'a>(&mut self, encoder: &'a mut Encoder, windows: &[u8], seam: usize) -> &'a [u8] {
        self.weigh();
        encoder.improve(windows, seam, &self.wanted, &self.importance)
    }

    fn weigh(&mut self) {
        let largest = self.weights.iter().copied().filter(|w| w.is_finite()).fold(0.0, f64::max);
        let weight = |w: &f64| if largest > 0.0 && w.is_finite() { (w / largest) as f32 } else { 1.0 };
        self.importance.clear();
        self.importance.extend(self.weights.iter().map(weight));
    }
}

/// Fits scales by least squares.
fn fit(problem: &Problem, weights: &[f32], importance: &[f64], integers: &[i8], scales: &mut [f32]) {
    let size = problem.size.max(1);
    let sums = |row: usize| {
        let of = row * size..(row + 1) * size;
        let terms = weights[of.clone()].iter().zip(&importance[of.clone()]).zip(&integers[of]);
        terms.fold((0.0, 0.0), |(mixed, square), ((&w, i), &q)| {
            (mixed + i * f64::from(w) * f64::from(q), square + i * f64::from(q).powi(2))
        })
    };
    let all: Vec<(f64, f64)> = (0..scales.len()).map(sums).collect();
    let total = all.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    for (row, scale) in scales.iter_mut().enumerate() {
        let (mixed, square) = if problem.per_channel() { all[row] } else { total };
        if mixed > 0.0 && square > 0.0 {
            *scale = normal_scale((mixed / square).max(f64::from(problem.least_scale(row))));
        }
    }
}
