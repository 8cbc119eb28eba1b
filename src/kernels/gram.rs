//! Second moments of what a layer reads, H = Σ x̂·x̂ᵀ and C = Σ x·x̂ᵀ over the positions taken.
//!
//! x are columns as the float network has them and x̂ the same columns as the quantized network has them. Where both
//! are the same all along, C = H and is not kept.
//!
//! **Arithmetic.** Columns are collected in blocks of up to 2,048 and each block is one matrix product in single
//! precision, added to sums in single precision. With B blocks the error of `H_ij` is at most
//! `(2048 + B)·2^−24·Σ|x̂_i·x̂_j|`, in practice about the square root of that; it is relative to the root of
//! `H_ii·H_jj`, so channels of different size do not disturb each other, and far below the damping of one per cent that
//! solvers add. Means are summed in double precision. Tiny columns, as of depthwise convolutions, are multiplied in
//! plain loops.
//!
//! **Determinism.** Blocks end where samples and their number say so, and each part of a product is computed by one
//! thread in a fixed order: the same samples in the same order, split into the same parts that are merged in the same
//! order, give the same bits.

use super::unfold::{Batch, Sites};
use super::{Columns, Geometry, Keep, KernelError, Means, Sampling};
use faer::linalg::matmul::{matmul, triangular};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// The longest columns whose products are all kept: 64 MiB a matrix. Of longer ones those within equal blocks are, and H
/// counts as block-diagonal.
const LONGEST: usize = 4096;
const MOST_BLOCKS: usize = 64;
/// Values kept before they are multiplied, and the most columns.
const KEPT: usize = 1 << 22;
const MOST_COLUMNS: usize = 2048;
const LEAST_COLUMNS: usize = 32;
/// Columns up to this long are multiplied in plain loops.
const TINY: usize = 32;
/// Columns of H that one thread computes at a time.
const STRIPE: usize = 192;

/// Running sums of a layer.
#[derive(Clone, Debug)]
pub struct Gram {
    geometry: Geometry,
    /// Parts of equal length that columns are cut into, each with moments of its own.
    blocks: usize,
    sampling: Sampling,
    /// Columns collected at a time.
    capacity: usize,
    /// Columns collected of the quantized network and of the float network, `[G·K, capacity]`.
    quantized: Vec<f32>,
    float: Vec<f32>,
    filled: usize,
    /// Whether float columns are collected apart, because they differ.
    apart: bool,
    sums: Sums,
}

/// What has been summed, all groups one after another.
#[derive(Clone, Debug)]
struct Sums {
    /// `[G, K, K]` in column-major order, lower triangles only.
    product: Vec<f32>,
    /// `[G, K, K]` in column-major order; none while float and quantized columns are the same.
    cross: Option<Vec<f32>>,
    /// `[G·K]`.
    quantized: Vec<f64>,
    float: Vec<f64>,
    count: u64,
}

/// The moments of one group of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Values in a column, K.
    pub size: usize,
    /// H = Σ x̂·x̂ᵀ, `[K, K]`, symmetric.
    pub product: Vec<f32>,
    /// C = Σ x·x̂ᵀ, `[K, K]` in row-major order; none where it is H.
    pub cross: Option<Vec<f32>>,
    /// Σ x̂, `[K]`.
    pub quantized_sum: Vec<f64>,
    /// Σ x, `[K]`.
    pub float_sum: Vec<f64>,
    /// Number of columns summed.
    pub count: u64,
}

impl Moments {
    /// Adds the moments of other columns as long.
    pub fn add(&mut self, other: &Self) {
        let cross = |moments: &Self| moments.cross.clone().unwrap_or_else(|| moments.product.clone());
        if self.cross.is_some() || other.cross.is_some() {
            let mut sum = cross(self);
            sum.iter_mut().zip(cross(other)).for_each(|(to, from)| *to += from);
            self.cross = Some(sum);
        }
        self.product.iter_mut().zip(&other.product).for_each(|(to, from)| *to += from);
        self.quantized_sum.iter_mut().zip(&other.quantized_sum).for_each(|(to, from)| *to += from);
        self.float_sum.iter_mut().zip(&other.float_sum).for_each(|(to, from)| *to += from);
        self.count += other.count;
    }

