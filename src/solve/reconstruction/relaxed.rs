//! The network between float and integers: activations are quantized, weights are not.
//!
//! A quantizer is first written as the clamp y = clip(x, s·(l − z), s·(u − z)), whose gradient by x is that of rounding
//! taken for the identity ([`msq_passes::Differentiate`]). Once the gradient is in the graph, the clamps give way to
//! `QuantizeLinear` and `DequantizeLinear`, which compute the same without the rounding left out ([`round`]). Nodes and
//! values keep the names of the float network, and clamps stay that quantizers will absorb: the function is the same.

use crate::calibrate::observe::Observed;
use crate::scheme::Scheme;
use crate::solve::SolveError;
use msq_passes::ActivationQuantizer;
use msq_passes::analysis::{Absorbed, Placement, Role};
use msq_passes::ir::{Graph, Model, NodeId, NodeProto, TensorProto, Use, ValueId};

/// Whose quantizer it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The quantizer of a value, by its name.
    Value(String),
    /// The quantizer of the input of a layer, by the layer's name.
    Layer(String),
}

/// A quantizer of an activation.
#[derive(Clone, Debug)]
pub(super) struct Quantizer {
    pub(super) owner: Owner,
    pub(super) grid: ActivationQuantizer,
    /// Name of the value that it reads.
    pub(super) read: String,
    /// Name of the value that it writes.
    pub(super) written: String,
    /// Names of the constants that its clamp is bounded by.
    ends: [String; 2],
    /// Whether its scale follows from data alone.
    pub(super) free: bool,
}

impl Quantizer {
    /// The values of the outermost integers.
    pub(super) fn bounds(&self) -> [f32; 2] {
        let (low, high) = self.grid.interval();
        [low, high].map(|end| (end - self.grid.zero_point) as f32 * self.grid.scale)
    }
}

/// A network with quantizers as clamps.
#[derive(Clone, Debug)]
pub(super) struct Relaxed {
    pub(super) model: Model,
    pub(super) quantizers: Vec<Quantizer>,
}

impl Relaxed {
    /// Of a float network, with the quantizers that the scheme places in it.
    pub(super) fn new(model: &Model, scheme: &Scheme, observed: &Observed) -> Result<Self, SolveError> {
        Self::of(model, scheme, observed, |_| true)
    }

    /// The network with rounded activations and float weights.
    pub(super) fn rounded(model: &Model, scheme: &Scheme, observed: &Observed) -> Result<Model, SolveError> {
        let Self { mut model, quantizers } = Self::new(model, scheme, observed)?;
        round(&mut model, &quantizers)?;
        Ok(model)
    }

    /// Of a float network, with quantizers in front of those readers that `reads` says yes to.
    pub(super) fn of(
        model: &Model,
        scheme: &Scheme,
        observed: &Observed,
        reads: impl Fn(NodeId) -> bool,
    ) -> Result<Self, SolveError> {
        let placement = &scheme.placement;
        let mut relaxed = Self { model: model.clone(), quantizers: Vec::new() };
        for root in placement.roots().filter(|&root| model.graph.constant(root).is_none()) {
            let name = model.graph.value(root).name().to_owned();
            let Some(&grid) = observed.activations.get(&name) else { continue };
            let mut readers = readers(placement, &model.graph, root);
            readers.retain(|reader| reads(reader.node));
            if readers.is_empty() {
                continue;
            }
            let free = !scheme.is_given(root) && placement.bound_of(&model.graph, root).is_none();
            relaxed.insert(root, grid, &readers, Owner::Value(name), free);
        }
        for layer in placement.layers().filter(|layer| reads(layer.node)) {
            let Some(&grid) = observed.requantized.get(&layer.name) else { continue };
            let reader = Use { node: layer.node, slot: 1 - layer.weight_slot };
            let Some(read) = relaxed.model.graph.node(layer.node).input(reader.slot) else { continue };
            relaxed.insert(read, grid, &[reader], Owner::Layer(layer.name.clone()), true);
        }
        relaxed.model.graph.sort().map_err(msq_passes::PassError::from)?;
        Ok(relaxed)
    }

