//! Streams a data set through a segment into one [`Statistics`] per tap.
//!
//! Histograms and peaks merge exactly in any order, so finished shards pass theirs on to later shards. Moving averages depend on
//! the order of samples, and sums on the order of additions, so each shard has its own, and they are added as the leaves
//! of a tree over all samples ([`Dyadic`]). The result is therefore the same for any number of threads and wherever the
//! data are cut into parts, and memory grows with the logarithm of the number of samples only.
//!
//! Positions that a mask leaves out are in none of the statistics, nor is −∞, which stands for nothing wherever it comes
//! from: a mask that is added.

use super::dyadic::Dyadic;
use super::{CalibrateError, ChannelMeans, Histogram, MovingAverage, Peaks, Statistics};
use crate::data::{Array, Dataset, Sample};
use crate::engine::Value;
use crate::execute::ExecuteError;
use crate::execute::fold::{Pool, SHARD};
use crate::execute::masks::{Kept, Masked};
use crate::kernels::{coprime_stride, start};
use crate::runtime::{Runtime, lock};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Approximate number of values binned per tap over the whole run; extremes are taken over all values.
const BINNED: usize = 1 << 20;
/// Least number of values binned per tap and sample.
const BINNED_A_SAMPLE: usize = 1024;

/// Statistics of the activations.
#[derive(Clone, Debug)]
pub(super) struct Collected {
    /// One entry per tap, in the order of the taps.
    pub taps: Vec<Sums>,
    /// The values kept of the first samples.
    pub kept: Vec<Sample>,
}

/// What is counted of a tap; parts of the data merge, with the same bits wherever they are cut.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    histogram: Histogram,
    peaks: Peaks,
    averages: Dyadic<MovingAverage>,
    means: Dyadic<ChannelMeans>,
}

impl Sums {
    /// Appends what is counted of the samples that come next.
    pub(super) fn append(&mut self, later: Self) {
        self.histogram.merge(&later.histogram);
        self.peaks.merge(&later.peaks);
        self.averages.append(later.averages);
        self.means.append(later.means);
    }

    /// Whether these are sums over exactly so many pieces, as those of a file must be.
    pub(super) fn cover(&self, pieces: Range<u64>) -> bool {
        self.averages.covers(pieces.clone()) && self.means.covers(pieces)
    }

    /// What an observer chooses a range by.
    pub(super) fn statistics(&self) -> Statistics {
        let (histogram, peaks) = (self.histogram.clone(), self.peaks.clone());
        Statistics { histogram, moving_average: self.averages.total(), peaks }
    }

    /// The mean of each channel; empty where it is not collected.
    pub(super) fn means(&self) -> Vec<f64> {
        self.means.total().means()
    }
}

/// The values collected when a segment runs.
pub(super) struct Taps {
    /// Number of the segment's outputs that are kept whole: the first ones.
    pub kept: usize,
    /// Number of samples whose outputs are kept: the first ones of all.
    pub samples: usize,
    /// The number of the first sample of the data, a multiple of [`SHARD`].
    pub first: usize,
    /// How many samples there are, with those that are run before and after.
    pub total: usize,
    /// The remaining outputs, whose statistics are collected.
    pub counted: Vec<Tap>,
}

/// A tapped value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tap {
    /// Its name.
    pub name: String,
    /// Whether its range is collected.
    pub range: bool,
    /// Smaller values are replaced by this one, since they have the same effect in the network.
    pub floor: Option<f32>,
    /// The axis of its channels, if their means are collected; negative from the end.
    pub channels: Option<isize>,
}

/// Runs the data through a segment whose outputs are first the values to keep, then the taps.
pub(super) fn collect<'a>(
    taps: &Taps,
    pool: &Pool,
    data: &Dataset,
    masked: &Masked<'a>,
    runtime: &Runtime,
) -> Result<Collected, CalibrateError> {
    let count = taps.counted.len();
    let wanted = (BINNED / taps.total.max(1)).max(BINNED_A_SAMPLE);
    let lent: Mutex<Vec<Vec<(Histogram, Peaks)>>> = Mutex::new(Vec::new());
    let begin = || Piece {
        unordered: lock(&lent).pop().unwrap_or_else(|| vec![Default::default(); count]),
        averages: vec![MovingAverage::default(); count],
        means: vec![ChannelMeans::default(); count],
        kept: BTreeMap::new(),
        positions: None,
    };
    let mut total = Collected { taps: vec![Sums::default(); count], kept: Vec::new() };
    let mut number = (taps.first / SHARD) as u64;
    let merge = |piece: Piece<'a>| {
        let parts = piece.averages.into_iter().zip(piece.means);
        for (sums, (average, means)) in total.taps.iter_mut().zip(parts) {
            sums.averages.append(Dyadic::piece(number, average));
            sums.means.append(Dyadic::piece(number, means));
        }
        let whole = |arrays: Vec<Option<Array>>| Sample { arrays: arrays.into_iter().flatten().collect() };
        total.kept.extend(piece.kept.into_values().map(whole));
        lock(&lent).push(piece.unordered);
        number += 1;
        Ok(())
    };
    let visit = |piece: &mut Piece<'a>, sample: usize, at: usize, value: &dyn Value| {
        let sample = taps.first + sample;
        if sample < taps.samples {
            piece.kept.entry(sample).or_insert_with(|| vec![None; taps.kept]);
        }
        match at.checked_sub(taps.kept) {
            None => piece.keep(sample, at, value),
            Some(at) => taps.observe(piece, sample, at, value, masked, wanted),
        }
    };
    pool.stream(data, runtime, begin, visit, merge)?;
    for part in lent.into_inner().unwrap_or_else(PoisonError::into_inner) {
        for (sums, (histogram, peaks)) in total.taps.iter_mut().zip(&part) {
            sums.histogram.merge(histogram);
            sums.peaks.merge(peaks);
        }
    }
    Ok(total)
}