    /// Mean of each value; 0 where nothing was summed.
    pub fn means(&self) -> Means {
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / self.count.max(1) as f64).collect();
        Means { quantized: mean(&self.quantized_sum), float: mean(&self.float_sum) }
    }
}

impl Gram {
    /// Nothing summed yet. Columns that are too long for their products to be kept, and cannot be cut into blocks that are
    /// not, are an error.
    pub fn new(geometry: Geometry, sampling: Sampling) -> Result<Self, KernelError> {
        let (size, rows) = (geometry.inputs(), geometry.inputs() * geometry.groups());
        let cuts = |&blocks: &usize| size.is_multiple_of(blocks) && size / blocks <= LONGEST;
        let blocks = (1..=MOST_BLOCKS).find(cuts).ok_or(KernelError::TooLarge { size, limit: LONGEST })?;
        let size = size / blocks;
        let sums = Sums {
            product: vec![0.0; rows * size],
            cross: None,
            quantized: vec![0.0; rows],
            float: vec![0.0; rows],
            count: 0,
        };
        let capacity = (KEPT / rows).clamp(LEAST_COLUMNS, MOST_COLUMNS);
        Ok(Self {
            geometry,
            blocks,
            sampling,
            capacity,
            quantized: Vec::new(),
            float: Vec::new(),
            filled: 0,
            apart: false,
            sums,
        })
    }

    /// Parts that columns are cut into: the moments of each group are those of so many blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// About how many positions are taken of a sample whose activation has this shape; none where the layer cannot read it.
    pub(crate) fn positions(&self, shape: &[usize]) -> Option<usize> {
        let batch = Batch::new(&self.geometry, shape, shape.iter().product()).ok()?;
        Some(batch.samples * self.sampling.count(batch.positions()))
    }

    /// Values in a block.
    fn size(&self) -> usize {
        self.geometry.inputs() / self.blocks
    }

    /// Adds an activation: `float` as the float network has it, `quantized` as the quantized network has it (the same
    /// slice where there is no difference), both of the given shape. `first` is the number of its first sample. With
    /// `keep`, only positions are taken whose elements it keeps.
    pub fn observe(
        &mut self,
        first: usize,
        float: &[f32],
        quantized: &[f32],
        shape: &[usize],
        keep: Option<Keep>,
    ) -> Result<(), KernelError> {
        let batch = Batch::pair(&self.geometry, shape, float, quantized)?;
        let same = std::ptr::eq(float, quantized);
        if !same {
            self.part();
        }
        let length = batch.length.max(1);
        for (i, (x, y)) in float.chunks(length).zip(quantized.chunks(length)).enumerate() {
            let sites = batch.sites(&self.geometry, (first, i), self.sampling, keep);
            self.collect(&sites, x, y);
        }
        Ok(())
    }

    /// Collects float columns apart from here on.
    fn part(&mut self) {
        if !self.apart {
            self.float.clone_from(&self.quantized);
            self.apart = true;
        }
    }

    /// Collects the columns of one sample, multiplying whenever enough are there.
    fn collect(&mut self, sites: &Sites, float: &[f32], quantized: &[f32]) {
        let length = self.sums.quantized.len() * self.capacity;
        self.quantized.resize(length, 0.0);
        if self.apart {
            self.float.resize(length, 0.0);
        }
        let mut from = 0;
        while from < sites.count {
            let count = (sites.count - from).min(self.capacity - self.filled);
            sites.copy(quantized, from, count, &mut self.quantized[self.filled..], self.capacity);
            if self.apart {
                sites.copy(float, from, count, &mut self.float[self.filled..], self.capacity);
            }
            from += count;
            self.filled += count;
            if self.filled == self.capacity {
                self.flush();
            }
        }
    }

