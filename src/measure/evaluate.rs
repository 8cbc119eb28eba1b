//! How good a model is: accuracy with labels, agreement with a reference, error of each value.

use super::MeasureError;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::coverage::refused_empty;
use crate::execute::masks::Masks;
use crate::execute::segment::{Ran, Segment, inputs, outputs, text_outputs};
use crate::execute::stages::{Limit, Stages, fold_pair_within, fold_within};
use crate::execute::unroll::unrolled;
use crate::execute::walk::{Stop, Walk};
use crate::measure::agreement::AgreementFigures;
use crate::measure::comparison::Comparison;
use crate::measure::custom_metric::{CustomMetric, ScoredOutputs};
use crate::measure::metrics::OutputMetrics;
use crate::measure::outputs::Outputs;
use crate::measure::pairs::by_layers;
use crate::prepare::{FixedInput, annotate};
use crate::quant::Sqnr;
use crate::runtime::Runtime;
use crate::scheme::metadata::is_stripped;
use crate::scheme::options::MeasureOptions;
use msq_passes::ir::{DataType, Model, NodeId, ValueId};
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// The result.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Evaluation {
    /// Number of samples that were run.
    pub samples: usize,
    /// Share of rows whose largest entry is the label; null without labels.
    pub accuracy: Option<f64>,
    /// The same share for the reference.
    pub reference_accuracy: Option<f64>,
    /// Figures over all outputs together, against the reference.
    pub agreement: Option<AgreementFigures>,
    /// Value of the caller's own metric, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Value of the caller's own metric for the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_metric: Option<f64>,
    /// The loss against the reference, as option `max-drop` counts it: in the caller's own metric, else in accuracy if
    /// the data have labels, else of the worst output; null without a reference.
    pub lost: Option<f64>,
    /// Every output: what it holds, and how far it is from the reference's.
    pub outputs: Vec<OutputMetrics>,
    /// Signal-to-noise ratios of inner values, in graph order: of values with the same name in both models or, if names
    /// were shortened, of the outputs of layers, matched by the names in the metadata or by order.
    pub values: Vec<ValueError>,
    /// Inputs that are fixed in both models: because the caller wants it, or because one was quantized so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_inputs: Vec<FixedInput>,
    /// Outputs that are text, which is neither computed nor compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text_outputs: Vec<String>,
}

/// Error of one value against the reference.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ValueError {
    /// Name of the value.
    pub name: String,
    /// Signal-to-quantization-noise ratio in decibels; absent if the two are equal.
    pub sqnr: Option<f64>,
}

/// Runs the model, and the reference beside it, on every sample. Without a metric of the caller's own, the command of
/// the options is it, if there is one.
pub fn evaluate(
    model: &Model,
    reference: Option<&Model>,
    data: &Dataset,
    options: &MeasureOptions,
    save_outputs: Option<&Path>,
    runtime: &Runtime,
) -> Result<Evaluation, MeasureError> {
    let request = Request { options, shared: &[], masks: true, labels: true, save_outputs };
    let Some(reference) = reference else {
        return compare(model, None, data, request, runtime);
    };
    same_interface(model, reference)?;
    if !is_stripped(model) && !is_stripped(reference) {
        let shared = shared_values(model, reference);
        return compare(model, Some(reference), data, Request { shared: &shared, ..request }, runtime);
    }
    // Short names say nothing: what paired layers compute is compared instead, where both models run as a whole.
    let staged = [model, reference].into_iter().any(|m| Limit::of_all_weights(m, runtime.memory).is_some());
    let pairs = if staged { None } else { by_layers(reference, model, runtime).ok() };
    let Some(([first, second], names)) = pairs else {
        return compare(model, Some(reference), data, request, runtime);
    };
    let shared: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
    let mut found = compare(&second, Some(&first), data, Request { shared: &shared, ..request }, runtime)?;
    for (value, (_, own)) in found.values.iter_mut().zip(names) {
        value.name = own;
    }
    Ok(found)
}

/// What is measured, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) options: &'a MeasureOptions,
    /// Inner values that both models have, whose errors are measured.
    pub(crate) shared: &'a [String],
    /// Whether positions that masks leave out count nowhere.
    pub(crate) masks: bool,
    /// Whether labels have to be classes of the model.
    pub(crate) labels: bool,
    /// The file that the model's outputs are written to.
    pub(crate) save_outputs: Option<&'a Path>,
}

