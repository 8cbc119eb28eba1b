//! The story: prepare, tap, calibrate, solve, lower, verify.

use crate::agreement::Agreement;
use crate::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits, WeightGrid};
use crate::data::{Array, Dataset, InputSpec};
use crate::engine::{Output, Pool, Visitor};
use crate::inspect::output_shape;
use crate::lower::{finish, is_stripped, packings, quantize_graph};
use crate::observe::{Observed, Watched, observe};
use crate::prepare::{annotate, prepare, refuse_quantized};
use crate::progress::Progress;
use crate::quant::Sqnr;
use crate::report::{LayerReport, Quality, Report};
use crate::select::Selection;
use crate::solve::{LayerInput, Rounding, round_layer};
use crate::{Error, Format, Options};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, LayerOp, Placement, layers};
use msq_passes::ir::{DataType, Model, Node, ValueId, encoded_len, export};
use msq_passes::{BiasForm, Manager, Packing, QuantizedLayer, UpgradeOpset};
use rayon::prelude::*;
use std::collections::HashMap;
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
    prepare(&mut model, options.batch_norm)?;
    check_target(options)?;
    options.plan.check(layers(&model).iter().map(|l| l.name.as_str()), &options.profile)?;
    raise_opset(&mut model, options)?;
    let work = Work::new(&model, options)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| Error::Threads { threads: options.threads, reason: e.to_string() })?;
    let calibration = Instant::now();
    let margin = if synthetic { SYNTHETIC_MARGIN } else { 1.0 };
    let observed = observe(&model, work.watched(), data, options, margin, &pool, progress)?;
    let calibrate_seconds = calibration.elapsed().as_secs_f64();
    let solved = pool.install(|| work.solve(&model, &observed, options))?;
    let float = model.clone();
    let integers = solved.iter().map(|(name, (layer, _))| (name.clone(), layer.clone())).collect();
    quantize_graph(&mut model, &work.placement, &observed, &integers)?;
    let quality = verify(&model, data, &observed, options, progress)?;
    // Exact, and not all of it runs in the engine: after the comparison.
    let names = finish(&mut model, work.packings.clone(), options)?;
    let report = Report {
        opset,
        float_bytes,
        bytes: encoded_len(&export(&model)) as u64,
        samples: data.len(),
        data: data.describe(),
        synthetic,
        calibrate_seconds,
        seconds: start.elapsed().as_secs_f64(),
        plan: work.plan(&float, options),
        names,
        layers: work.reports(&float, &solved, options),
        float_layers: work.float_layers(&float),
        notes: work.notes(options),
        kept: work.placement.kept.clone(),
        quality,
    };
    Ok(Quantized { model, report })
}

/// Refuses forms the target does not run.
fn check_target(options: &Options) -> Result<(), Error> {
    let profile = &options.profile;
    let refused = match options.format {
        Format::Qlinear if !profile.qlinear => Some("QLinearConv and its kin"),
        Format::Integer if !profile.integer => Some("ConvInteger and its kin"),
        _ if options.functions && !profile.functions => Some("functions of the model"),
        _ => None,
    };
    match refused {
        Some(form) => Err(Error::Target { profile: profile.name, form }),
        None => Ok(()),
    }
}

/// Types narrower than a byte need a newer operator set than most models state.
fn raise_opset(model: &mut Model, options: &Options) -> Result<(), Error> {
    let packings = packings(layers(model).iter(), &options.plan);
    let wanted = packings.values().map(|packing| packing.lowest_opset()).max().unwrap_or_default();
    if model.opset("").unwrap_or_default() >= wanted {
        return Ok(());
    }
    if wanted > UpgradeOpset::HIGHEST {
        return Err(Error::NoOpset { wanted, reason: "the model has to be exported at that opset".to_owned() });
    }
    let records = Manager::new().with(UpgradeOpset::to(wanted)).run(model)?;
    annotate(model);
    let declined = records.iter().flat_map(|record| &record.outcome.declined).next();
    declined.map_or(Ok(()), |d| Err(Error::NoOpset { wanted, reason: format!("`{}`: {}", d.site, d.reason) }))
}

fn hint(placement: &Placement) -> String {
    placement.kept.first().map_or_else(String::new, |kept| format!(": `{}` ({}): {}", kept.node, kept.op, kept.reason))
}

type Solved = IndexMap<String, (QuantizedLayer, Sqnr)>;

