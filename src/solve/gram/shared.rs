//! Rows that share one scale: integers of all rows in turns with s = Σ (q·A·w*) / Σ (q·A·qᵀ) over the rows.

use super::descent::{Row, ScaleRule};
use super::per_row::starts;
use super::{GroupSolution, Prepared, feedback};
use crate::solve::levels::Levels;
use faer::Mat;
use rayon::prelude::*;

/// How often scale and integers are improved in turns.
const TURNS: usize = 8;

/// The rows of each group, all with one scale.
type Rows<'a> = Vec<Vec<Row<'a>>>;

/// Solves the groups of a layer.
pub(super) fn solve(groups: &[Prepared], levels: &Levels, bits: u8) -> Vec<GroupSolution> {
    let least = groups.iter().flat_map(|group| &group.least).copied().fold(0.0, f64::max);
    let scale_of = |scales: fn(&Prepared) -> &Vec<f64>| groups.iter().find_map(|g| scales(g).first().copied());
    let plain_scale = scale_of(|group| &group.plain_scales).unwrap_or(1.0);
    let rows = begin(groups, plain_scale, |group| {
        Mat::from_fn(group.plain.nrows(), group.plain.ncols(), |i, row| levels.nearest(group.plain[(i, row)]))
    });
    let mut best: Vec<GroupSolution> = groups.iter().map(GroupSolution::new).collect();
    for (found, rows) in best.iter_mut().zip(&rows) {
        found.take(rows);
        found.plain_errors = rows.iter().map(Row::error).collect();
    }
    let mut keep = |mut rows: Rows| {
        descend(&mut rows, groups, levels, least);
        if error(&rows) < best.iter().flat_map(|found| &found.errors).sum() {
            best.iter_mut().zip(&rows).for_each(|(found, rows)| found.take(rows));
        }
    };
    keep(rows);
    let rule = groups.first().map_or(ScaleRule::Any, |group| group.rule);
    let start = scale_of(|group| &group.start_scales).unwrap_or(1.0);
    for factor in rule.factors(bits) {
        let scale = rule.scale(start * factor, least);
        keep(begin(groups, scale, |group| {
            let scales = vec![scale; group.target.ncols()];
            feedback::round(&group.system, group.target.as_ref(), &scales, levels)
        }));
    }
    best
}

fn begin<'a>(groups: &'a [Prepared], scale: f64, integers: impl Fn(&Prepared) -> Mat<f64> + Sync) -> Rows<'a> {
    let rows = |group: &'a Prepared| starts(group, 0, integers(group).as_ref(), &vec![scale; group.target.ncols()]);
    groups.par_iter().map(rows).collect()
}

fn error(rows: &Rows) -> f64 {
    rows.iter().flatten().map(Row::error).sum()
}

/// Moves integers and the scale down until nothing changes, or long enough.
fn descend(rows: &mut Rows, groups: &[Prepared], levels: &Levels, least: f64) {
    for _ in 0..TURNS {
        refit(rows, least);
        let settle = |(rows, group): (&mut Vec<Row>, &Prepared)| {
            let moved: Vec<bool> = rows.par_iter_mut().map(|row| row.settle(&group.system, levels)).collect();
            moved.contains(&true)
        };
        let moved: Vec<bool> = rows.par_iter_mut().zip(groups).map(settle).collect();
        if !moved.contains(&true) {
            break;
        }
    }
    refit(rows, least);
}

fn refit(rows: &mut Rows, least: f64) {
    let fits = rows.iter().flatten().map(|row| (row.fit(), row.weight));
    let (mixed, square) = fits.fold((0.0, 0.0), |sum, (fit, weight)| (sum.0 + weight * fit.0, sum.1 + weight * fit.1));
    if mixed > 0.0 && square > 0.0 {
        let rule = rows.iter().flatten().next().map_or(ScaleRule::Any, |row| row.rule);
        let scale = rule.scale(mixed / square, least);
        rows.iter_mut().flatten().for_each(|row| row.scale = scale);
    }
}
