//! What is to be done to which layer, and what was done.

use crate::calibrate::observe::{Observed, Watched};
use crate::execute::coverage::Coverage;
use crate::lower::{is_stripped, packings};
use crate::measure::inspect::output_shape;
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{Affine, Sqnr};
use crate::report::LayerReport;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits};
use crate::scheme::select::Selection;
use crate::solve::round::Round;
use crate::solve::{LayerInput, LayerSolver, Rounded, Rounding, Sights, round_layer};
use crate::{Error, Format, Options, RoundingMode, Solver};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, LayerOp, Placement, Role, is_rectified, layers};
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use msq_passes::{ActivationQuantizer, BiasForm, Packing};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// What to know of `ConvInteger`.
const INTEGER_NOTE: &str =
    "onnxruntime runs ConvInteger on CPUs slower than float, and 1.23 or older refuses it for int8";

/// Rounded layers by name.
pub(crate) type Solved = IndexMap<String, Rounded>;

/// What is to be done to which layer.
#[derive(Debug)]
pub(crate) struct Work {
    pub placement: Placement,
    /// Layers that compute in float and store integers.
    pub stored: Vec<Layer>,
    /// Bits of the values whose quantizers have fewer than 8.
    bits: HashMap<ValueId, u8>,
    /// Bits that layers read with, by layer name, where other readers of the value want more.
    narrower: IndexMap<String, u8>,
    /// Values whose parameters are given.
    given: HashSet<ValueId>,
    /// How layers are packed.
    pub packings: IndexMap<String, Packing>,
    /// What of the model can be run.
    pub coverage: Coverage,
}

impl Work {
    /// Of a model that the engine runs.
    pub(crate) fn new(model: &Model, options: &Options) -> Result<Self, Error> {
        Self::within(model, options, Coverage::default())
    }

    /// Of a model of which the engine runs a part.
    pub(crate) fn within(model: &Model, options: &Options, coverage: Coverage) -> Result<Self, Error> {
        let selection = Selection::new(model, options)?;
        let plan = |name: &str| options.scheme.plan.layer(name).unwrap_or_default();
        let refusal = |node: &Node, name: &str| {
            selection.refusal(node, name).or_else(|| {
                LayerOp::of(node)?;
                planned_float(plan(name)).map(str::to_owned)
            })
        };
        let placement = Placement::new(model, &options.scheme.profile, |id, node, name| {
            refusal(node, name).or_else(|| coverage.refusal(id))
        });
        let stored: Vec<Layer> = layers(model)
            .into_iter()
            .filter(|layer| !placement.nodes.contains_key(&layer.node))
            .filter(|layer| selection.refusal(model.graph.node(layer.node), &layer.name).is_none())
            .filter(|layer| plan(&layer.name).weights != WeightBits::Float && can_be_stored(model, layer))
            .collect();
        if placement.layers().next().is_none() && stored.is_empty() {
            return Err(Error::NothingToQuantize { hint: hint(&placement) });
        }
        let packings = packings(placement.layers().chain(&stored), &options.scheme.plan);
        let mut bits = activation_bits(&model.graph, &placement, plan);
        let given = options.scheme.encodings.activation_bits(&model.graph, &placement);
        bits.extend(given.iter().copied());
        let given = given.into_iter().map(|(value, _)| value).collect();
        let narrower = narrower(&placement, &bits, plan);
        Ok(Self { placement, stored, bits, narrower, given, packings, coverage })
    }

    /// The solver asked for, or the one that suits.
    pub(crate) fn solver(&self, options: &Options) -> Solver {
        let low =
            |layer: &Layer| options.scheme.plan.layer(&layer.name).unwrap_or_default().weights != WeightBits::Bits(8);
        let nearest = options.solve.rounding == RoundingMode::Nearest;
        options.solve.solver.unwrap_or(if nearest && self.layers().any(low) { Solver::Gram } else { Solver::Round })
    }

