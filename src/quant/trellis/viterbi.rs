//! The search for windows: Viterbi's algorithm over the 256 windows of a trellis code.
//!
//! The windows at element i that k new bits lead to from a window p are those whose upper 8 − k bits are the lower ones of
//! p. With `C_i(p)` the least error of elements 0 to i that end in p,
//!
//! `C_{i+1}(q) = min_j C_i(j·2^(8−k) + ⌊q / 2^k⌋) + ω·(y − T[q])²`, j = 0 … 2^k − 1,
//!
//! is a minimum of 2^k runs of consecutive windows, element by element, which vectorises.
//!
//!
//! The lowest k bits of the single-precision number of an error say which run it came from: one minimum of integers finds
//! both, and what that changes in an error is less than its rounding in the sum of all.
//!
//! A string is circular: the first element follows the last. In front of an element of k new bits, all that counts of the
//! window before are its lower 8 − k bits, the seam, and with these given the search is exact. For short columns all seams
//! are tried, in front of the element with the most new bits, those first that a search with free ends finds best: its error
//! is a bound, and most need not be tried. For long ones the seam is that of a search over some elements on either side,
//! whose ends are free: far from them, their freedom hardly matters. A column that has windows already is improved in one
//! search from a seam of theirs, which can only lower its error.

#![allow(clippy::inline_always)] // What is not inlined is compiled without the vectors of the processor.

use msq_passes::{TrellisCode, WINDOWS};
use pulp::{Arch, Simd, WithSimd};

/// Bits of a window.
const BITS: usize = WINDOWS.ilog2() as usize;

/// Columns of at most so many elements are searched exactly: with more, what is lost where the ends meet is little of all.
const SHORT: usize = 48;

/// Elements on either side of a seam that decide about it: decisions further away hardly depend on each other.
const NEAR: usize = 32;

/// The error of a way that is not allowed.
const NEVER: f32 = 1e30;

/// After so many elements the least error is taken from all: small numbers are more precise.
const SETTLE: usize = 32;

/// Searches of one code, with memory for one column.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    code: TrellisCode,
    table: [f32; WINDOWS],
    /// New bits of each element.
    steps: Vec<usize>,
    cost: [f32; WINDOWS],
    /// What was taken from all of `cost`.
    taken: f32,
    /// Which run of windows an element was best reached from, for each of its windows without the new bits.
    from: Vec<u8>,
    path: Vec<u8>,
}

impl Encoder {
    /// Searches for columns of so many elements.
    pub(crate) fn new(code: TrellisCode, length: usize) -> Self {
        Self {
            code,
            table: code.table().map(f32::from),
            steps: code.rate().steps(length).map(|step| step.min(BITS)).collect(),
            cost: [0.0; WINDOWS],
            taken: 0.0,
            from: vec![0; length * WINDOWS],
            path: vec![0; length],
        }
    }

    /// The integer of a window.
    pub(crate) fn integer(&self, window: u8) -> i8 {
        self.code.table()[usize::from(window)]
    }

    /// The windows closest to `targets`, each error weighed by its importance.
    pub(crate) fn encode(&mut self, targets: &[f32], importance: &[f32]) -> &[u8] {
        let length = self.steps.len();
        if length <= SHORT {
            self.exact(targets, importance);
        } else {
            self.search(targets, importance, Stretch { start: length - NEAR, count: 2 * NEAR }, Seam::FREE);
            let seam = Seam::of(self.steps[0], usize::from(self.path[length - 1]));
            self.search(targets, importance, Stretch { start: 0, count: length }, seam);
        }
        &self.path
    }

    /// The closest windows of those that agree with `path` where element `start` begins: none worse than it.
    pub(crate) fn improve(&mut self, path: &[u8], start: usize, targets: &[f32], importance: &[f32]) -> &[u8] {
        let length = self.steps.len();
        if length > 0 {
            let before = path[(start + length - 1) % length];
            let seam = Seam::of(self.steps[start], usize::from(before));
            self.search(targets, importance, Stretch { start, count: length }, seam);
        }
        &self.path
    }

    /// The best windows of all.
    fn exact(&mut self, targets: &[f32], importance: &[f32]) {
        let length = self.steps.len();
        let Some(start) = (0..length).max_by_key(|&at| self.steps[at]) else { return };
        let step = self.steps[start];
        let round = Stretch { start, count: length };
        self.search(targets, importance, round, Seam::FREE);
        // What any string costs at least that has the bits at its seam.
        let bound =
            |seam: Seam| self.taken + seam.windows().map(|window| self.cost[window]).fold(f32::INFINITY, f32::min);
        let mut seams: Vec<(f32, Seam)> =
            (0..WINDOWS >> step).map(|bits| Seam::of(step, bits)).map(|seam| (bound(seam), seam)).collect();
        seams.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut least = f32::INFINITY;
        let mut path = self.path.clone();
        for (bound, seam) in seams {
            if bound >= least {
                break;
            }
            let error = self.search(targets, importance, round, seam);
            if error < least {
                least = error;
                path.copy_from_slice(&self.path);
            }
        }
        self.path = path;
    }

