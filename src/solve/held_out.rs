//! Whether a solution is better than rounding to nearest on samples that the solver has not seen.
//!
//! With W the weights, V = s·q those to use instead, and x and x̂ a held-out column in the float and in the quantized
//! network, the error of a row is `W·x − V·x̂ − d`, where d is the shift of the bias that was fitted along with V. A
//! solver that fits few columns, or columns that are not like others, makes it larger than rounding to nearest does.

use super::{Group, Problem, Solution, SolveError};
use crate::kernels::Columns;
use crate::quant::{Granularity, Sqnr};
use crate::solve::Solver;
use crate::solve::round::Round;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

/// What a solution and rounding to nearest do to held-out columns.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// The solution.
    pub(super) found: Sqnr,
    /// Rounding to nearest.
    pub(super) nearest: Sqnr,
    /// Weights rounded to nearest, with the shift of the mean on the samples that the solver has seen.
    pub(super) rounded: Solution,
}

/// Compares a solution with rounding to nearest on the columns of each group; nothing where there are none.
pub(super) fn compare(
    problem: &Problem,
    solution: &Solution,
    held_out: &[Columns],
) -> Result<Option<Comparison>, SolveError> {
    let any = held_out.first().is_some_and(|columns| columns.count() > 0);
    // Another scale of the input makes other columns.
    if !any || held_out.len() != problem.groups.len() || solution.input_scale.is_some() {
        return Ok(None);
    }
    let mut rounded = Round::default().solve(problem)?;
    if solution.bias_shift.is_some() {
        rounded.bias_shift = shift(problem, &rounded);
    }
    let [found, nearest] = [solution, &rounded].map(|solution| error(problem, solution, held_out));
    rounded.ratio = nearest;
    Ok(Some(Comparison { found, nearest, rounded }))
}

fn values(problem: &Problem, solution: &Solution) -> Vec<f32> {
    let block = if let Granularity::Block(block) = problem.granularity { Some(block) } else { None };
    solution.values(problem.size, block)
}

/// What rounding does to the mean of each row, on the samples of the statistics.
fn shift(problem: &Problem, rounded: &Solution) -> Option<Vec<f64>> {
    let values = values(problem, rounded);
    let mut first = 0;
    let of_group = |group: &Group| {
        let own = first..first + group.weights.len();
        first = own.end;
        group.value_shift(&values[own])
    };
    let shifts: Option<Vec<Vec<f64>>> = problem.groups.iter().map(of_group).collect();
    shifts.map(|shifts| shifts.concat())
}

/// Signal and noise of the layer's output on held-out columns, about the mean of the signal where the bias takes it up.
pub(super) fn error(problem: &Problem, solution: &Solution, held_out: &[Columns]) -> Sqnr {
    let all = values(problem, solution);
    let mut total = Sqnr::default();
    let mut first = 0;
    for (group, columns) in problem.groups.iter().zip(held_out) {
        let (size, count) = (problem.size, columns.count());
        let rows = group.weights.len() / size.max(1);
        let values = &all[first * size..(first + rows) * size];
        let wanted = product(group.weights, &columns.float, rows, size, count);
        let found = product(values, &columns.quantized, rows, size, count);
        for row in 0..rows {
            let shift = if problem.centered {
                solution.bias_shift.as_ref().and_then(|shift| shift.get(first + row)).copied().unwrap_or(0.0)
            } else {
                0.0
            };
            let output = |column: usize| f64::from(wanted[(row, column)]);
            let mean = if problem.centered { (0..count).map(output).sum::<f64>() / count.max(1) as f64 } else { 0.0 };
            let signal = (0..count).map(|column| (output(column) - mean).powi(2)).sum();
            let noise =
                (0..count).map(|column| (output(column) - f64::from(found[(row, column)]) - shift).powi(2)).sum();
            total.merge(&Sqnr { signal, noise, count: count as u64 });
        }
        first += rows;
    }
    total
}

/// Weights `[O, K]` times columns `[P, K]`: `[O, P]`.
fn product(weights: &[f32], columns: &[f32], rows: usize, size: usize, count: usize) -> Mat<f32> {
    let mut product = Mat::zeros(rows, count);
    let left = MatRef::from_row_major_slice(weights, rows, size);
    let right = MatRef::from_row_major_slice(columns, count, size).transpose();
    matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::GridSpec;
    use crate::solve::{Grid, Statistics};

    /// Weights fitted to columns that only held two directions are worse everywhere else, and are found out.
    #[test]
    fn a_fit_to_other_columns_is_worse_than_rounding() {
        let weights: Vec<f32> = (0..64_u32).map(|i| (i * 37 % 64) as f32 / 64.0 - 0.5).collect();
        let groups = [Group { weights: &weights, statistics: Statistics::Nothing }];
        let problem = Problem::new(&groups, 16, Grid::Uniform(GridSpec::weight(4).unwrap()));
        let values: Vec<f32> =
            (0..20 * 16_u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32).collect();
        let columns = [Columns { size: 16, quantized: values.clone(), float: values }];
        let nearest = Round::default().solve(&problem).unwrap();
        let worse = Solution { integers: nearest.integers.iter().map(|q| q / 2).collect(), ..nearest.clone() };
        let compared = compare(&problem, &worse, &columns).unwrap().unwrap();
        assert!(compared.found.noise > compared.nearest.noise);
        assert_eq!(compared.rounded.integers, nearest.integers);
        let same = compare(&problem, &nearest, &columns).unwrap().unwrap();
        assert_eq!(same.found, same.nearest);
        assert!(compare(&problem, &nearest, &[]).unwrap().is_none());
    }
}