    fn insert(&mut self, read: ValueId, grid: ActivationQuantizer, readers: &[Use], owner: Owner, free: bool) {
        let graph = &mut self.model.graph;
        let name = graph.value(read).name().to_owned();
        let mut quantizer =
            Quantizer { owner, grid, read: name.clone(), written: String::new(), ends: Default::default(), free };
        let [low, high] = quantizer.bounds();
        let mut bound = |end: &str, value: f32| {
            graph.add_initializer(TensorProto::from_f32(&format!("{name}_{end}"), &[], &[value]))
        };
        let (low, high) = (bound("lowest", low), bound("highest", high));
        let written =
            graph.add_op("Clip", &[Some(read), Some(low), Some(high)], Vec::new(), &format!("{name}_relaxed"));
        if let Some(ty) = graph.value(read).ty().cloned() {
            graph.set_type(written, ty);
        }
        for reader in readers {
            graph.set_input(reader.node, reader.slot, Some(written));
        }
        graph.value(written).name().clone_into(&mut quantizer.written);
        quantizer.ends = [low, high].map(|bound| graph.value(bound).name().to_owned());
        self.quantizers.push(quantizer);
    }
}

/// Who reads the quantized form of a value: everyone where an integer kernel writes it, else the integer kernels.
fn readers(placement: &Placement, graph: &Graph, value: ValueId) -> Vec<Use> {
    let written = graph.value(value).producer().is_some_and(|(node, _)| is_integer(placement, node));
    let everyone = written && placement.profile.quantized_outputs;
    let reads = |reader: &&Use| match placement.nodes.get(&reader.node) {
        _ if everyone => true,
        Some(Role::Layer(layer)) => reader.slot == 1 - layer.weight_slot,
        Some(Role::Arithmetic | Role::Product) => true,
        Some(&Role::ResidualSum { quantized }) => reader.slot == quantized,
        Some(Role::Movement | Role::Index) => reader.slot == 0,
        None => false,
    };
    graph.value(value).uses().iter().filter(reads).copied().collect()
}

/// Whether a node runs on integers or goes into a quantizer behind one that does.
fn is_integer(placement: &Placement, node: NodeId) -> bool {
    match placement.absorbed.get(&node) {
        Some(Absorbed::Clamp { .. }) => !placement.keeps_clamps(),
        Some(_) => true,
        None => placement.nodes.contains_key(&node),
    }
}

/// Puts quantizers in the place of the clamps that stand for them, on their present grids. Those that a model lacks are
/// left out.
pub(super) fn round(model: &mut Model, quantizers: &[Quantizer]) -> Result<(), SolveError> {
    let graph = &mut model.graph;
    for Quantizer { grid, written, .. } in quantizers {
        let Some(value) = graph.find(written) else { continue };
        let Some((clamp, _)) = graph.value(value).producer().filter(|(node, _)| graph.node(*node).is("Clip")) else {
            continue;
        };
        let Some(read) = graph.node(clamp).input(0) else { continue };
        let integer = |name: &str, value: i32| grid.tensor(&format!("{written}_{name}"), &[], &[value]);
        let scale = graph.add_initializer(TensorProto::from_f32(&scale_of(written), &[], &[grid.scale]));
        let zero = graph.add_initializer(integer("zero_point", grid.zero_point));
        let parameters = [Some(scale), Some(zero)];
        let inputs = [&[Some(read)][..], &parameters].concat();
        let mut integers = graph.add_op("QuantizeLinear", &inputs, Vec::new(), &format!("{written}_quantized"));
        if grid.bits < 8 {
            let (low, high) = grid.interval();
            let low = grid.signed.then(|| graph.add_initializer(integer("low", low)));
            let high = graph.add_initializer(integer("high", high));
            let inputs = [Some(integers), low, Some(high)];
            integers = graph.add_op("Clip", &inputs, Vec::new(), &format!("{written}_clipped"));
        }
        graph.remove_node(clamp);
        let name = Some(format!("{written}_dequantize"));
        let node = NodeProto { op_type: Some("DequantizeLinear".to_owned()), name, ..NodeProto::default() };
        graph.add_node(node, &[&[Some(integers)][..], &parameters].concat(), &[Some(value)]);
    }
    graph.sort().map_err(msq_passes::PassError::from)?;
    Ok(())
}

/// States the grid of a quantizer in a network with clamps, or with quantizers in their place.
pub(super) fn state_grid(model: &mut Model, quantizer: &Quantizer) {
    let graph = &mut model.graph;
    let scale = (scale_of(&quantizer.written), quantizer.grid.scale);
    let ends = quantizer.ends.iter().cloned().zip(quantizer.bounds());
    for (name, number) in ends.chain([scale]) {
        if let Some(value) = graph.find(&name) {
            graph.set_initializer(value, TensorProto::from_f32(&name, &[], &[number]));
        }
    }
}

/// The name of the scale of what stands in the place of a clamp.
fn scale_of(written: &str) -> String {
    format!("{written}_scale")
}
