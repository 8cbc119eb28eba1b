//! `Acc_i` of a variant: how often the task predictor behind layer i is right ([`super::imprint`]).
//!
//! Templates are made on the calibration part and queried on the validation part. The class of a sample is its label, or
//! else the float network's answer; Conf is the float network's probability of that class, so that what is known of a
//! layer depends on nothing behind it: `Acc_i` is measured once for each way in which the values at tap i come about
//! ([`msq_passes::analysis::content_hashes`]), and lowering a layer measures only what lies behind it anew.
//!
//! **Taps** sit behind each layer and what is computed at once with it: batch-norm, activation, and with
//! [`TapPosition::Block`] the residual sum and the activation behind it, for the last of the layers that are summed.

use super::imprint::{Accuracy, Channels, Features, Normalization, Predictor, Pyramid, ScaleWeight, Templates};
use super::journal::Journal;
use super::variants::Variants;
use crate::data::Dataset;
use crate::execute::prefixes::{Prefixes, Spent};
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, fold_within};
use crate::measure::agreement::{argmax, probabilities};
use crate::runtime::Runtime;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use msq_passes::analysis::{Layer, Placement, content_hashes};
use msq_passes::ir::{Graph, Model, ValueId};
use msq_passes::ops::{Trait, facts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Where the predictor of a layer looks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum TapPosition {
    /// Behind the activation of each layer.
    Conv,
    /// Behind the residual sum where the layer ends a block.
    #[default]
    Block,
}

/// Choices of MSQ where the paper is silent or can be read in two ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Search"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Imprinting {
    /// The scales of the pyramid.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub pyramid: Pyramid,
    /// Whether MSQ brings features and templates to length 1, by their Euclidean norm.
    #[cfg_attr(feature = "cli", arg(id = "imprint_norm", long = "imprint-norm", value_name = "NORM", default_value_t))]
    #[serde(rename = "imprint-norm")]
    pub normalization: Normalization,
    /// How MSQ weighs the scales of its pyramid.
    #[cfg_attr(
        feature = "cli",
        arg(id = "imprint_weight", long = "imprint-weight", value_name = "BY", default_value_t)
    )]
    #[serde(rename = "imprint-weight")]
    pub weight: ScaleWeight,
    /// Where MSQ's predictors look.
    #[cfg_attr(feature = "cli", arg(long, value_name = "PLACE", default_value_t))]
    pub tap: TapPosition,
}

/// A layer's tap.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tap {
    value: String,
    channels: Channels,
}

/// Measures `Acc_i`.
#[derive(Debug)]
pub(crate) struct LayerAccuracy {
    imprinting: Imprinting,
    taps: Vec<Tap>,
    /// Calibration, then validation.
    prefixes: Prefixes,
    /// Class and confidence of each sample of each part.
    classes: [Vec<(usize, f64)>; 2],
    /// By how a tap's values come about.
    known: HashMap<u64, f64>,
}

const CALIBRATION: usize = 0;
const VALIDATION: usize = 1;

impl LayerAccuracy {
    /// Runs the float network, whose one output holds class scores `[N, C]`.
    pub(crate) fn new(
        model: &Model,
        placement: &Placement,
        layers: &[(Layer, String)],
        [calibration, validation]: [&Dataset; 2],
        imprinting: &Imprinting,
        budget: u64,
        runtime: &Runtime,
    ) -> Result<Self, SearchError> {
        let classes = [classes(model, calibration, runtime)?, classes(model, validation, runtime)?];
        let parts = vec![calibration.clone(), validation.clone()];
        Ok(Self {
            imprinting: imprinting.clone(),
            taps: taps(model, placement, layers, imprinting.tap),
            prefixes: Prefixes::new(model, layers, parts, budget, Limit::of(model, runtime.memory), runtime)?,
            classes,
            known: HashMap::new(),
        })
    }

    /// The number of classes in some data.
    pub(crate) fn count_classes(model: &Model, data: &Dataset, runtime: &Runtime) -> Result<usize, SearchError> {
        Ok(different(classes(model, data, runtime)?.iter()))
    }

    /// How much was run.
    pub(crate) fn spent(&self) -> Spent {
        self.prefixes.spent()
    }

    /// The number of classes seen.
    pub(crate) fn classes(&self) -> usize {
        different(self.classes.iter().flatten())
    }

    /// `Acc_1` to `Acc_N` of a plan. Later plans may start from its inner values.
    pub(crate) fn measure(
        &mut self,
        variants: &mut Variants,
        plan: &BitPlan,
        journal: &mut Journal,
    ) -> Result<Vec<f64>, SearchError> {
        let key = format!("layers {}", plan.to_json());
        if let Some(known) = journal.get(&key) {
            return Ok(known);
        }
        let variant = variants.build(plan)?;
        let hashes = content_hashes(&variant.graph);
        let hash = |tap: &Tap| variant.graph.find(&tap.value).and_then(|v| hashes.get(&v).copied()).unwrap_or_default();
        let of_taps: Vec<u64> = self.taps.iter().map(hash).collect();
        let mut wanted: Vec<usize> = Vec::new();
        for tap in 0..self.taps.len() {
            // Two layers may be summed into one value.
            let known = self.known.contains_key(&of_taps[tap]) || wanted.iter().any(|&w| of_taps[w] == of_taps[tap]);
            if !known {
                wanted.push(tap);
            }
        }
        if !wanted.is_empty() {
            let found = self.run(&variant, &wanted)?;
            self.known.extend(wanted.iter().map(|&tap| of_taps[tap]).zip(found));
        }
        let accuracies: Vec<f64> = of_taps.iter().map(|hash| self.known[hash]).collect();
        journal.put(&key, &accuracies)?;
        Ok(accuracies)
    }

