//! Comparison of the quantized graph's outputs with the float model's.

use crate::data::{Array, Dataset, Sample};
use crate::error::Error;
use crate::execute::ExecuteError;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages, fold_pair_within};
use crate::execute::unroll::unrolled;
use crate::measure::comparison::Comparison;
use crate::measure::outputs::{OutputArray, Outputs};
use crate::measure::{CustomMetric, ScoredOutputs};
use crate::report::Quality;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use msq_passes::ir::Model;

/// Compares a quantized graph with the float model: on the samples of `validation`, or else on the calibration samples
/// whose float outputs are known. A model that the engine does not run as a whole is not compared. With the outputs of
/// the float model comes the caller's own metric.
pub(super) fn verify(
    model: &Model,
    float: &Model,
    (outputs, metric): (&Outputs, Option<&CustomMetric>),
    scheme: &Scheme,
    validation: Option<&Dataset>,
    (data, seen): (&Dataset, &[Vec<Vec<f32>>]),
    runtime: &Runtime,
) -> Result<Option<Quality>, Error> {
    match validation {
        _ if !scheme.coverage.is_whole() => Ok(None),
        Some(data) => Ok(Some(beside([float, model], (outputs, metric), data, true, runtime)?)),
        None if seen.is_empty() => Ok(None),
        // The metric wants the float model's outputs with their shapes.
        None if metric.is_some() => {
            let data = data.range(0, seen.len());
            Ok(Some(beside([float, model], (outputs, metric), &data, false, runtime)?))
        }
        None => with_outputs(model, outputs, seen, data, Limit::of(float, runtime.memory), runtime),
    }
}

/// Runs the quantized model beside the float model and compares it.
fn beside(
    networks: [&Model; 2],
    (outputs, metric): (&Outputs, Option<&CustomMetric>),
    data: &Dataset,
    held_out: bool,
    runtime: &Runtime,
) -> Result<Quality, Error> {
    let mut compared = Compared::new(&outputs.on(data.len()));
    let all: Vec<usize> = (0..data.len()).collect();
    compared.add(networks, (data, &all), metric.is_some(), runtime)?;
    compared.quality(metric, held_out)
}

/// A comparison under way.
pub(super) struct Compared {
    outputs: Outputs,
    samples: usize,
    total: Comparison,
    /// Outputs of the float and of the quantized network, for the caller's own metric.
    scored: [ScoredOutputs; 2],
}

impl Compared {
    /// Of no sample yet.
    pub(super) fn new(outputs: &Outputs) -> Self {
        let (total, scored) = begun(outputs);
        Self { outputs: outputs.clone(), samples: 0, total, scored }
    }

    /// Runs the float and the quantized network over the samples of `data` at some places.
    pub(super) fn add(
        &mut self,
        [float, quantized]: [&Model; 2],
        (data, places): (&Dataset, &[usize]),
        keeps_outputs: bool,
        runtime: &Runtime,
    ) -> Result<(), Error> {
        runtime.begin("verify", places.len() as u64);
        let limit = Limit::of(float, runtime.memory);
        let Self { outputs, samples, total, scored } = self;
        let compare = |(part, scored): &mut (Comparison, [ScoredOutputs; 2]), at: usize, [float, ran]: [Ran; 2]| {
            let place = places[at];
            if keeps_outputs {
                scored[0].observe(place, float, data)?;
                scored[1].observe(place, ran, data)?;
            }
            Ok::<(), Error>(part.observe_run(place, &float.first(float.len())?, ran, data)?)
        };
        let merge = |(part, [float, own]): (Comparison, [ScoredOutputs; 2])| {
            total.merge(&part);
            scored[0].merge(float);
            scored[1].merge(own);
            Ok(())
        };
        let segments = [&Segment::whole(float), &Segment::whole(quantized)];
        let limits = [limit, limit.map(Limit::quantized)];
        // The data have the states of the float network, where there are such; the quantized one gets its own.
        let some = data.subset(places);
        let own = unrolled(quantized, &some, runtime)?;
        fold_pair_within(segments, limits, [&some, &own], runtime, || begun(outputs), compare, merge)?;
        runtime.end();
        *samples += places.len();
        Ok(())
    }

    /// What was found.
    pub(super) fn quality(self, metric: Option<&CustomMetric>, held_out: bool) -> Result<Quality, Error> {
        let quality = quality(&self.total, self.samples, held_out);
        Ok(match metric {
            Some(metric) => quality.scored(metric.score(&self.scored[1])?, metric.score(&self.scored[0])?),
            None => quality,
        })
    }
}

fn begun(outputs: &Outputs) -> (Comparison, [ScoredOutputs; 2]) {
    let names: Vec<String> = outputs.list.iter().map(|output| output.name.clone()).collect();
    (Comparison::new(outputs), [ScoredOutputs::new(names.clone()), ScoredOutputs::new(names)])
}

/// Runs the quantized model on the first samples and compares it with the float model's outputs. A large model that
/// cannot run within its limits is not compared.
fn with_outputs(
    model: &Model,
    outputs: &Outputs,
    float: &[Vec<Vec<f32>>],
    data: &Dataset,
    limit: Option<Limit>,
    runtime: &Runtime,
) -> Result<Option<Quality>, Error> {
    let whole = Segment::whole(model);
    let stages = match Stages::new(&whole, limit.map(Limit::quantized)) {
        Ok(stages) => stages,
        Err(error) => {
            tracing::warn!("the result was not compared: {error}");
            return Ok(None);
        }
    };
    runtime.begin("verify", float.len() as u64);
    // Sample by sample, independent of shards, so that the sums are those of one thread.
    let mut total = Comparison::new(&outputs.on(float.len()));
    let keep = |kept: &mut Vec<Sample>, _, ran: Ran| -> Result<(), Error> {
        kept.push(ran.sample(ran.len())?);
        Ok(())
    };
    let mut samples = 0;
    let compare = |kept: Vec<Sample>| {
        for sample in kept {
            let values: Vec<Vec<f32>> = sample.arrays.iter().map(Array::to_f32).collect();
            let found: Vec<OutputArray> = values
                .iter()
                .zip(&sample.arrays)
                .map(|(values, array)| OutputArray { values, shape: array.shape() })
                .collect();
            total.check_labels(samples, data.labels(samples), &found).map_err(ExecuteError::from)?;
            let kept = outputs.kept(data, samples).map_err(ExecuteError::from)?;
            total.observe(samples, &float[samples], &found, data.labels(samples), kept.as_ref());
            samples += 1;
        }
        Ok(())
    };
    let first = data.range(0, float.len());
    stages.fold(&*unrolled(model, &first, runtime)?, runtime, Vec::new, keep, compare)?;
    runtime.end();
    Ok(Some(quality(&total, samples, false)))
}

fn quality(total: &Comparison, samples: usize, held_out: bool) -> Quality {
    Quality::of((total.metrics(), total.loss()), total.figures(), total.float_accuracy(), samples, held_out)
}