    /// Multiplies what was collected.
    fn flush(&mut self) {
        let (size, count) = (self.size(), std::mem::take(&mut self.filled));
        if count == 0 {
            return;
        }
        if self.apart {
            self.sums.split(size);
        }
        let rows = |values| Rows { values, stride: self.capacity, count };
        let quantized = rows(&self.quantized);
        let sums = &mut self.sums;
        add_products(&mut sums.product, size, quantized, quantized, true);
        add_sums(&mut sums.quantized, quantized);
        if let Some(cross) = &mut sums.cross {
            let float = rows(&self.float);
            add_products(cross, size, float, quantized, false);
            add_sums(&mut sums.float, float);
        }
        sums.count += count as u64;
    }

    /// Adds the sums of another part of the data.
    pub fn merge(&mut self, mut other: Self) -> Result<(), KernelError> {
        if self.geometry != other.geometry {
            return Err(KernelError::Merge);
        }
        if self.sums.count == 0 && other.sums.count == 0 && self.filled + other.filled <= self.capacity {
            self.append(other);
            return Ok(());
        }
        self.flush();
        other.flush();
        self.apart |= other.apart;
        let size = self.size();
        if self.sums.cross.is_some() || other.sums.cross.is_some() {
            for sums in [&mut self.sums, &mut other.sums] {
                sums.split(size);
            }
        }
        self.sums.add(&other.sums);
        Ok(())
    }

    /// Takes over the columns that another part has collected, where neither has multiplied any yet.
    fn append(&mut self, mut other: Self) {
        if other.filled == 0 {
            return;
        }
        if self.apart || other.apart {
            self.part();
            other.part();
        }
        let length = self.sums.quantized.len() * self.capacity;
        let take = |to: &mut Vec<f32>, from: &[f32]| {
            to.resize(length, 0.0);
            for (to, from) in to.chunks_mut(self.capacity).zip(from.chunks(self.capacity)) {
                to[self.filled..self.filled + other.filled].copy_from_slice(&from[..other.filled]);
            }
        };
        take(&mut self.quantized, &other.quantized);
        if self.apart {
            take(&mut self.float, &other.float);
        }
        self.filled += other.filled;
    }

    /// The columns themselves, of each group, where there are fewer than half as many as a column has values: then their
    /// moments hold nothing more, and are larger.
    pub(crate) fn finish_few(&self) -> Option<Vec<Columns>> {
        let (groups, size) = (self.geometry.groups(), self.geometry.inputs());
        if self.sums.count > 0 || self.filled == 0 || self.filled * 2 > size {
            return None;
        }
        let of_group = |values: &[f32], group: usize| -> Vec<f32> {
            let element = |at: usize| values[(group * size + at % size) * self.capacity + at / size];
            (0..self.filled * size).map(element).collect()
        };
        let float = if self.apart { &self.float } else { &self.quantized };
        let columns =
            |group| Columns { size, quantized: of_group(&self.quantized, group), float: of_group(float, group) };
        Some((0..groups).map(columns).collect())
    }

    /// The moments of each group, block after block.
    pub fn finish(mut self) -> Vec<Moments> {
        self.flush();
        let (groups, size) = (self.geometry.groups() * self.blocks, self.size());
        let sums = &self.sums;
        let of_group = |group: usize| {
            let (square, row) = (group * size * size..(group + 1) * size * size, group * size..(group + 1) * size);
            let mut product = sums.product[square.clone()].to_vec();
            mirror(&mut product, size);
            let float = if sums.cross.is_some() { &sums.float } else { &sums.quantized };
            Moments {
                size,
                product,
                cross: sums.cross.as_ref().map(|cross| transposed(&cross[square], size)),
                quantized_sum: sums.quantized[row.clone()].to_vec(),
                float_sum: float[row].to_vec(),
                count: sums.count,
            }
        };
        (0..groups).map(of_group).collect()
    }
}

