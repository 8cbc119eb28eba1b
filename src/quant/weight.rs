//! Weights rounded to a symmetric grid, one scale per channel or one for all.
//!
//! `w ≈ s_c·q` with q a signed byte and c the index along the channel axis: 0 for Conv and for Gemm with transB = 1, 1
//! for `ConvTranspose` (grouped ones are passed in a view whose axis counts all output channels) and for Gemm with
//! transB = 0, the last for `MatMul`. Zero points of weights are 0: others cost speed in every runtime.
//!
//! Channels do not influence each other, so they are rounded in parallel without an effect on the result.

use std::borrow::Cow;

use rayon::prelude::*;

use super::scale_search::Channel;
use super::{Granularity, GridSpec, QuantError, Sqnr, power_of_two};

/// The scale of channels that are zero throughout. Any would represent them; one of the usual size keeps the step
/// `s_x·s_w` of the channel's bias fine.
pub const ZERO_CHANNEL_SCALE: f32 = 1.0 / 1024.0;
/// Weights from which on channels are spread over threads.
const PARALLEL_VALUES: usize = 1 << 14;

/// How the scale of a channel is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleSearch {
    /// The largest magnitude lands on the last integer; nothing is clipped.
    AbsoluteMaximum,
    /// The scale with the least squared rounding error that a search finds; never worse than the other.
    #[default]
    MeanSquaredError,
    /// The power of two with the least squared error: fixed point of Gupta et al. (2015), whose scale is 2^−FL.
    PowerOfTwo,
    /// σ(b)·2^round(log2 max|w|) with σ(b) = 2^(1−b): the k-bit numbers of Wu et al. (2018, WAGE) with their shift.
    Shift,
    /// The lower limits are the scales.
    Given,
}

impl ScaleSearch {
    /// Whether scales are powers of two.
    pub fn is_power_of_two(self) -> bool {
        matches!(self, Self::PowerOfTwo | Self::Shift)
    }
}

/// How weights are rounded to nearest.
#[derive(Clone, Copy, Debug)]
pub struct WeightQuantizer<'a> {
    grid: GridSpec,
    search: ScaleSearch,
    minimum_scales: Option<&'a [f32]>,
}

/// A weight as signed bytes, in the order of the original.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// The integers, laid out as the weight was.
    pub data: Vec<i8>,
    /// How much of the weight shares a scale.
    pub granularity: Granularity,
    /// As many positive scales as the granularity says, channel after channel.
    pub scales: Vec<f32>,
    /// The integers that stand for 0, as many as there are scales; empty where all are 0.
    pub zero_points: Vec<i8>,
    /// The shape of the weight.
    pub shape: Vec<usize>,
    /// The axis of channels; none where the weight counts as one channel.
    pub axis: Option<usize>,
    /// The grid the integers belong to.
    pub grid: GridSpec,
}

/// A tensor seen as `[outer, channels, inner]`.
#[derive(Clone, Copy)]
struct ChannelLayout {
    outer: usize,
    channels: usize,
    inner: usize,
}

impl ChannelLayout {
    /// The view of `shape` with the channels along `axis`; without one, all is one channel.
    fn new(shape: &[usize], axis: Option<usize>) -> Result<Self, QuantError> {
        let Some(axis) = axis else {
            return Ok(Self { outer: 1, channels: 1, inner: shape.iter().product() });
        };
        let Some(&channels) = shape.get(axis) else {
            return Err(QuantError::AxisOutOfRange { axis, rank: shape.len() });
        };
        let outer = shape[..axis].iter().product();
        let inner = shape[axis + 1..].iter().product();
        Ok(Self { outer, channels, inner })
    }

    /// The runs of consecutive values that belong to `channel`.
    fn runs(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.outer).map(move |outer| {
            let start = (outer * self.channels + channel) * self.inner;
            start..start + self.inner
        })
    }

    /// The values of `channel`, copied only when they are scattered.
    fn gather(self, values: &[f32], channel: usize) -> Cow<'_, [f32]> {
        if self.outer == 1 {
            let start = channel * self.inner;
            Cow::Borrowed(&values[start..start + self.inner])
        } else {
            Cow::Owned(self.runs(channel).flat_map(|run| &values[run]).copied().collect())
        }
    }

    /// Writes the values of `channel` back to where they belong.
    fn scatter(self, values: &[i8], channel: usize, target: &mut [i8]) {
        if self.inner == 0 {
            return;
        }
        for (run, values) in self.runs(channel).zip(values.chunks_exact(self.inner)) {
            target[run].copy_from_slice(values);
        }
    }
}

impl<'a> WeightQuantizer<'a> {
    /// Rounds to `grid`, which must be symmetric.
    pub fn new(grid: GridSpec, search: ScaleSearch) -> Result<Self, QuantError> {
        if grid.is_symmetric() {
            Ok(Self { grid, search, minimum_scales: None })
        } else {
            Err(QuantError::AsymmetricWeightGrid)
        }
    }

    /// Lets no scale fall below the given ones, one per channel or one for all (a tensor without an axis takes the
    /// largest); see [`minimum_weight_scales`](super::minimum_weight_scales).
    #[must_use]
    pub fn with_minimum_scales(self, minimum_scales: &'a [f32]) -> Self {
        Self { minimum_scales: Some(minimum_scales), ..self }
    }