/// Runs the model, and the reference beside it, on every sample.
pub(crate) fn compare(
    model: &Model,
    reference: Option<&Model>,
    data: &Dataset,
    request: Request,
    runtime: &Runtime,
) -> Result<Evaluation, MeasureError> {
    let Request { options, shared, masks, labels, save_outputs } = request;
    if data.is_empty() {
        return Err(MeasureError::NoSamples);
    }
    // Shapes say where the channels of outputs are, and what masks reach.
    let known = reference.map(|reference| annotated(reference, runtime));
    let known = known.as_ref().unwrap_or(model);
    let outputs = Outputs::of(known, &options.output_kinds, Masks::chosen(known, masks), data.len())?;
    let metric = options.metric_command.as_ref().map(CustomMetric::command);
    let outputs = outputs.fed_back(data.links()).scored(metric.is_some() || !labels);
    let mut total = Tally::new(&outputs, shared.len());
    let names = [Some(model), reference].map(|model| model.map(self::outputs).unwrap_or_default());
    total.saved = names.map(ScoredOutputs::new);
    let merge = |mut part: Tally| {
        let [own, other] = std::mem::take(&mut part.saved);
        total.saved[0].merge(own);
        total.saved[1].merge(other);
        total.merge(&part);
        Ok(())
    };
    let staged =
        [Some(model), reference].into_iter().flatten().any(|m| Limit::of_all_weights(m, runtime.memory).is_some());
    let typed = |model| if staged { Cow::Owned(annotated(model, runtime)) } else { Cow::Borrowed(model) };
    let (model, reference) = (&*typed(model), reference.map(typed));
    let reference = reference.as_deref();
    let own = [reference.unwrap_or(model), model].map(|model| self::outputs(model).len());
    let judge = Judge { data, outputs: &outputs, own, save: save_outputs.is_some() || metric.is_some() };
    runtime.begin("evaluate", data.len() as u64);
    let ran = match reference {
        None => judge.alone(model, runtime, merge),
        Some(reference) => judge.beside([reference, model], shared, runtime, merge),
    };
    if let Err(error) = ran {
        return Err(match &error {
            MeasureError::Execute(ExecuteError::Engine(_)) => {
                refused_empty(model, data, runtime).map_or(error, Into::into)
            }
            _ => error,
        });
    }
    runtime.end();
    let scores = match (&metric, reference) {
        (None, _) => [None; 2],
        (Some(metric), None) => [Some(metric.score(&total.saved[0])?), None],
        (Some(metric), Some(_)) => [Some(metric.score(&total.saved[0])?), Some(metric.score(&total.saved[1])?)],
    };
    if let Some(path) = save_outputs {
        // A metric that fails leaves no file behind.
        total.saved[0].save(path)?;
    }
    let found = total.figures(data, shared, reference.is_some(), scores);
    Ok(Evaluation { text_outputs: text_outputs(model), ..found })
}

/// A model whose values state their types: stages are cut where values are floats, which files often leave open.
fn annotated(model: &Model, runtime: &Runtime) -> Model {
    let mut model = model.clone();
    annotate(&mut model, &*runtime.backend());
    model
}

/// Refuses models that cannot be fed alike or have not the same outputs.
pub(super) fn same_interface(model: &Model, reference: &Model) -> Result<(), MeasureError> {
    if model.graph.outputs().len() != reference.graph.outputs().len() {
        return Err(MeasureError::Incomparable { reason: "they have not the same number of outputs".to_owned() });
    }
    let [own, other] = [model, reference].map(inputs);
    let missing = |from: &[String], to: &[String]| from.iter().find(|name| !to.contains(name)).cloned();
    let reason = match (missing(&own, &other), missing(&other, &own)) {
        (None, None) if own == other => return Ok(()),
        (Some(name), None) | (None, Some(name)) => {
            format!("only one has the input `{name}`: option `fix-input={name}=VALUE` makes a constant of it")
        }
        _ => {
            let list = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            format!("the inputs of one are {}, of the other {}", list(&own), list(&other))
        }
    };
    Err(MeasureError::Incomparable { reason })
}

/// Names of float values computed in both models: in a quantized model those that come out of a quantizer, in any
/// other all.
fn shared_values(model: &Model, reference: &Model) -> Vec<String> {
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
    names
}

/// Sums over samples.
struct Tally {
    outputs: Comparison,
    values: Vec<Sqnr>,
    /// The outputs of the model and of the reference on every sample, if they are to be saved or scored.
    saved: [ScoredOutputs; 2],
}

