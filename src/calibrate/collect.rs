//! Streams a data set through a segment into one [`Statistics`] per tap.
//!
//! Histograms merge exactly in any order, so finished shards pass theirs on to later shards. Moving averages depend on
//! the order of samples, and sums on the order of additions, so each shard has its own and they merge in shard order.
//! The result is therefore the same for any number of threads, and memory does not grow with the number of samples.

use super::CalibrateError;
use super::{ChannelMeans, Histogram, MovingAverage, Statistics};
use crate::data::{Dataset, Sample};
use crate::execute::fold::Pool;
use crate::execute::segment::Ran;
use crate::runtime::Runtime;
use std::sync::{Mutex, PoisonError};

/// Approximate number of values binned per tap over the whole run; extremes are taken over all values.
const BINNED: usize = 1 << 20;
/// Least number of values binned per tap and sample.
const BINNED_A_SAMPLE: usize = 1024;

/// Statistics of the activations.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    /// One entry per tap, in the order of the taps.
    pub taps: Vec<Statistics>,
    /// Mean of each channel of the taps that request it.
    pub means: Vec<ChannelMeans>,
    /// The values kept of the first samples.
    pub kept: Vec<Sample>,
}

/// The values collected when a segment runs.
pub(crate) struct Taps {
    /// Number of the segment's outputs that are kept whole: the first ones.
    pub kept: usize,
    /// Number of samples whose outputs are kept.
    pub samples: usize,
    /// The remaining outputs, whose statistics are collected.
    pub counted: Vec<Tap>,
}

/// A tapped value.
#[derive(Clone, Debug, PartialEq)]
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
pub(crate) fn collect(
    taps: &Taps,
    pool: &Pool,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<Collected, CalibrateError> {
    let count = taps.counted.len();
    let wanted = (BINNED / data.len().max(1)).max(BINNED_A_SAMPLE);
    let lent: Mutex<Vec<Vec<Histogram>>> = Mutex::new(Vec::new());
    let begin = || Shard {
        histograms: lock(&lent).pop().unwrap_or_else(|| vec![Histogram::new(); count]),
        averages: vec![MovingAverage::default(); count],
        means: vec![ChannelMeans::default(); count],
        kept: Vec::new(),
    };
    let mut total = Collected { taps: Vec::new(), means: vec![ChannelMeans::default(); count], kept: Vec::new() };
    let mut averages = vec![MovingAverage::default(); count];
    let merge = |shard: Shard| {
        averages.iter_mut().zip(&shard.averages).for_each(|(a, b)| a.merge(b));
        total.means.iter_mut().zip(&shard.means).for_each(|(a, b)| a.merge(b));
        total.kept.extend(shard.kept);
        lock(&lent).push(shard.histograms);
        Ok(())
    };
    let visit = |shard: &mut Shard, sample: usize, ran: Ran| taps.observe(shard, sample, ran, wanted);
    pool.fold(data, runtime, begin, visit, merge)?;
    let mut histograms = vec![Histogram::new(); count];
    for part in lent.into_inner().unwrap_or_else(PoisonError::into_inner) {
        histograms.iter_mut().zip(&part).for_each(|(a, b)| a.merge(b));
    }
    let statistics = histograms.into_iter().zip(averages);
    total.taps = statistics.map(|(histogram, moving_average)| Statistics { histogram, moving_average }).collect();
    Ok(total)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shard {
    /// Histograms of this shard and of the shards that used them before.
    histograms: Vec<Histogram>,
    averages: Vec<MovingAverage>,
    means: Vec<ChannelMeans>,
    kept: Vec<Sample>,
}

impl Taps {
    fn observe(&self, shard: &mut Shard, sample: usize, ran: Ran, wanted: usize) -> Result<(), CalibrateError> {
        for (at, tap) in self.counted.iter().enumerate() {
            let (values, shape) = (ran.values(self.kept + at)?, ran.shape(self.kept + at));
            if tap.range {
                tap.observe(&mut shard.histograms[at], &mut shard.averages[at], sample, &values, wanted)?;
            }
            if let Some(axis) = tap.channels.and_then(|axis| positive_axis(axis, shape.len())) {
                shard.means[at].observe(&values, shape, axis);
            }
        }
        if sample < self.samples {
            shard.kept.push(ran.sample(self.kept)?);
        }
        Ok(())
    }
}

impl Tap {
    fn observe(
        &self,
        histogram: &mut Histogram,
        average: &mut MovingAverage,
        sample: usize,
        values: &[f32],
        wanted: usize,
    ) -> Result<(), CalibrateError> {
        let raised: Vec<f32>;
        let values = match self.floor {
            Some(floor) => {
                raised = values.iter().map(|v| v.max(floor)).collect();
                raised.as_slice()
            }
            None => values,
        };
        let bad = histogram.nan() + histogram.infinite();
        let extremes = histogram.observe_strided(values, stride(values.len(), wanted));
        if histogram.nan() + histogram.infinite() > bad {
            return Err(CalibrateError::NonFiniteActivation { value: self.name.clone(), sample });
        }
        if let Some(range) = extremes {
            average.observe(range);
        }
        Ok(())
    }
}

fn positive_axis(axis: isize, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// A step that visits about `wanted` of `length` values and shares no small factor with the rows of an image, so that
/// no column is skipped.
fn stride(length: usize, wanted: usize) -> usize {
    let mut step = (length / wanted.max(1)).max(1);
    while step > 1 && [2, 3, 5, 7].iter().any(|p| step.is_multiple_of(*p)) {
        step += 1;
    }
    step
}
