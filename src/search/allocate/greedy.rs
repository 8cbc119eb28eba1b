//! The front by steepest descent.
//!
//! Start from every layer's least damaging choice; make the one move to a smaller choice that loses least damage per
//! unit of budget saved,
//!
//! ```text
//! slope = (d' − d) / (b − b'),
//! ```
//!
//! until every layer is at its smallest. A choice above the lower convex hull of its layer's (budget, damage) points is
//! never taken: a mixture of its neighbours would be smaller and better. Dominated choices go with it, so no move
//! lowers the damage, as the start already has the least. On the hulls the slopes of a layer only rise, so after a move
//! of slope λ every layer minimises `d + λ·b`, and therefore each plan on the path is a minimum of the Lagrangian
//! relaxation Σ d + λ·Σ b: no plan of its total budget or less does less damage (Everett, 1963; for bit allocation
//! Shoham and Gersho, 1988). Between two plans of the path there may be better fits for a limit: that gap is what
//! [`dynamic_programming`](super::dynamic_programming) and [`ilp`](super::ilp) close.
//!
//! Points on an edge of the hull stay, which makes the path finer. Of equal slopes the larger saving goes first, then
//! the later layer.

use super::problem::{Allocation, Layer, Plan, Problem};
use std::cmp::Ordering;

/// A move of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descent {
    /// The layer.
    pub(super) layer: usize,
    /// Its new choice.
    pub(super) choice: usize,
    /// Damage lost per unit of budget saved.
    pub(super) slope: f64,
    saved: u64,
}

/// All plans passed on the way from the best to the smallest, both included.
pub fn greedy(problem: &Problem) -> Vec<Allocation> {
    let (mut plan, moves) = descend(problem);
    let mut path = vec![problem.allocation(plan.clone(), true)];
    for step in moves {
        plan[step.layer] = step.choice;
        path.push(problem.allocation(plan.clone(), true));
    }
    path
}

/// The least damaging plan, and the moves from there to the smallest.
pub(super) fn descend(problem: &Problem) -> (Plan, Vec<Descent>) {
    let hulls: Vec<Vec<usize>> = problem.layers().iter().map(hull).collect();
    let start = hulls.iter().map(|hull| hull[0]).collect();
    let mut queues: Vec<_> = hulls.iter().enumerate().map(|(i, hull)| moves(problem, i, hull).peekable()).collect();
    let mut all = Vec::new();
    // The last of equals is the later layer.
    while let Some(next) = queues.iter_mut().filter_map(|queue| queue.peek().copied()).max_by(preference) {
        queues[next.layer].next();
        all.push(next);
    }
    (start, all)
}

/// Greater is better.
fn preference(a: &Descent, b: &Descent) -> Ordering {
    b.slope.total_cmp(&a.slope).then(a.saved.cmp(&b.saved))
}

fn moves<'a>(problem: &'a Problem, layer: usize, hull: &'a [usize]) -> impl Iterator<Item = Descent> + 'a {
    let choices = &problem.layers()[layer].choices;
    hull.windows(2).map(move |pair| Descent {
        layer,
        choice: pair[1],
        slope: slope(&problem.layers()[layer], pair[0], pair[1]),
        saved: choices[pair[0]].budget - choices[pair[1]].budget,
    })
}

/// The lower convex hull of the choices, from the least damaging to the smallest.
fn hull(layer: &Layer) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for j in layer.ladder().into_iter().rev() {
        while let [.., before, last] = hull[..]
            && slope(layer, before, last) > slope(layer, last, j)
        {
            hull.pop();
        }
        hull.push(j);
    }
    hull
}

fn slope(layer: &Layer, from: usize, to: usize) -> f64 {
    let (from, to) = (layer.choices[from], layer.choices[to]);
    (to.cost - from.cost) / (from.budget - to.budget) as f64
}
