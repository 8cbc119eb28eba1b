//! Streams a data set through a tapped model into one [`Statistics`] a tap.
//!
//! Histograms merge exactly in any order, so each worker fills its own; moving averages depend on the order of
//! samples, so each shard has its own and they merge in shard order. What a run leaves is therefore the same for any
//! number of threads, and its memory does not grow with the number of samples.

use super::{Histogram, MovingAverage, Statistics};
use crate::Error;
use crate::data::{Array, Dataset};
use crate::engine::{Output, Pool, Visitor};
use crate::progress::Progress;
use msq_passes::ir::Model;

/// Values binned for a tap over the whole run, about; extremes are taken over all values.
const BINNED: usize = 1 << 21;
/// Values binned for a tap and sample at least.
const BINNED_A_SAMPLE: usize = 4096;

/// What calibration knows of the activations.
#[derive(Clone, Debug)]
pub struct Collected {
    /// One entry a tap, in the order of the taps.
    pub taps: Vec<Statistics>,
    /// The model's own outputs, one entry an output, for the first samples.
    pub outputs: Vec<Vec<Vec<f32>>>,
}

/// Where the taps are among the outputs of the model that is run.
pub struct Taps<'a> {
    /// The model, with the taps as further outputs.
    pub model: &'a Model,
    /// Output index of each tap; nothing for a tap that is an input, with the index of the input.
    pub sources: Vec<TapSource>,
    /// Names of the taps, for errors.
    pub names: Vec<String>,
    /// How many of the model's outputs are its own.
    pub outputs: usize,
}

/// Where a tapped value is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapSource {
    /// An output of the tapped model.
    Output(usize),
    /// A runtime input.
    Input(usize),
}

/// Runs the data and collects the statistics; keeps the model's outputs of the first `keep` samples.
pub fn collect(
    taps: &Taps,
    data: &Dataset,
    keep: usize,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Collected, Error> {
    let mut averages = vec![MovingAverage::default(); taps.names.len()];
    let mut outputs = Vec::new();
    let wanted = (BINNED / data.len().max(1)).max(BINNED_A_SAMPLE);
    let visitor = || Collector { taps, histograms: vec![Histogram::new(); taps.names.len()], keep, wanted };
    let pool = Pool::new(taps.model, threads);
    let workers = pool.run(data, progress, visitor, |shard: Shard| {
        averages.iter_mut().zip(&shard.averages).for_each(|(a, b)| a.merge(b));
        outputs.extend(shard.outputs);
    })?;
    let mut histograms = vec![Histogram::new(); taps.names.len()];
    for worker in workers {
        histograms.iter_mut().zip(&worker.histograms).for_each(|(a, b)| a.merge(b));
    }
    let statistics = histograms.into_iter().zip(averages);
    let taps = statistics.map(|(histogram, moving_average)| Statistics { histogram, moving_average }).collect();
    Ok(Collected { taps, outputs })
}

struct Shard {
    averages: Vec<MovingAverage>,
    outputs: Vec<Vec<Vec<f32>>>,
}

struct Collector<'a> {
    taps: &'a Taps<'a>,
    histograms: Vec<Histogram>,
    keep: usize,
    wanted: usize,
}

impl Visitor for Collector<'_> {
    type Shard = Shard;
    type Error = Error;

    fn begin(&mut self) -> Shard {
        Shard { averages: vec![MovingAverage::default(); self.histograms.len()], outputs: Vec::new() }
    }

    fn visit(&mut self, shard: &mut Shard, index: usize, inputs: &[Array], outputs: &[Output]) -> Result<(), Error> {
        for (tap, source) in self.taps.sources.iter().enumerate() {
            match *source {
                TapSource::Output(i) => match outputs.get(i).and_then(Output::as_f32) {
                    Some(values) => self.observe(shard, tap, index, values)?,
                    None => self.observe(shard, tap, index, &outputs[i].to_f32()?)?,
                },
                TapSource::Input(i) => self.observe(shard, tap, index, &inputs[i].to_f32())?,
            }
        }
        if index < self.keep {
            let own: Result<_, _> = outputs.iter().take(self.taps.outputs).map(Output::to_f32).collect();
            shard.outputs.push(own?);
        }
        Ok(())
    }
}

impl Collector<'_> {
    fn observe(&mut self, shard: &mut Shard, tap: usize, sample: usize, values: &[f32]) -> Result<(), Error> {
        let histogram = &mut self.histograms[tap];
        let bad = histogram.nan() + histogram.infinite();
        let extremes = histogram.observe_strided(values, stride(values.len(), self.wanted));
        if histogram.nan() + histogram.infinite() > bad {
            return Err(Error::NonFiniteActivation { value: self.taps.names[tap].clone(), sample });
        }
        if let Some(range) = extremes {
            shard.averages[tap].observe(range);
        }
        Ok(())
    }
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
