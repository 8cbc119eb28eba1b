//! Solver `round`: nearest integers on a scale that minimises the squared error of the weights themselves, or one of the
//! two neighbours by chance.
//!
//! * Nearest: q = round(w/s) clamped to the grid, s per channel by search (equations (1) to (5) of the MSQ paper with z =
//!   0), or the nearest entry of a codebook or another list.
//! * Stochastic (Gupta et al., 2015; Muller and Indiveri, 2015): with the levels l ≤ w/s ≤ u next to the weight,
//!
//!   `P(q = u) = (w/s − l)/(u − l)`, `P(q = l)` the rest, so that E[s·q] = w
//!
//!   wherever w/s lies between the outermost levels. On a uniform grid that is ⌊w/s⌋ + Bernoulli(w/s − ⌊w/s⌋); on −1 and 1
//!   it is the hard sigmoid of Courbariaux et al. (2015), clip((w/s + 1)/2, 0, 1). The scale is the finest that clips
//!   nothing; where levels or scales follow a rule of their own (codebooks, `wage`), it is theirs, and clips. What is
//!   drawn depends on the seed, the layer and the weight's place alone.

use super::levels::Levels;
use super::random::uniform;
use super::{Grid, Problem, Solution, SolveError, Solver, StatisticsKind};
use crate::quant::{Granularity, QuantizedWeight, ScaleSearch, Sqnr, normal_scale, power_of_two};
use crate::scheme::options::RoundingMode;
use crate::solve::SolverRow;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "round",
    help: "To nearest, on the scale of least squared error",
    minimises: "‖W − V‖²",
    time: "none to speak of",
    options: &["rounding"],
    solver: |options| Box::new(Round { mode: options.rounding }),
    quick: Some(|options| Box::new(Round { mode: options.rounding })),
};

/// Rounds to nearest, or by chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Which of the two neighbours of a weight is taken.
    pub mode: RoundingMode,
}

impl Solver for Round {
    fn name(&self) -> &str {
        ROW.name
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Nothing
    }

    fn rounds_to_nearest(&self) -> bool {
        self.mode == RoundingMode::Nearest
    }

    fn takes(&self, grid: &Grid) -> bool {
        self.mode == RoundingMode::Nearest || !matches!(grid, Grid::Trellis(_))
    }

    fn takes_granularity(&self, granularity: Granularity) -> bool {
        self.mode == RoundingMode::Nearest || !matches!(granularity, Granularity::Block(_))
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        let weights = problem.weights();
        let mut rounded = problem.nearest(&weights, &vec![1.0; weights.len()])?;
        // Integers of a trellis code are not drawn one by one.
        if self.mode == RoundingMode::Stochastic && !matches!(problem.grid, Grid::Trellis(_)) {
            draw(problem, &weights, &mut rounded);
        }
        let ratio: Sqnr = rounded.sqnr(&weights);
        Ok(Solution { ratio, plain_ratio: ratio, ..Solution::plain(rounded) })
    }
}

/// Replaces integers and scales by what is drawn.
fn draw(problem: &Problem, weights: &[f32], rounded: &mut QuantizedWeight) {
    let levels = match problem.grid {
        Grid::Uniform(grid) | Grid::Scaled(grid, _) => Levels::uniform(grid),
        Grid::Codebook(_) | Grid::Trellis(_) => Levels::listed(&rounded.data),
        Grid::Levels(levels) => Levels::listed(levels),
    };
    let size = if problem.per_channel() { problem.size } else { weights.len() }.max(1);
    for (channel, (scale, weights)) in rounded.scales.iter_mut().zip(weights.chunks(size)).enumerate() {
        if let Some(widest) = unclipped(problem, weights, &levels).filter(|_| !problem.fixed_scales) {
            *scale = widest.max(problem.least_scale(channel));
            if matches!(problem.grid, Grid::Scaled(..)) {
                *scale = power_of_two::ceiling((*scale).into());
            }
        }
        for (at, (q, &weight)) in rounded.data[channel * size..].iter_mut().zip(weights).enumerate() {
            let value = f64::from(weight) / f64::from(*scale);
            *q = drawn(&levels, value, uniform(problem.seed, channel * size + at)) as i8;
        }
    }
}

/// The finest scale that clips nothing; none where the rule of the grid says what the scale is.
fn unclipped(problem: &Problem, weights: &[f32], levels: &Levels) -> Option<f32> {
    let largest = weights.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
    let free = !matches!(problem.grid, Grid::Codebook(_) | Grid::Scaled(_, ScaleSearch::Shift));
    (free && largest > 0.0).then(|| normal_scale(f64::from(largest) / levels.reach()))
}

