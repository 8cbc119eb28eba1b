//! The scheme of a model: every choice resolved, layer by layer and value by value.

use super::SchemeError;
use super::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits};
use super::encodings::Encodings;
use super::observer::ObserverKind;
use super::options::{Format, Options, OutputOptions, PlacementMode, SolveOptions};
use super::outliers::Outliers;
use super::select::Selection;
use super::shared::{Sharing, Twin, agreed_plan, groups};
use super::stored::{PLANNED_FLOAT, stored, stored_packing, stored_plan, twins};
use super::widths::Widths;
use crate::execute::coverage::Coverage;
use crate::execute::masks::{Masks, masking, with_readers};
use crate::quant::GridSpec;
use indexmap::IndexMap;
use msq_passes::analysis::{
    Kept, Layer, LayerOp, LookupCost, Placement, Role, StoredWeight, choose_lookups, layers, refuses_layer,
};
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, TensorProto, ValueId};
use msq_passes::{ActivationQuantizer, Granularity, Packing, Profile};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Every choice for each layer and value of a prepared model. A scheme is resolved once and then only read: later
/// phases take a scheme instead of options.
#[derive(Clone, Debug)]
pub(crate) struct Scheme {
    /// The runtime to write for.
    pub target: Profile,
    /// Where quantizers go, and which layers compute on integers.
    pub placement: Placement,
    /// Layers that compute in float and store integer weights.
    pub weight_only: Vec<Layer>,
    /// Weights beside the layers that are stored as integers.
    pub stored: Vec<StoredWeight>,
    /// What looking rows up in tables of integers costs, where the target has prices.
    pub lookups: Option<LookupCost>,
    /// Weights beside the layers that stay in float, each with the reason.
    pub stored_float: Vec<(StoredWeight, String)>,
    /// Layers with the same weight, by name: one result serves all of a group.
    pub groups: Vec<Vec<String>>,
    /// Layers that take one scale for the whole weight, because another layer reads the same weight with its output
    /// channels along another axis. Each with whether its weight, as stored, is the transpose of that of the first layer
    /// of its group.
    pub one_scale: IndexMap<String, bool>,
    /// The layers that read stored weights too, by the names of these.
    pub twins: IndexMap<String, Twin>,
    /// Bits of each layer.
    pub plan: BitPlan,
    /// How the weights of each layer are packed, by layer name; layers with one byte per integer have no entry.
    pub packings: IndexMap<String, Packing>,
    /// Which part of the model the engine can run.
    pub coverage: Coverage,
    /// Which positions of sequences count nowhere.
    pub masks: Masks,
    /// How weights become integers.
    pub solve: SolveOptions,
    /// What the written file looks like.
    pub output: OutputOptions,
    /// Seed of whatever is drawn at random.
    pub seed: u64,
    /// Bits of values, and of what layers read.
    widths: Widths,
    encodings: Arc<Encodings>,
    outliers: Arc<IndexMap<String, Outliers>>,
    /// Values whose parameters are given by encodings, or by the channels that are split.
    given: HashSet<ValueId>,
}

impl Scheme {
    /// The scheme of a prepared model that the engine runs as a whole.
    pub(crate) fn new(model: &Model, plan: &BitPlan, options: &Options) -> Result<Self, SchemeError> {
        Self::within(model, plan, options, Coverage::default())
    }

