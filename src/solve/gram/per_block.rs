//! Rows with one scale per block of consecutive inputs, and a zero point where the grid has one.
//!
//! With `V = s_b·(q − z_b)`, b the block of an input, p = V·A and t = w*·A the error of a row is `V·p − 2·V·t + w*·t`.
//!
//! * Start: scales and zero points block by block, by the error of rounding to nearest weighed with the diagonal of A;
//!   then rounding with feedback on these, and on smaller and larger ones, because feedback makes weights larger than they
//!   were and clipping costs less.
//! * Descent: `q_j` moves to its exact minimiser `(V_j − (p_j − t_j)/A_jj)/s_b` given all others, as for rows with one
//!   scale (`descent`).
//! * Scales, one block after the other: with u the integers q − z of a block and 0 elsewhere, the error is least for
//!   `s_b + u·(t − p)/(u·A·uᵀ)`. `u·A` of many rows is one matrix product. Zero points stay.
//!
//! No step raises the error, and the best of all starts, plain rounding among them, is kept for each row.

use super::descent::ScaleRule;
use super::system::{Form, System, dot};
use super::{ClosedForm, feedback};
use crate::quant::{BlockScale, GridSpec, Sqnr, normal_scale, round_blocks};
use crate::solve::round::Round;
use crate::solve::{Grid, Group, Problem, Solution, SolveError, Solver, Statistics};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

/// Rows solved together: wide enough for matrix products.
const CHUNK: usize = 32;
/// How often scales and integers are improved in turns.
const TURNS: usize = 4;
/// How often the integers are gone through for one set of scales.
const SWEEPS: usize = 3;
/// A turn that lowers the error of a chunk by less than this share is the last one.
const LEAST_GAIN: f64 = 3e-3;
/// Of longer rows no whole form is written down.
const LONGEST: usize = 4096;

/// Solves a layer; rounded to nearest where the moments of its rows are not known or the grid is no uniform one.
pub(super) fn solve(solver: ClosedForm, problem: &Problem, block: usize) -> Result<Solution, SolveError> {
    let Grid::Uniform(grid) = problem.grid else { return Round::default().solve(problem) };
    let plain = problem.nearest(&problem.weights(), &vec![1.0; problem.weights().len()])?;
    let mut solution = Solution::plain(plain);
    let mut first = 0;
    for group in problem.groups {
        let rows = group.weights.len() / problem.size.max(1);
        let mut from = 0;
        for part in parts(group, problem.size) {
            let size = part.size(problem.size);
            if size > LONGEST || (size < problem.size && !size.is_multiple_of(block)) {
                return Round::default().solve(problem);
            }
            let weights = columns(group.weights, problem.size, from, size);
            let group = Group { weights: &weights, statistics: part };
            let system = System::new(&group, &Problem { size, ..*problem }, None);
            let target = system.target(&group);
            let system = system.dense();
            let layer = system.as_ref().and_then(|system| Blocks::new(system, target, &group, (block, grid)));
            let Some(layer) = layer else {
                return Round::default().solve(problem);
            };
            let found = layer.solve(solver.quick);
            put(&mut solution, &found, (first, from), (problem.size, size, block));
            solution.ratio.merge(&found.ratio);
            solution.plain_ratio.merge(&found.plain_ratio);
            from += size;
        }
        first += rows;
    }
    solution.bias_shift = shifts(problem, &solution, block);
    Ok(solution)
}

/// The parts of a row whose moments are known together.
fn parts<'a>(group: &Group<'a>, size: usize) -> Vec<Part<'a>> {
    match group.statistics {
        Statistics::Blocks(parts) => parts.iter().map(Statistics::Moments).collect(),
        whole => vec![whole; usize::from(size > 0)],
    }
}

type Part<'a> = Statistics<'a>;

impl Statistics<'_> {
    fn size(self, whole: usize) -> usize {
        if let Statistics::Moments(moments) = self { moments.size } else { whole }
    }
}

/// Some columns of rows.
fn columns(weights: &[f32], size: usize, from: usize, count: usize) -> Vec<f32> {
    weights.chunks_exact(size.max(1)).flat_map(|row| &row[from..from + count]).copied().collect()
}

