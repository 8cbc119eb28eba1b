//! The search for windows: Viterbi's algorithm over the 256 windows of a trellis code.
//!
//! The windows at element i that k new bits lead to from a window p are those whose upper 8 − k bits are the lower ones of
//! p. With `C_i(p)` the least error of elements 0 to i that end in p,
//!
//! `C_{i+1}(q) = min_j C_i(j·2^(8−k) + ⌊q / 2^k⌋) + ω·(y − T[q])²`, j = 0 … 2^k − 1,
//!
//! is a minimum of 2^k runs of consecutive windows, element by element, which vectorises.
//!
//! A string is circular: the first element follows the last. With the last window given, the search is exact. It is found
//! by a search over the string turned by half, whose ends are free: far from them, their freedom hardly matters. Then the
//! search goes round from there, and once more from the window it finds opposite, which can only lower the error.

use msq_passes::{TrellisCode, WINDOWS};

/// Bits of a window.
const BITS: usize = WINDOWS.ilog2() as usize;

/// The error of a way that is not allowed.
const NEVER: f32 = 1e30;

/// Searches of one code, with memory for one column.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    code: TrellisCode,
    table: Vec<f32>,
    /// New bits of each element.
    steps: Vec<usize>,
    cost: Vec<f32>,
    next: Vec<f32>,
    /// Which run of windows an element was best reached from, for each of its windows without the new bits.
    from: Vec<u8>,
    path: Vec<u8>,
}

impl Encoder {
    /// Searches for columns of so many elements.
    pub(crate) fn new(code: TrellisCode, length: usize) -> Self {
        Self {
            code,
            table: code.table().iter().map(|&q| f32::from(q)).collect(),
            steps: code.rate().steps(length).map(|step| step.min(BITS)).collect(),
            cost: vec![0.0; WINDOWS],
            next: vec![0.0; WINDOWS],
            from: vec![0; length * WINDOWS],
            path: vec![0; length],
        }
    }

    /// The integers closest to `targets`, each error weighed by its importance.
    pub(crate) fn encode(&mut self, targets: &[f32], importance: &[f32]) -> Vec<i8> {
        let length = self.steps.len();
        let half = length / 2;
        if length > 1 {
            self.search(targets, importance, half, None);
            for start in [0, half] {
                let before = self.path[(start + length - 1) % length];
                self.search(targets, importance, start, Some(before));
            }
        } else {
            self.only(targets, importance);
        }
        self.path.iter().map(|&window| self.code.table()[usize::from(window)]).collect()
    }

    /// The best window of a column of one element: any that follows itself.
    fn only(&mut self, targets: &[f32], importance: &[f32]) {
        let mut best = f32::INFINITY;
        for window in 0..WINDOWS {
            self.search(targets, importance, 0, Some(window as u8));
            let error = self.cost[window];
            if error < best {
                best = error;
                self.from[0] = window as u8;
            }
            self.path[0] = self.from[0];
        }
    }

    /// The best windows from element `start` round to it; with the window before, also that of the last element.
    fn search(&mut self, targets: &[f32], importance: &[f32], start: usize, before: Option<u8>) {
        let length = self.steps.len();
        self.cost.fill(if before.is_some() { NEVER } else { 0.0 });
        if let Some(before) = before {
            self.cost[usize::from(before)] = 0.0;
        }
        let places = (start..length).chain(0..start);
        for at in places.clone() {
            let from = &mut self.from[at * WINDOWS..][..WINDOWS >> self.steps[at]];
            match self.steps[at] {
                1 => advance::<1>(&mut self.cost, from),
                2 => advance::<2>(&mut self.cost, from),
                3 => advance::<3>(&mut self.cost, from),
                4 => advance::<4>(&mut self.cost, from),
                5 => advance::<5>(&mut self.cost, from),
                6 => advance::<6>(&mut self.cost, from),
                7 => advance::<7>(&mut self.cost, from),
                _ => advance::<8>(&mut self.cost, from),
            }
            let (target, weight) = (targets[at], importance[at]);
            let reached = self.cost.iter().zip(&self.table);
            for (next, (cost, entry)) in self.next.iter_mut().zip(reached) {
                let error = target - entry;
                *next = cost + weight * error * error;
            }
            std::mem::swap(&mut self.cost, &mut self.next);
        }
        let free = || (0..WINDOWS).min_by(|&a, &b| self.cost[a].total_cmp(&self.cost[b])).unwrap_or(0);
        let mut window = before.map_or_else(free, usize::from);
        for at in places.rev() {
            self.path[at] = window as u8;
            let (step, kept) = (self.steps[at], window >> self.steps[at]);
            window = usize::from(self.from[at * WINDOWS + kept]) << (BITS - step) | kept;
        }
    }
}

/// Replaces the errors of windows by those of the windows that K new bits lead to.
fn advance<const K: usize>(cost: &mut [f32], from: &mut [u8]) {
    let runs = WINDOWS >> K;
    let mut best = [0.0_f32; WINDOWS];
    let best = &mut best[..runs];
    let (first, others) = cost.split_at(runs);
    best.copy_from_slice(first);
    from.fill(0);
    for (run, costs) in others.chunks_exact(runs).enumerate() {
        for ((best, from), &cost) in best.iter_mut().zip(from.iter_mut()).zip(costs) {
            let less = cost < *best;
            *best = if less { cost } else { *best };
            *from = if less { run as u8 + 1 } else { *from };
        }
    }
    for (costs, &best) in cost.chunks_exact_mut(1 << K).zip(best.iter()) {
        costs.fill(best);
    }
}