/// What one thread counts of a few samples.
struct Piece<'a> {
    /// Histograms and peaks of this piece and of the pieces that used them before.
    unordered: Vec<(Histogram, Peaks)>,
    averages: Vec<MovingAverage>,
    means: Vec<ChannelMeans>,
    /// The values to keep of each sample, as far as they have been seen.
    kept: BTreeMap<usize, Vec<Option<Array>>>,
    /// The sample seen last, and which of its positions count.
    positions: Option<(usize, Option<Kept<'a>>)>,
}

impl Piece<'_> {
    /// Keeps a value, if the sample is one of those whose values are kept.
    fn keep(&mut self, sample: usize, at: usize, value: &dyn Value) -> Result<(), CalibrateError> {
        if let Some(arrays) = self.kept.get_mut(&sample) {
            arrays[at] = Some(value.to_array()?);
        }
        Ok(())
    }
}

impl Taps {
    /// Counts a tapped value.
    fn observe<'a>(
        &self,
        piece: &mut Piece<'a>,
        sample: usize,
        at: usize,
        value: &dyn Value,
        masked: &Masked<'a>,
        wanted: usize,
    ) -> Result<(), CalibrateError> {
        let Piece { unordered, averages, means, positions, .. } = piece;
        let (_, kept) = match positions {
            Some(known) if known.0 == sample => known,
            other => other.insert((sample, masked.sample(sample).map_err(ExecuteError::from)?)),
        };
        let (tap, values, shape) = (&self.counted[at], value.floats()?, value.shape());
        let positions = kept.as_ref().and_then(|kept| kept.of(&tap.name, shape));
        if tap.range {
            let counting: Cow<[f32]> = positions.as_ref().map_or(Cow::Borrowed(&values), |p| p.retain(&values).into());
            tap.observe(&mut unordered[at], &mut averages[at], sample, &counting, wanted)?;
        }
        if let Some(axis) = tap.channels.and_then(|axis| positive_axis(axis, shape.len())) {
            match &positions {
                None => means[at].observe(&values, shape, axis),
                Some(positions) => means[at].observe_kept(&values, shape, axis, &|at| positions.keeps(at)),
            }
        }
        Ok(())
    }
}

impl Tap {
    fn observe(
        &self,
        (histogram, peaks): &mut (Histogram, Peaks),
        average: &mut MovingAverage,
        sample: usize,
        values: &[f32],
        wanted: usize,
    ) -> Result<(), CalibrateError> {
        let floor = self.floor.unwrap_or(f32::NEG_INFINITY);
        let values: Cow<[f32]> = if self.floor.is_some() || values.contains(&f32::NEG_INFINITY) {
            values.iter().map(|v| v.max(floor)).filter(|v| *v != f32::NEG_INFINITY).collect()
        } else {
            Cow::Borrowed(values)
        };
        let bad = histogram.nan() + histogram.infinite();
        // Strides of several lengths: what repeats in an activation at one of them does not at another.
        let stride = coprime_stride(values.len(), values.len() / wanted.max(1) + sample % 3, wanted / 2);
        let extremes = histogram.observe_from(&values, start(sample, stride), stride);
        if histogram.nan() + histogram.infinite() > bad {
            return Err(CalibrateError::NonFiniteActivation { value: self.name.clone(), sample });
        }
        if let Some(range) = extremes {
            average.observe(range);
            peaks.observe(range);
        }
        Ok(())
    }
}

fn positive_axis(axis: isize, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins see every column and every channel of every activation, whatever its width: no share of them is left out by a
    /// stride that fits the rows.
    #[test]
    fn no_column_and_no_channel_is_never_seen() {
        let wanted = BINNED_A_SAMPLE;
        let worst = |samples: usize, [width, height, channels]: [usize; 3]| {
            let length = width * height * channels;
            let (mut columns, mut planes) = (vec![false; width], vec![false; channels]);
            for sample in 0..samples {
                let stride = coprime_stride(length, length / wanted + sample % 3, wanted / 2);
                for at in (start(sample, stride)..length).step_by(stride) {
                    columns[at % width] = true;
                    planes[at / (width * height)] = true;
                }
            }
            let share = |seen: &[bool]| seen.iter().filter(|seen| !**seen).count() as f64 / seen.len() as f64;
            share(&columns).max(share(&planes))
        };
        for width in 1..=700 {
            let heights = [1, 1 + width % 13, width.min(64)];
            let channels = [1, 3, 16, 1 + width * 7 % 513][width % 4];
            for height in heights {
                assert_eq!(worst(24, [width, height, channels]), 0.0, "{channels}x{height}x{width}");
            }
        }
        // Long vectors of features: what samples do not reach alone they reach together.
        for width in [4096, 6272, 8192, 12_288] {
            assert!(worst(24, [width, 1, 1]) < 0.05, "{width}");
            assert!(worst(64, [width, 1, 1]) < 0.002, "{width}");
        }
        for channels in [160, 512, 1280, 2048] {
            assert_eq!(worst(24, [13, 13, channels]), 0.0, "{channels}");
        }
    }
}
