//! How good a model is: accuracy with labels, agreement with a reference, error of each value.

use crate::Error;
use crate::data::{Array, Dataset, write_npz};
use crate::engine::Output;
use crate::execute::{Lane, Pool, Visitor};
use crate::measure::agreement::{Accuracy, Agreement, AgreementFigures};
use crate::quant::Sqnr;
use crate::runtime::Runtime;
use msq_passes::ir::{DataType, Model, ValueId};
use msq_passes::{InsertTaps, Manager};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::Path;

/// What was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Evaluation {
    /// Samples run.
    pub samples: usize,
    /// Share of rows whose largest entry is the label, with labels.
    pub accuracy: Option<f64>,
    /// The same for the reference.
    pub reference_accuracy: Option<f64>,
    /// How far the outputs agree with the reference's.
    pub agreement: Option<AgreementFigures>,
    /// Signal-to-noise ratio of inner values both models name alike, in graph order.
    pub values: Vec<ValueError>,
}

/// Error of one value against the reference.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ValueError {
    /// Its name.
    pub name: String,
    /// Signal-to-quantization-noise ratio in decibels; absent where the two are equal.
    pub sqnr: Option<f64>,
}

/// Runs the model, and the reference beside it, on every sample.
pub fn evaluate(
    model: &Model,
    reference: Option<&Model>,
    data: &Dataset,
    save_outputs: Option<&Path>,
    runtime: &Runtime,
) -> Result<Evaluation, Error> {
    let shared = reference.map(|r| shared_values(model, r)).transpose()?.unwrap_or_default();
    compare(model, reference, &shared, data, save_outputs, runtime)
}

/// The same, and the error of these inner values, which both models have.
pub(crate) fn compare(
    model: &Model,
    reference: Option<&Model>,
    shared: &[String],
    data: &Dataset,
    save_outputs: Option<&Path>,
    runtime: &Runtime,
) -> Result<Evaluation, Error> {
    if data.is_empty() {
        return Err(Error::NoSamples);
    }
    let tapped = tap(model, shared)?;
    let tapped_reference = reference.map(|r| tap(r, shared)).transpose()?;
    let pool = Pool::new(&tapped, runtime.threads);
    let reference_pool = tapped_reference.as_ref().map(|r| Pool::new(r, runtime.threads));
    let own = model.graph.outputs().len();
    let visitor = || Judge {
        reference: reference_pool.as_ref().map(Pool::lane),
        data,
        own,
        taps: shared.len(),
        save: save_outputs.is_some(),
    };
    let mut total = Tally::new(shared.len());
    let mut saved = Vec::new();
    runtime.begin("evaluate", data.len() as u64);
    pool.run(data, runtime, visitor, |mut part: Tally| {
        saved.append(&mut part.outputs);
        total.merge(&part);
    })?;
    runtime.end();
    if let Some(path) = save_outputs {
        save(model, path, &saved)?;
    }
    Ok(total.figures(data, shared, reference.is_some()))
}

/// Names of float values computed in both models: in a quantized model those that come out of a quantizer, in any
/// other all.
fn shared_values(model: &Model, reference: &Model) -> Result<Vec<String>, Error> {
    if model.graph.outputs().len() != reference.graph.outputs().len() {
        return Err(Error::Incomparable { reason: "they have not the same number of outputs".to_owned() });
    }
    let inputs = |m: &Model| m.graph.runtime_inputs().map(|v| m.graph.value(v).name().to_owned()).collect::<Vec<_>>();
    if inputs(model) != inputs(reference) {
        return Err(Error::Incomparable { reason: "their inputs have other names or another order".to_owned() });
    }
    let quantized = model.graph.nodes().any(|(_, n)| n.op() == "DequantizeLinear");
    let computed = |v: ValueId| reference.graph.value(v).producer().is_some() && !reference.graph.is_output(v);
    let mut names = Vec::new();
    for (_, node) in model.graph.nodes() {
        let from_quantizer =
            node.op() == "DequantizeLinear" && node.input(0).is_some_and(|v| model.graph.initializer(v).is_none());
        if quantized && !from_quantizer {
            continue;
        }
        for &value in node.outputs().iter().flatten() {
            let name = model.graph.value(value).name();
            let float = model.graph.value(value).element_type().is_none_or(|t| t == DataType::Float);
            if float && !model.graph.is_output(value) && reference.graph.find(name).is_some_and(computed) {
                names.push(name.to_owned());
            }
        }
    }
    Ok(names)
}

