//! The integers a plan asks for.

use super::fixed_levels::{SIGNS, powers_of_two};
use super::{Grid, binary_bases};
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{GridKind, GridSpec, QuantError, ScaleSearch};
use crate::scheme::bit_plan::{LayerPlan, WeightBits};
use msq_passes::{TrellisCode, TrellisRate};

/// The list of integers for the weights of some groups, whose channels have `size` values; empty where the grid is no
/// such list.
pub(super) fn levels(plan: LayerPlan, groups: &[Vec<f32>], size: usize) -> Vec<i8> {
    match plan.weight_grid() {
        WeightGrid::Sign => SIGNS.to_vec(),
        WeightGrid::PowerOfTwo => powers_of_two(bits(plan)),
        WeightGrid::BinaryBases => binary_bases::levels(&groups.concat(), size, bits(plan)),
        _ => Vec::new(),
    }
}

/// The grid, given the list and the number of channels that a trellis code could take together, 0 where it could not.
pub(super) fn grid(plan: LayerPlan, levels: &[i8], channels: usize) -> Result<Grid<'_>, QuantError> {
    let uniform = |kind| GridSpec::new(kind, bits(plan));
    match plan.weight_grid() {
        WeightGrid::Narrow => uniform(GridKind::SymmetricNarrow).map(Grid::Uniform),
        WeightGrid::Full => uniform(GridKind::Symmetric).map(Grid::Uniform),
        WeightGrid::Asymmetric => uniform(GridKind::Signed).map(Grid::Uniform),
        WeightGrid::FixedPoint => uniform(GridKind::Symmetric).map(|grid| Grid::Scaled(grid, ScaleSearch::PowerOfTwo)),
        WeightGrid::Wage => uniform(GridKind::SymmetricNarrow).map(|grid| Grid::Scaled(grid, ScaleSearch::Shift)),
        WeightGrid::Codebook => Ok(Grid::Codebook(bits(plan))),
        WeightGrid::Trellis => {
            let WeightBits::Bits(rate) = plan.weights else { return Ok(Grid::Codebook(bits(plan))) };
            let rate = TrellisRate::of_quarters(rate.quarters()).filter(|_| channels >= TrellisCode::SHORTEST);
            Ok(rate.map_or(Grid::Codebook(bits(plan)), |rate| Grid::Trellis(TrellisCode::new(rate))))
        }
        WeightGrid::Sign | WeightGrid::PowerOfTwo | WeightGrid::BinaryBases => Ok(Grid::Levels(levels)),
    }
}

fn bits(plan: LayerPlan) -> u8 {
    match plan.weights {
        WeightBits::Binary => 1,
        WeightBits::Ternary => 2,
        WeightBits::Bits(rate) => rate.ceil(),
        WeightBits::Float => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::round::Round;
    use crate::solve::{Group, Problem, Solution, Solver, Statistics};

    fn weights() -> Vec<f32> {
        (0..96_u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 1.4 - 0.7).collect()
    }

    fn solve(bits: u8, grid: WeightGrid, weights: &[f32]) -> Solution {
        let plan = LayerPlan { weights: WeightBits::whole(bits), grid: Some(grid), ..LayerPlan::default() };
        let levels = levels(plan, &[weights.to_vec()], weights.len());
        let grid = super::grid(plan, &levels, 1).unwrap();
        let groups = [Group { weights, statistics: Statistics::Nothing }];
        Round::default().solve(&Problem::new(&groups, weights.len(), grid)).unwrap()
    }

    /// Round(x, [IL, FL]) of the survey: multiples of ε = 2^−FL in [−2^(IL−1), 2^(IL−1) − ε], FL that of the least error
    /// of all.
    #[test]
    fn fixed_point_is_the_formula_at_the_best_fraction_length() {
        let weights = weights();
        for bits in 2..=8_u8 {
            let rounded = |fraction: i32| -> Vec<f64> {
                let epsilon = (-f64::from(fraction)).exp2();
                let top = f64::from(i32::from(bits) - fraction - 1).exp2();
                let round =
                    |&w: &f32| ((f64::from(w) / epsilon).round_ties_even() * epsilon).clamp(-top, top - epsilon);
                weights.iter().map(round).collect()
            };
            let error =
                |values: &[f64]| -> f64 { weights.iter().zip(values).map(|(&w, v)| (f64::from(w) - v).powi(2)).sum() };
            let best = (-4..16).min_by(|&a, &b| error(&rounded(a)).total_cmp(&error(&rounded(b)))).unwrap();
            let Solution { integers, scales, .. } = solve(bits, WeightGrid::FixedPoint, &weights);
            assert_eq!(scales, [2_f32.powi(-best)], "{bits}");
            let found: Vec<f64> = integers.iter().map(|&q| f64::from(q) * f64::from(scales[0])).collect();
            assert_eq!(found, rounded(best), "{bits}");
        }
    }

    /// Clip{σ·round(x/σ), −1 + σ, 1 − σ} of the survey, x the weight over its shift.
    #[test]
    fn wage_is_the_formula_after_its_shift() {
        for factor in [0.01, 0.4, 1.0, 1.3, 70.0] {
            let weights: Vec<f32> = weights().iter().map(|w| w * factor).collect();
            let largest = weights.iter().fold(0.0_f64, |largest, &w| largest.max(f64::from(w).abs()));
            let shift = largest.log2().round().exp2();
            for bits in 2..=8_u8 {
                let sigma = f64::from(1 - i32::from(bits)).exp2();
                let Solution { integers, scales, .. } = solve(bits, WeightGrid::Wage, &weights);
                for (&w, &q) in weights.iter().zip(&integers) {
                    let x = f64::from(w) / shift;
                    let wanted = shift * (sigma * (x / sigma).round_ties_even()).clamp(-1.0 + sigma, 1.0 - sigma);
                    assert_eq!(f64::from(q) * f64::from(scales[0]), wanted, "{bits} {factor}");
                }
            }
        }
    }

    #[test]
    fn lists_have_as_many_entries_as_the_bits_number() {
        for (grid, bits) in [(WeightGrid::PowerOfTwo, 2..=4), (WeightGrid::BinaryBases, 2..=6)] {
            for bits in bits {
                let mut used = solve(bits, grid, &weights()).integers;
                used.sort_unstable();
                used.dedup();
                assert!(used.len() > 1 << (bits - 1) && used.len() <= 1 << bits, "{grid} {bits}: {used:?}");
            }
        }
    }
}
