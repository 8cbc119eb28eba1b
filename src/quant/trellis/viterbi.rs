//! The search for windows: Viterbi's algorithm over the 256 windows of a trellis code.
//!
//! The windows at element i that k new bits lead to from a window p are those whose upper 8 − k bits are the lower ones of
//! p. With `C_i(p)` the least error of elements 0 to i that end in p,
//!
//! `C_{i+1}(q) = min_j C_i(j·2^(8−k) + ⌊q / 2^k⌋) + ω·(y − T[q])²`, j = 0 … 2^k − 1,
//!
//! is a minimum of 2^k runs of consecutive windows, element by element, which vectorises.
//!
//! A string is circular: the first element follows the last. In front of an element of k new bits, all that counts of the
//! window before are its lower 8 − k bits, and with these given the search is exact. For short columns they are all tried,
//! in front of the element with the most new bits, those first that a search with free ends finds best: its error is a
//! bound, and most need not be tried. For long ones they are found by a search over the string turned by half, whose ends
//! are free: far from them, their freedom hardly matters. Then the search goes round from there, and once more from the
//! bits it finds opposite, which can only lower the error.

use msq_passes::{TrellisCode, WINDOWS};

/// Bits of a window.
const BITS: usize = WINDOWS.ilog2() as usize;

/// Columns of at most so many elements are searched exactly: with more, what is lost where the ends meet is little of all.
const SHORT: usize = 48;

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
        if length <= SHORT {
            self.exact(targets, importance);
        } else {
            let half = length / 2;
            self.search(targets, importance, half, Seam::FREE);
            for start in [0, half] {
                let before = self.path[(start + length - 1) % length];
                let seam = Seam::of(self.steps[start], usize::from(before));
                self.search(targets, importance, start, seam);
            }
        }
        self.path.iter().map(|&window| self.code.table()[usize::from(window)]).collect()
    }

    /// The best windows of all.
    fn exact(&mut self, targets: &[f32], importance: &[f32]) {
        let Some(start) = (0..self.steps.len()).max_by_key(|&at| self.steps[at]) else { return };
        let step = self.steps[start];
        self.search(targets, importance, start, Seam::FREE);
        // What any string costs at least that has the bits at its seam.
        let bound = |seam: Seam| seam.windows().map(|window| self.cost[window]).fold(f32::INFINITY, f32::min);
        let mut seams: Vec<(f32, Seam)> =
            (0..WINDOWS >> step).map(|bits| Seam::of(step, bits)).map(|seam| (bound(seam), seam)).collect();
        seams.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut least = f32::INFINITY;
        let mut path = self.path.clone();
        for (bound, seam) in seams {
            if bound >= least {
                break;
            }
            let error = self.search(targets, importance, start, seam);
            if error < least {
                least = error;
                path.copy_from_slice(&self.path);
            }
        }
        self.path = path;
    }

    /// The best windows from element `start` round to it, and their error; the last window is one of the seam, and so is
    /// the one before the first.
    fn search(&mut self, targets: &[f32], importance: &[f32], start: usize, seam: Seam) -> f32 {
        let length = self.steps.len();
        self.cost.fill(NEVER);
        seam.windows().for_each(|window| self.cost[window] = 0.0);
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
        let last = seam.windows().min_by(|&a, &b| self.cost[a].total_cmp(&self.cost[b]));
        let mut window = last.unwrap_or(0);
        let error = self.cost[window];
        for at in places.rev() {
            self.path[at] = window as u8;
            let (step, kept) = (self.steps[at], window >> self.steps[at]);
            window = usize::from(self.from[at * WINDOWS + kept]) << (BITS - step) | kept;
        }
        error
    }
}

/// Where a search begins and ends: the windows with these lower bits.
#[derive(Clone, Copy, Debug)]
struct Seam {
    bits: usize,
    /// One more than the largest such bits.
    count: usize,
}

impl Seam {
    /// Any window before the first and any as the last.
    const FREE: Self = Self { bits: 0, count: 1 };

    /// In front of an element of so many new bits, behind a window.
    fn of(step: usize, window: usize) -> Self {
        let count = WINDOWS >> step;
        Self { bits: window % count, count }
    }

    fn windows(self) -> impl Iterator<Item = usize> {
        (self.bits..WINDOWS).step_by(self.count)
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