/// The level above `value` if `chance`, from 0 to 1, is less than what has been covered of the way to it; or the one below.
fn drawn(levels: &Levels, value: f64, chance: f64) -> f64 {
    let (low, high) = levels.neighbours(value);
    if high > low && chance < (value - low) / (high - low) { high } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{GridKind, GridSpec};
    use crate::solve::fixed_levels::{SIGNS, powers_of_two};
    use crate::solve::{Group, Statistics};

    const STOCHASTIC: Round = Round { mode: RoundingMode::Stochastic };

    fn solve(weights: &[f32], size: usize, grid: Grid, seed: u64) -> Solution {
        let groups = [Group { weights, statistics: Statistics::Nothing }];
        STOCHASTIC.solve(&Problem { seed, ..Problem::new(&groups, size, grid) }).unwrap()
    }

    fn weights(count: u32) -> Vec<f32> {
        (0..count).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5).collect()
    }

    #[test]
    fn chances_are_those_of_the_formulas() {
        let grid = Levels::Uniform(-8.0, 7.0);
        let signs = Levels::listed(&SIGNS);
        let powers = Levels::listed(&powers_of_two(4));
        for i in 0..400 {
            let (value, chance) = (f64::from(i % 20) * 0.13 - 1.3, (f64::from(i / 20) + 0.5) / 20.0);
            let up = chance < value - value.floor();
            assert_eq!(drawn(&grid, value, chance), value.floor() + f64::from(u8::from(up)));
            let sigmoid = f64::midpoint(value, 1.0).clamp(0.0, 1.0);
            assert_eq!(drawn(&signs, value, chance), if chance < sigmoid { 1.0 } else { -1.0 });
            assert_eq!(drawn(&powers, 16.0 + 16.0 * chance, 0.5), if chance > 0.5 { 32.0 } else { 16.0 });
        }
        assert_eq!((drawn(&grid, 9.0, 0.0), drawn(&grid, -9.0, 0.0)), (7.0, -8.0));
        assert_eq!((drawn(&grid, 3.0, 0.0), drawn(&grid, 3.0, 0.999)), (3.0, 3.0));
    }

    /// The mean over seeds is the weight, on every kind of grid without a rule for its scale.
    #[test]
    fn drawn_weights_are_unbiased() {
        let (size, draws) = (40, 4000);
        let weights = weights(80);
        let full = GridSpec::new(GridKind::Symmetric, 3).unwrap();
        let powers = powers_of_two(3);
        let grids = [
            Grid::Uniform(full),
            Grid::Scaled(full, ScaleSearch::PowerOfTwo),
            Grid::Levels(&powers),
            Grid::Levels(&SIGNS),
        ];
        for grid in grids {
            let mut sums = vec![0.0; weights.len()];
            let mut scales = Vec::new();
            for seed in 0..draws {
                let Solution { integers, scales: found, .. } = solve(&weights, size, grid, seed);
                sums.iter_mut().zip(&integers).for_each(|(sum, &q)| *sum += f64::from(q));
                scales = found;
            }
            for (i, (sum, &w)) in sums.iter().zip(&weights).enumerate() {
                let scale = f64::from(scales[i / size]);
                let value = f64::from(w) / scale;
                let levels = match grid {
                    Grid::Levels(levels) => Levels::listed(levels),
                    _ => Levels::uniform(full),
                };
                let (low, high) = levels.neighbours(value);
                let deviation = ((value - low) * (high - value) / draws as f64).max(0.0).sqrt();
                // 320 means: the furthest is rarely beyond 3.7 standard deviations.
                let error = sum / draws as f64 - value;
                assert!(error.abs() <= 4.5 * deviation + 1e-6, "{grid:?} {i}: {error} {deviation}");
            }
        }
    }

    #[test]
    fn draws_depend_on_the_seed_and_the_place_alone() {
        let weights = weights(4000);
        let grid = Grid::Uniform(GridSpec::weight(3).unwrap());
        let once = solve(&weights, 40, grid, 5);
        assert_eq!(solve(&weights, 40, grid, 5), once);
        assert_ne!(solve(&weights, 40, grid, 6).integers, once.integers);
        // The first channels alone are drawn as with the others behind them.
        assert_eq!(solve(&weights[..400], 40, grid, 5).integers, once.integers[..400]);
    }

    #[test]
    fn scales_keep_above_their_limits() {
        let weights = weights(60);
        let groups = [Group { weights: &weights, statistics: Statistics::Nothing }];
        let grid = Grid::Scaled(GridSpec::weight(4).unwrap(), ScaleSearch::PowerOfTwo);
        for mode in [RoundingMode::Nearest, RoundingMode::Stochastic] {
            let problem = Problem { least_scales: &[0.3, 0.0], ..Problem::new(&groups, 30, grid) };
            let scales = Round { mode }.solve(&problem).unwrap().scales;
            assert_eq!(scales[0], 0.5);
            assert!(scales[1] <= 0.125, "{scales:?}");
        }
    }
}
