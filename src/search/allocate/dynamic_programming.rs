//! The exact plan for one budget.
//!
//! For the first i layers keep the list of states (budget spent, damage) that no other state dominates; the next list
//! is every state extended by every choice, thinned again (multiple-choice knapsack by dominance; Kellerer, Pferschy
//! and Pisinger, ch. 11). Budgets are any integers. A state goes early
//!
//! - when it cannot be completed within the limit, and
//! - when its best completion is worse than a plan already known (found by [`greedy`](super::greedy()), of damage U):
//!   for every λ ≥ 0, what completes a state (b, d) after layer i does at least the damage
//!   `d + Σ_{k>i} min_j(d_kj + λ·b_kj) − λ·(limit − b)`. λ is the slope of the greedy path at the limit, where the
//!   bound is tightest.
//!
//! Lists are held to a length. A longer one is cut into as many buckets of equal width w; of each bucket the least
//! damaging state stays, which is the largest, so the others count as if their budgets were rounded up. The smallest
//! state stays as well, so there always is a plan, and as true budgets are kept it always fits. After n cuts of width w
//! the plan is no worse than the best one for limit − n·w; it is then not called proven. While a pass with cut lists
//! finds a better plan, another is made with that plan's U, which admits fewer states.
//!
//! With [`DEFAULT_STATES`], networks of 60 layers with 8 choices are nearly always solved exactly; with hundreds of
//! layers [`ilp`](super::ilp()) more often finds the proof.

use super::greedy::descend;
use super::incumbent::incumbent;
use super::lane::Lane;
use super::problem::{AllocateError, Allocation, Plan, Problem};

/// A length of list that keeps memory small (about 1 MB a layer) and is seldom reached.
pub const DEFAULT_STATES: usize = 1 << 15;

/// Rounding of the bound: larger than the sums' errors, smaller than any damage that matters.
const ROUNDING: f64 = 1e-12;

/// A way to treat the first layers.
#[derive(Clone, Copy, Debug)]
struct State {
    spent: u64,
    damage: f64,
    /// The state of the list before that it extends.
    parent: usize,
    choice: usize,
}

/// The plan of least damage within the limit, exact while no list exceeds `max_states` (at least 2).
pub fn dynamic_programming(problem: &Problem, limit: u64, max_states: usize) -> Result<Allocation, AllocateError> {
    let lanes = [Lane::new(problem, limit)?];
    let [lane] = &lanes;
    let Some(mut known) = incumbent(problem, &lanes) else {
        return Err(AllocateError::Infeasible { limit, smallest: problem.smallest() });
    };
    loop {
        let bound = Bound::new(problem, lane, &known);
        let (plan, proven) = sweep(problem, lane, &bound, max_states.max(2));
        let better = plan.filter(|plan| problem.damage(plan) < problem.damage(&known));
        let done = proven || better.is_none();
        known = better.unwrap_or(known);
        if done {
            return Ok(problem.allocation(known, proven));
        }
    }
}

/// One pass over the layers: the best plan the bound admits, and whether no list was cut.
fn sweep(problem: &Problem, lane: &Lane, bound: &Bound, max_states: usize) -> (Option<Plan>, bool) {
    let mut lists = vec![vec![State { spent: 0, damage: 0.0, parent: 0, choice: 0 }]];
    let mut proven = true;
    for i in 0..problem.layers().len() {
        let mut list = extend(problem, lane, bound, i, &lists[i]);
        if list.len() > max_states {
            list = thin(&list, max_states);
            proven = false;
        }
        lists.push(list);
    }
    (trace(&lists), proven)
}

/// Every state with every choice of layer i, without the hopeless and the dominated.
fn extend(problem: &Problem, lane: &Lane, bound: &Bound, i: usize, list: &[State]) -> Vec<State> {
    let layer = &problem.layers()[i];
    let least = layer.least_cost();
    let mut all = Vec::new();
    for choice in layer.ladder() {
        let (extra, excess) = (lane.extras[i][choice], layer.choices[choice].cost - least);
        let extended = list.iter().enumerate().map(|(parent, state)| State {
            spent: state.spent + extra,
            damage: state.damage + excess,
            parent,
            choice,
        });
        all.extend(extended.filter(|s| s.spent <= lane.room && bound.admits(i + 1, s)));
    }
    all.sort_by(|a, b| a.spent.cmp(&b.spent).then(a.damage.total_cmp(&b.damage)));
    let mut least = f64::INFINITY;
    all.retain(|state| {
        let better = state.damage < least;
        least = least.min(state.damage);
        better
    });
    all
}