/// What is to be done to which layer.
struct Work {
    placement: Placement,
    /// Layers that compute in float and store integers.
    stored: Vec<Layer>,
    /// Bits of the values whose quantizers have fewer than 8.
    bits: HashMap<ValueId, u8>,
    packings: IndexMap<String, Packing>,
}

impl Work {
    fn new(model: &Model, options: &Options) -> Result<Self, Error> {
        let selection = Selection::new(model, options)?;
        let plan = |name: &str| options.plan.layer(name).unwrap_or_default();
        let refusal = |node: &Node, name: &str| {
            selection.refusal(node, name).or_else(|| {
                LayerOp::of(node)?;
                planned_float(plan(name)).map(str::to_owned)
            })
        };
        let placement = Placement::new(model, &options.profile, refusal);
        let stored: Vec<Layer> = layers(model)
            .into_iter()
            .filter(|layer| !placement.nodes.contains_key(&layer.node))
            .filter(|layer| selection.refusal(model.graph.node(layer.node), &layer.name).is_none())
            .filter(|layer| plan(&layer.name).weights != WeightBits::Float && can_be_stored(model, layer))
            .collect();
        if placement.layers().next().is_none() && stored.is_empty() {
            return Err(Error::NothingToQuantize { hint: hint(&placement) });
        }
        let packings = packings(placement.layers().chain(&stored), &options.plan);
        let bits = activation_bits(&placement, plan);
        Ok(Self { placement, stored, bits, packings })
    }

    fn watched(&self) -> Watched<'_> {
        Watched { placement: &self.placement, stored: &self.stored, bits: &self.bits }
    }

    /// The layers whose weights become integers.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.placement.layers().chain(&self.stored)
    }

    fn is_on_integers(&self, layer: &Layer) -> bool {
        self.placement.nodes.contains_key(&layer.node)
    }

    /// Rounds the weights of every layer, in parallel; the order of layers is the graph's.
    fn solve(&self, model: &Model, observed: &Observed, options: &Options) -> Result<Solved, Error> {
        let layers: Vec<&Layer> = self.layers().collect();
        let strip = is_stripped(options, &self.packings);
        let one = |layer: &&Layer| {
            let affine = self.placement.affine_of(model, layer).transpose()?;
            let root = self.placement.values.get(&layer.input).copied().unwrap_or(layer.input);
            let scale_of = |value| observed.activations.get(model.graph.value(value).name()).map(|a| a.scale);
            let scale = scale_of(root).filter(|_| self.is_on_integers(layer)).unwrap_or(1.0);
            let output_scale = scale_of(self.placement.written_by(&model.graph, layer));
            let means = observed.means.get(model.graph.value(layer.input).name()).map_or(&[][..], Vec::as_slice);
            let rounding = Rounding {
                plan: options.plan.layer(&layer.name).unwrap_or_default(),
                per_channel: options.profile.per_channel,
                bias: if self.is_on_integers(layer) { options.profile.bias } else { BiasForm::Float },
                bias_as_floats: leaves_out_bias_scales(layer, options, strip),
                affine: affine.as_ref(),
                half_scales: options.half_scales,
            };
            Ok((layer.name.clone(), round_layer(model, layer, LayerInput { scale, means, output_scale }, rounding)?))
        };
        let solved: Result<Vec<_>, Error> = layers.par_iter().map(one).collect();
        Ok(solved?.into_iter().collect())
    }

    /// The plan as it was carried out.
    fn plan(&self, model: &Model, options: &Options) -> BitPlan {
        let entry = |layer: Layer| {
            let planned = options.plan.layer(&layer.name).unwrap_or_default();
            let stored = self.stored.iter().any(|s| s.node == layer.node);
            let done = match (self.is_on_integers(&layer), stored) {
                (true, _) => planned,
                (false, true) => LayerPlan { activations: ActivationBits::Float, ..planned },
                (false, false) => LayerPlan::FLOAT,
            };
            (layer.name, done)
        };
        BitPlan::of_layers(layers(model).into_iter().map(entry).collect())
    }

    /// What the choices mean where the file runs.
    fn notes(&self, options: &Options) -> Vec<String> {
        let plan = |layer: &Layer| options.plan.layer(&layer.name).unwrap_or_default();
        let wide = |plan: LayerPlan| plan.weights == WeightBits::Bits(8) || plan.weight_grid() == WeightGrid::Codebook;
        let narrow = !self.placement.layers().any(|layer| wide(plan(layer)));
        let on_integers = self.placement.layers().next().is_some();
        let forms: Vec<Packing> = self.packings.values().copied().collect();
        let ort = options.profile.name.starts_with("ort");
        let notes = [
            (
                narrow && on_integers && ort,
                "weights of at most 7 bits: sums do not saturate on CPUs without VNNI either",
            ),
            (options.format == Format::Integer && ort, "onnxruntime runs ConvInteger on CPUs slower than float"),
            (
                options.functions && !forms.is_empty(),
                "unpacked by functions of the model: for onnxruntime 1.23 or newer",
            ),
            (forms.contains(&Packing::Int4), "INT4 tensors: opset 21, onnxruntime 1.23 or newer"),
            (forms.contains(&Packing::Int2), "INT2 tensors: opset 25, which few runtimes take"),
        ];
        notes.into_iter().filter(|(said, _)| *said).map(|(_, note)| note.to_owned()).collect()
    }

    fn reports(&self, model: &Model, solved: &Solved, options: &Options) -> Vec<LayerReport> {
        let mut ordered: Vec<&Layer> = self.layers().collect();
        ordered.sort_by_key(|layer| solved.get_index_of(&layer.name));
        ordered.into_iter().map(|layer| self.report(model, layer, solved, options)).collect()
    }

    fn report(&self, model: &Model, layer: &Layer, solved: &Solved, options: &Options) -> LayerReport {
        let planned = options.plan.layer(&layer.name).unwrap_or_default();
        let sqnr = solved.get(&layer.name).map(|(_, sqnr)| sqnr.decibels()).filter(|s| s.is_finite());
        let activation_bits = match planned.activations {
            ActivationBits::Bits(bits) if self.is_on_integers(layer) => Some(bits),
            _ => None,
        };
        LayerReport {
            weight_bits: Some(planned.weights),
            activation_bits,
            weight_sqnr: sqnr,
            bytes: planned.packed_bytes(layer.weights()),
            ..float_layer(model, layer)
        }
    }

    fn float_layers(&self, model: &Model) -> Vec<LayerReport> {
        let stored = |layer: &Layer| self.stored.iter().any(|s| s.node == layer.node);
        let float = layers(model).into_iter().filter(|layer| !self.is_on_integers(layer) && !stored(layer));
        float.map(|layer| float_layer(model, &layer)).collect()
    }
}

