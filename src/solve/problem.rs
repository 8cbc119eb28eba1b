//! The problem that a solver is given, and its solution.

use crate::kernels::{Means, Moments};
use crate::quant::{
    Affine, Granularity, GridSpec, QuantError, QuantizedWeight, ScaleSearch, Sqnr, WeightQuantizer, round_blocks,
};
use crate::solve::levels::Levels;
use crate::solve::{Statistics, codebook, fixed_levels, trellis};
use msq_passes::TrellisCode;
use rayon::prelude::*;

/// One group of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// W, `[O, K]`.
    pub weights: &'a [f32],
    /// Statistics of its input.
    pub statistics: Statistics<'a>,
}

/// The integers that the weights of a layer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid<'a> {
    /// All integers of a symmetric grid.
    Uniform(GridSpec),
    /// All integers of a symmetric grid, on scales that follow a rule: powers of two.
    Scaled(GridSpec, ScaleSearch),
    /// At most 2^b integers from −127 to 127, chosen for the layer.
    Codebook(u8),
    /// A list of integers, in rising order.
    Levels(&'a [i8]),
    /// Integers of a trellis code. Its columns are all rows of a layer, the groups one after another.
    Trellis(TrellisCode),
}

/// A layer to be solved.
// The flags are independent of each other.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// The layer's groups, all of one shape.
    pub groups: &'a [Group<'a>],
    /// Values in a row, K.
    pub size: usize,
    /// The integers to be used.
    pub grid: Grid<'a>,
    /// How much of the layer shares a scale; a channel is a row. [`Solver::takes_granularity`](super::Solver::takes_granularity)
    /// says which a solver takes.
    pub granularity: Granularity,
    /// λ as a fraction of the mean diagonal of H; [`gram::DAMPING`](super::gram::DAMPING) unless there is a reason.
    pub damping: f64,
    /// How many columns say as much about correlations as one that depends on no other.
    pub redundancy: f64,
    /// Whether the bias of the layer will take up the mean error ([`Solution::bias_shift`]).
    pub centered: bool,
    /// Lower limits for scales, one per row or one for all; empty for none.
    pub least_scales: &'a [f32],
    /// Whether the lower limits are the scales themselves.
    pub fixed_scales: bool,
    /// The bias b of each row; empty for none.
    pub bias: &'a [f32],
    /// Whether a `Relu` or a clip at zero follows the layer.
    pub rectified: bool,
    /// The quantizer of the layer's input, where another scale may be chosen for it; its zero point and its integers stay.
    pub input: Option<Affine>,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
}

/// Layers that are solved together, in graph order.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// The problem of each layer.
    pub layers: &'a [Problem<'a>],
}

/// Integers and scales of a layer, its groups one after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// q, `[G·O, K]`.
    pub integers: Vec<i8>,
    /// s, as many as the granularity of the problem says, row after row.
    pub scales: Vec<f32>,
    /// The integers that stand for 0, as many as there are scales; empty where all are 0.
    pub zero_points: Vec<i8>,
    /// What to add to the bias of each row so that the mean of the output stays; `None` without statistics.
    pub bias_shift: Option<Vec<f64>>,
    /// The scale chosen for the quantizer of the layer's input; `None` where it stays.
    pub input_scale: Option<f32>,
    /// The solver's objective relative to the output of the layer: signal against error.
    pub ratio: Sqnr,
    /// The same for weights rounded to nearest.
    pub plain_ratio: Sqnr,
}

impl Solution {
    /// Weights rounded to nearest, with nothing said of their errors or of the bias.
    pub(super) fn plain(rounded: QuantizedWeight) -> Self {
        Self {
            integers: rounded.data,
            scales: rounded.scales,
            zero_points: rounded.zero_points,
            bias_shift: None,
            input_scale: None,
            ratio: Sqnr::default(),
            plain_ratio: Sqnr::default(),
        }
    }
}

impl Grid<'_> {
    /// The bits of an integer on disk.
    pub fn bits(self) -> u8 {
        match self {
            Self::Uniform(grid) | Self::Scaled(grid, _) => grid.bits(),
            Self::Codebook(bits) => bits,
            Self::Levels(levels) => levels.len().next_power_of_two().ilog2() as u8,
            Self::Trellis(code) => code.rate().quarters().div_ceil(4),
        }
    }

    /// The grid every integer belongs to.
    pub fn spec(self) -> GridSpec {
        match self {
            Self::Uniform(grid) | Self::Scaled(grid, _) => grid,
            Self::Codebook(_) | Self::Levels(_) | Self::Trellis(_) => GridSpec::WEIGHT_S8,
        }
    }
}

