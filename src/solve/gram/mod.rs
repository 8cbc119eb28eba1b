//! Solver `gram`: integers that change least what a layer computes, in closed form from the moments of its inputs.
//!
//! With W `[O, K]` the weights of a group, x what the float network feeds it and x̂ what the quantized network does,
//! the weights V to use instead are those that minimise
//!
//! `Σ ‖W·x − V·x̂‖² + ‖(V − W)·Λ^½‖² = (V − W*)·A·(V − W*)ᵀ + const`, A = H + Λ, `W* = (W·C + W·Λ)·A⁻¹`
//!
//! with the moments H = Σ x̂·x̂ᵀ and C = Σ x·x̂ᵀ: W* makes up for what earlier layers got wrong, and Λ, a fraction of
//! the mean diagonal of H and the more of the diagonal itself the fewer columns there are (`system`), keeps what the
//! samples say little about near W. Of fewer columns than values neither H nor C is written down (`thin`). With a bias that takes up the mean
//! ([`Problem::centered`]), moments about the mean do the same for the best bias.
//!
//! V = s·q, s a scale for each row and q integers of a grid:
//!
//! 1. **Rounding with feedback** (`feedback`): column by column, those with large `A_jj` first, each error made up
//!    for by the columns still to come (Frantar et al., GPTQ), from several scales;
//! 2. **Descent** (`descent`): each integer moves to its exact minimiser given all others, in turns with the exact
//!    least-squares scale s = (q·A·w*)/(q·A·qᵀ), or the nearest power of two where scales have to be such;
//! 3. the best for each row of these and of the same descent from plain rounding is kept, so that no row is worse than
//!    rounded to nearest on the scale of least squared error.
//!
//! Rows with one scale per block of inputs (`per_block`) are solved the same way, with as many scales.
//!
//! Rows do not influence each other unless they share a scale (`shared`) or a codebook (`codebook`); then it is the
//! layer as a whole that is no worse. The result does not depend on the number of
//! threads.

mod blocks;
mod codebook;
mod descent;
mod feedback;
mod per_block;
mod per_row;
mod shared;
mod system;
#[cfg(test)]
mod tests;
mod thin;
mod trellis;
#[cfg(test)]
mod trellis_tests;

use super::round::Round;
use super::{Grid, Group, Problem, Solution, SolveError, Solver, Statistics, StatisticsKind};
use crate::quant::{Granularity, QuantError, Sqnr};
use crate::scheme::options::SolveOptions;
use crate::solve::SolverRow;
use crate::solve::levels::Levels;
use descent::ScaleRule;
use msq_passes::TrellisCode;
use rayon::prelude::*;
use system::System;

/// λ as a fraction of the mean diagonal of H.
pub const DAMPING: f64 = 0.01;

/// The stride between the positions that moments are summed over, unless the options say otherwise.
const STRIDE: usize = 8;

/// How much larger the error of a quick codebook may be than that of a code for the codebook to be solved in full.
const NEAR: f64 = 1.15;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "gram",
    help: "By what each layer reads, so that what it computes changes least",
    minimises: "Σ ‖W·x − V·x̂‖²",
    time: "short",
    options: &["position_step"],
    solver: |options| Box::new(ClosedForm { stride: options.position_step, quick: false }),
    quick: Some(quick),
};

/// The quick form. Moments are always summed at the default stride.
pub(super) fn quick(_: &SolveOptions) -> Box<dyn Solver> {
    Box::new(ClosedForm { quick: true, ..ClosedForm::default() })
}

/// The closed-form solver.
#[derive(Clone, Copy, Debug)]
pub struct ClosedForm {
    /// Stride between the positions that moments are summed over.
    pub stride: usize,
    /// Whether rounding with feedback and one descent from it are enough, as for comparing bit widths. No row is worse
    /// than rounded to nearest for that.
    pub quick: bool,
}

impl Default for ClosedForm {
    fn default() -> Self {
        Self { stride: STRIDE, quick: false }
    }
}

impl Solver for ClosedForm {
    fn name(&self) -> &str {
        ROW.name
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Moments { stride: self.stride }
    }

    fn takes(&self, _: &Grid) -> bool {
        true
    }

    fn takes_granularity(&self, _: Granularity) -> bool {
        true
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        if let Granularity::Block(block) = problem.granularity {
            return per_block::solve(*self, problem, block.max(1));
        }
        if problem.groups.iter().any(|group| matches!(group.statistics, Statistics::Blocks(_))) {
            return match problem.grid {
                // The blocks of a group have no columns of their own where groups share them.
                Grid::Trellis(_) if problem.groups.len() > 1 => Round::default().solve(problem),
                _ => blocks::solve(*self, problem),
            };
        }
        let prepared = prepare(problem, self.quick)?;
        let found = match problem.grid {
            Grid::Uniform(grid) | Grid::Scaled(grid, _) => descend(problem, &prepared, &Levels::uniform(grid)),
            Grid::Levels(levels) => descend(problem, &prepared, &Levels::listed(levels)),
            Grid::Codebook(_) => codebook::solve(problem, &prepared),
            Grid::Trellis(code) => {
                let coded = || assemble(problem, &prepared, &trellis::solve(problem, &prepared, code));
                let (found, codebook) = rayon::join(coded, || self.quick_codebook(problem, code));
                return self.better(problem, code, found, codebook?);
            }
        };
        Ok(assemble(problem, &prepared, &found))
    }
}

impl ClosedForm {
    /// A codebook of about as many bits as a trellis code, which is better for few or unlike rows. None on fixed scales.
    fn quick_codebook(self, problem: &Problem, code: TrellisCode) -> Result<Option<Solution>, SolveError> {
        let quick = Self { quick: true, ..self };
        (!problem.fixed_scales).then(|| quick.solve(&with_codebook(problem, code))).transpose()
    }