/// Integers, scales and zero points of some columns, row after row.
struct Found {
    integers: Vec<i8>,
    scales: Vec<BlockScale>,
    ratio: Sqnr,
    plain_ratio: Sqnr,
}

/// Puts what was found of some columns where it belongs.
fn put(to: &mut Solution, found: &Found, (first, from): (usize, usize), sizes: (usize, usize, usize)) {
    let (whole, size, block) = sizes;
    for (row, integers) in found.integers.chunks_exact(size.max(1)).enumerate() {
        let at = (first + row) * whole + from;
        to.integers[at..at + size].copy_from_slice(integers);
    }
    let blocks = size.div_ceil(block);
    for (row, scales) in found.scales.chunks_exact(blocks.max(1)).enumerate() {
        let at = (first + row) * whole.div_ceil(block) + from / block;
        for (place, found) in scales.iter().enumerate() {
            to.scales[at + place] = found.scale;
            if let Some(zero_point) = to.zero_points.get_mut(at + place) {
                *zero_point = found.zero_point as i8;
            }
        }
    }
}

/// What the bias has to take up, of all rows.
fn shifts(problem: &Problem, solution: &Solution, block: usize) -> Option<Vec<f64>> {
    let mut values = solution.values(problem.size, Some(block));
    let mut all = Vec::new();
    for group in problem.groups {
        let rest = values.split_off(group.weights.len().min(values.len()));
        all.extend(group.value_shift(&values)?);
        values = rest;
    }
    Some(all)
}

/// Rows of some columns, ready to be solved. Matrices hold a row of weights in each column, in the system's order.
struct Blocks<'a> {
    system: &'a System,
    matrix: &'a Mat<f64>,
    grid: GridSpec,
    /// Block of the input at each place, and the places of each block.
    block_of: Vec<usize>,
    places: Vec<Vec<usize>>,
    /// w* and A·w*.
    target: Mat<f64>,
    product: Mat<f64>,
    plain: Start,
    start: Start,
}

/// Integers q − z `[K, R]`, with scales and zero points block after block, row after row.
struct Start {
    integers: Mat<f64>,
    scales: Vec<BlockScale>,
}

/// Some rows on their way down.
#[derive(Clone)]
struct Rows {
    /// q − z.
    integers: Mat<f64>,
    /// V·A.
    product: Mat<f64>,
    /// Row after row.
    scales: Vec<BlockScale>,
    errors: Vec<f64>,
}

impl<'a> Blocks<'a> {
    /// None for a form whose elements are not all written down.
    fn new(system: &'a System, target: Mat<f64>, group: &Group, (block, grid): (usize, GridSpec)) -> Option<Self> {
        let Form::Full { matrix, .. } = &system.form else { return None };
        let size = target.nrows();
        let block_of: Vec<usize> = system.order().iter().map(|&input| input / block).collect();
        let mut places = vec![Vec::new(); size.div_ceil(block)];
        block_of.iter().enumerate().for_each(|(place, &block)| places[block].push(place));
        let start = |values: &[f32], importance: &[f64]| {
            let rounded = round_blocks(values, importance, size, block, grid);
            let zero = |at: usize| rounded.zero_points.get(at).map_or(0, |&z| i32::from(z));
            let scales: Vec<BlockScale> = rounded
                .scales
                .iter()
                .enumerate()
                .map(|(at, &scale)| BlockScale { scale, zero_point: zero(at) })
                .collect();
            let mut integers = system.arrange(&rounded.data, f64::from);
            for row in 0..integers.ncols() {
                for place in 0..size {
                    integers[(place, row)] -= f64::from(scales[row * places.len() + block_of[place]].zero_point);
                }
            }
            Start { integers, scales }
        };
        let values = system.restore(target.as_ref(), |v| v as f32);
        let plain = start(group.weights, &vec![1.0; group.weights.len()]);
        let start = start(&values, &system.importance(target.ncols()));
        let product = system.times(target.as_ref());
        Some(Self { system, matrix, grid, block_of, places, target, product, plain, start })
    }