/// The first state, and the last of each of `count − 1` buckets of equal width.
fn thin(list: &[State], count: usize) -> Vec<State> {
    let (Some(first), Some(last)) = (list.first(), list.last()) else { return Vec::new() };
    let width = (last.spent - first.spent).div_ceil(count as u64 - 1).max(1);
    // Buckets are open below, (first + (k − 1)·w, first + k·w], so the first state has one of its own.
    let bucket = |state: &State| (state.spent - first.spent).div_ceil(width);
    list.chunk_by(|a, b| bucket(a) == bucket(b)).filter_map(|chunk| chunk.last().copied()).collect()
}

/// The plan of the least damaging state of the last list, which is the last; none when the lists have run empty.
fn trace(lists: &[Vec<State>]) -> Option<Plan> {
    let mut at = lists.last()?.len().checked_sub(1)?;
    let mut plan = Vec::new();
    for list in lists[1..].iter().rev() {
        plan.push(list[at].choice);
        at = list[at].parent;
    }
    plan.reverse();
    Some(plan)
}

/// The Lagrangian bound, on damages beyond each layer's least.
struct Bound {
    slope: f64,
    /// Σ over the layers from i on of `min_j(excess + λ·extra)`.
    rest: Vec<f64>,
    /// U + λ·room, with what rounding may add.
    most: f64,
}

impl Bound {
    fn new(problem: &Problem, lane: &Lane, known: &[usize]) -> Self {
        let slope = slope_at(problem, lane);
        let mut rest = vec![0.0; problem.layers().len() + 1];
        let mut damage = 0.0;
        for (i, layer) in problem.layers().iter().enumerate().rev() {
            let least = layer.least_cost();
            let priced = layer.choices.iter().zip(&lane.extras[i]).map(|(c, &e)| c.cost - least + slope * e as f64);
            rest[i] = rest[i + 1] + priced.fold(f64::INFINITY, f64::min);
            damage += layer.choices[known[i]].cost - least;
        }
        Self { slope, rest, most: (damage + slope * lane.room as f64) * (1.0 + ROUNDING) }
    }

    /// Whether a state of the first i layers may lead to a better plan than the known one.
    fn admits(&self, i: usize, state: &State) -> bool {
        state.damage + self.slope * state.spent as f64 + self.rest[i] <= self.most
    }
}

/// The slope of the move of the greedy path that first meets the budget; zero when there is nothing to save.
fn slope_at(problem: &Problem, lane: &Lane) -> f64 {
    let (plan, moves) = descend(problem);
    let mut spent = lane.spent(&plan);
    let mut plan = plan;
    let mut slope = 0.0;
    for step in moves {
        if spent <= lane.room {
            break;
        }
        spent = spent - lane.extras[step.layer][plan[step.layer]] + lane.extras[step.layer][step.choice];
        plan[step.layer] = step.choice;
        slope = step.slope;
    }
    slope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_its_largest_state() {
        let state = |spent: u64| State { spent, damage: 100.0 - spent as f64, parent: 0, choice: 0 };
        let kept = |list: &[u64], count| -> Vec<u64> {
            let list: Vec<State> = list.iter().map(|&spent| state(spent)).collect();
            thin(&list, count).iter().map(|state| state.spent).collect()
        };
        // Three buckets of 10 after the first state.
        assert_eq!(kept(&[5, 6, 9, 14, 15, 16, 25, 26, 35], 4), [5, 15, 25, 35]);
        assert_eq!(kept(&[0, 1, 2, 3], 2), [0, 3]);
        assert_eq!(kept(&[0, 90, 91, 92, 93], 4), [0, 93]);
        assert_eq!(kept(&[7], 2), [7]);
    }
}