fn tap(model: &Model, names: &[String]) -> Result<Model, Error> {
    let mut tapped = model.clone();
    Manager::new().with(InsertTaps { values: names.to_vec() }).run(&mut tapped)?;
    Ok(tapped)
}

/// Sums over samples.
struct Tally {
    own: Accuracy,
    reference: Accuracy,
    agreement: Agreement,
    values: Vec<Sqnr>,
    /// Shape and elements of every output of every sample, if they are to be saved.
    outputs: Vec<Vec<(Vec<usize>, Vec<f32>)>>,
}

impl Tally {
    fn new(taps: usize) -> Self {
        Self {
            own: Accuracy::default(),
            reference: Accuracy::default(),
            agreement: Agreement::default(),
            values: vec![Sqnr::default(); taps],
            outputs: Vec::new(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.own.merge(other.own);
        self.reference.merge(other.reference);
        self.agreement.merge(&other.agreement);
        self.values.iter_mut().zip(&other.values).for_each(|(a, b)| a.merge(b));
    }

    fn figures(&self, data: &Dataset, names: &[String], compared: bool) -> Evaluation {
        let value = |(name, sqnr): (&String, &Sqnr)| {
            let decibels = sqnr.decibels();
            ValueError { name: name.clone(), sqnr: decibels.is_finite().then_some(decibels) }
        };
        Evaluation {
            samples: data.len(),
            accuracy: self.own.share(),
            reference_accuracy: self.reference.share().filter(|_| compared),
            agreement: compared.then(|| self.agreement.figures()),
            values: names.iter().zip(&self.values).map(value).collect(),
        }
    }
}

struct Judge<'a> {
    reference: Option<Lane<'a, 'a>>,
    data: &'a Dataset,
    own: usize,
    taps: usize,
    save: bool,
}

impl Visitor for Judge<'_> {
    type Shard = Tally;
    type Error = Error;

    fn begin(&mut self) -> Tally {
        Tally::new(self.taps)
    }

    fn visit(&mut self, tally: &mut Tally, index: usize, inputs: &[Array], outputs: &[Output]) -> Result<(), Error> {
        let reference = self.reference.as_mut().map(|lane| lane.run(inputs)).transpose()?;
        if let Some(labels) = self.data.labels(index) {
            tally.own.observe_rows(&outputs[0].to_f32()?, labels);
            if let Some(reference) = &reference {
                tally.reference.observe_rows(&reference[0].to_f32()?, labels);
            }
        }
        for (at, (output, wanted)) in outputs.iter().zip(reference.iter().flatten()).enumerate() {
            let (output_values, wanted) = (output.to_f32()?, wanted.to_f32()?);
            if output_values.len() != wanted.len() {
                return Err(Error::Incomparable { reason: format!("output {at} has other shapes") });
            }
            if at < self.own {
                tally.agreement.observe(&wanted, &output_values, output.shape().last().copied().unwrap_or(0));
            } else {
                tally.values[at - self.own].observe(&wanted, &output_values);
            }
        }
        if self.save {
            let own = outputs.iter().take(self.own);
            let saved: Result<_, Error> = own.map(|o| Ok((o.shape().to_vec(), o.to_f32()?))).collect();
            tally.outputs.push(saved?);
        }
        Ok(())
    }
}

/// Stacks the outputs of all samples along the first axis; samples must not differ in shape.
fn save(model: &Model, path: &Path, saved: &[Vec<(Vec<usize>, Vec<f32>)>]) -> Result<(), Error> {
    let mut arrays = Vec::new();
    for (at, value) in model.graph.outputs().enumerate() {
        let name = model.graph.value(value).name().to_owned();
        let mut shape = saved[0][at].0.clone();
        if saved.iter().any(|s| s[at].0 != shape) {
            return Err(Error::Incomparable {
                reason: format!("output `{name}` changes its shape and cannot be stacked"),
            });
        }
        let rows = shape.first().copied().unwrap_or(1) * saved.len();
        if shape.is_empty() {
            shape.push(rows);
        } else {
            shape[0] = rows;
        }
        arrays.push((name, shape, saved.iter().flat_map(|s| s[at].1.iter().copied()).collect()));
    }
    Ok(write_npz(path, &arrays)?)
}