impl Tally {
    fn new(outputs: &Outputs, taps: usize) -> Self {
        Self { outputs: Comparison::new(outputs), values: vec![Sqnr::default(); taps], saved: Default::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.outputs.merge(&other.outputs);
        self.values.iter_mut().zip(&other.values).for_each(|(a, b)| a.merge(b));
    }

    fn figures(
        &self,
        data: &Dataset,
        names: &[String],
        compared: bool,
        [metric, reference_metric]: [Option<f64>; 2],
    ) -> Evaluation {
        let value = |(name, sqnr): (&String, &Sqnr)| {
            let decibels = sqnr.decibels();
            ValueError { name: name.clone(), sqnr: decibels.is_finite().then_some(decibels) }
        };
        let metrics = self.outputs.metrics();
        let metrics = match metric.zip(reference_metric) {
            Some((own, reference)) => metrics.scored(own, reference),
            None => metrics,
        };
        Evaluation {
            samples: data.len(),
            accuracy: metrics.accuracy,
            reference_accuracy: self.outputs.float_accuracy().filter(|_| compared),
            agreement: compared.then(|| self.outputs.figures()),
            metric,
            reference_metric,
            lost: compared.then_some(metrics.lost),
            outputs: if compared { metrics.outputs } else { Vec::new() },
            values: names.iter().zip(&self.values).map(value).collect(),
            fixed_inputs: Vec::new(),
            text_outputs: Vec::new(),
        }
    }
}

/// What is looked at when models run.
#[derive(Clone, Copy)]
struct Judge<'a> {
    data: &'a Dataset,
    outputs: &'a Outputs,
    /// The number of outputs of the reference and of the model.
    own: [usize; 2],
    /// Whether outputs are kept to be saved.
    save: bool,
}

impl Judge<'_> {
    fn alone(
        self,
        model: &Model,
        runtime: &Runtime,
        merge: impl FnMut(Tally) -> Result<(), MeasureError> + Send,
    ) -> Result<(), MeasureError> {
        let limit = Limit::of_all_weights(model, runtime.memory);
        let visit = |tally: &mut Tally, index: usize, ran: Ran| self.outputs(tally, index, None, ran);
        let data = unrolled(model, self.data, runtime)?;
        fold_within(&Segment::whole(model), limit, &data, runtime, || Tally::new(self.outputs, 0), visit, merge)
    }

    /// Both models side by side; where one is too large, from stage to stage of it.
    fn beside(
        self,
        models: [&Model; 2],
        shared: &[String],
        runtime: &Runtime,
        mut merge: impl FnMut(Tally) -> Result<(), MeasureError> + Send,
    ) -> Result<(), MeasureError> {
        let own = models.map(|model| Limit::of_all_weights(model, runtime.memory));
        // Where one is too large, the other has about as many weights; scales and zero points come on top.
        let limits = [own[0].or(own[1]), own[1].or(own[0]).map(Limit::quantized)];
        let tally = || Tally::new(self.outputs, shared.len());
        let all: Vec<usize> = (0..shared.len()).collect();
        let Some(large) = (0..2).find(|&side| limits[side].is_some()) else {
            let segments = [Segment::tapped(models[0], shared)?, Segment::tapped(models[1], shared)?];
            let visit = |tally: &mut Tally, index: usize, [reference, ran]: [Ran; 2]| {
                self.outputs(tally, index, Some(reference), ran)?;
                self.taps(tally, (index, &all), shared, [reference.skip(self.own[0]), ran.skip(self.own[1])])
            };
            let [first, second] = &segments;
            // Each in its own states, where there are such.
            let data = [unrolled(models[0], self.data, runtime)?, unrolled(models[1], self.data, runtime)?];
            let data = [&*data[0], &*data[1]];
            return fold_pair_within([first, second], limits, data, runtime, tally, visit, merge);
        };
        let data = unrolled(models[0], self.data, runtime)?;
        let mut walk = Walk::new(models, &data, runtime).within(limits);
        let groups = stops(models[large], limits[large], shared)?;
        for (at, taps) in groups.iter().enumerate() {
            let later: Vec<String> = groups[at + 1..].iter().flatten().map(|&tap| shared[tap].clone()).collect();
            let wanted: Vec<String> = taps.iter().map(|&tap| shared[tap].clone()).collect();
            let stops = models.map(|model| {
                let kept = [&later[..], &outputs(model)].concat();
                Stop { wanted: wanted.clone(), done: wanted.clone(), waiting: producers(model, &kept), kept }
            });
            let visit = |tally: &mut Tally, index: usize, ran: [Ran; 2]| self.taps(tally, (index, taps), shared, ran);
            walk.step(models, &stops, tally, visit, &mut merge)?;
        }
        let stops = models.map(|model| Stop { wanted: outputs(model), ..Stop::default() });
        let visit = |tally: &mut Tally, index: usize, [reference, ran]: [Ran; 2]| {
            self.outputs(tally, index, Some(reference), ran)?;
            Ok(runtime.step(1)?)
        };
        walk.step(models, &stops, tally, visit, merge)
    }

    /// Adds the outputs, which are the first values of what ran.
    fn outputs(self, tally: &mut Tally, index: usize, reference: Option<Ran>, ran: Ran) -> Result<(), MeasureError> {
        let count = self.own[0].min(self.own[1]);
        match reference {
            Some(reference) => {
                check_alike(count, [reference, ran])?;
                tally.outputs.observe_run(index, &reference.first(count)?, ran.take(count), self.data)?;
            }
            // Alone it is compared with itself, for the labels.
            None if self.data.has_labels() => {
                tally.outputs.observe_run(index, &ran.first(count)?, ran.take(count), self.data)?;
            }
            None => {}
        }
        if self.save {
            tally.saved[0].observe(index, ran.take(self.own[1]), self.data)?;
            if let Some(reference) = reference {
                tally.saved[1].observe(index, reference.take(self.own[0]), self.data)?;
            }
        }
        Ok(())
    }

    /// Adds inner values, given by their numbers.
    fn taps(
        self,
        tally: &mut Tally,
        (sample, taps): (usize, &[usize]),
        names: &[String],
        ran: [Ran; 2],
    ) -> Result<(), MeasureError> {
        let kept = self.outputs.kept(self.data, sample)?;
        for (at, &tap) in taps.iter().enumerate() {
            let [wanted, values] = alike(at, ran)?;
            match kept.as_ref().and_then(|kept| kept.of(&names[tap], ran[0].shape(at))) {
                Some(positions) => {
                    tally.values[tap].observe(&positions.retain(&wanted), &positions.retain(&values));
                }
                None => tally.values[tap].observe(&wanted, &values),
            }
        }
        Ok(())
    }
}