    /// The scheme of a prepared model of which the engine runs a part.
    pub(crate) fn within(
        model: &Model,
        plan: &BitPlan,
        options: &Options,
        coverage: Coverage,
    ) -> Result<Self, SchemeError> {
        let leaves_slow = options.scheme.placement == PlacementMode::Faster;
        let target = Profile { leaves_slow, ..options.scheme.profile };
        let selection = Selection::new(model, &options.scheme)?;
        let plan_of = |name: &str| plan.layer(name).unwrap_or_default();
        let placement = placement(model, plan, &target, &selection, &coverage);
        let weight_only: Vec<Layer> = layers(model)
            .into_iter()
            .filter(|layer| !placement.nodes.contains_key(&layer.node))
            .filter(|layer| selection.refusal(model.graph.node(layer.node), &layer.name).is_none())
            .filter(|layer| plan_of(&layer.name).weights != WeightBits::Float && can_be_stored(model, layer, &target))
            .collect();
        let (mut stored, stored_float) = stored(model, plan, &selection, &target);
        let nothing = placement.layers().next().is_none() && weight_only.is_empty() && stored.is_empty();
        if nothing && options.output.float16.is_none() {
            return Err(SchemeError::NothingToQuantize { hint: hint(model, &placement) });
        }
        let affine = |layer: &&Layer| placement.affine_of(model, layer).is_none();
        let shared = placement.layers().chain(&weight_only).filter(affine);
        // Weights in blocks share their integers with such alone.
        let (in_blocks, whole): (Vec<&Layer>, Vec<&Layer>) =
            shared.partition(|layer| plan_of(&layer.name).block().is_some());
        let mut sharing = groups(model, &whole, plan, target.per_channel);
        sharing.groups.extend(groups(model, &in_blocks, plan, target.per_channel).groups);
        let Sharing { groups, one_scale } = sharing;
        let plan = &agreed_plan(plan, &groups);
        let plan_of = |name: &str| plan.layer(name).unwrap_or_default();
        let twins = twins(model, plan, &mut stored, [&whole, &in_blocks]);
        let lookups = choose_lookups(model, &placement, &mut stored);
        let mut packings = packings(placement.layers().chain(&weight_only), plan);
        let beside = stored.iter().filter(|weight| !twins.contains_key(&weight.name));
        packings.extend(beside.filter_map(|weight| Some((weight.name.clone(), stored_packing(plan, weight)?))));
        let encodings = Arc::clone(&options.scheme.encodings);
        let given = encodings.activation_bits(&model.graph, &placement);
        let widths = Widths::new(&model.graph, &placement, plan_of, &given);
        let outliers = Arc::clone(&options.scheme.outliers);
        let split = outliers.keys().filter_map(|name| model.graph.find(name));
        let given = given.into_iter().map(|(value, _)| value).chain(split).collect();
        let output = output_options(options, plan, !packings.is_empty());
        Ok(Self {
            target,
            placement,
            weight_only,
            stored,
            lookups,
            stored_float,
            groups,
            one_scale,
            twins,
            plan: plan.clone(),
            packings,
            coverage,
            masks: Masks::chosen(model, options.calibrate.masks),
            solve: options.solve.clone(),
            output,
            seed: options.seed,
            widths,
            encodings,
            outliers,
            given,
        })
    }

    /// Refuses encodings that no grid of the target holds, and warns of those that are not used.
    pub(crate) fn check_encodings(&self, model: &Model) -> Result<(), SchemeError> {
        self.encodings.check(model, self)
    }

