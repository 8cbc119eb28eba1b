//! Layers whose columns are too long for all their moments: H is taken to be block-diagonal.
//!
//! Without correlations between blocks the error is a sum over blocks, `Σ_b (V_b − W_b*)·A_b·(V_b − W_b*)ᵀ`, and each is
//! solved on its own once the scales of rows, which all blocks share, are given: those of the least squared error of
//! rounding to nearest stay. A codebook keeps the entries of plain rounding.

use super::ClosedForm;
use crate::quant::Granularity;
use crate::solve::{Grid, Group, Problem, Solution, SolveError, Solver, Statistics};

/// Solves block by block. No row is worse than rounded to nearest.
pub(super) fn solve(solver: ClosedForm, problem: &Problem) -> Result<Solution, SolveError> {
    let weights = problem.weights();
    let plain = problem.nearest(&weights, &vec![1.0; weights.len()])?;
    let rows = weights.len() / problem.size.max(1);
    let scales: Vec<f32> = plain.scales.iter().copied().cycle().take(rows).collect();
    let mut entries = plain.data.clone();
    entries.sort_unstable();
    entries.dedup();
    let grid = if matches!(problem.grid, Grid::Codebook(_)) { Grid::Levels(&entries) } else { problem.grid };
    let mut solution = Solution { bias_shift: Some(vec![0.0; rows]), ..Solution::plain(plain) };
    let mut first = 0;
    for group in problem.groups {
        let rows = group.weights.len() / problem.size.max(1);
        let parts = match group.statistics {
            Statistics::Blocks(parts) => parts,
            Statistics::Moments(whole) => std::slice::from_ref(whole),
            _ => &[],
        };
        let mut from = 0;
        for moments in parts {
            let columns = from..from + moments.size;
            let part: Vec<f32> =
                group.weights.chunks_exact(problem.size).flat_map(|row| &row[columns.clone()]).copied().collect();
            let found = solver.solve(&Problem {
                groups: &[Group { weights: &part, statistics: Statistics::Moments(moments) }],
                size: moments.size,
                grid,
                granularity: Granularity::Channel,
                least_scales: &scales[first..first + rows],
                fixed_scales: true,
                ..*problem
            })?;
            for (row, integers) in found.integers.chunks_exact(moments.size.max(1)).enumerate() {
                let at = (first + row) * problem.size + from;
                solution.integers[at..at + moments.size].copy_from_slice(integers);
            }
            for (sum, shift) in
                solution.bias_shift.iter_mut().flatten().skip(first).zip(found.bias_shift.iter().flatten())
            {
                *sum += shift;
            }
            solution.ratio.merge(&found.ratio);
            solution.plain_ratio.merge(&found.plain_ratio);
            from = columns.end;
        }
        first += rows;
    }
    Ok(solution)
}
