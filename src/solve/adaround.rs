//! Solver `adaround`: for each weight whether it is rounded down or up, learned (Nagel et al., *Up or down? Adaptive
//! rounding for post-training quantization*, 2020).
//!
//! With a ≤ w/s ≤ c the levels next to a weight on the scale of plain rounding, a = c outside the grid, the weights are
//! V = s·(a + h·(c − a)), which on a uniform grid is the paper's s·clip(⌊w/s⌋ + h, l, u). The rounding variable is
//! h = clip(1.2·σ(v) − 0.1, 0, 1), v such that V = W at the start, and v minimises by Adam
//!
//! `Σ_rows L(V) + λ·Σ (c − a)²·(1 − |2h − 1|^β)`
//!
//! with L in units of each row's step (`gradient`), in which an error of one level in one weight costs
//! about (c − a)², 1 on a uniform grid. The paper has λ = 0.01 and L as it is, for outputs of variance about 1: with 3 to 4 bits a level in one of some
//! hundred weights costs about 0.001 to 0.01 of that, hence λ = 1 here, at any width. The regulariser is off for the first fifth of the
//! steps; then β falls linearly from 20 to 2, which draws h to 0 or 1 from the ends inwards. In the end h is rounded, and
//! rows that are no better than rounded to nearest are rounded to nearest.

use super::gradient::{Adam, Batches, Buffers, LearnedRows, Part, Reading, STEPS, choose, levels, of_each_row};
use super::{Grid, Problem, Solution, SolveError, Solver, StatisticsKind};
use crate::solve::SolverRow;
use rayon::prelude::*;

/// λ, relative to an error of one level in one weight.
const STRENGTH: f32 = 1.0;
/// Learning rate.
const RATE: f32 = 0.1;
/// The part of all steps without the regulariser.
const WARM_UP: f32 = 0.2;
/// First and last β.
const SHARPNESS: [f32; 2] = [20.0, 2.0];
/// h reaches so far beyond 0 and 1 before it is clipped.
const STRETCH: f32 = 0.1;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "adaround",
    help: "Down or up, learned from what each layer reads",
    minimises: "Σ ‖f(W·x + b) − f(V·x̂ + b')‖²",
    time: "long",
    options: &["solver_steps"],
    solver: |options| Box::new(AdaRound { steps: options.solver_steps.unwrap_or(STEPS) }),
    quick: None,
};

/// Learns which way to round.
#[derive(Clone, Copy, Debug)]
pub struct AdaRound {
    /// Mini-batches per layer.
    pub steps: usize,
}

impl Solver for AdaRound {
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
        let scales = of_each_row(&plain.scales, weights.len() / problem.size.max(1), 1.0);
        let readings = Reading::all(problem);
        let parts = Part::all(problem, &readings, &scales);
        let round = |part: &Part| LearnedRows {
            integers: self.round(part, &levels, Batches::new(problem.seed)),
            scales: part.scales.clone(),
        };
        let found = parts.par_iter().map(round).collect();
        Ok(choose(problem, &plain, &parts, found))
    }
}

impl AdaRound {
    /// The integers of some rows.
    fn round(self, part: &Part, levels: &[f32], mut batches: Batches) -> Vec<i8> {
        let mut choices = RoundingVariables::new(&part.weights, levels);
        let count = part.weights.len();
        let (mut values, mut gradient) = (vec![0.0; count], vec![0.0; count]);
        let (mut adam, mut buffers) = (Adam::new(count), Buffers::default());
        for step in 0..self.steps {
            choices.values(&mut values);
            if !part.gradient(&mut batches, &values, &mut buffers, &mut gradient) {
                break;
            }
            choices.chain(&mut gradient, sharpness(step as f32 / self.steps as f32));
            adam.update(&mut choices.variables, &gradient, RATE);
        }
        choices.rounded()
    }
}

/// β at a fraction of all steps; none during the warm-up.
fn sharpness(progress: f32) -> Option<f32> {
    let [first, last] = SHARPNESS;
    let progress = (progress - WARM_UP) / (1.0 - WARM_UP);
    (progress >= 0.0).then_some(first + (last - first) * progress)
}

/// The levels next to weights, and the variables that choose between them.
struct RoundingVariables {
    /// a and c − a.
    below: Vec<f32>,
    gap: Vec<f32>,
    /// v.
    variables: Vec<f32>,
    /// 1.2·σ(v) − 0.1.
    stretched: Vec<f32>,
}

impl RoundingVariables {
    /// The choices for weights w/s.
    fn new(weights: &[f32], levels: &[f32]) -> Self {
        let [first, .., last] = levels else { return Self::fixed(weights.len(), levels.first().copied()) };
        let place = |&weight: &f32| {
            let above = levels.partition_point(|&level| level <= weight);
            let below = if above == 0 { *first } else { levels[above - 1] };
            let gap = if above == 0 { 0.0 } else { levels.get(above).unwrap_or(last) - below };
            let part = if gap > 0.0 { (weight - below) / gap } else { 0.5 };
            let sigmoid = (part + STRETCH) / (1.0 + 2.0 * STRETCH);
            (below, (gap, (sigmoid / (1.0 - sigmoid)).ln()))
        };
        let (below, (gap, variables)): (Vec<f32>, (Vec<f32>, Vec<f32>)) = weights.iter().map(place).unzip();
        Self { stretched: vec![0.0; below.len()], below, gap, variables }
    }