    /// The layers whose weights become integers.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.placement.layers().chain(&self.weight_only)
    }

    /// Bits, grid and packing of a weight beside the layers: those of the layer that reads it too, if there is one.
    pub(crate) fn stored_plan(&self, weight: &StoredWeight) -> LayerPlan {
        let twin = self.twins.get(&weight.name).and_then(|twin| self.plan.layer(&twin.layer));
        let float = |plan| LayerPlan { activations: ActivationBits::Float, ..plan };
        twin.map_or_else(|| stored_plan(&self.plan, weight), float)
    }

    /// The layers that have to have the integers of this one, itself among them; none where it shares with no other.
    pub(crate) fn group_of(&self, layer: &str) -> Option<&[String]> {
        self.groups.iter().find(|group| group.iter().any(|name| name == layer)).map(Vec::as_slice)
    }

    /// Whether the integers of a layer are also those of other layers, or of weights beside the layers: solving it changes
    /// more than the layer.
    pub(crate) fn is_stored_elsewhere(&self, layer: &str) -> bool {
        self.group_of(layer).is_some() || self.twins.values().any(|twin| twin.layer == layer)
    }

    /// Bits, grid and packing of a layer.
    pub(crate) fn layer_plan(&self, layer: &Layer) -> LayerPlan {
        self.plan.layer(&layer.name).unwrap_or_default()
    }

    /// How much of a layer's weight shares a scale.
    pub(crate) fn granularity(&self, layer: &Layer) -> Granularity {
        match self.layer_plan(layer).granularity {
            Some(Granularity::Block(size)) => Granularity::Block(size),
            Some(Granularity::Tensor) => Granularity::Tensor,
            _ if self.target.per_channel && !self.one_scale.contains_key(&layer.name) => Granularity::Channel,
            _ => Granularity::Tensor,
        }
    }

    /// Whether a layer quantizes its input at run time.
    pub(crate) fn is_dynamic(&self, layer: &Layer) -> bool {
        self.is_weight_only(layer) && self.layer_plan(layer).activations == ActivationBits::Dynamic
    }

    /// Names of the recurrent nodes that are to quantize at run time what they read.
    pub(crate) fn recurrent_at_run_time(&self) -> impl Iterator<Item = String> {
        let dynamic = |weight: &&StoredWeight| self.stored_plan(weight).activations == ActivationBits::Dynamic;
        self.stored.iter().filter(dynamic).flat_map(|weight| &weight.readers).cloned()
    }

    /// Whether a layer computes on integers.
    pub(crate) fn is_on_integers(&self, layer: &Layer) -> bool {
        self.placement.nodes.contains_key(&layer.node)
    }

    /// Whether a layer computes in float and stores integer weights.
    pub(crate) fn is_weight_only(&self, layer: &Layer) -> bool {
        self.weight_only.iter().any(|stored| stored.node == layer.node)
    }

    /// Bits of a value that has its own quantizer.
    pub(crate) fn bits(&self, value: ValueId) -> u8 {
        self.widths.values.get(&value).copied().unwrap_or(8)
    }

    /// Bits to which a layer requantizes its input, where other consumers of the value read more, or what it writes has
    /// more.
    pub(crate) fn requantized_bits(&self, layer: &Layer) -> Option<u8> {
        self.widths.requantized.get(&layer.name).copied()
    }

    /// Bits of what a layer reads, where it computes on integers.
    pub(crate) fn bits_read(&self, layer: &Layer) -> Option<u8> {
        self.widths.read.get(&layer.name).copied().filter(|_| self.is_on_integers(layer))
    }

    /// Whether any quantizer has integers of 16 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.placement.roots().any(|value| self.bits(value) > 8)
            || self.widths.requantized.values().any(|&bits| bits > 8)
    }

    /// How the plan says that the range of a value is chosen, if it does.
    pub(crate) fn planned_observer(&self, value: &str) -> Option<ObserverKind> {
        self.plan.observer_of(value)
    }

    /// Channels of which products read in float what the quantizer clips, by the name of the activation.
    pub(crate) fn split_channels(&self) -> IndexMap<String, Vec<usize>> {
        self.outliers.iter().map(|(name, outliers)| (name.clone(), outliers.channels.clone())).collect()
    }

    /// Whether the parameters of a value are given by encodings, or by the channels that are split.
    pub(crate) fn is_given(&self, value: ValueId) -> bool {
        self.given.contains(&value)
    }

    /// The parameters given for a value that has its own.
    pub(crate) fn given_quantizer(&self, model: &Model, value: ValueId, grid: GridSpec) -> Option<ActivationQuantizer> {
        // The pass that gives products the rest of these channels knows 8 bits alone.
        let split = self.outliers.get(model.graph.value(value).name()).filter(|_| grid.bits() == 8);
        let outliers = || Some(split?.quantizer(grid));
        self.encodings.quantizer(model, &self.placement, value, grid).or_else(outliers)
    }

    /// The scales given for a layer's weight, if they fit: one per channel, or one per tensor, as the target requires.
    pub(crate) fn given_weight_scales(&self, model: &Model, layer: &Layer) -> Option<Vec<f32>> {
        self.encodings.weight_scales(model, layer, self)
    }

    /// Whether the file is made as small as possible: inner names shortened, defaults dropped.
    pub(crate) fn is_stripped(&self) -> bool {
        self.output.strip_names == Some(true)
    }

    /// Whether biases of a layer are written as the floats that the runtime rounds by itself, because the smallest file
    /// leaves out their scales.
    pub(crate) fn leaves_out_bias_scales(&self, layer: &Layer) -> bool {
        self.is_stripped()
            && self.target.rounds_float_bias
            && layer.op == LayerOp::Conv
            && self.output.format == Format::Qdq
    }

    /// Whether the range of a value follows from data alone: no encoding gives it and its quantizer stands for no clamp.
    pub(crate) fn is_free(&self, graph: &Graph, value: ValueId) -> bool {
        let (placement, given) = (&self.placement, self.given.contains(&value));
        let bounds =
            [placement.bound_of(graph, value), placement.floor_of(graph, value), placement.low_of(graph, value)];
        let bounded = bounds.into_iter().flatten().next().is_some();
        !given && !bounded && !placement.is_clamped(graph, value) && placement.factor_of(graph, value) == 1.0
    }

    /// The value whose quantizer serves only this layer, if there is one and its range follows from data: neither
    /// another node nor the caller reads the value or a moved copy of it, and no clamp or encoding sets its bounds.
    pub(crate) fn own_input(&self, graph: &Graph, layer: &Layer) -> Option<ValueId> {
        let values = &self.placement.values;
        let root = *values.get(&layer.input).filter(|_| self.is_on_integers(layer))?;
        if self.given.contains(&root) || self.group_of(&layer.name).is_some() {
            return None;
        }
        let constant = graph.constant(root).is_some();
        let bounded = self.placement.bound_of(graph, root).or(self.placement.floor_of(graph, root)).is_some();
        (!constant && !bounded && self.is_read_by_one(graph, root, layer.node)).then_some(root)
    }

    /// Whether only this node reads a value with a quantizer of its own, itself or moved.
    pub(crate) fn is_read_by_one(&self, graph: &Graph, root: ValueId, node: NodeId) -> bool {
        let reads = |reader: NodeId| reader == node || self.placement.nodes.get(&reader) == Some(&Role::Movement);
        let mut held = self.placement.values.iter().filter(|(_, from)| **from == root).map(|(&value, _)| value);
        held.all(|value| {
            let entry = graph.value(value);
            entry.uses().iter().all(|u| reads(u.node)) && entry.captures().is_empty() && !graph.is_output(value)
        })
    }

    /// The plan that the run uses: entries of layers left in float say so.
    pub(crate) fn carried_out(&self, model: &Model) -> BitPlan {
        let entry = |layer: Layer| {
            let planned = self.layer_plan(&layer);
            let done = match (self.is_on_integers(&layer), self.is_weight_only(&layer)) {
                (true, _) => planned,
                (false, true) if planned.activations == ActivationBits::Dynamic => planned,
                (false, true) => LayerPlan { activations: ActivationBits::Float, ..planned },
                (false, false) => LayerPlan::FLOAT,
            };
            (layer.name, done)
        };
        let beside = self.stored.iter().map(|weight| (weight.name.clone(), self.stored_plan(weight)));
        self.plan.with_layers(layers(model).into_iter().map(entry).chain(beside).collect())
    }
}