    fn solve(&self, quick: bool) -> Found {
        let rows = self.target.ncols();
        let chunks: Vec<usize> = (0..rows).step_by(CHUNK).collect();
        let solved: Vec<(Rows, Vec<f64>)> =
            chunks.into_par_iter().map(|first| self.chunk(first, CHUNK.min(rows - first), quick)).collect();
        let mut found =
            Found { integers: Vec::new(), scales: Vec::new(), ratio: Sqnr::default(), plain_ratio: Sqnr::default() };
        let mut first = 0;
        for (rows, plain) in solved {
            let integers = self.system.restore(rows.integers.as_ref(), |q| q as i16);
            let size = self.target.nrows();
            for (at, q) in integers.into_iter().enumerate() {
                let block = self.block_of_input(at % size);
                let zero = rows.scales[at / size * self.places.len() + block].zero_point;
                found.integers.push((i32::from(q) + zero) as i8);
            }
            found.scales.extend(&rows.scales);
            for (row, (&error, &plain)) in rows.errors.iter().zip(&plain).enumerate() {
                let at = first + row;
                let signal = self.system.unit() * dot(self.target.col_as_slice(at), self.product.col_as_slice(at));
                let part = |noise: f64| Sqnr { signal, noise, count: size as u64 };
                found.ratio.merge(&part(error));
                found.plain_ratio.merge(&part(plain));
            }
            first += rows.errors.len();
        }
        found
    }

    /// The block of an input, by its number among the columns.
    fn block_of_input(&self, input: usize) -> usize {
        // Blocks are equal but for the last.
        input / self.places.first().map_or(1, Vec::len).max(1)
    }

    /// Solves rows `first` to `first + count`. Also the errors of plain rounding.
    fn chunk(&self, first: usize, count: usize, quick: bool) -> (Rows, Vec<f64>) {
        let mut best = self.rows(first, &self.part(&self.plain, first, count));
        let plain = best.errors.clone();
        let factors = ScaleRule::Any.factors(self.grid.bits());
        for &factor in if quick { &factors[..1] } else { factors } {
            let scales = &self.start.scales[first * self.places.len()..(first + count) * self.places.len()];
            let scaled = |at: &BlockScale| BlockScale { scale: normal_scale(f64::from(at.scale) * factor), ..*at };
            let rows = self.fed_back(first, count, scales.iter().map(scaled).collect());
            best.take_better(&rows, self.places.len());
        }
        self.descend(&mut best, first);
        if !quick {
            let mut rows = self.fed_back(first, count, best.scales.clone());
            self.descend(&mut rows, first);
            best.take_better(&rows, self.places.len());
        }
        (best, plain)
    }

    /// Rows rounded with feedback on some scales.
    fn fed_back(&self, first: usize, count: usize, scales: Vec<BlockScale>) -> Rows {
        let target = self.target.subcols(first, count);
        let nearest = |row: usize, place: usize, wanted: f64| {
            let at = scales[row * self.places.len() + self.block_of[place]];
            let integer = at.nearest(wanted, self.grid);
            (integer, f64::from(at.scale) * integer)
        };
        let integers = feedback::round_by(self.system, target, nearest);
        self.rows(first, &Start { integers, scales })
    }

    fn part(&self, start: &Start, first: usize, count: usize) -> Start {
        let blocks = self.places.len();
        Start {
            integers: start.integers.subcols(first, count).to_owned(),
            scales: start.scales[first * blocks..(first + count) * blocks].to_vec(),
        }
    }

    fn rows(&self, first: usize, start: &Start) -> Rows {
        let integers = start.integers.clone();
        let scale =
            |place: usize, row: usize| f64::from(start.scales[row * self.places.len() + self.block_of[place]].scale);
        let values =
            Mat::from_fn(integers.nrows(), integers.ncols(), |place, row| scale(place, row) * integers[(place, row)]);
        let product = self.system.times(values.as_ref());
        let mut rows = Rows { integers, product, scales: start.scales.clone(), errors: vec![0.0; values.ncols()] };
        self.measure(&mut rows, first);
        rows
    }

    /// Sets the errors, in units of the moments.
    fn measure(&self, rows: &mut Rows, first: usize) {
        for row in 0..rows.errors.len() {
            let (product, target) = (rows.product.col_as_slice(row), self.target.col_as_slice(first + row));
            let target_product = self.product.col_as_slice(first + row);
            let integers = rows.integers.col_as_slice(row);
            let of_blocks = self.block_of.iter().zip(integers).zip(product.iter().zip(target_product));
            let sum: f64 = of_blocks
                .map(|((&block, q), (p, t))| {
                    f64::from(rows.scales[row * self.places.len() + block].scale) * q * (p - 2.0 * t)
                })
                .sum();
            rows.errors[row] = self.system.unit() * (sum + dot(target, target_product)).max(0.0);
        }
    }

