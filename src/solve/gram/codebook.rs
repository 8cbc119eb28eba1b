//! Integers from a codebook chosen for the layer.
//!
//! Two codebooks are tried: that of plain rounding, and the one that fits W* best with errors weighed by the diagonal
//! of A. From each, integers and scales are found as on a grid; then entries and integers improve in turns. With `z_m`
//! the indicator of the weights of a row that have entry m, the layer's error in the values v of the entries is
//!
//! `v·N·vᵀ − 2·v·r + const`, `N_mn = Σ s²·z_m·A·z_nᵀ`, `r_m = Σ s·z_m·A·w*ᵀ`, the sums over rows,
//!
//! which integer coordinate descent lowers, as it does for the weights of a row. The better result is kept; since the
//! first starts from plain rounding, the layer is never worse than that.

use super::per_row::refined;
use super::system::dot;
use super::{GroupSolution, Prepared, Problem, descend};
use crate::quant::round_half_even_f64;
use crate::solve::levels::Levels;
use faer::Mat;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// How often entries and integers are improved in turns.
const TURNS: usize = 4;
/// How often the entries are gone through in a turn.
const SWEEPS: usize = 8;
/// The largest entry.
const REACH: f64 = 127.0;

/// Solves the groups of a layer.
pub(super) fn solve(problem: &Problem, groups: &[Prepared]) -> Vec<GroupSolution> {
    let own = levels(groups.iter().map(|group| &group.plain));
    let mut best = improved(problem, groups, &own);
    if groups.iter().any(|group| group.quick) {
        return best;
    }
    let plain_errors: Vec<Vec<f64>> = best.iter().map(|found| found.plain_errors.clone()).collect();
    let mut other = improved(problem, groups, &levels(groups.iter().map(|group| &group.start)));
    if total(&other) < total(&best) {
        other.iter_mut().zip(plain_errors).for_each(|(found, errors)| found.plain_errors = errors);
        best = other;
    }
    best
}

fn total(found: &[GroupSolution]) -> f64 {
    found.iter().flat_map(|found| &found.errors).sum()
}

/// The levels that some integers use.
fn levels<'a>(integers: impl Iterator<Item = &'a Mat<f64>>) -> Levels {
    let mut used = [false; 2 * REACH as usize + 1];
    for column in integers.flat_map(Mat::col_iter) {
        column.iter().for_each(|&q| used[(q + REACH) as usize] = true);
    }
    Levels::entries((0..used.len()).filter(|&i| used[i]).map(|i| i as f64 - REACH).collect())
}

/// The best integers from a codebook, and from what it becomes.
fn improved(problem: &Problem, groups: &[Prepared], levels: &Levels) -> Vec<GroupSolution> {
    let mut found = descend(problem, groups, levels);
    if !problem.per_channel() {
        return found;
    }
    for _ in 0..if groups.iter().any(|group| group.quick) { 1 } else { TURNS } {
        let Some(values) = entries(groups, &found) else { break };
        let levels = Levels::entries(values.values().copied().collect());
        let turn = |(group, found): (&Prepared, &GroupSolution)| refined(group, found, &levels, |q| values[&(q as i8)]);
        let next: Vec<GroupSolution> = groups.par_iter().zip(&found).map(turn).collect();
        if total(&next) >= total(&found) {
            break;
        }
        found = next;
    }
    found
}

/// A quadratic form in the values of the entries: N in row-major order, and r.
#[derive(Clone, Debug)]
struct Form {
    square: Vec<f64>,
    mixed: Vec<f64>,
}

/// What each entry should become; none if they are best as they are.
fn entries(groups: &[Prepared], found: &[GroupSolution]) -> Option<BTreeMap<i8, f64>> {
    let Levels::Entries(old, _) = levels(found.iter().map(|found| &found.integers)) else { return None };
    let pairs: Vec<(&Prepared, &GroupSolution, usize)> = groups
        .iter()
        .zip(found)
        .flat_map(|(group, found)| (0..found.scales.len()).map(move |row| (group, found, row)))
        .collect();
    let mut form = Form { square: vec![0.0; old.len() * old.len()], mixed: vec![0.0; old.len()] };
    // So many rows at a time, for their forms take memory.
    for part in pairs.chunks(64) {
        let forms: Vec<Form> = part.par_iter().map(|&(group, found, row)| Form::of(group, found, row, &old)).collect();
        for other in &forms {
            form.add(other);
        }
    }
    let new = form.descend(&old);
    (new != old).then(|| old.iter().map(|&q| q as i8).zip(new).collect())
}

impl Form {
    /// The form of one row.
    fn of(group: &Prepared, found: &GroupSolution, row: usize, entries: &[f64]) -> Self {
        let (integers, target) = (found.integers.col_as_slice(row), group.product.col_as_slice(row));
        let (scale, unit) = (found.scales[row], group.system.unit());
        let classes: Vec<usize> = integers.iter().map(|q| entries.partition_point(|entry| entry < q)).collect();
        let count = entries.len();
        let mut indicators = Mat::zeros(integers.len(), count);
        classes.iter().enumerate().for_each(|(input, &class)| indicators[(input, class)] = 1.0);
        let products = group.system.times(indicators.as_ref());
        let mut form = Self { square: vec![0.0; count * count], mixed: vec![0.0; count] };
        for (input, &class) in classes.iter().enumerate() {
            form.mixed[class] += unit * scale * target[input];
            for other in 0..count {
                form.square[class * count + other] += unit * scale * scale * products[(input, other)];
            }
        }
        form
    }

    fn add(&mut self, other: &Self) {
        self.square.iter_mut().zip(&other.square).for_each(|(sum, value)| *sum += value);
        self.mixed.iter_mut().zip(&other.mixed).for_each(|(sum, value)| *sum += value);
    }

    /// Integers that lower the form, from `values` on.
    fn descend(&self, values: &[f64]) -> Vec<f64> {
        let mut values = values.to_vec();
        let count = values.len();
        for _ in 0..SWEEPS {
            let before = values.clone();
            for entry in 0..count {
                let row = &self.square[entry * count..][..count];
                let slope = dot(row, &values) - self.mixed[entry];
                let best = values[entry] - slope / row[entry];
                if best.is_finite() {
                    values[entry] = round_half_even_f64(best.clamp(-REACH, REACH));
                }
            }
            if values == before {
                break;
            }
        }
        values
    }
}