impl<'a> Problem<'a> {
    /// Groups whose rows have so many values each, with one scale per row and nothing else said.
    pub fn new(groups: &'a [Group<'a>], size: usize, grid: Grid<'a>) -> Self {
        Self {
            groups,
            size,
            grid,
            granularity: Granularity::Channel,
            damping: super::gram::DAMPING,
            redundancy: 1.0,
            centered: false,
            least_scales: &[],
            fixed_scales: false,
            bias: &[],
            rectified: false,
            input: None,
            seed: 0,
        }
    }

    /// Whether each row has a scale of its own.
    pub fn per_channel(&self) -> bool {
        self.granularity == Granularity::Channel
    }

    /// All weights, `[G·O, K]`.
    pub fn weights(&self) -> Vec<f32> {
        self.groups.iter().flat_map(|group| group.weights).copied().collect()
    }

    /// Weights `[rows, K]` rounded to nearest, codebooks by errors weighed by the importance of each weight.
    pub(super) fn nearest(&self, weights: &[f32], importance: &[f64]) -> Result<QuantizedWeight, QuantError> {
        if let (Granularity::Block(block), Grid::Uniform(grid)) = (self.granularity, self.grid) {
            check_finite(weights)?;
            return Ok(round_blocks(weights, importance, self.size, block, grid));
        }
        let shape = [weights.len() / self.size.max(1), self.size];
        let axis = self.per_channel().then_some(0);
        let (granularity, zero_points) = (self.granularity, Vec::new());
        let of_list = |(data, scales)| QuantizedWeight {
            data,
            granularity,
            scales,
            zero_points,
            shape: shape.to_vec(),
            axis,
            grid: self.grid.spec(),
        };
        let (grid, search) = match self.grid {
            Grid::Trellis(code) => {
                check_finite(weights)?;
                return Ok(of_list(trellis::nearest(self, code, weights, importance)));
            }
            Grid::Uniform(grid) if self.fixed_scales => (grid, ScaleSearch::Given),
            _ if self.fixed_scales => return self.nearest_on_scales(weights).map(of_list),
            Grid::Uniform(grid) => (grid, ScaleSearch::MeanSquaredError),
            Grid::Scaled(grid, search) => (grid, search),
            Grid::Codebook(bits) => return self.nearest_entries(weights, importance, bits).map(of_list),
            Grid::Levels(levels) => return self.nearest_levels(weights, levels).map(of_list),
        };
        let quantizer = WeightQuantizer::new(grid, search)?;
        let quantizer = match self.least_scales {
            [] => quantizer,
            least => quantizer.with_minimum_scales(least),
        };
        quantizer.quantize(weights, &shape, axis)
    }

    /// Rows rounded to the levels of a grid on the scales given.
    fn nearest_on_scales(&self, weights: &[f32]) -> Result<(Vec<i8>, Vec<f32>), QuantError> {
        check_finite(weights)?;
        let levels = match self.grid {
            Grid::Levels(levels) => Levels::listed(levels),
            grid => Levels::uniform(grid.spec()),
        };
        let rows = weights.chunks(self.size.max(1)).zip(self.least_scales);
        let integers = rows.flat_map(|(row, &scale)| fixed_levels::round(row, &levels, scale)).collect();
        Ok((integers, self.least_scales.to_vec()))
    }

    /// The lower limit for the scale of a channel, or for that of all.
    pub(super) fn least_scale(&self, channel: usize) -> f32 {
        match self.least_scales {
            least if self.per_channel() && least.len() > 1 => least.get(channel).copied().unwrap_or(0.0),
            least => least.iter().copied().fold(0.0, f32::max),
        }
    }

    fn nearest_levels(&self, weights: &[f32], levels: &[i8]) -> Result<(Vec<i8>, Vec<f32>), QuantError> {
        check_finite(weights)?;
        let levels = Levels::listed(levels);
        let size = if self.per_channel() { self.size } else { weights.len() }.max(1);
        let channel = |(channel, weights): (usize, &[f32])| {
            let scale = fixed_levels::scale(weights, &levels, self.least_scale(channel));
            (fixed_levels::round(weights, &levels, scale), scale)
        };
        let (integers, scales): (Vec<Vec<i8>>, Vec<f32>) = weights.par_chunks(size).enumerate().map(channel).unzip();
        Ok((integers.concat(), scales))
    }

    fn nearest_entries(
        &self,
        weights: &[f32],
        importance: &[f64],
        bits: u8,
    ) -> Result<(Vec<i8>, Vec<f32>), QuantError> {
        check_finite(weights)?;
        if !(1..=7).contains(&bits) {
            return Err(QuantError::UnsupportedBits { bits });
        }
        let size = self.size.max(1);
        let channel = |i: usize| if self.per_channel() { i / size } else { 0 };
        let weight = |(i, (&value, &importance))| codebook::Weight { channel: channel(i), value, importance };
        let values: Vec<codebook::Weight> = weights.iter().zip(importance).enumerate().map(weight).collect();
        let largest = [self.least_scales.iter().copied().fold(0.0, f32::max)];
        let least = if self.per_channel() { self.least_scales } else { &largest };
        Ok(codebook::fit(&values, if self.per_channel() { weights.len() / size } else { 1 }, bits, least))
    }
}