/// The smallest file leaves out the scales of biases that the runtime rounds by itself.
fn leaves_out_bias_scales(layer: &Layer, options: &Options, strip: bool) -> bool {
    strip && options.profile.rounds_float_bias && layer.op == LayerOp::Conv && options.format == Format::Qdq
}

/// Why the plan leaves a layer's computation in float, if it does.
fn planned_float(plan: LayerPlan) -> Option<&'static str> {
    match (plan.weights, plan.activations) {
        (WeightBits::Float, _) => Some("it is float in the plan"),
        (_, ActivationBits::Float) => Some("its activations are float in the plan"),
        _ => None,
    }
}

/// Whether a layer that computes in float can store integers.
fn can_be_stored(model: &Model, layer: &Layer) -> bool {
    let float = model.graph.constant(layer.weight).and_then(msq_passes::ir::TensorProto::element_type);
    layer.weights() > 0 && float == Some(DataType::Float)
}

/// The most bits that any layer wants of a value it reads; 8 for values that no layer reads.
fn activation_bits(placement: &Placement, plan: impl Fn(&str) -> LayerPlan) -> HashMap<ValueId, u8> {
    let mut bits: HashMap<ValueId, u8> = HashMap::new();
    for layer in placement.layers() {
        let root = placement.values.get(&layer.input).copied().unwrap_or(layer.input);
        if let ActivationBits::Bits(wanted) = plan(&layer.name).activations {
            let most = bits.entry(root).or_insert(wanted);
            *most = wanted.max(*most);
        }
    }
    bits
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

fn float_layer(model: &Model, layer: &Layer) -> LayerReport {
    LayerReport {
        name: layer.name.clone(),
        op: layer.op,
        shape: layer.shape.clone(),
        weights: layer.weights(),
        macs: output_shape(model, layer.output).map(|shape| layer.macs(&shape)),
        weight_bits: None,
        activation_bits: None,
        bytes: 4 * layer.weights(),
        weight_sqnr: None,
    }
}