    /// The better one of a code and a codebook.
    fn better(
        self,
        problem: &Problem,
        code: TrellisCode,
        found: Solution,
        codebook: Option<Solution>,
    ) -> Result<Solution, SolveError> {
        let Some(mut other) = codebook else { return Ok(found) };
        // Few codebooks come near a code. Those that do are solved as thoroughly as the code.
        if !self.quick && other.ratio.noise < found.ratio.noise * NEAR {
            let full = self.solve(&with_codebook(problem, code))?;
            other = if full.ratio.noise < other.ratio.noise { full } else { other };
        }
        Ok(if other.ratio.noise < found.ratio.noise { other } else { found })
    }
}

/// The problem with a codebook of about as many bits as a trellis code.
fn with_codebook<'a>(problem: &Problem<'a>, code: TrellisCode) -> Problem<'a> {
    Problem { grid: Grid::Codebook((code.rate().quarters() / 4).max(1)), ..*problem }
}

/// A group ready to be solved. Columns of matrices are rows of weights, in the system's order of inputs.
struct Prepared {
    system: System,
    /// W*, `[K, O]`.
    target: faer::Mat<f64>,
    /// A·W*ᵀ.
    product: faer::Mat<f64>,
    /// Integers by plain rounding of W and of W*, `[K, O]`.
    plain: faer::Mat<f64>,
    start: faer::Mat<f64>,
    /// Their scales.
    plain_scales: Vec<f64>,
    start_scales: Vec<f64>,
    least: Vec<f64>,
    rule: ScaleRule,
    quick: bool,
}

/// What was found for a group.
#[derive(Clone, Debug)]
struct GroupSolution {
    /// `[K, O]`.
    integers: faer::Mat<f64>,
    scales: Vec<f64>,
    /// Error of each row, and of plain rounding.
    errors: Vec<f64>,
    plain_errors: Vec<f64>,
}

/// The best integers out of some levels.
fn descend(problem: &Problem, prepared: &[Prepared], levels: &Levels) -> Vec<GroupSolution> {
    let bits = problem.grid.bits();
    if problem.per_channel() {
        prepared.par_iter().map(|group| per_row::solve(group, levels, bits)).collect()
    } else {
        shared::solve(prepared, levels, bits)
    }
}

fn prepare(problem: &Problem, quick: bool) -> Result<Vec<Prepared>, QuantError> {
    let shared = matches!(problem.grid, Grid::Trellis(_)) && problem.groups.len() > 1;
    let order = shared.then(|| System::common_order(problem));
    let systems: Vec<System> =
        problem.groups.par_iter().map(|group| System::new(group, problem, order.as_deref())).collect();
    let targets: Vec<faer::Mat<f64>> =
        systems.par_iter().zip(problem.groups).map(|(system, group)| system.target(group)).collect();
    let weights = problem.weights();
    let plain = problem.nearest(&weights, &vec![1.0; weights.len()])?;
    let values =
        systems.iter().zip(&targets).flat_map(|(system, target)| system.restore(target.as_ref(), |v| v as f32));
    let importance: Vec<f64> =
        systems.iter().zip(&targets).flat_map(|(system, target)| system.importance(target.ncols())).collect();
    let start = problem.nearest(&values.collect::<Vec<f32>>(), &importance)?;
    let mut first = 0;
    let one = |(system, target): (System, faer::Mat<f64>)| {
        let here = first..first + target.ncols();
        let values = here.start * target.nrows()..here.end * target.nrows();
        let scales = |scales: &[f32], default: f32| {
            let scale = |row| scales.get(if scales.len() == 1 { 0 } else { row }).copied().unwrap_or(default);
            here.clone().map(|row| f64::from(scale(row))).collect::<Vec<_>>()
        };
        first = here.end;
        Prepared {
            product: system.times(target.as_ref()),
            plain: system.arrange(&plain.data[values.clone()], f64::from),
            start: system.arrange(&start.data[values], f64::from),
            plain_scales: scales(&plain.scales, 1.0),
            start_scales: scales(&start.scales, 1.0),
            least: scales(problem.least_scales, 0.0),
            rule: ScaleRule::of(problem),
            quick,
            system,
            target,
        }
    };
    Ok(systems.into_iter().zip(targets).map(one).collect())
}

fn assemble(problem: &Problem, prepared: &[Prepared], found: &[GroupSolution]) -> Solution {
    let mut solution = Solution {
        integers: Vec::new(),
        scales: Vec::new(),
        zero_points: Vec::new(),
        bias_shift: Some(Vec::new()),
        input_scale: None,
        ratio: Sqnr::default(),
        plain_ratio: Sqnr::default(),
    };
    for ((group, ready), found) in problem.groups.iter().zip(prepared).zip(found) {
        let integers = ready.system.restore(found.integers.as_ref(), |q| q as i8);
        let shift = group.bias_shift(&integers, &found.scales);
        solution.bias_shift = solution.bias_shift.zip(shift).map(|(mut all, shift)| {
            all.extend(shift);
            all
        });
        solution.integers.extend(integers);
        solution.scales.extend(found.scales.iter().map(|&s| s as f32));
        let unit = ready.system.unit();
        for row in 0..ready.target.ncols() {
            let signal = unit * system::dot(ready.target.col_as_slice(row), ready.product.col_as_slice(row));
            let part = |error: f64| Sqnr { signal, noise: error, count: problem.size as u64 };
            solution.ratio.merge(&part(found.errors[row]));
            solution.plain_ratio.merge(&part(found.plain_errors[row]));
        }
    }
    if !problem.per_channel() {
        solution.scales.truncate(1);
    }
    solution
}
