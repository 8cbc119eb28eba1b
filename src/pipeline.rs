//! The story: prepare, tap, calibrate, solve, lower, verify.

use crate::agreement::Agreement;
use crate::data::{Array, Dataset, InputSpec};
use crate::engine::{Output, Pool, Visitor};
use crate::inspect::output_shape;
use crate::observe::{Observed, observe};
use crate::prepare::{prepare, refuse_quantized};
use crate::progress::Progress;
use crate::quant::{GridSpec, ScaleSearch, Sqnr};
use crate::report::{LayerReport, Quality, Report};
use crate::select::Selection;
use crate::solve::{LayerInput, Rounding, round_layer};
use crate::{Error, Options};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement, layers};
use msq_passes::ir::{Model, encoded_len, export};
use msq_passes::{CleanNames, EliminateDeadNodes, InsertQdq, Manager, QuantizedLayer};
use rayon::prelude::*;
use std::time::Instant;

/// Ranges seen on made-up inputs are widened by this much: real inputs reach further.
const SYNTHETIC_MARGIN: f32 = 1.25;

/// A quantized model and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The model, ready to be saved.
    pub model: Model,
    /// What was done.
    pub report: Report,
}

/// The inputs a caller must feed.
pub fn input_specs(model: &Model) -> Vec<InputSpec> {
    let spec = |v| {
        let value = model.graph.value(v);
        let dtype = value.element_type().unwrap_or(msq_passes::ir::DataType::Float);
        InputSpec { name: value.name().to_owned(), dtype, shape: value.shape() }
    };
    model.graph.runtime_inputs().map(spec).collect()
}

/// Quantizes a float model with calibration data, or with made-up data if `synthetic` says so.
pub fn quantize(
    mut model: Model,
    data: &Dataset,
    synthetic: bool,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Quantized, Error> {
    let start = Instant::now();
    refuse_quantized(&model)?;
    let float_bytes = encoded_len(&export(&model)) as u64;
    let opset = model.opset("").unwrap_or_default();
    prepare(&mut model)?;
    let selection = Selection::new(&model, options)?;
    let placement = Placement::new(&model, &options.profile, |node, name| selection.refusal(node, name));
    if placement.layers().next().is_none() {
        return Err(Error::NothingToQuantize { hint: hint(&placement) });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Threads { threads: options.threads, reason: e.to_string() })?;
    let calibration = Instant::now();
    let margin = if synthetic { SYNTHETIC_MARGIN } else { 1.0 };
    let observed = observe(&model, &placement, data, options, margin, &pool, progress)?;
    let calibrate_seconds = calibration.elapsed().as_secs_f64();
    let solved = pool.install(|| solve(&model, &placement, &observed, options))?;
    let float = model.clone();
    lower(&mut model, &placement, &observed, &solved, options)?;
    let quality = verify(&model, data, &observed, options, progress)?;
    let report = Report {
        opset,
        float_bytes,
        bytes: encoded_len(&export(&model)) as u64,
        samples: data.len(),
        data: data.describe(),
        synthetic,
        calibrate_seconds,
        seconds: start.elapsed().as_secs_f64(),
        layers: placement.layers().map(|l| layer_report(&float, l, &solved, options)).collect(),
        float_layers: float_layers(&float, &placement),
        kept: placement.kept.clone(),
        quality,
    };
    Ok(Quantized { model, report })
}

fn hint(placement: &Placement) -> String {
    placement.kept.first().map_or_else(String::new, |kept| format!(": `{}` ({}): {}", kept.node, kept.op, kept.reason))
}

type Solved = IndexMap<String, (QuantizedLayer, Sqnr)>;

/// Rounds the weights of every layer, in parallel; the order of layers is the graph's.
fn solve(model: &Model, placement: &Placement, observed: &Observed, options: &Options) -> Result<Solved, Error> {
    let grid = GridSpec::weight(options.weight_bits)
        .map_err(|source| Error::Quant { layer: "every layer".to_owned(), source })?;
    let rounding = Rounding { grid, search: ScaleSearch::MeanSquaredError, per_channel: options.profile.per_channel };
    let layers: Vec<&Layer> = placement.layers().collect();
    let one = |layer: &&Layer| {
        let root = placement.values.get(&layer.input).copied().unwrap_or(layer.input);
        let scale = observed.activations.get(model.graph.value(root).name()).map_or(1.0, |a| a.scale);
        let means = observed.means.get(model.graph.value(layer.input).name()).map_or(&[][..], Vec::as_slice);
        Ok((layer.name.clone(), round_layer(model, layer, LayerInput { scale, means }, rounding)?))
    };
    let solved: Result<Vec<_>, Error> = layers.par_iter().map(one).collect();
    Ok(solved?.into_iter().collect())
}

fn lower(
    model: &mut Model,
    placement: &Placement,
    observed: &Observed,
    solved: &Solved,
    options: &Options,
) -> Result<(), Error> {
    let layers = solved.iter().map(|(name, (layer, _))| (name.clone(), layer.clone())).collect();
    Manager::new()
        .with(InsertQdq { placement, activations: &observed.activations, layers: &layers })
        // The float weights are unread now.
        .with(EliminateDeadNodes)
        // Last: the passes before name what they make.
        .with(CleanNames { strip: options.strip_names })
        .run(model)?;
    model.set_producer("msq-onnx", env!("CARGO_PKG_VERSION"));
    Ok(())
}

/// Runs the quantized model on the samples whose float outputs were kept.
fn verify(
    model: &Model,
    data: &Dataset,
    observed: &Observed,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Option<Quality>, Error> {
    if observed.outputs.is_empty() {
        return Ok(None);
    }
    let data = data.range(0, observed.outputs.len());
    progress.begin("verify", data.len() as u64);
    let mut total = Agreement::default();
    let pool = Pool::new(model, options.threads);
    let comparer = || Comparer { reference: &observed.outputs };
    pool.run(&data, progress, comparer, |part| total.merge(&part))?;
    progress.end();
    Ok(Some(Quality { samples: data.len(), agreement: total.figures() }))
}

struct Comparer<'a> {
    reference: &'a [Vec<Vec<f32>>],
}

impl Visitor for Comparer<'_> {
    type Shard = Agreement;
    type Error = Error;

    fn begin(&mut self) -> Agreement {
        Agreement::default()
    }

    fn visit(&mut self, shard: &mut Agreement, index: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        for (reference, output) in self.reference[index].iter().zip(outputs) {
            let width = output.shape().last().copied().unwrap_or(0);
            shard.observe(reference, &output.to_f32()?, width);
        }
        Ok(())
    }
}

fn layer_report(model: &Model, layer: &Layer, solved: &Solved, options: &Options) -> LayerReport {
    let sqnr = solved.get(&layer.name).map(|(_, sqnr)| sqnr.decibels()).filter(|s| s.is_finite());
    LayerReport {
        weight_bits: Some(options.weight_bits),
        activation_bits: Some(8),
        weight_sqnr: sqnr,
        ..float_layer(model, layer)
    }
}

fn float_layers(model: &Model, placement: &Placement) -> Vec<LayerReport> {
    let float = layers(model).into_iter().filter(|l| !placement.nodes.contains_key(&l.node));
    float.map(|l| float_layer(model, &l)).collect()
}

fn float_layer(model: &Model, layer: &Layer) -> LayerReport {
    LayerReport {
        name: layer.name.clone(),
        op: layer.op,
        shape: layer.shape.clone(),
        weights: layer.weights(),
        macs: output_shape(model, layer.output).map(|shape| layer.macs(&shape)),
        weight_bits: None,
        activation_bits: None,
        weight_sqnr: None,
    }
}
