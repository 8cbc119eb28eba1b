//! Evaluates plans: how far the outputs of a variant are from those of the float network, on data that it was not
//! calibrated on.

use super::journal::Journal;
use super::variants::Variants;
use crate::data::{Dataset, Groups};
use crate::execute::prefixes::{Prefixes, Spent};
use crate::execute::segment::{Ran, Segment, outputs};
use crate::execute::stages::{Limit, Stages};
use crate::measure::comparison::Comparison;
use crate::measure::metrics::Metrics;
use crate::measure::outputs::Outputs;
use crate::measure::{CustomMetric, ScoredOutputs};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;
use std::ops::Range;

/// Bytes that the float network's outputs may take.
const REFERENCES: usize = 256 << 20;

/// Bytes of inner values that runs start from, for each of those who store some, unless a limit on memory says otherwise.
const STORED: u64 = 320 << 20;

/// Bytes of inner values that may be stored: a sixth of the limit on memory, if there is one.
pub(crate) fn budget(runtime: &Runtime) -> u64 {
    runtime.memory.map_or(STORED, |memory| memory / 6)
}

/// The layers of a scheme, each with the name of what its kernel writes.
pub(crate) fn with_outputs(model: &Model, scheme: &Scheme) -> Vec<(Layer, String)> {
    let written = |layer: &Layer| model.graph.value(scheme.placement.written_by(&model.graph, layer)).name().to_owned();
    scheme.layers().map(|layer| (layer.clone(), written(layer))).collect()
}

/// The shape of an output.
type Form = Vec<usize>;

/// What is summed up while the float network runs: copies of its outputs, itself beside itself, its outputs for the metric.
type Part = (Vec<Vec<Vec<f32>>>, Comparison, ScoredOutputs);

/// Runs variants on samples whose float outputs are known.
#[derive(Debug)]
pub(crate) struct Evaluator {
    samples: Groups,
    /// One for each group of samples.
    prefixes: Vec<Prefixes>,
    /// Of each sample, of each output.
    reference: Vec<Vec<Vec<f32>>>,
    outputs: Vec<String>,
    compared: Outputs,
    /// What the float network gets.
    float: Metrics,
    has_classes: bool,
    is_classifier: bool,
    metric: Option<CustomMetric>,
    /// Tells the metrics of this evaluator from those of others in a journal.
    name: String,
}