fn check_finite(weights: &[f32]) -> Result<(), QuantError> {
    match weights.iter().filter(|w| !w.is_finite()).count() {
        0 => Ok(()),
        count => Err(QuantError::NonFiniteWeight { count }),
    }
}

impl Solution {
    /// The values V = s·(q − z) of rows of `size` values, with one scale per row, per block of a row where there are blocks,
    /// or for all.
    pub(super) fn values(&self, size: usize, block: Option<usize>) -> Vec<f32> {
        let size = size.max(1);
        let blocks = block.map_or(1, |block| size.div_ceil(block.max(1)));
        let value = |(at, &q): (usize, &i8)| {
            let group = if self.scales.len() == 1 {
                0
            } else {
                at / size * blocks + block.map_or(0, |block| at % size / block.max(1))
            };
            let zero = self.zero_points.get(group).map_or(0, |&z| i16::from(z));
            f32::from(i16::from(q) - zero) * self.scales.get(group).copied().unwrap_or(1.0)
        };
        self.integers.iter().enumerate().map(value).collect()
    }
}

impl Group<'_> {
    /// Mean of W·x less mean of s·q·x̂, for each row; `None` without statistics.
    pub(super) fn bias_shift(&self, integers: &[i8], scales: &[f64]) -> Option<Vec<f64>> {
        Some(self.mean_shift(&self.means()?, integers, scales))
    }

    /// Mean of W·x less mean of V·x̂, for each row of the values V; `None` without statistics.
    pub(super) fn value_shift(&self, values: &[f32]) -> Option<Vec<f64>> {
        let means = self.means()?;
        let size = means.quantized.len().max(1);
        let sum = |row: &[f32], means: &[f64]| row.iter().zip(means).map(|(&v, x)| f64::from(v) * x).sum::<f64>();
        let shift = |(weights, values): (&[f32], &[f32])| {
            let shift = sum(weights, &means.float) - sum(values, &means.quantized);
            if shift.is_finite() { shift } else { 0.0 }
        };
        Some(self.weights.chunks(size).zip(values.chunks(size)).map(shift).collect())
    }

    /// Means of x and x̂; `None` without statistics.
    fn means(&self) -> Option<Means> {
        match self.statistics {
            Statistics::Nothing => None,
            Statistics::Moments(moments) => Some(moments.means()),
            Statistics::Blocks(blocks) => Some(Means::joined(blocks.iter().map(Moments::means))),
            Statistics::Columns(columns) => Some(columns.means()),
        }
    }

    /// Mean of W·x less mean of s·q·x̂, for each row, from given means of x and x̂.
    pub(super) fn mean_shift(&self, means: &Means, integers: &[i8], scales: &[f64]) -> Vec<f64> {
        let size = means.quantized.len().max(1);
        let rows = self.weights.chunks(size).zip(integers.chunks(size)).zip(scales);
        let shift = |((weights, integers), scale): ((&[f32], &[i8]), &f64)| {
            let float: f64 = weights.iter().zip(&means.float).map(|(&w, x)| f64::from(w) * x).sum();
            let quantized: f64 = integers.iter().zip(&means.quantized).map(|(&q, x)| f64::from(q) * x).sum();
            let shift = float - scale * quantized;
            if shift.is_finite() { shift } else { 0.0 }
        };
        rows.map(shift).collect()
    }
}
