//! Two models side by side: sizes, bits, outputs, and at which layer they part.
//!
//! Layers of the two are paired by name or, where one model has other names, by order. For each pair the noise of what
//! the layer reads and of what it computes is measured against the reference, as a share of the signal. What a layer
//! adds is the difference: of what it computes against what it reads, for its weights; of what it reads against what the
//! layers before compute, for the quantizer of its activation and whatever stands in between.

use super::MeasureError;
use crate::data::Dataset;
use crate::measure::agreement::AgreementFigures;
use crate::measure::evaluate;
use crate::measure::inspect::Located;
use crate::measure::metrics::OutputMetrics;
use crate::measure::pairs::{both_canonical, name_value, paired};
use crate::prepare::FixedInput;
use crate::runtime::Runtime;
use crate::scheme::options::MeasureOptions;
use msq_passes::analysis::LayerOp;
use msq_passes::ir::{Graph, Model, ValueId};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Two models side by side.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SideBySide {
    /// Number of samples compared.
    pub samples: usize,
    /// The reference model.
    pub reference: Side,
    /// The other model.
    pub model: Side,
    /// How far the outputs agree.
    pub agreement: AgreementFigures,
    /// The loss, as option `max-drop` counts it: the drop in accuracy if the data have labels, else the loss of the worst output.
    pub lost: f64,
    /// Every output: what it holds, and how far it is from the reference's.
    pub outputs: Vec<OutputMetrics>,
    /// The layers that both models have, in graph order.
    pub layers: Vec<LayerPair>,
    /// The layer that adds most of the error; null if there is no error.
    pub starts: Option<Start>,
    /// Inputs that are fixed in both models: because the caller wants it, or because one was quantized so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_inputs: Vec<FixedInput>,
    /// Outputs that are text, which is neither computed nor compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub text_outputs: Vec<String>,
}

/// One of the two models.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Side {
    /// Size of the model in bytes, with external data.
    pub bytes: u64,
    /// Number of layers.
    pub layers: usize,
    /// Share of labels that it predicts correctly; only if the data have labels.
    pub accuracy: Option<f64>,
    /// Value of the caller's own metric, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

/// A layer that both models have.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayerPair {
    /// Its name in the reference.
    pub name: String,
    /// Operator.
    pub op: LayerOp,
    /// Number of weights.
    pub weights: usize,
    /// Type or bits of its weights in the reference, and in the other model.
    pub bits: [String; 2],
    /// Signal-to-noise ratio in decibels of its input; null if the inputs are equal.
    pub input_sqnr: Option<f64>,
    /// Signal-to-noise ratio in decibels of its output, before its activation function; null if the outputs are equal.
    pub output_sqnr: Option<f64>,
}

/// The layer that adds most of the error.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Start {
    /// Name of the layer.
    pub layer: String,
    /// Whether the error is in the layer's weights (true) or in its input (false).
    pub in_weights: bool,
    /// Signal-to-noise ratio in decibels before the error is added; null if there is no noise there.
    pub before: Option<f64>,
    /// Signal-to-noise ratio in decibels after it is added.
    pub after: f64,
}

/// Compares a model with a reference, layer by layer, on every sample.
pub fn compare(
    reference: &Model,
    model: &Model,
    data: &Dataset,
    options: &MeasureOptions,
    runtime: &Runtime,
) -> Result<SideBySide, MeasureError> {
    evaluate::same_interface(model, reference)?;
    let bytes = [reference, model].map(Model::stored_bytes);
    let (mut first, mut second) = (reference.clone(), model.clone());
    let layers = both_canonical([&mut first, &mut second], runtime)?;
    let pairs = paired(&layers[0], &layers[1]);
    let mut names = Vec::new();
    for (at, &(a, b)) in pairs.iter().enumerate() {
        for (kind, values) in [("reads", [a.input, b.input]), ("computes", [a.output, b.output])] {
            let name = format!("{kind} {at}");
            if name_value(&mut first, values[0], &name) && name_value(&mut second, values[1], &name) {
                names.push(name);
            }
        }
    }
    let request = evaluate::Request { options, shared: &names, masks: true, labels: true, save_outputs: None };
    let found = evaluate::compare(&second, Some(&first), data, request, runtime)?;
    let noise: HashMap<String, f64> = found.values.iter().filter_map(|v| Some((v.name.clone(), v.sqnr?))).collect();
    let measured: Vec<[Option<f64>; 2]> = (0..pairs.len())
        .map(|at| ["reads", "computes"].map(|kind| noise.get(&format!("{kind} {at}")).copied()))
        .collect();
    let side =
        |bytes: u64, layers: &[Located], accuracy, metric| Side { bytes, layers: layers.len(), accuracy, metric };
    Ok(SideBySide {
        samples: found.samples,
        reference: side(bytes[0], &layers[0], found.reference_accuracy, found.reference_metric),
        model: side(bytes[1], &layers[1], found.accuracy, found.metric),
        agreement: found.agreement.unwrap_or_default(),
        lost: found.lost.unwrap_or_default(),
        outputs: found.outputs,
        starts: start(&reference_order(&first.graph, &pairs), &pairs, &measured),
        layers: pairs.iter().zip(&measured).map(|(&pair, sqnr)| row(pair, *sqnr)).collect(),
        fixed_inputs: Vec::new(),
        text_outputs: found.text_outputs,
    })
}

fn row((a, b): (&Located, &Located), [input_sqnr, output_sqnr]: [Option<f64>; 2]) -> LayerPair {
    let (name, bits) = (a.layer.name.clone(), [a.layer.bits.clone(), b.layer.bits.clone()]);
    LayerPair { name, op: a.layer.op, weights: a.layer.weights, bits, input_sqnr, output_sqnr }
}

/// For each layer those whose outputs it reads, directly or through nodes that are no layers.
fn reference_order(graph: &Graph, pairs: &[(&Located, &Located)]) -> Vec<Vec<usize>> {
    let computed: HashMap<ValueId, usize> = pairs.iter().enumerate().map(|(at, (a, _))| (a.output, at)).collect();
    let before = |(a, _): &(&Located, &Located)| {
        let (mut open, mut seen, mut found) = (vec![a.input], HashSet::new(), Vec::new());
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            match (computed.get(&value), graph.value(value).producer()) {
                (Some(&at), _) => found.push(at),
                (None, Some((node, _))) => open.extend(graph.node(node).inputs().iter().flatten()),
                (None, None) => {}
            }
        }
        found
    };
    pairs.iter().map(before).collect()
}

/// The largest step up in noise.
fn start(before: &[Vec<usize>], pairs: &[(&Located, &Located)], measured: &[[Option<f64>; 2]]) -> Option<Start> {
    let noise = |decibels: Option<f64>| decibels.map_or(0.0, |d| 10_f64.powf(-d / 10.0));
    let mut most: Option<(f64, Start)> = None;
    for (at, (layer, _)) in pairs.iter().enumerate() {
        let [reads, computes] = measured[at];
        let earlier = before[at].iter().filter_map(|&b| measured[b][1]).min_by(f64::total_cmp);
        for (in_weights, before, after) in [(false, earlier, reads), (true, reads, computes)] {
            let (Some(after), added) = (after, noise(after) - noise(before)) else { continue };
            if added > most.as_ref().map_or(0.0, |(most, _)| *most) {
                let layer = layer.layer.name.clone();
                most = Some((added, Start { layer, in_weights, before, after }));
            }
        }
    }
    most.map(|(_, start)| start)
}