/// Where quantizers go: not where the caller, the plan or the engine refuses a node, nor around masks that are added.
fn placement(model: &Model, plan: &BitPlan, target: &Profile, selection: &Selection, coverage: &Coverage) -> Placement {
    let planned = |node: &Node, name: &str| {
        // Among them products of two activations, which are no layers.
        if plan.float.iter().any(|float| float == name) {
            return Some(PLANNED_FLOAT.to_owned());
        }
        LayerOp::of(node)?;
        let has_weight = node.inputs().iter().take(2).flatten().any(|&value| model.graph.constant(value).is_some());
        let [own, usual] = [plan.layer(name), plan.default].map(Option::unwrap_or_default);
        planned_float(own, usual, has_weight).map(str::to_owned)
    };
    let masking = if target.integers_only { with_readers(model, masking(model)) } else { masking(model) };
    let masks = |id| masking.contains(&id).then(|| "it adds a mask, whose constants blow up a range".to_owned());
    Placement::new(model, target, |id, node, name| {
        let chosen = selection.refusal(node, name).or_else(|| planned(node, name));
        chosen.or_else(|| coverage.refusal(id)).or_else(|| masks(id))
    })
}

/// How the file is written, where the caller leaves it open: with shortened names where weights are packed, and with scales
/// in half precision where they have few bits.
fn output_options(options: &Options, plan: &BitPlan, packs: bool) -> OutputOptions {
    let OutputOptions { strip_names, half_scales, full_scales, .. } = options.output;
    // Without regard to packing: weights are the same packed and unpacked.
    let small = options.scheme.profile.folds_decoders && strip_names != Some(false) && has_few_bits(plan);
    OutputOptions {
        half_scales: half_scales || small && !full_scales,
        strip_names: Some(strip_names.unwrap_or(packs)),
        ..options.output.clone()
    }
}