    pub(crate) fn watched(&self) -> Watched<'_> {
        Watched {
            placement: &self.placement,
            stored: &self.stored,
            bits: &self.bits,
            narrower: &self.narrower,
            coverage: &self.coverage,
        }
    }

    /// The layers whose weights become integers.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.placement.layers().chain(&self.stored)
    }

    pub(crate) fn is_on_integers(&self, layer: &Layer) -> bool {
        self.placement.nodes.contains_key(&layer.node)
    }

    /// Rounds the weights of every layer, in parallel; the order of layers is the graph's.
    pub(crate) fn round(&self, model: &Model, observed: &Observed, options: &Options) -> Result<Solved, Error> {
        let position: HashMap<_, _> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
        let mut layers: Vec<&Layer> = self.layers().collect();
        layers.sort_by_key(|layer| position.get(&layer.node));
        let solver = Round { mode: options.solve.rounding };
        let one = |layer: &&Layer| {
            Ok((layer.name.clone(), self.round_layer(model, observed, options, layer, &solver, None)?))
        };
        let solved: Result<Vec<_>, Error> = layers.par_iter().map(one).collect();
        Ok(solved?.into_iter().collect())
    }

    /// Rounds the weights of a layer by what was seen of what it reads.
    pub(crate) fn round_layer(
        &self,
        model: &Model,
        observed: &Observed,
        options: &Options,
        layer: &Layer,
        solver: &dyn LayerSolver,
        sights: Option<&Sights>,
    ) -> Result<Rounded, Error> {
        let affine = self.placement.affine_of(model, layer).transpose()?;
        let read = observed.read_by(model, &self.placement, layer).filter(|_| self.is_on_integers(layer));
        let scale = read.map_or(1.0, |quantizer| quantizer.scale);
        let written = model.graph.value(self.placement.written_by(&model.graph, layer)).name();
        let output_scale = observed.activations.get(written).map(|quantizer| quantizer.scale);
        let means = observed.means.get(model.graph.value(layer.input).name()).map_or(&[][..], Vec::as_slice);
        let given = options.scheme.encodings.weight_scales(model, layer, options);
        let rounding = Rounding {
            plan: options.scheme.plan.layer(&layer.name).unwrap_or_default(),
            options,
            bias: if self.is_on_integers(layer) { options.scheme.profile.bias } else { BiasForm::Float },
            bias_as_floats: leaves_out_bias_scales(layer, options, is_stripped(options, &self.packings)),
            affine: affine.as_ref(),
            solver,
            sights,
            rectified: is_rectified(&model.graph, layer),
            scales: given.as_deref(),
        };
        let own = self.own_input(&model.graph, layer).filter(|_| sights.is_some() && solver.scales_input());
        let quantizer = own.and_then(|value| observed.activations.get(model.graph.value(value).name())).map(grid_of);
        round_layer(model, layer, LayerInput { scale, quantizer, means, output_scale }, rounding)
    }

    /// The value whose quantizer serves this layer alone, if there is one and its range follows from data: nothing else
    /// reads the value or what it is moved to, not even the caller, and no clamp or encoding sets its bounds.
    pub(crate) fn own_input(&self, graph: &Graph, layer: &Layer) -> Option<ValueId> {
        let values = &self.placement.values;
        let root = *values.get(&layer.input).filter(|_| self.is_on_integers(layer))?;
        if self.given.contains(&root) {
            return None;
        }
        let reads = |node: NodeId| {
            node == layer.node || self.placement.nodes.get(&node).is_some_and(|role| *role == Role::Movement)
        };
        let alone = |value: ValueId| {
            let entry = graph.value(value);
            entry.uses().iter().all(|u| reads(u.node)) && entry.captures().is_empty() && !graph.is_output(value)
        };
        let mut held = values.iter().filter(|(_, from)| **from == root).map(|(&value, _)| value);
        let constant = graph.constant(root).is_some();
        let bounded = self.placement.bound_of(graph, root).or(self.placement.floor_of(graph, root)).is_some();
        (!constant && !bounded && held.all(alone)).then_some(root)
    }

    /// The plan as it was carried out.
    pub(crate) fn plan(&self, model: &Model, options: &Options) -> BitPlan {
        let entry = |layer: Layer| {
            let planned = options.scheme.plan.layer(&layer.name).unwrap_or_default();
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
    pub(crate) fn notes(&self, options: &Options) -> Vec<String> {
        let plan = |layer: &Layer| options.scheme.plan.layer(&layer.name).unwrap_or_default();
        let wide = |plan: LayerPlan| {
            let listed = matches!(plan.weight_grid(), WeightGrid::Codebook | WeightGrid::BinaryBases);
            plan.weights == WeightBits::Bits(8) || listed
        };
        let narrow = !self.placement.layers().any(|layer| wide(plan(layer)));
        let on_integers = self.placement.layers().next().is_some();
        let forms: Vec<Packing> = self.packings.values().copied().collect();
        let ort = options.scheme.profile.name.starts_with("ort");
        let notes = [
            (
                narrow && on_integers && ort,
                "weights of at most 7 bits: sums do not saturate on CPUs without VNNI either",
            ),
            (options.output.format == Format::Integer && ort, INTEGER_NOTE),
            (options.output.functions && !forms.is_empty(), "unpacked by functions of the model: for onnxruntime"),
            (forms.contains(&Packing::Int4), "INT4 tensors: opset 21, onnxruntime 1.23 or newer"),
            (forms.contains(&Packing::Int2), "INT2 tensors: opset 25, which few runtimes take"),
        ];
        let notes = notes.into_iter().filter(|(said, _)| *said).map(|(_, note)| note.to_owned());
        self.coverage.note().into_iter().chain(notes).collect()
    }

    pub(crate) fn reports(&self, model: &Model, solved: &Solved, options: &Options) -> Vec<LayerReport> {
        let mut ordered: Vec<&Layer> = self.layers().collect();
        ordered.sort_by_key(|layer| solved.get_index_of(&layer.name));
        ordered.into_iter().map(|layer| self.report(model, layer, solved, options)).collect()
    }

    fn report(&self, model: &Model, layer: &Layer, solved: &Solved, options: &Options) -> LayerReport {
        let planned = options.scheme.plan.layer(&layer.name).unwrap_or_default();
        let solved = solved.get(&layer.name);
        let decibels = |sqnr: Sqnr| Some(sqnr.decibels()).filter(|s| s.is_finite());
        let activation_bits = match planned.activations {
            ActivationBits::Bits(bits) if self.is_on_integers(layer) => Some(bits),
            _ => None,
        };
        LayerReport {
            weight_bits: Some(planned.weights),
            activation_bits,
            weight_sqnr: solved.and_then(|s| decibels(s.weight_sqnr)),
            output_sqnr: solved.and_then(|s| decibels(s.output_sqnr?)),
            bytes: planned.packed_bytes(layer.weights()),
            ..float_layer(model, layer)
        }
    }

    pub(crate) fn float_layers(&self, model: &Model) -> Vec<LayerReport> {
        let stored = |layer: &Layer| self.stored.iter().any(|s| s.node == layer.node);
        let float = layers(model).into_iter().filter(|layer| !self.is_on_integers(layer) && !stored(layer));
        float.map(|layer| float_layer(model, &layer)).collect()
    }
}

/// The grid of a quantizer.
fn grid_of(quantizer: &ActivationQuantizer) -> Affine {
    let (quantized_min, quantized_max) = quantizer.interval();
    Affine { scale: quantizer.scale, zero_point: quantizer.zero_point, quantized_min, quantized_max }
}

/// The smallest file leaves out the scales of biases that the runtime rounds by itself.
fn leaves_out_bias_scales(layer: &Layer, options: &Options, strip: bool) -> bool {
    strip
        && options.scheme.profile.rounds_float_bias
        && layer.op == LayerOp::Conv
        && options.output.format == Format::Qdq
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

/// The most bits that any reader wants of a value with parameters of its own: a layer what the plan says, others 8.
fn activation_bits(graph: &Graph, placement: &Placement, plan: impl Fn(&str) -> LayerPlan) -> HashMap<ValueId, u8> {
    let mut bits: HashMap<ValueId, u8> = HashMap::new();
    let mut want = |value, wanted: u8| {
        let most = bits.entry(placement.root(value)).or_insert(wanted);
        *most = wanted.max(*most);
    };
    for layer in placement.layers() {
        if let ActivationBits::Bits(wanted) = plan(&layer.name).activations {
            want(layer.input, wanted);
        }
    }
    for &value in placement.values.keys().filter(|&&value| placement.is_read_in_full(graph, value)) {
        want(value, 8);
    }
    bits
}

/// The layers that want fewer bits of what they read than other readers do.
fn narrower(
    placement: &Placement,
    bits: &HashMap<ValueId, u8>,
    plan: impl Fn(&str) -> LayerPlan,
) -> IndexMap<String, u8> {
    let fewer = |layer: &Layer| match plan(&layer.name).activations {
        ActivationBits::Bits(wanted) if bits.get(&placement.root(layer.input)).is_some_and(|&most| wanted < most) => {
            Some((layer.name.clone(), wanted))
        }
        _ => None,
    };
    placement.layers().filter_map(fewer).collect()
}

fn hint(placement: &Placement) -> String {
    placement.kept.first().map_or_else(String::new, |kept| format!(": `{}` ({}): {}", kept.node, kept.op, kept.reason))
}

fn float_layer(model: &Model, layer: &Layer) -> LayerReport {
    LayerReport {
        name: layer.name.clone(),
        op: layer.op,
        shape: layer.shape.clone(),
        weights: layer.weights(),
        macs: output_shape(model, layer.output).and_then(|shape| layer.macs(&shape)),
        weight_bits: None,
        activation_bits: None,
        bytes: 4 * layer.weights(),
        weight_sqnr: None,
        output_sqnr: None,
        network_sqnr: None,
        weight_distribution: None,
        input_distribution: None,
    }
}
