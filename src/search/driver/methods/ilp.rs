//! Method `ilp`: the costs of `sensitivity`, and the plan of least total cost within the limit, by an integer program.
//!
//! A limit in bytes of the file is kept to the byte: the program's limit is lowered until the file of its plan fits. In a small
//! file every width of trellis codes costs a table and operators, which no sum over layers shows: the program is solved again
//! without one of the rungs, as long as that does less damage.

use super::Proposer;
use super::SearchRow;
use crate::search::SearchError;
use crate::search::allocate::{Allocation, Choice, Layer, Problem, ilp};
use crate::search::driver::{Driver, EvaluatedPlan, Limit};
use crate::search::space::Measure;
use std::collections::BTreeSet;

/// How often the limit of the program is lowered until the file keeps to the limit asked for.
const ATTEMPTS: usize = 12;

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "ilp",
    help: "The plan of least total cost within the limit, by an integer program over the same costs",
    measures: "every layer at every width, alone",
    options: &["search_samples", "costs"],
    needs_classes: false,
    repairs: false,
    proposer: &Program,
};

pub(super) struct Program;

impl Proposer for Program {
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let problem = driver.problem(limit.measure)?;
        let Some(found) = fitting(driver, &problem, limit)? else {
            let bottom = driver.space.bottom();
            return driver.evaluate(ROW.name, bottom);
        };
        let found =
            if limit.measure == Measure::FileBytes { fewer_rungs(driver, &problem, limit, found)? } else { found };
        driver.evaluate(ROW.name, found.plan)
    }
}

/// The plan of least damage with which the file keeps to the limit.
fn fitting(driver: &mut Driver, problem: &Problem, limit: Limit) -> Result<Option<Allocation>, SearchError> {
    let mut allowed = limit.most;
    for _ in 0..ATTEMPTS {
        let Ok(allocation) = ilp(problem, allowed, None) else { return Ok(None) };
        let taken = driver.size(limit.measure, &allocation.plan)?;
        let Some(left) = limit.most.checked_sub(taken) else {
            // What packing adds is not linear.
            allowed = allowed.saturating_sub(taken - limit.most);
            continue;
        };
        // The plan before may have taken more beside its weights than this one.
        let more = if allowed < limit.most { ilp(problem, allowed + left, None).ok() } else { None };
        let Some(more) = more.filter(|more| more.damage < allocation.damage) else { return Ok(Some(allocation)) };
        let fits = driver.size(limit.measure, &more.plan)? <= limit.most;
        return Ok(Some(if fits { more } else { allocation }));
    }
    Ok(None)
}

/// Bytes, about, of a table and of the operators of a pool: what a rung costs a file.
const RUNG_BYTES: u64 = 500;

/// The plan of least damage without some rungs: bytes that their tables and pools do not take are there for weights. Only
/// where these are more than half a percent of a file.
fn fewer_rungs(
    driver: &mut Driver,
    problem: &Problem,
    limit: Limit,
    mut best: Allocation,
) -> Result<Allocation, SearchError> {
    let mut without: Vec<usize> = Vec::new();
    loop {
        let used: BTreeSet<usize> = best.plan.iter().copied().collect();
        if used.len() < 2 || RUNG_BYTES * (used.len() as u64) < limit.most / 200 {
            return Ok(best);
        }
        let mut better = None;
        for &rung in &used {
            let rest = restricted(problem, &[&without[..], &[rung]].concat(), limit.most)?;
            let found = fitting(driver, &rest, limit)?;
            let least = better.as_ref().map_or(best.damage, |(_, found): &(usize, Allocation)| found.damage);
            better = found.filter(|found| found.damage < least).map(|found| (rung, found)).or(better);
        }
        let Some((rung, found)) = better else { return Ok(best) };
        without.push(rung);
        best = found;
    }
}

/// The problem with rungs that no plan within the limit has.
fn restricted(problem: &Problem, without: &[usize], most: u64) -> Result<Problem, SearchError> {
    let choice = |(rung, &choice): (usize, &Choice)| {
        if without.contains(&rung) { Choice { budget: most.saturating_add(1), ..choice } } else { choice }
    };
    let layer = |layer: &Layer| Layer { choices: layer.choices.iter().enumerate().map(choice).collect() };
    Ok(Problem::new(problem.layers().iter().map(layer).collect(), problem.fixed())?)
}