impl Sums {
    /// C where it is H so far.
    fn own_cross(&self, size: usize) -> Vec<f32> {
        let mut cross = self.product.clone();
        cross.chunks_mut(size * size).for_each(|group| mirror(group, size));
        cross
    }

    /// Keeps C apart from H from here on.
    fn split(&mut self, size: usize) {
        if self.cross.is_none() {
            self.cross = Some(self.own_cross(size));
            self.float.clone_from(&self.quantized);
        }
    }

    fn add(&mut self, other: &Self) {
        let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        let add_wide = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.product, &other.product);
        if let (Some(to), Some(from)) = (&mut self.cross, &other.cross) {
            add(to, from);
        }
        add_wide(&mut self.quantized, &other.quantized);
        add_wide(&mut self.float, &other.float);
        self.count += other.count;
    }
}

/// `[rows, stride]` of which the first `count` values of each row count.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..self.count]
    }

    /// Rows `from` to `to` as a matrix.
    fn matrix(self, from: usize, to: usize) -> MatRef<'a, f32> {
        let values = &self.values[from * self.stride..to * self.stride];
        MatRef::from_row_major_slice(values, to - from, self.stride).subcols(0, self.count)
    }
}

fn add_sums(sums: &mut [f64], rows: Rows) {
    for (row, sum) in sums.iter_mut().enumerate() {
        *sum += rows.row(row).iter().map(|&v| f64::from(v)).sum::<f64>();
    }
}

/// `sums += left·rightᵀ` for each group, in column-major order; the lower triangle only where that is all.
fn add_products(sums: &mut [f32], size: usize, left: Rows, right: Rows, lower: bool) {
    if size <= TINY {
        sums.par_chunks_mut(size * size).enumerate().for_each(|(group, sums)| {
            for column in 0..size {
                for row in if lower { column } else { 0 }..size {
                    sums[column * size + row] += dot(left.row(group * size + row), right.row(group * size + column));
                }
            }
        });
        return;
    }
    for (group, sums) in sums.chunks_mut(size * size).enumerate() {
        let (first, end) = (group * size, (group + 1) * size);
        sums.par_chunks_mut(size * STRIPE).enumerate().for_each(|(stripe, sums)| {
            let columns = sums.len() / size;
            let from = stripe * STRIPE;
            let right = right.matrix(first + from, first + from + columns).transpose();
            let mut sums = MatMut::from_column_major_slice_mut(sums, size, columns);
            let mut top = 0;
            if lower {
                let corner = sums.as_mut().submatrix_mut(from, 0, columns, columns);
                let left = left.matrix(first + from, first + from + columns);
                add_triangle(corner, left, right);
                top = from + columns;
            }
            if top < size {
                let rest = sums.subrows_mut(top, size - top);
                matmul(rest, Accum::Add, left.matrix(first + top, end), right, 1.0, Par::Seq);
            }
        });
    }
}

/// The lower triangle of `sums += left·right`.
fn add_triangle(sums: MatMut<f32>, left: MatRef<f32>, right: MatRef<f32>) {
    use triangular::BlockStructure::{Rectangular, TriangularLower};
    triangular::matmul(sums, TriangularLower, Accum::Add, left, Rectangular, right, Rectangular, 1.0, Par::Seq);
}

/// Σ a·b in as many partial sums as fill vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (chunks, others) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0_f32; 16];
    for (x, y) in chunks.0.iter().zip(others.0) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    let tail: f32 = chunks.1.iter().zip(others.1).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + tail
}

/// Fills the upper triangle of a column-major matrix from the lower one.
fn mirror(matrix: &mut [f32], size: usize) {
    for column in 0..size {
        for row in column + 1..size {
            matrix[row * size + column] = matrix[column * size + row];
        }
    }
}

fn transposed(matrix: &[f32], size: usize) -> Vec<f32> {
    let value = |index: usize| matrix[index % size * size + index / size];
    (0..matrix.len()).map(value).collect()
}
