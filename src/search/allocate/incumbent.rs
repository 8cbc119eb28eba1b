//! A good plan within the limits, found without search.
//!
//! For one budget: the first plan on the greedy path that fits, improved by single changes while one fits. For two,
//! the same on surrogate budgets `μ·e/room + (1 − μ)·e₂/room₂`, for nine values of μ from 0 to 1; the least damaging
//! plan that meets both is kept. With two budgets there may be a plan and none be found.

use super::greedy::descend;
use super::lane::Lane;
use super::problem::{Choice, Layer, Plan, Problem};

const MIXTURES: usize = 8;

/// A plan that fits all lanes, if one is found; with one lane one always is.
pub(super) fn incumbent(problem: &Problem, lanes: &[Lane]) -> Option<Plan> {
    let found = match lanes {
        [first, second] => {
            let mixed = (0..=MIXTURES).filter_map(|m| {
                let plan = first_fitting(&surrogate(problem, first, second, m as f64 / MIXTURES as f64), lanes)?;
                Some(fill(problem, lanes, plan))
            });
            mixed.min_by(|a, b| problem.damage(a).total_cmp(&problem.damage(b)))
        }
        _ => first_fitting(problem, lanes).map(|plan| fill(problem, lanes, plan)),
    };
    found.filter(|plan| lanes.iter().all(|lane| lane.fits(plan)))
}

/// The first plan on the greedy path of `problem` that fits.
fn first_fitting(problem: &Problem, lanes: &[Lane]) -> Option<Plan> {
    let (mut plan, moves) = descend(problem);
    let fits = |plan: &Plan| lanes.iter().all(|lane| lane.fits(plan));
    let mut moves = moves.into_iter();
    while !fits(&plan) {
        let step = moves.next()?;
        plan[step.layer] = step.choice;
    }
    Some(plan)
}

/// The problem with both budgets made one, in units of 2^-32 of the room and at most 2^40, so that sums stay small.
fn surrogate(problem: &Problem, first: &Lane, second: &Lane, share: f64) -> Problem {
    let relative = |lane: &Lane, i: usize, j: usize| lane.extras[i][j] as f64 / (lane.room as f64 + 1.0);
    let layers = problem.layers().iter().enumerate().map(|(i, layer)| {
        let choices = layer.choices.iter().enumerate().map(|(j, choice)| {
            let mixed = share * relative(first, i, j) + (1.0 - share) * relative(second, i, j);
            Choice { cost: choice.cost, budget: ((mixed * 2f64.powi(32)) as u64).min(1 << 40) }
        });
        Layer { choices: choices.collect() }
    });
    Problem::unchecked(layers.collect())
}

/// Takes the change that saves most damage among those that fit, until none does.
fn fill(problem: &Problem, lanes: &[Lane], mut plan: Plan) -> Plan {
    let mut spent: Vec<u64> = lanes.iter().map(|lane| lane.spent(&plan)).collect();
    while let Some((i, j)) = best_change(problem, lanes, &spent, &plan) {
        for (spent, lane) in spent.iter_mut().zip(lanes) {
            *spent = *spent - lane.extras[i][plan[i]] + lane.extras[i][j];
        }
        plan[i] = j;
    }
    plan
}

fn best_change(problem: &Problem, lanes: &[Lane], spent: &[u64], plan: &[usize]) -> Option<(usize, usize)> {
    let mut best = None;
    // Of equal savings the smaller choice, so that none is dominated in a single budget.
    let mut most = (0.0, u64::MAX);
    for (i, layer) in problem.layers().iter().enumerate() {
        for (j, choice) in layer.choices.iter().enumerate() {
            let (saved, extra) = (layer.choices[plan[i]].cost - choice.cost, lanes[0].extras[i][j]);
            let better = saved > most.0 || (best.is_some() && saved == most.0 && extra < most.1);
            let fits = |(lane, &spent): (&Lane, &u64)| spent - lane.extras[i][plan[i]] + lane.extras[i][j] <= lane.room;
            if better && lanes.iter().zip(spent).all(fits) {
                (best, most) = (Some((i, j)), (saved, extra));
            }
        }
    }
    best
}