    /// No choice.
    fn fixed(count: usize, level: Option<f32>) -> Self {
        let zeros = vec![0.0; count];
        Self {
            below: vec![level.unwrap_or(0.0); count],
            gap: zeros.clone(),
            variables: zeros.clone(),
            stretched: zeros,
        }
    }

    /// V in units of the scale: a + h·(c − a).
    fn values(&mut self, values: &mut [f32]) {
        for (stretched, v) in self.stretched.iter_mut().zip(&self.variables) {
            *stretched = (1.0 + 2.0 * STRETCH) / (1.0 + (-v).exp()) - STRETCH;
        }
        let levels = self.below.iter().zip(&self.gap);
        for ((value, stretched), (below, gap)) in values.iter_mut().zip(&self.stretched).zip(levels) {
            *value = below + stretched.clamp(0.0, 1.0) * gap;
        }
    }

    /// From ∂L/∂V to the gradient of all that is minimised by v. Where h is clipped, or there is no choice, it is 0.
    fn chain(&self, gradient: &mut [f32], sharpness: Option<f32>) {
        for ((gradient, &h), &gap) in gradient.iter_mut().zip(&self.stretched).zip(&self.gap) {
            if gap == 0.0 || !(0.0..=1.0).contains(&h) {
                *gradient = 0.0;
                continue;
            }
            let sigmoid = (h + STRETCH) / (1.0 + 2.0 * STRETCH);
            let slope = (1.0 + 2.0 * STRETCH) * sigmoid * (1.0 - sigmoid);
            let pull = sharpness.map_or(0.0, |beta| regulariser_slope(h, beta));
            *gradient = (*gradient * gap + STRENGTH * gap * gap * pull) * slope;
        }
    }

    /// The integers, h rounded.
    fn rounded(&self) -> Vec<i8> {
        let levels = self.below.iter().zip(&self.gap).zip(&self.variables);
        // h ≥ 1/2 just where v ≥ 0.
        levels.map(|((below, gap), &v)| if v >= 0.0 { below + gap } else { *below } as i8).collect()
    }
}

/// ∂(1 − |2h − 1|^β)/∂h.
fn regulariser_slope(h: f32, beta: f32) -> f32 {
    let centered = 2.0 * h - 1.0;
    -2.0 * beta * centered.abs().powf(beta - 1.0) * centered.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [f32; 4] = [-2.0, -1.0, 0.0, 3.0];

    #[test]
    fn starts_from_the_weights() {
        let weights = [-1.3, -0.25, 1.0, 2.9, 0.0, -5.0, 7.0];
        let mut choices = RoundingVariables::new(&weights, &LEVELS);
        let mut values = [0.0; 7];
        choices.values(&mut values);
        for (value, expected) in values.iter().zip([-1.3, -0.25, 1.0, 2.9, 0.0, -2.0, 3.0]) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
        assert_eq!(choices.rounded(), [-1, 0, 0, 3, 0, -2, 3]);
    }

    #[test]
    fn the_chain_rule_holds() {
        let slopes = [0.3_f32, -0.7, 0.01, 5.0];
        let mut choices = RoundingVariables::new(&[-1.3, -0.25, 1.0, 2.0], &LEVELS);
        // Σ slopes·V + λ·Σ gap²·(1 − |2h − 1|^β)
        let total = |choices: &mut RoundingVariables, beta: Option<f32>| -> f64 {
            let mut values = [0.0; 4];
            choices.values(&mut values);
            let pull = |h: &f32| beta.map_or(0.0, |beta| 1.0 - (2.0 * h.clamp(0.0, 1.0) - 1.0).abs().powf(beta));
            let sum: f32 = values.iter().zip(slopes).map(|(v, s)| v * s).sum();
            let pulls = choices.stretched.iter().map(pull).zip(&choices.gap).map(|(pull, gap)| gap * gap * pull);
            f64::from(sum) + f64::from(STRENGTH * pulls.sum::<f32>())
        };
        for beta in [None, Some(20.0), Some(2.0)] {
            let mut gradient = slopes;
            total(&mut choices, beta);
            choices.chain(&mut gradient, beta);
            for (i, &found) in gradient.iter().enumerate() {
                let start = choices.variables[i];
                let mut moved = |by: f32| {
                    choices.variables[i] = start + by;
                    total(&mut choices, beta)
                };
                let slope = (moved(0.01) - moved(-0.01)) / 0.02;
                choices.variables[i] = start;
                assert!((slope - f64::from(found)).abs() < 1e-3 * (1.0 + slope.abs()), "{beta:?} {i}: {slope} {found}");
            }
        }
    }

    #[test]
    fn the_regulariser_sets_in_after_the_warm_up() {
        assert_eq!(sharpness(0.19), None);
        assert_eq!(sharpness(0.2), Some(20.0));
        assert!((sharpness(0.6).unwrap() - 11.0).abs() < 1e-4);
        assert!(regulariser_slope(0.3, 2.0) > 0.0 && regulariser_slope(0.7, 2.0) < 0.0);
    }
}
