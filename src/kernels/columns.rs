//! Some of the columns a layer reads, in the float network (x) and in the quantized one (x̂).
//!
//! For solvers that need the values themselves. Every sample gives about as many columns, spread evenly over its
//! positions, and together they take no more than a fixed amount of memory, however many samples there are: with more
//! samples than columns wanted only every n-th is looked at. Which columns are taken depends on the sample's number and
//! the shapes alone.

use super::unfold::Batch;
use super::{Geometry, Keep, KernelError, Sampling};

/// The most columns kept, and the most values of each network.
const MOST_COLUMNS: usize = 16_384;
const MOST_VALUES: usize = 1 << 24;

/// Collects columns.
#[derive(Clone, Debug)]
pub struct ColumnSampler {
    geometry: Geometry,
    /// The most positions taken of a sample.
    positions: usize,
    /// Every how many samples one is looked at.
    stride: usize,
    /// Sample after sample, `[P, G·K]` each.
    quantized: Vec<f32>,
    float: Vec<f32>,
}

/// Columns of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// Values in a column, K.
    pub size: usize,
    /// x̂, `[P, K]`.
    pub quantized: Vec<f32>,
    /// x, `[P, K]`.
    pub float: Vec<f32>,
}

/// Means of the columns of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Means {
    /// Of x̂, `[K]`.
    pub quantized: Vec<f64>,
    /// Of x, `[K]`.
    pub float: Vec<f64>,
}

impl Means {
    /// Of parts of the columns, one after the other.
    pub(crate) fn joined(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self { quantized: Vec::new(), float: Vec::new() }, |mut all, part| {
            all.quantized.extend(part.quantized);
            all.float.extend(part.float);
            all
        })
    }
}

impl ColumnSampler {
    /// Nothing collected yet, of so many samples to come.
    pub fn new(geometry: Geometry, samples: usize) -> Self {
        Self::limited(geometry, samples, MOST_COLUMNS, MOST_VALUES)
    }

    /// A sampler that keeps at most so many columns, and so many values of each network.
    pub(crate) fn limited(geometry: Geometry, samples: usize, columns: usize, values: usize) -> Self {
        let most = (values / (geometry.inputs() * geometry.groups()).max(1)).clamp(1, columns);
        let samples = samples.max(1);
        let positions = (most / samples).max(1);
        Self { geometry, positions, stride: samples.div_ceil(most), quantized: Vec::new(), float: Vec::new() }
    }

    /// Adds an activation: `float` as the float network has it, `quantized` as the quantized network has it, both of the
    /// given shape. `first` is the number of its first sample. With `keep`, only positions are taken whose elements it
    /// keeps.
    pub fn observe(
        &mut self,
        first: usize,
        float: &[f32],
        quantized: &[f32],
        shape: &[usize],
        keep: Option<Keep>,
    ) -> Result<(), KernelError> {
        let batch = Batch::pair(&self.geometry, shape, float, quantized)?;
        let sampling = Sampling { stride: batch.positions().div_ceil(self.positions), least: 0 };
        let length = batch.length.max(1);
        let rows = self.geometry.inputs() * self.geometry.groups();
        for (i, (x, y)) in float.chunks(length).zip(quantized.chunks(length)).enumerate() {
            if !(first + i).is_multiple_of(self.stride) {
                continue;
            }
            let sites = batch.sites(&self.geometry, (first, i), sampling, keep);
            let mut part = vec![0.0; rows * sites.count];
            for (values, kept) in [(x, &mut self.float), (y, &mut self.quantized)] {
                sites.copy(values, 0, sites.count, &mut part, sites.count.max(1));
                kept.extend(
                    (0..sites.count)
                        .flat_map(|p| (0..rows).map(move |row| (p, row)))
                        .map(|(position, row)| part[row * sites.count + position]),
                );
            }
        }
        Ok(())
    }

    /// Adds the columns of a later part of the data.
    pub fn merge(&mut self, other: Self) -> Result<(), KernelError> {
        if self.geometry != other.geometry {
            return Err(KernelError::Merge);
        }
        self.quantized.extend(other.quantized);
        self.float.extend(other.float);
        Ok(())
    }

    /// The columns of each group.
    pub fn finish(self) -> Vec<Columns> {
        let (groups, size) = (self.geometry.groups(), self.geometry.inputs());
        if groups == 1 {
            return vec![Columns { size, quantized: self.quantized, float: self.float }];
        }
        let of_group = |values: &[f32], group: usize| {
            let column = |column: &[f32]| column[group * size..][..size].to_vec();
            values.chunks_exact(groups * size).flat_map(column).collect()
        };
        let columns =
            |group| Columns { size, quantized: of_group(&self.quantized, group), float: of_group(&self.float, group) };
        (0..groups).map(columns).collect()
    }
}

impl Columns {
    /// Adds other columns as long.
    pub fn add(&mut self, other: &Self) {
        self.quantized.extend_from_slice(&other.quantized);
        self.float.extend_from_slice(&other.float);
    }

    /// Number of columns, P.
    pub fn count(&self) -> usize {
        self.quantized.len() / self.size.max(1)
    }

    /// Mean of each value; 0 without columns.
    pub fn means(&self) -> Means {
        let mean = |values: &[f32]| {
            let mut sums = vec![0.0; self.size];
            for column in values.chunks_exact(self.size.max(1)) {
                sums.iter_mut().zip(column).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            sums.into_iter().map(|sum| sum / self.count().max(1) as f64).collect()
        };
        Means { quantized: mean(&self.quantized), float: mean(&self.float) }
    }
}