    /// Rounds `weight` of the given shape, with one scale per entry along `axis`, or one for all.
    pub fn quantize(
        &self,
        weight: &[f32],
        shape: &[usize],
        axis: Option<usize>,
    ) -> Result<QuantizedWeight, QuantError> {
        let layout = self.check(weight, shape, axis)?;
        let round = |channel| self.quantize_channel(&layout.gather(weight, channel), channel, layout.channels);
        let rounded: Vec<(f32, Vec<i8>)> = if weight.len() < PARALLEL_VALUES {
            (0..layout.channels).map(round).collect()
        } else {
            (0..layout.channels).into_par_iter().map(round).collect()
        };
        let mut data = vec![0; weight.len()];
        for (channel, (_, values)) in rounded.iter().enumerate() {
            layout.scatter(values, channel, &mut data);
        }
        let scales = rounded.into_iter().map(|(scale, _)| scale).collect();
        let granularity = if axis.is_some() { Granularity::Channel } else { Granularity::Tensor };
        let (shape, zero_points) = (shape.to_vec(), Vec::new());
        Ok(QuantizedWeight { data, granularity, scales, zero_points, shape, axis, grid: self.grid })
    }

    /// The layout of a weight that can be rounded.
    fn check(&self, weight: &[f32], shape: &[usize], axis: Option<usize>) -> Result<ChannelLayout, QuantError> {
        let length = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if length != Some(weight.len()) {
            return Err(QuantError::ShapeMismatch { shape: shape.to_vec(), length: weight.len() });
        }
        let count = weight.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            return Err(QuantError::NonFiniteWeight { count });
        }
        let layout = ChannelLayout::new(shape, axis)?;
        let found = self.minimum_scales.map_or(1, <[f32]>::len);
        if found != 1 && found != layout.channels && layout.channels != 1 {
            return Err(QuantError::ChannelCount { expected: layout.channels, found });
        }
        Ok(layout)
    }

    /// The scale and the integers of one channel.
    fn quantize_channel(&self, values: &[f32], channel: usize, channels: usize) -> (f32, Vec<i8>) {
        let weights = Channel::new(values, self.grid);
        let scale = match self.search {
            ScaleSearch::Given => 0.0,
            _ if weights.is_zero() => ZERO_CHANNEL_SCALE,
            ScaleSearch::AbsoluteMaximum => weights.unclipped_scale(),
            ScaleSearch::MeanSquaredError => weights.search(),
            ScaleSearch::PowerOfTwo => weights.search_power_of_two(),
            ScaleSearch::Shift => weights.shift(),
        };
        let scale = scale.max(self.minimum_scale(channel, channels)).min(f32::MAX);
        // A limit need not be a power of two.
        let scale = if self.search.is_power_of_two() { power_of_two::ceiling(scale.into()) } else { scale };
        (scale, weights.quantize(scale))
    }

    /// The lower limit for the scale of `channel`.
    fn minimum_scale(&self, channel: usize, channels: usize) -> f32 {
        let minimums = self.minimum_scales.unwrap_or_default();
        if channels == 1 || minimums.len() == 1 {
            minimums.iter().copied().fold(0.0, f32::max)
        } else {
            minimums.get(channel).copied().unwrap_or(0.0)
        }
    }
}

impl QuantizedWeight {
    /// The floats s·(q − z) that the integers stand for, in the order of the original.
    pub fn dequantize(&self) -> Vec<f32> {
        if self.zero_points.is_empty() && !matches!(self.granularity, Granularity::Block(_)) {
            return self.scaled_runs();
        }
        let value = |(at, &q): (usize, &i8)| {
            let group = self.group_of(at);
            let zero = self.zero_points.get(group).copied().unwrap_or(0);
            let scale = self.scales.get(group).copied().unwrap_or(1.0);
            f32::from(i16::from(q) - i16::from(zero)) * scale
        };
        self.data.iter().enumerate().map(value).collect()
    }

    /// The floats where runs of values share a scale and zero points are 0.
    fn scaled_runs(&self) -> Vec<f32> {
        let inner: usize = self.axis.map_or(self.data.len(), |axis| self.shape.iter().skip(axis + 1).product());
        self.data
            .chunks(inner.max(1))
            .zip(self.scales.iter().cycle())
            .flat_map(|(run, &scale)| run.iter().map(move |&value| f32::from(value) * scale))
            .collect()
    }

    /// The index of the scale that a value has.
    pub fn group_of(&self, at: usize) -> usize {
        let Some(&channels) = self.axis.and_then(|axis| self.shape.get(axis)) else { return self.block_of(0, at) };
        let inner: usize = self.shape.iter().skip(self.axis.map_or(0, |axis| axis + 1)).product();
        let (run, within) = (at / inner.max(1), at % inner.max(1));
        self.block_of(run % channels.max(1), run / channels.max(1) * inner + within)
    }

    /// The index of the scale of a value at a place within a channel.
    fn block_of(&self, channel: usize, place: usize) -> usize {
        match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel => channel,
            Granularity::Block(size) => {
                let channels = self.axis.and_then(|axis| self.shape.get(axis)).copied().unwrap_or(1);
                let blocks = (self.data.len() / channels.max(1)).div_ceil(size.max(1));
                channel * blocks + place / size.max(1)
            }
        }
    }

    /// What rounding cost, against the weight it was made from.
    pub fn sqnr(&self, original: &[f32]) -> Sqnr {
        Sqnr::of(original, &self.dequantize())
    }
}
