//! Solver `cosine`: scales with which what a layer computes points where it did (Wu et al. 2020, `EasyQuant`; equations
//! (6) and (7) of the MSQ paper).
//!
//! With y = W·x what a row of a group computes in the float network, at all columns seen, and ŷ = s·q·x̂ what it computes
//! on integers, the scale of the row maximises
//!
//! `cos(y, ŷ) = Σ y·ŷ / (‖y‖·‖ŷ‖)`, q = round(W/s) on the grid,
//!
//! and the scale `s_x` of the layer's input the same over all rows together, x̂ = Q(x; `s_x`), where the caller lets it be
//! changed ([`Problem::input`]); its zero point stays, so its range grows and shrinks in proportion. A scale that rows
//! share maximises the cosine of all of them. The bias has no part in this: y is the product alone.
//!
//! Each scale is the best of 100 candidates, from half to twice the one that clips nothing (for the input: the one
//! given), and of a few around the best of those. Scales of weights and of the input are searched in turns for as long
//! as the cosine over all rows rises. Plain rounding is a candidate too, so in this measure no row is worse than that on
//! the same input.
//!
//! A cosine does not see how large ŷ is; the scale found is kept nonetheless, as in the paper, and the bias takes up the
//! error of the mean ([`Solution::bias_shift`]). Since min over a of `‖y − a·ŷ‖²` is `‖y‖²·(1 − cos²)`, that is what
//! is reported as the error.
//!
//! On a codebook the entries are those of plain rounding, and the candidates lie around its scales.
//!
//! A candidate costs one product of integers and columns, so columns are taken evenly out of those seen, few enough for
//! large layers. The result does not depend on the number of threads: each candidate is computed by one.

mod sample;
mod search;
#[cfg(test)]
mod tests;

use super::{Grid, Problem, Solution, SolveError, Solver, Statistics, StatisticsKind};
use crate::kernels::{Columns, Means};
use crate::quant::{Affine, Sqnr};
use crate::solve::SolverRow;
use sample::Sums;
use search::{ScaleCandidate, Search};

/// How often the scales of weights and input are searched in turns.
const TURNS: usize = 20;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "cosine",
    help: "To nearest, on scales of weights and inputs by the cosine of what each layer computes",
    minimises: "the angle between W·x and V·x̂",
    time: "short",
    options: &[],
    solver: |_| Box::new(Cosine),
    quick: None,
};

/// The solver by cosine similarity.
#[derive(Clone, Copy, Debug)]
pub struct Cosine;

impl Solver for Cosine {
    fn name(&self) -> &str {
        ROW.name
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Columns
    }

    fn takes(&self, grid: &Grid) -> bool {
        matches!(grid, Grid::Uniform(_) | Grid::Codebook(_))
    }

    fn scales_input(&self) -> bool {
        true
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        let search = Search::new(problem);
        let mut best = search.weights(problem.input)?;
        for _ in 0..TURNS {
            let Some(input) = search.input(&best) else { break };
            let next = search.weights(Some(input))?;
            if next.similarity <= best.similarity {
                break;
            }
            best = next;
        }
        Ok(assemble(problem, &search, best))
    }
}

fn assemble(problem: &Problem, search: &Search, choice: ScaleCandidate) -> Solution {
    let size = problem.size.max(1);
    let mut first = 0;
    let mut shifts = Some(Vec::new());
    for group in problem.groups {
        let rows = first..first + group.weights.len() / size;
        first = rows.end;
        let integers = &choice.integers[rows.start * size..rows.end * size];
        let scale = |row: usize| choice.scales.get(search.unit(row)).copied().unwrap_or(1.0);
        let scales: Vec<f64> = rows.map(|row| f64::from(scale(row))).collect();
        let shift = match (group.statistics, problem.input, choice.input) {
            (Statistics::Columns(columns), Some(old), Some(new)) if old != new => {
                Some(group.mean_shift(&means(columns, old, new), integers, &scales))
            }
            _ => group.bias_shift(integers, &scales),
        };
        shifts = shifts.zip(shift).map(|(mut all, shift)| {
            all.extend(shift);
            all
        });
    }
    let count = (first * problem.size) as u64;
    Solution {
        ratio: ratio(search, &choice.sums, count),
        plain_ratio: ratio(search, &choice.plain_sums, count),
        integers: choice.integers,
        scales: choice.scales,
        zero_points: Vec::new(),
        bias_shift: shifts,
        input_scale: choice.input.filter(|_| choice.input != problem.input).map(|input| input.scale),
    }
}

/// Means of what the layer reads with another quantizer: those seen, moved by what the change does to the float columns.
fn means(columns: &Columns, old: Affine, new: Affine) -> Means {
    let mut means = columns.means();
    let size = columns.size.max(1);
    let mut moved = vec![0.0; columns.size];
    for column in columns.float.chunks_exact(size) {
        for (sum, &x) in moved.iter_mut().zip(column) {
            *sum += f64::from(new.fake_quantize(x)) - f64::from(old.fake_quantize(x));
        }
    }
    let count = columns.count().max(1) as f64;
    means.quantized.iter_mut().zip(moved).for_each(|(mean, moved)| *mean += moved / count);
    means
}

/// ‖y‖² against ‖y‖²·(1 − cos²), added up over what shares a scale.
fn ratio(search: &Search, sums: &[Sums], count: u64) -> Sqnr {
    let mut total = Sqnr { count, ..Sqnr::default() };
    for unit in search.units(sums) {
        let cosine = unit.cosine().max(0.0);
        if unit.signal.is_finite() {
            total.signal += unit.signal;
            total.noise += unit.signal * (1.0 - cosine * cosine).max(0.0);
        }
    }
    total
}
