//! How many columns of a layer's input say as much as one.
//!
//! What the samples say of correlations is trusted the less the fewer columns there are (`gram::system`), which holds for
//! columns that do not depend on each other. Neighbours in a picture and words of a sentence do. How much is seen where
//! the solver has not looked: a few rows of the layer are solved as if 1, 8, 64, … columns were worth one, and the number
//! that leaves the least error on held-out samples is taken.

use super::gram::ClosedForm;
use super::{Grid, Group, Problem, SolveError, Solver, Statistics, held_out};
use crate::kernels::Columns;
use crate::quant::GridSpec;

/// How much more redundant the next guess is, and how many there are at most.
const FACTOR: f64 = 8.0;
const GUESSES: i32 = 4;
/// Rows that are looked at, of all groups.
const ROWS: usize = 64;
/// Of fewer values in a column there are always columns enough.
const LEAST_SIZE: usize = 32;

/// The redundancy for a problem, by columns of each group that its statistics do not hold; 1 where there are none.
pub(super) fn of(problem: &Problem, held_out: &[Columns]) -> Result<f64, SolveError> {
    // Many columns are kept for solvers that do not ask.
    let known = |group: &Group| match group.statistics {
        Statistics::Moments(_) => true,
        Statistics::Columns(columns) => columns.count() < problem.size,
        _ => false,
    };
    let any = held_out.len() == problem.groups.len() && held_out.iter().all(|columns| columns.count() > 0);
    if !any || problem.size < LEAST_SIZE || !problem.groups.iter().all(known) {
        return Ok(1.0);
    }
    let taken: Vec<Vec<f32>> = problem.groups.iter().map(|group| rows(problem, group)).collect();
    let groups: Vec<Group> =
        problem.groups.iter().zip(&taken).map(|(group, weights)| Group { weights, ..*group }).collect();
    let grid = Grid::Uniform(GridSpec::weight(problem.grid.bits().max(2))?);
    let noise = |redundancy: f64| -> Result<f64, SolveError> {
        let few = Problem { centered: problem.centered, redundancy, ..Problem::new(&groups, problem.size, grid) };
        let solution = ClosedForm { quick: true, ..ClosedForm::default() }.solve(&few)?;
        Ok(held_out::error(&few, &solution, held_out).noise)
    };
    let (mut best, mut least) = (1.0, noise(1.0)?);
    for guess in 1..GUESSES {
        let redundancy = FACTOR.powi(guess);
        let found = noise(redundancy)?;
        if found.is_nan() || found >= least {
            break;
        }
        (best, least) = (redundancy, found);
    }
    Ok(best)
}

/// Rows of a group, spread over all of it; as many for each group.
fn rows(problem: &Problem, group: &Group) -> Vec<f32> {
    let count = group.weights.len() / problem.size.max(1);
    let taken = (ROWS / problem.groups.len()).clamp(1, count.max(1));
    (0..taken).flat_map(|at| &group.weights[at * count / taken * problem.size..][..problem.size]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Moments;

    const SIZE: usize = 48;

    /// Numbers in −1..1 that follow from a seed.
    fn noise(seed: u64) -> impl Iterator<Item = f32> {
        let mut state = seed;
        std::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
        })
    }

    /// Columns of so many different kinds, each as often; neighbouring values are alike.
    fn columns(kinds: usize, often: usize, seed: u64) -> Columns {
        let mut noise = noise(seed);
        let mut column = || -> Vec<f32> {
            let mut value = 0.0;
            let mut next = || {
                value = 0.9 * value + noise.next().unwrap_or_default();
                value
            };
            (0..SIZE).map(|_| next()).collect()
        };
        let values: Vec<f32> = (0..kinds).flat_map(|_| column().repeat(often)).collect();
        Columns { size: SIZE, quantized: values.clone(), float: values }
    }

    fn moments(columns: &Columns) -> Moments {
        let values = columns.quantized.as_chunks::<SIZE>().0;
        let at = |i: usize| (i / SIZE, i % SIZE);
        let product = |(i, j): (usize, usize)| values.iter().map(|column| column[i] * column[j]).sum();
        let sum: Vec<f64> = (0..SIZE).map(|i| values.iter().map(|column| f64::from(column[i])).sum()).collect();
        Moments {
            size: SIZE,
            product: (0..SIZE * SIZE).map(at).map(product).collect(),
            cross: None,
            quantized_sum: sum.clone(),
            float_sum: sum,
            count: values.len() as u64,
        }
    }

    fn found(seen: &Columns, held_out: &[Columns]) -> f64 {
        let weights: Vec<f32> = noise(7).take(SIZE * 80).collect();
        let moments = moments(seen);
        let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
        of(&Problem::new(&groups, SIZE, Grid::Uniform(GridSpec::weight(4).unwrap())), held_out).unwrap()
    }

    #[test]
    fn repeated_columns_are_found_out() {
        let held_out = [columns(400, 1, 3)];
        let (different, repeated) = (columns(600, 1, 1), columns(20, 30, 1));
        let (of_different, of_repeated) = (found(&different, &held_out), found(&repeated, &held_out));
        assert!(of_repeated > of_different, "{of_repeated} {of_different}");
        assert_eq!(found(&repeated, &[]), 1.0);
    }
}