/// Refuses outputs that cannot be those of two forms of one model: only the number of rows may differ, as that of boxes.
fn check_alike(count: usize, [reference, ran]: [Ran; 2]) -> Result<(), MeasureError> {
    let differs = |at: &usize| {
        let shapes = [reference.shape(*at), ran.shape(*at)];
        let elements = shapes.map(|shape| shape.iter().product::<usize>());
        elements[0] != elements[1] && (shapes[0].len() != shapes[1].len() || shapes[0].last() != shapes[1].last())
    };
    (0..count)
        .find(differs)
        .map_or(Ok(()), |at| Err(MeasureError::Incomparable { reason: format!("output {at} has other shapes") }))
}

/// A value of both models, which has as many elements in both, but for channels that were added in the file.
fn alike(at: usize, [reference, ran]: [Ran<'_>; 2]) -> Result<[Cow<'_, [f32]>; 2], MeasureError> {
    let [wanted, values] = [reference.values(at)?, ran.values(at)?];
    if wanted.len() == values.len() {
        return Ok([wanted, values]);
    }
    let narrow = first_channels(&values, reference.shape(at), ran.shape(at));
    let narrow =
        narrow.ok_or_else(|| MeasureError::Incomparable { reason: format!("output {at} has other shapes") })?;
    Ok([wanted, Cow::Owned(narrow)])
}

/// The elements of the first channels, where shapes differ in nothing but the number of channels, on axis 1.
fn first_channels(values: &[f32], narrow: &[usize], wide: &[usize]) -> Option<Vec<f32>> {
    let (&[samples, few, ref inner @ ..], &[others, many, ref positions @ ..]) = (narrow, wide) else { return None };
    if samples != others || inner != positions || few > many {
        return None;
    }
    let each = inner.iter().product::<usize>();
    let kept = values.chunks_exact((many * each).max(1)).flat_map(|sample| &sample[..few * each]);
    Some(kept.copied().collect())
}

/// The numbers of inner values in groups, one for each stage of a model that computes some.
fn stops(model: &Model, limit: Option<Limit>, taps: &[String]) -> Result<Vec<Vec<usize>>, MeasureError> {
    let whole = Segment::whole(model);
    let ends = Stages::new(&whole, limit).map_err(ExecuteError::from)?.ends();
    let position: HashMap<NodeId, usize> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
    let mut groups = vec![Vec::new(); ends.len() + 1];
    for (tap, name) in taps.iter().enumerate() {
        let producer = model.graph.find(name).and_then(|value| model.graph.value(value).producer());
        let at = producer.map_or(0, |(node, _)| position[&node]);
        groups[ends.iter().take_while(|&&end| at >= end).count()].push(tap);
    }
    groups.retain(|group| !group.is_empty());
    Ok(groups)
}

/// The nodes that compute some values.
fn producers(model: &Model, names: &[String]) -> Vec<NodeId> {
    let graph = &model.graph;
    let values = names.iter().filter_map(|name| graph.find(name));
    values.filter_map(|value| graph.value(value).producer()).map(|(node, _)| node).collect()
}
