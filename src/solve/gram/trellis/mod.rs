//! Integers of a trellis code: the unit is a column, the weights of all rows that multiply the same input.
//!
//! 1. **Feedback**, as in `feedback`: from the input with the largest diagonal on, the whole column is encoded at once for
//!    the targets that make up for errors already made, each row's error weighed by its pivot `D_j` and its scale.
//! 2. **Descent**: given all other inputs, the error is least for `y = q_j − (p_j − t_j/s)/A_jj` in each row (`descent`),
//!    and a column q costs `Σ s²·A_jj·(q − y)²` more than that. The column is encoded for y, and taken if the error falls.
//! 3. Scales by least squares, in turns with 2.
//!
//! Feedback begins from several scales: targets that make up for errors reach further than the weights, and what lies past
//! the ends of the table costs most.
//!
//! Inputs are taken in blocks: what the columns of a block do to each other is summed at once, and what they do to all
//! others by a matrix product when the block is done.
//!
//! Groups have forms of their own and share columns: a depthwise layer has a column per tap. The layer as a whole is never
//! worse than rounded to nearest.

mod descent;
mod feedback;
mod rows;

use super::{GroupSolution, Prepared, Problem};
use descent::Descent;
use msq_passes::TrellisCode;
use rows::Rows;

/// How often scales and columns are improved in turns.
const TURNS: usize = 8;
/// The same for a quick look.
const QUICK_TURNS: usize = 2;
/// How much larger or smaller the next starting scales are, and how often they grow or shrink at most.
const FACTOR: f64 = 1.15;
const FACTORS: usize = 6;

/// Solves the groups of a layer.
pub(super) fn solve(problem: &Problem, groups: &[Prepared], code: TrellisCode) -> Vec<GroupSolution> {
    let plain: Vec<_> = groups.iter().map(|group| (group.plain.clone(), group.plain_scales.clone())).collect();
    let mut best: Vec<GroupSolution> = groups.iter().map(GroupSolution::new).collect();
    for rows in Rows::all(groups, plain) {
        rows.give(&mut best);
    }
    for found in &mut best {
        found.plain_errors.clone_from(&found.errors);
    }
    let quick = groups.iter().any(|group| group.quick);
    let mut found = begin(problem, groups, code);
    found.descend(code, if quick { QUICK_TURNS } else { TURNS });
    if found.error() < best.iter().flat_map(|found| &found.errors).sum() {
        found.rows.iter().for_each(|rows| rows.give(&mut best));
    }
    best
}

/// Rounding with feedback, from the starting scales with which it comes closest: they grow, or shrink, as long as that
/// lowers the error.
fn begin<'a>(problem: &Problem, groups: &'a [Prepared], code: TrellisCode) -> Descent<'a> {
    let from = |factor: f64| {
        let scale = |group: &Prepared, row: usize| group.rule.scale(group.start_scales[row] * factor, group.least[row]);
        let scales =
            |group: &Prepared| -> Vec<f64> { (0..group.start_scales.len()).map(|row| scale(group, row)).collect() };
        let scales: Vec<Vec<f64>> = groups.iter().map(scales).collect();
        let (integers, windows) = feedback::round(groups, &scales, code);
        let rows = Rows::all(groups, integers.into_iter().zip(scales));
        let mut found = Descent { rows, windows, per_channel: problem.per_channel() };
        if !problem.fixed_scales {
            found.refit();
        }
        (found.error(), found)
    };
    if problem.fixed_scales {
        return from(1.0).1;
    }
    let (mut best, larger) = rayon::join(|| from(1.0), || from(FACTOR));
    let better = |one: &(f64, Descent), other: &(f64, Descent)| one.0 < other.0;
    let (step, mut next) =
        if better(&larger, &best) { (FACTOR, larger) } else { (FACTOR.recip(), from(FACTOR.recip())) };
    let mut factor = step;
    for _ in 1..FACTORS {
        if !better(&next, &best) {
            return best.1;
        }
        factor *= step;
        best = std::mem::replace(&mut next, from(factor));
    }
    if better(&next, &best) { next.1 } else { best.1 }
}
