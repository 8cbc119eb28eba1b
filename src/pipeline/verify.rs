//! How far the quantized graph's outputs are from the float model's.

use crate::data::{Array, Dataset};
use crate::engine::Output;
use crate::error::Error;
use crate::execute::stages::{Limit, Stages};
use crate::execute::{Lane, Pool, Visitor};
use crate::measure::comparison::{Comparison, Found};
use crate::report::Quality;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use msq_passes::ir::Model;

/// Compares a quantized graph with the float model: on the samples of `validation`, or else on the samples calibrated on
/// whose float outputs are known. What the engine does not run whole is not compared.
pub(super) fn verify(
    model: &Model,
    float: &Model,
    scheme: &Scheme,
    validation: Option<&Dataset>,
    (data, outputs): (&Dataset, &[Vec<Vec<f32>>]),
    runtime: &Runtime,
) -> Result<Option<Quality>, Error> {
    match validation {
        _ if !scheme.coverage.is_whole() => Ok(None),
        Some(data) => Ok(Some(beside(model, float, data, runtime)?)),
        None if outputs.is_empty() => Ok(None),
        None => with_outputs(model, outputs, data, Limit::of(float, runtime.memory), runtime),
    }
}

/// Runs the quantized model beside the float model and compares it.
fn beside(model: &Model, float: &Model, data: &Dataset, runtime: &Runtime) -> Result<Quality, Error> {
    runtime.begin("verify", data.len() as u64);
    let mut total = Comparison::default();
    let float = Pool::new(float, runtime.threads);
    let comparer = || Comparer { data, float: float.lane() };
    let pool = Pool::new(model, runtime.threads);
    pool.run(data, runtime, comparer, |part: Comparison| total.merge(&part))?;
    runtime.end();
    Ok(quality(&total, data.len(), true))
}

/// Runs the quantized model on the first samples and compares it with the float model's outputs. What of a large model
/// cannot be run is not compared.
fn with_outputs(
    model: &Model,
    float: &[Vec<Vec<f32>>],
    data: &Dataset,
    limit: Option<Limit>,
    runtime: &Runtime,
) -> Result<Option<Quality>, Error> {
    let stages = match Stages::new(model, limit.map(Limit::quantized)) {
        Ok(stages) => stages,
        Err(error) => {
            tracing::warn!("the result was not compared: {error}");
            return Ok(None);
        }
    };
    runtime.begin("verify", (stages.len() * float.len()) as u64);
    let mut total = Comparison::default();
    let found = stages.run(&data.range(0, float.len()), runtime)?;
    for (index, (float, sample)) in float.iter().zip(&found).enumerate() {
        let values: Vec<Vec<f32>> = sample.arrays.iter().map(Array::to_f32).collect();
        let found: Vec<Found> = values.iter().zip(&sample.arrays).map(|(v, a)| Found::of(v, a.shape())).collect();
        total.observe(float, &found, data.labels(index));
    }
    runtime.end();
    Ok(Some(quality(&total, found.len(), false)))
}

fn quality(total: &Comparison, samples: usize, held_out: bool) -> Quality {
    let (verdict, float_accuracy) = (total.verdict(), total.float_accuracy());
    Quality {
        samples,
        held_out,
        agreement: total.figures(),
        accuracy: verdict.accuracy,
        float_accuracy,
        lost: verdict.lost(float_accuracy),
    }
}

struct Comparer<'a, 'p> {
    data: &'a Dataset,
    float: Lane<'p, 'a>,
}

impl Visitor for Comparer<'_, '_> {
    type Shard = Comparison;
    type Error = Error;

    fn begin(&mut self) -> Comparison {
        Comparison::default()
    }

    fn visit(
        &mut self,
        shard: &mut Comparison,
        index: usize,
        inputs: &[Array],
        outputs: &[Output],
    ) -> Result<(), Error> {
        let values = |outputs: &[Output]| outputs.iter().map(Output::to_f32).collect::<Result<Vec<_>, _>>();
        let (float, values) = (values(&self.float.run(inputs)?)?, values(outputs)?);
        let found = values.iter().zip(outputs).map(|(values, output)| Found::of(values, output.shape()));
        shard.observe(&float, &found.collect::<Vec<_>>(), self.data.labels(index));
        Ok(())
    }
}