/// Whether any layer has weights of fewer than 8 bits.
fn has_few_bits(plan: &BitPlan) -> bool {
    let few = |layer: &LayerPlan| layer.weights != WeightBits::Float && layer.weights.width() < 8;
    plan.layers.values().chain(&plan.default).any(few)
}

/// How each layer is packed, by name; layers with one byte per integer have no entry.
pub(crate) fn packings<'a>(layers: impl Iterator<Item = &'a Layer>, plan: &BitPlan) -> IndexMap<String, Packing> {
    let packing = |layer: &Layer| Some((layer.name.clone(), plan.layer(&layer.name)?.packing(layer.weights())?));
    layers.filter_map(packing).collect()
}

/// Why the plan leaves the computation of a layer, or of a product of two activations, in float, if it does, where most layers
/// have the `usual` plan.
fn planned_float(plan: LayerPlan, usual: LayerPlan, has_weight: bool) -> Option<&'static str> {
    match (plan.weights, plan.activations) {
        (WeightBits::Float, _) => Some(PLANNED_FLOAT),
        (_, ActivationBits::Float) if usual.activations == ActivationBits::Dynamic => {
            Some("no kernel quantizes what it reads at run time: only products with a matrix have one")
        }
        (_, ActivationBits::Float) => Some("its activations are float in the plan"),
        (_, ActivationBits::Dynamic) if has_weight => Some("its activations are quantized at run time"),
        (_, ActivationBits::Dynamic) => {
            Some("both operands are computed: only products with a weight are quantized at run time")
        }
        _ if plan.block().is_some() => Some("its weight has one scale per block"),
        _ => None,
    }
}

/// Whether a layer that computes in float can store integers.
fn can_be_stored(model: &Model, layer: &Layer, target: &Profile) -> bool {
    let float = model.graph.constant(layer.weight).and_then(msq_passes::ir::TensorProto::element_type);
    let taken = refuses_layer(&target.forms, &model.graph, layer).is_none();
    taken && layer.weights() > 0 && float == Some(DataType::Float)
}

/// What is said of a model with nothing to quantize: why the node that holds most weights stays float.
fn hint(model: &Model, placement: &Placement) -> String {
    let graph = &model.graph;
    let held: HashMap<&str, usize> =
        graph.nodes().map(|(_, node)| (node.label(graph), floats_of(graph, node))).collect();
    let weights = |kept: &&Kept| held.get(&*kept.node).copied().unwrap_or_default();
    // The first of those that hold the same.
    let most = placement.kept.iter().rev().max_by_key(weights);
    most.map_or_else(String::new, |kept| format!(": `{}` ({}): {}", kept.node, kept.op, kept.reason))
}

/// Number of floats in the constants and attributes of a node.
fn floats_of(graph: &Graph, node: &Node) -> usize {
    let count = |tensor: &TensorProto| if tensor.is_float() { tensor.element_count().unwrap_or_default() } else { 0 };
    let constants = node.inputs().iter().flatten().filter_map(|&value| graph.constant(value));
    let constants: usize = constants.map(count).sum();
    let attributes = node.attributes().iter().map(|held| held.floats.len() + held.t.as_ref().map_or(0, count));
    constants + attributes.sum::<usize>()
}
