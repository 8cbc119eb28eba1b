//! Changes to try on a plan.
//!
//! Damages measured layer by layer only nearly add up, so a plan that is best on paper can be improved: measure the true
//! damage of a changed plan, keep it when it is less. A change moves one layer up a rung of its ladder (the choices that
//! are not dominated, by budget), which
//!
//! - fits in what is left of the budget: spend the slack; or
//! - is paid for by one other layer that goes down a rung.
//!
//! The estimated gain is what the damages say, `(d_up − d_up') − (d_down' − d_down)`; on paper it is negative for most
//! pairs. An upgrade that fits by itself is not paired.

use super::problem::{Layer, Problem};
use std::cmp::Ordering;

/// A layer's new choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The layer's index.
    pub layer: usize,
    /// The choice's index.
    pub choice: usize,
}

/// One layer up, and the one that pays for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Swap {
    /// To a larger choice that does less damage.
    pub up: Step,
    /// To a smaller choice; none where the budget has room for the upgrade.
    pub down: Option<Step>,
    /// Damage saved, by the estimates.
    pub gain: f64,
    /// Total budget after the change, within the limit.
    pub budget: u64,
}

impl Swap {
    /// The plan after the change.
    #[must_use]
    pub fn apply(&self, plan: &[usize]) -> Vec<usize> {
        let mut plan = plan.to_vec();
        for step in [Some(self.up), self.down].into_iter().flatten() {
            if let Some(choice) = plan.get_mut(step.layer) {
                *choice = step.choice;
            }
        }
        plan
    }
}

/// All changes that keep within the limit, by falling gain; of equals the smaller plan first, then the later layer.
///
/// # Panics
/// When the plan names a choice that a layer does not have.
pub fn swaps(problem: &Problem, plan: &[usize], limit: u64) -> Vec<Swap> {
    let rungs = |up: bool| -> Vec<(Step, f64, u64)> {
        let layers = problem.layers().iter().zip(plan).enumerate();
        layers.filter_map(|(i, (layer, &j))| rung(layer, i, j, up)).collect()
    };
    let (ups, downs) = (rungs(true), rungs(false));
    let total = problem.budget(plan);
    let mut all = Vec::new();
    for &(up, saved, larger) in &ups {
        let budget = total.saturating_add(larger);
        if budget <= limit {
            all.push(Swap { up, down: None, gain: saved, budget });
            continue;
        }
        let others = downs.iter().filter(|(down, ..)| down.layer != up.layer);
        let pairs = others.map(|&(down, lost, smaller)| Swap {
            up,
            down: Some(down),
            gain: saved + lost,
            budget: budget - smaller,
        });
        all.extend(pairs.filter(|swap| swap.budget <= limit));
    }
    all.sort_by(order);
    all
}

fn order(a: &Swap, b: &Swap) -> Ordering {
    let layers = |swap: &Swap| (swap.up.layer, swap.down.map(|d| d.layer));
    b.gain.total_cmp(&a.gain).then(a.budget.cmp(&b.budget)).then_with(|| layers(b).cmp(&layers(a)))
}

/// The next rung, the damage it saves (negative when it adds some), and by how much the budget changes.
fn rung(layer: &Layer, index: usize, current: usize, up: bool) -> Option<(Step, f64, u64)> {
    let (choices, from) = (&layer.choices, layer.choices[current]);
    let ladder = layer.ladder();
    let choice = if up {
        ladder.into_iter().find(|&j| choices[j].budget > from.budget && choices[j].cost < from.cost)
    } else {
        ladder.into_iter().rev().find(|&j| choices[j].budget < from.budget)
    }?;
    let to = choices[choice];
    Some((Step { layer: index, choice }, from.cost - to.cost, to.budget.abs_diff(from.budget)))
}