    /// Moves integers and scales down until little is gained, or long enough.
    fn descend(&self, rows: &mut Rows, first: usize) {
        let mut before = f64::INFINITY;
        for _ in 0..TURNS {
            self.refit(rows, first);
            for row in 0..rows.errors.len() {
                for _ in 0..SWEEPS {
                    if !self.sweep(rows, first, row) {
                        break;
                    }
                }
            }
            self.measure(rows, first);
            let error: f64 = rows.errors.iter().sum();
            if error > before * (1.0 - LEAST_GAIN) {
                break;
            }
            before = error;
        }
        self.refit(rows, first);
        self.measure(rows, first);
    }

    /// Moves each integer of a row once; whether any did.
    fn sweep(&self, rows: &mut Rows, first: usize, row: usize) -> bool {
        let target_product = self.product.col_as_slice(first + row);
        let scales = &rows.scales[row * self.places.len()..(row + 1) * self.places.len()];
        let product = rows.product.col_as_slice_mut(row);
        let integers = rows.integers.col_as_slice_mut(row);
        let mut any = false;
        for place in (0..integers.len()).rev() {
            let at = scales[self.block_of[place]];
            let (scale, current) = (f64::from(at.scale), integers[place]);
            let column = self.matrix.col_as_slice(place);
            let (diagonal, slope) = (column[place], product[place] - target_product[place]);
            let step = at.nearest(scale * current - slope / diagonal, self.grid) - current;
            let moved = scale * step;
            // In the middle between two integers a move gains nothing.
            if step == 0.0 || moved * (moved * diagonal + 2.0 * slope) >= 0.0 {
                continue;
            }
            integers[place] += step;
            product.iter_mut().zip(column).for_each(|(product, value)| *product += moved * value);
            any = true;
        }
        any
    }

    /// Sets the best scale of each block given all others, one block after the other.
    fn refit(&self, rows: &mut Rows, first: usize) {
        let (size, count) = (self.target.nrows(), rows.errors.len());
        for (block, places) in self.places.iter().enumerate() {
            let columns = Mat::from_fn(size, places.len(), |i, at| self.matrix[(i, places[at])]);
            let integers = Mat::from_fn(places.len(), count, |at, row| rows.integers[(places[at], row)]);
            let mut moved: Mat<f64> = Mat::zeros(size, count);
            matmul(moved.as_mut(), Accum::Replace, columns.as_ref(), integers.as_ref(), 1.0, Par::Seq);
            for row in 0..count {
                let target_product = self.product.col_as_slice(first + row);
                let (mut mixed, mut square) = (0.0, 0.0);
                for (at, &place) in places.iter().enumerate() {
                    mixed += integers[(at, row)] * (target_product[place] - rows.product[(place, row)]);
                    square += integers[(at, row)] * moved[(place, row)];
                }
                let at = &mut rows.scales[row * self.places.len() + block];
                let before = f64::from(at.scale);
                let wanted = before + mixed / square;
                if !(square > 0.0 && wanted > 0.0) {
                    continue;
                }
                at.scale = normal_scale(wanted);
                let step = f64::from(at.scale) - before;
                let column = moved.col_as_slice(row);
                rows.product.col_as_slice_mut(row).iter_mut().zip(column).for_each(|(p, value)| *p += step * value);
            }
        }
    }
}

impl Rows {
    /// Takes over the rows that are better.
    fn take_better(&mut self, other: &Self, blocks: usize) {
        for row in 0..self.errors.len() {
            if other.errors[row] >= self.errors[row] {
                continue;
            }
            self.errors[row] = other.errors[row];
            self.integers.col_as_slice_mut(row).copy_from_slice(other.integers.col_as_slice(row));
            self.product.col_as_slice_mut(row).copy_from_slice(other.product.col_as_slice(row));
            let own = row * blocks..(row + 1) * blocks;
            self.scales[own.clone()].copy_from_slice(&other.scales[own]);
        }
    }
}