impl Evaluator {
    /// Runs the float network.
    pub(crate) fn new(
        name: &str,
        model: &Model,
        layers: &[(Layer, String)],
        samples: &Groups,
        (compared, metric): (&Outputs, Option<&CustomMetric>),
        runtime: &Runtime,
    ) -> Result<Self, SearchError> {
        let (whole, limit) = (Segment::whole(model), Limit::of(model, runtime.memory));
        let stages = Stages::new(&whole, limit)?;
        let forms: Vec<Form> =
            stages.once(samples.data(), runtime, |ran| (0..ran.len()).map(|at| ran.shape(at).to_vec()).collect())?;
        let samples = affordable(samples, &forms);
        let data = samples.data();
        let compared = compared.on(data.len());
        let mut reference = Vec::new();
        // The float network beside itself: what its outputs hold, and its accuracy.
        let outputs = outputs(model);
        let mut itself = Comparison::new(&compared);
        let mut scored = ScoredOutputs::new(outputs.clone());
        let begin = || (Vec::new(), Comparison::new(&compared), ScoredOutputs::default());
        let copy = |(copies, part, scored): &mut Part, at, ran: Ran| -> Result<(), SearchError> {
            if metric.is_some() {
                scored.observe(at, ran, data)?;
            }
            let outputs = ran.first(ran.len())?;
            part.observe_run(at, &outputs, ran, data)?;
            copies.push(outputs);
            Ok(())
        };
        let keep = |(copies, part, own): Part| {
            reference.extend(copies);
            itself.merge(&part);
            scored.merge(own);
            Ok(())
        };
        stages.fold(data, &runtime.silent(), begin, copy, keep)?;
        let stored = budget(runtime) / samples.count().max(1) as u64;
        let of_group = |group: Range<usize>| {
            let part = data.range(group.start, group.end);
            Prefixes::new(model, layers, vec![part], stored, limit, runtime)
        };
        let prefixes = samples.ranges().map(of_group).collect::<Result<_, _>>()?;
        Ok(Self {
            compared: compared.decided(itself.readings()),
            float: scored_by(metric, itself.metrics(), &scored, None)?,
            metric: metric.cloned(),
            has_classes: itself.has_classes(),
            is_classifier: itself.is_of_classifier(),
            prefixes,
            reference,
            samples,
            outputs,
            name: name.to_owned(),
        })
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(crate) fn is_classifier(&self) -> bool {
        self.is_classifier
    }

    /// Whether the network has one output `[N, C]`, which may be taken for class scores where that is asked for.
    pub(crate) fn has_classes(&self) -> bool {
        self.has_classes
    }

    /// The samples on which plans are compared.
    pub(crate) fn data(&self) -> &Dataset {
        self.samples.data()
    }

    /// The outputs, with what each holds.
    pub(crate) fn outputs(&self) -> &Outputs {
        &self.compared
    }

    /// How much was run.
    pub(crate) fn spent(&self) -> Spent {
        self.prefixes.iter().map(Prefixes::spent).sum()
    }

    /// What the float network itself gets.
    pub(crate) fn float(&self) -> &Metrics {
        &self.float
    }

    /// Measures a plan; with `keep`, later plans may start from its inner values.
    pub(crate) fn evaluate(
        &mut self,
        variants: &mut Variants,
        plan: &BitPlan,
        keep: bool,
        journal: &mut Journal,
    ) -> Result<Metrics, SearchError> {
        self.evaluate_groups(std::slice::from_mut(variants), plan, keep, journal)
    }

    /// The same where each group of samples is run by a variant of its own: one comparison over all of them.
    pub(crate) fn evaluate_groups(
        &mut self,
        variants: &mut [Variants],
        plan: &BitPlan,
        keep: bool,
        journal: &mut Journal,
    ) -> Result<Metrics, SearchError> {
        let key = format!("{} {}", self.name, plan.to_json());
        if let Some(known) = journal.get(&key) {
            return Ok(known);
        }
        let data = self.samples.data();
        let mut total = Comparison::new(&self.compared);
        let mut scored = ScoredOutputs::new(self.outputs.clone());
        let begin = || (Comparison::new(&self.compared), ScoredOutputs::default());
        for ((group, prefixes), variants) in self.samples.ranges().zip(&mut self.prefixes).zip(variants) {
            if group.is_empty() {
                continue;
            }
            let mut suffix = prefixes.suffix(&variants.build(plan)?, &self.outputs, keep)?;
            let compare = |(part, scored): &mut (Comparison, ScoredOutputs), at: usize, ran: Ran| {
                let sample = group.start + at;
                if self.metric.is_some() {
                    scored.observe(sample, ran, data)?;
                }
                Ok::<(), SearchError>(part.observe_run(sample, &self.reference[sample], ran, data)?)
            };
            let merge = |(part, own): (Comparison, ScoredOutputs)| {
                total.merge(&part);
                scored.merge(own);
                Ok(())
            };
            prefixes.run(&mut suffix, 0, begin, compare, merge)?;
            prefixes.keep(suffix);
        }
        let metrics = scored_by(self.metric.as_ref(), total.metrics(), &scored, self.float.metric)?;
        journal.put(&key, &metrics)?;
        Ok(metrics)
    }
}

/// Metrics with the caller's own metric, if there is one; `float` is the float network's score, whose own is its own.
fn scored_by(
    metric: Option<&CustomMetric>,
    metrics: Metrics,
    outputs: &ScoredOutputs,
    float: Option<f64>,
) -> Result<Metrics, SearchError> {
    let Some(metric) = metric else { return Ok(metrics) };
    let score = metric.score(outputs)?;
    Ok(metrics.scored(score, float.unwrap_or(score)))
}

/// As many samples as have outputs that take no more than [`REFERENCES`], evenly spread.
fn affordable(samples: &Groups, forms: &[Form]) -> Groups {
    let bytes: usize = forms.iter().map(|shape| 4 * shape.iter().product::<usize>()).sum();
    let most = (REFERENCES / bytes.max(1)).max(1);
    if samples.data().len() <= most {
        return samples.clone();
    }
    tracing::info!(
        samples = samples.data().len(),
        taken = most,
        "outputs are large: plans are measured on fewer samples"
    );
    samples.spread(most).0
}