    /// The best windows of a stretch of elements, and their error; the last window is one of the seam, and so is the one
    /// before the first.
    fn search(&mut self, targets: &[f32], importance: &[f32], stretch: Stretch, seam: Seam) -> f32 {
        self.cost.fill(NEVER);
        seam.windows().for_each(|window| self.cost[window] = 0.0);
        let Self { table, steps, cost, from, .. } = self;
        self.taken = dispatch(Forward { table, steps, cost, from, targets, importance, stretch });
        let last = seam.windows().min_by(|&a, &b| self.cost[a].total_cmp(&self.cost[b]));
        let mut window = last.unwrap_or(0);
        let error = self.cost[window] + self.taken;
        for at in stretch.places(self.steps.len()).rev() {
            self.path[at] = window as u8;
            let (step, kept) = (self.steps[at], window >> self.steps[at]);
            window = usize::from(self.from[at * WINDOWS + kept]) << (BITS - step) | kept;
        }
        error
    }
}

/// Elements one after the other, round the end of a column.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    start: usize,
    count: usize,
}

impl Stretch {
    fn places(self, length: usize) -> impl DoubleEndedIterator<Item = usize> {
        (self.start..self.start + self.count).map(move |at| if at < length { at } else { at - length })
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

/// The errors of all windows from element to element of a stretch. Returns what was taken from all of them.
struct Forward<'a> {
    table: &'a [f32; WINDOWS],
    steps: &'a [usize],
    cost: &'a mut [f32; WINDOWS],
    from: &'a mut [u8],
    targets: &'a [f32],
    importance: &'a [f32],
    stretch: Stretch,
}

impl WithSimd for Forward<'_> {
    type Output = f32;

    // Plain loops, which the compiler turns into the vectors of S.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let mut taken = 0.0;
        for (done, at) in self.stretch.places(self.steps.len()).enumerate() {
            if done % SETTLE == SETTLE - 1 {
                let least =
                    self.cost.iter().copied().fold(NEVER, |least, cost| if cost < least { cost } else { least });
                self.cost.iter_mut().for_each(|cost| *cost -= least);
                taken += least;
            }
            let (target, weight) = (self.targets[at], self.importance[at]);
            let from = &mut self.from[at * WINDOWS..][..WINDOWS];
            match self.steps[at] {
                1 => advance::<1>(self.cost, from, self.table, target, weight),
                2 => advance::<2>(self.cost, from, self.table, target, weight),
                3 => advance::<3>(self.cost, from, self.table, target, weight),
                4 => advance::<4>(self.cost, from, self.table, target, weight),
                5 => advance::<5>(self.cost, from, self.table, target, weight),
                6 => advance::<6>(self.cost, from, self.table, target, weight),
                7 => advance::<7>(self.cost, from, self.table, target, weight),
                _ => advance::<8>(self.cost, from, self.table, target, weight),
            }
        }
        taken
    }
}

/// Runs it with vectors of 256 bits where there are any: wider ones are hardly faster, and with 4 new bits much slower.
fn dispatch(forward: Forward) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, forward);
    }
    Arch::new().dispatch(forward)
}

/// Replaces the errors of windows by those of the windows that K new bits lead to.
#[inline(always)]
fn advance<const K: usize>(
    cost: &mut [f32; WINDOWS],
    from: &mut [u8],
    table: &[f32; WINDOWS],
    target: f32,
    weight: f32,
) {
    let runs = WINDOWS >> K;
    let mask = (1_u32 << K) - 1;
    let mut best = [0_u32; WINDOWS];
    for (window, (best, cost)) in best.iter_mut().zip(cost.iter()).enumerate() {
        *best = cost.to_bits() & !mask | (window / runs) as u32;
    }
    // The upper half against the lower one, until one run is left: whole vectors all the way.
    let mut left = WINDOWS;
    while left > runs {
        left /= 2;
        let (lower, upper) = best.split_at_mut(left);
        lower.iter_mut().zip(upper).for_each(|(lower, upper)| *lower = (*lower).min(*upper));
    }
    let best = &best[..runs];
    for (from, best) in from.iter_mut().zip(best) {
        *from = (best & mask) as u8;
    }
    for (costs, best) in cost.chunks_exact_mut(1 << K).zip(best) {
        costs.fill(f32::from_bits(*best));
    }
    for (cost, entry) in cost.iter_mut().zip(table) {
        let error = target - entry;
        *cost += weight * error * error;
    }
}
