//! Streams a data set through a tapped model into one [`Statistics`] a tap.
//!
//! Histograms merge exactly in any order, so each worker fills its own; moving averages depend on the order of
//! samples and sums on that of additions, so each shard has its own and they merge in shard order. What a run leaves is therefore the same for any
//! number of threads, and its memory does not grow with the number of samples.

use super::{ChannelMeans, Histogram, MovingAverage, Statistics};
use crate::Error;
use crate::data::{Array, Dataset, Sample};
use crate::engine::Output;
use crate::execute::stages::{Place, hand};
use crate::execute::{Pool, Visitor};
use crate::runtime::Runtime;

/// Values binned for a tap over the whole run, about; extremes are taken over all values.
const BINNED: usize = 1 << 20;
/// Values binned for a tap and sample at least.
const BINNED_A_SAMPLE: usize = 1024;

/// What calibration knows of the activations.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    /// One entry a tap, in the order of the taps.
    pub taps: Vec<Statistics>,
    /// Mean of each channel of the taps that ask for it.
    pub means: Vec<ChannelMeans>,
    /// What was to be kept of the first samples.
    pub kept: Vec<Sample>,
}

/// What is looked for when a model runs.
pub(crate) struct Taps {
    /// Values whose statistics are wanted.
    pub counted: Vec<Tap>,
    /// Values that are kept as they are.
    pub kept: Vec<Place>,
    /// Of how many samples.
    pub samples: usize,
}

/// A tapped value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tap {
    /// Its name.
    pub name: String,
    /// Where it is found.
    pub place: Place,
    /// Whether its range is wanted.
    pub range: bool,
    /// Values below this count as this, because they make no difference.
    pub floor: Option<f32>,
    /// The axis of its channels, if their means are wanted; negative from the end.
    pub channels: Option<isize>,
}

/// Runs the data through a model that has the tapped values among its outputs.
pub(crate) fn collect(taps: &Taps, pool: &Pool, data: &Dataset, runtime: &Runtime) -> Result<Collected, Error> {
    let count = taps.counted.len();
    let mut averages = vec![MovingAverage::default(); count];
    let mut means = vec![ChannelMeans::default(); count];
    let mut kept = Vec::new();
    let wanted = (BINNED / data.len().max(1)).max(BINNED_A_SAMPLE);
    let visitor = || Collector { taps, histograms: vec![Histogram::new(); count], wanted };
    let workers = pool.run(data, runtime, visitor, |shard: Shard| {
        averages.iter_mut().zip(&shard.averages).for_each(|(a, b)| a.merge(b));
        means.iter_mut().zip(&shard.means).for_each(|(a, b)| a.merge(b));
        kept.extend(shard.kept);
    })?;
    let mut histograms = vec![Histogram::new(); count];
    for worker in workers {
        histograms.iter_mut().zip(&worker.histograms).for_each(|(a, b)| a.merge(b));
    }
    let statistics = histograms.into_iter().zip(averages);
    let taps = statistics.map(|(histogram, moving_average)| Statistics { histogram, moving_average }).collect();
    Ok(Collected { taps, means, kept })
}

struct Shard {
    averages: Vec<MovingAverage>,
    means: Vec<ChannelMeans>,
    kept: Vec<Sample>,
}

struct Collector<'a> {
    taps: &'a Taps,
    histograms: Vec<Histogram>,
    wanted: usize,
}

impl Visitor for Collector<'_> {
    type Shard = Shard;
    type Error = Error;

    fn begin(&mut self) -> Shard {
        let count = self.histograms.len();
        let (averages, means) = (vec![MovingAverage::default(); count], vec![ChannelMeans::default(); count]);
        Shard { averages, means, kept: Vec::new() }
    }

    fn visit(&mut self, shard: &mut Shard, index: usize, inputs: &[Array], outputs: &[Output]) -> Result<(), Error> {
        for (at, tap) in self.taps.counted.iter().enumerate() {
            let converted;
            let (values, shape) = match tap.place {
                Place::Output(i) => {
                    if let Some(values) = outputs[i].as_f32() {
                        (values, outputs[i].shape())
                    } else {
                        converted = outputs[i].to_f32()?;
                        (converted.as_slice(), outputs[i].shape())
                    }
                }
                Place::Input(i) => {
                    converted = inputs[i].to_f32();
                    (converted.as_slice(), inputs[i].shape())
                }
            };
            self.observe(shard, at, index, values)?;
            if let Some(axis) = tap.channels.and_then(|axis| positive_axis(axis, shape.len())) {
                shard.means[at].observe(values, shape, axis);
            }
        }
        if index < self.taps.samples {
            shard.kept.push(hand(&self.taps.kept, inputs, outputs)?);
        }
        Ok(())
    }
}

impl Collector<'_> {
    fn observe(&mut self, shard: &mut Shard, at: usize, sample: usize, values: &[f32]) -> Result<(), Error> {
        let tap = &self.taps.counted[at];
        if !tap.range {
            return Ok(());
        }
        let raised: Vec<f32>;
        let values = match tap.floor {
            Some(floor) => {
                raised = values.iter().map(|v| v.max(floor)).collect();
                raised.as_slice()
            }
            None => values,
        };
        let histogram = &mut self.histograms[at];
        let bad = histogram.nan() + histogram.infinite();
        let extremes = histogram.observe_strided(values, stride(values.len(), self.wanted));
        if histogram.nan() + histogram.infinite() > bad {
            return Err(Error::NonFiniteActivation { value: tap.name.clone(), sample });
        }
        if let Some(range) = extremes {
            shard.averages[at].observe(range);
        }
        Ok(())
    }
}

fn positive_axis(axis: isize, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// A step that visits about `wanted` of `length` values and shares no small factor with the rows of an image, so that
/// no column is left out.
fn stride(length: usize, wanted: usize) -> usize {
    let mut step = (length / wanted.max(1)).max(1);
    while step > 1 && [2, 3, 5, 7].iter().any(|p| step.is_multiple_of(*p)) {
        step += 1;
    }
    step
}