    /// Accuracies at some taps.
    fn run(&mut self, variant: &Model, wanted: &[usize]) -> Result<Vec<f64>, SearchError> {
        let taps: Vec<Tap> = wanted.iter().map(|&tap| self.taps[tap].clone()).collect();
        let names: Vec<String> = taps.iter().map(|tap| tap.value.clone()).collect();
        let mut suffix = self.prefixes.suffix(variant, &names, true)?;
        let imprinting = &self.imprinting;
        let look = |part: usize| Looker { taps: &taps, pyramid: &imprinting.pyramid, classes: &self.classes[part] };
        let empty = || vec![Templates::new(imprinting.normalization); taps.len()];
        let mut templates = empty();
        let looker = look(CALIBRATION);
        let imprint = |shard: &mut Vec<Templates>, sample: usize, ran: Ran| -> Result<(), SearchError> {
            let (class, confidence) = looker.classes[sample];
            for (templates, features) in shard.iter_mut().zip(looker.features(ran)?) {
                templates.observe(class, confidence, &features)?;
            }
            Ok(())
        };
        let merge =
            |shard: Vec<Templates>| templates.iter_mut().zip(shard).try_for_each(|(sum, part)| Ok(sum.merge(part)?));
        self.prefixes.run(&mut suffix, CALIBRATION, empty, imprint, merge)?;
        let predictors: Vec<Predictor> = templates.into_iter().map(|t| t.finish(imprinting.weight)).collect();
        let empty = || vec![Accuracy::default(); taps.len()];
        let mut accuracies = empty();
        let looker = look(VALIDATION);
        let ask = |shard: &mut Vec<Accuracy>, sample: usize, ran: Ran| -> Result<(), SearchError> {
            let features = looker.features(ran)?;
            for ((accuracy, predictor), features) in shard.iter_mut().zip(&predictors).zip(&features) {
                accuracy.observe(predictor.predict(features)?, looker.classes[sample].0);
            }
            Ok(())
        };
        let merge = |shard: Vec<Accuracy>| {
            accuracies.iter_mut().zip(shard).for_each(|(sum, part)| sum.merge(part));
            Ok(())
        };
        self.prefixes.run(&mut suffix, VALIDATION, empty, ask, merge)?;
        self.prefixes.keep(suffix);
        Ok(accuracies.into_iter().map(|accuracy| accuracy.share().unwrap_or(0.0)).collect())
    }
}

fn different<'c>(classes: impl Iterator<Item = &'c (usize, f64)>) -> usize {
    let mut seen: Vec<usize> = classes.map(|(class, _)| *class).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

/// Class and confidence of every sample.
fn classes(model: &Model, data: &Dataset, runtime: &Runtime) -> Result<Vec<(usize, f64)>, SearchError> {
    let mut found = Vec::new();
    let classify = |shard: &mut Vec<(usize, f64)>, index: usize, ran: Ran| -> Result<(), SearchError> {
        let scores = if ran.len() > 0 { ran.values(0)? } else { Vec::new().into() };
        let probabilities = probabilities(&scores);
        let label = data.label(index).and_then(|label| usize::try_from(label).ok());
        let class = label.filter(|&class| class < scores.len()).unwrap_or_else(|| argmax(&scores));
        shard.push((class, probabilities.get(class).copied().unwrap_or(0.0)));
        Ok(())
    };
    let merge = |shard: Vec<(usize, f64)>| {
        found.extend(shard);
        Ok(())
    };
    let limit = Limit::of(model, runtime.memory);
    fold_within(&Segment::whole(model), limit, data, &runtime.silent(), Vec::new, classify, merge)?;
    Ok(found)
}

fn taps(model: &Model, placement: &Placement, layers: &[(Layer, String)], position: TapPosition) -> Vec<Tap> {
    let graph = &model.graph;
    let mut taken: Vec<ValueId> = Vec::new();
    let mut taps: Vec<Tap> = Vec::new();
    // From the end, so that of layers that are summed the last has the sum.
    for (layer, _) in layers.iter().rev() {
        let own = behind_activation(graph, placement.written_by(graph, layer));
        let sum = Some(own).filter(|_| position == TapPosition::Block).and_then(|value| behind_sum(graph, value));
        let value = sum.filter(|value| !taken.contains(value)).unwrap_or(own);
        taken.push(value);
        let channels = if layer.op.is_convolution() { Channels::First } else { Channels::Last };
        taps.push(Tap { value: graph.value(value).name().to_owned(), channels });
    }
    taps.reverse();
    taps
}

fn next_output(graph: &Graph, value: ValueId, wanted: impl Fn(&str) -> bool) -> Option<ValueId> {
    let reader = graph.only_use(value).map(|reader| graph.node(reader.node))?;
    wanted(reader.op()).then(|| reader.output(0)).flatten()
}

fn behind_activation(graph: &Graph, value: ValueId) -> ValueId {
    next_output(graph, value, |op| facts(op).has(Trait::Rectifier)).unwrap_or(value)
}

fn behind_sum(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let sum = next_output(graph, value, |op| ["Add", "Sum"].contains(&op))?;
    Some(behind_activation(graph, sum))
}

/// Features of all taps of a sample.
#[derive(Clone, Copy)]
struct Looker<'a> {
    taps: &'a [Tap],
    pyramid: &'a Pyramid,
    classes: &'a [(usize, f64)],
}

impl Looker<'_> {
    fn features(&self, ran: Ran) -> Result<Vec<Features>, SearchError> {
        let one = |(at, tap): (usize, &Tap)| {
            let channels = if ran.shape(at).len() > 2 { tap.channels } else { Channels::First };
            Ok(self.pyramid.features(&ran.values(at)?, ran.shape(at), channels)?)
        };
        self.taps.iter().enumerate().map(one).collect()
    }
}
