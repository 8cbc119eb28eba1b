//! Where the quantizers go.
//!
//! Integer kernels run only where everything they read and write is quantized. So: the activation a layer reads is
//! quantized always. Going forward, an operator with an integer kernel joins when all it reads is quantized already.
//! Going backward, an operator that is no layer leaves again when no integer kernel reads what it writes: quantizing
//! for a float reader costs time and accuracy and gains nothing. What an integer kernel writes is quantized, except
//! where the kernel can write floats and only floats are wanted.
//!
//! A clamp (`Relu`, `Clip` from zero) right after an integer kernel is absorbed: the quantizer behind it saturates
//! at zero point 0, which is the same function. A product with a positive constant c is absorbed too: y = c·x is
//! quantized with scale s/c and dequantized with scale s. So is a batch-norm: its factors go into the scales of the
//! layer's weights, its offsets into the bias. It is then the absorbed node's output that is quantized.
//!
//! Where a target runs nothing but integers, an operator with an integer kernel joins whatever computes what it reads, and
//! a clamp from a number below zero is absorbed as well: the range of the quantizer begins at that number. A clamp that
//! no quantizer can stand for, since something else reads its input too, computes like any other operator. Roots of
//! squares stay in float (`roots`), as do forms that the target's kernel does not take (`limits`).
//!
//! A product of two activations joins where kernels have written both on integers anyway. What the target's prices say
//! is slower on integers stays float (`pays`, `cut`), and everything is placed again without it.
//!
//! Where zero points are 0 a quantizer cannot clamp at zero. A clamp then stays, right before the quantizer; factors are
//! not absorbed. Where the target takes a residual sum into the layer before it, the operand that the layer computes is
//! not quantized, the other is.

mod blocks;
mod convolution;
mod cut;
mod draft;
mod fused;
mod joined;
mod layout;
mod leading;
mod limits;
mod network;
mod pays;
mod repeats;
mod roots;
mod rules;
mod widths;

#[cfg(test)]
mod tests;

pub(crate) use rules::counts_padding;
pub use rules::is_rectified;

use super::{ChannelAffine, Layer, batch_norm_affine};
use crate::ir::{Graph, Model, Node, NodeId, Use, ValueId};
use crate::target::{ActivationGrid, Profile};
use draft::Draft;
use indexmap::IndexMap;
use pays::Account;
use std::collections::HashMap;

/// What an operator of an integer region is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// A layer.
    Layer(Layer),
    /// Computes from quantized values.
    Arithmetic,
    /// Multiplies two quantized values, and may write floats.
    Product,
    /// Adds a quantized value to what a layer computes.
    ResidualSum {
        /// Which operand is quantized.
        quantized: usize,
    },
    /// Moves quantized values.
    Movement,
    /// Reads quantized values and writes where some of them are.
    Index,
}

/// What a quantizer does in place of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Absorbed {
    /// Saturates at zero, and at the bound if there is one.
    Clamp {
        /// The upper bound the range must keep to.
        bound: Option<f32>,
    },
    /// Saturates at a number below zero, the lower end of the range.
    Floor(f32),
    /// Multiplies with a positive constant.
    Scale(f32),
    /// Multiplies and adds per channel, in the weights' scales and the bias of the layer before.
    Affine,
}

/// A node that stays float, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Kept {
    /// The node's name, or its output's.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why it stays float.
    pub reason: String,
}

/// Where the quantizers of a graph go.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The target.
    pub profile: Profile,
    /// Nodes that run on integers.
    pub nodes: IndexMap<NodeId, Role>,
    /// Quantized values, each with the value whose parameters it has: itself, or the one it was moved from.
    pub values: IndexMap<ValueId, ValueId>,
    /// Nodes that go because a quantizer does their work. Clamps among them stay where [`Placement::keeps_clamps`].
    pub absorbed: IndexMap<NodeId, Absorbed>,
    /// Nodes with float work that stay float.
    pub kept: Vec<Kept>,
    /// Nanoseconds that the network takes by the target's prices, where it has any.
    pub predicted: Option<f64>,
    /// Convolutions that are faster with more output channels, and how many they get in the file (pass `widen-channels`).
    pub widened: IndexMap<NodeId, usize>,
}

impl Placement {
    /// Places quantizers for a target. `skip` is asked of every node, with its name, and gives the reason to leave it
    /// float.
    pub fn new(model: &Model, profile: &Profile, skip: impl Fn(NodeId, &Node, &str) -> Option<String>) -> Self {
        let nodes = model.graph.nodes();
        let mut reasons: HashMap<NodeId, String> =
            nodes.filter_map(|(id, node)| Some((id, skip(id, node, node.label(&model.graph))?))).collect();
        loop {
            let mut draft = Draft::new(model, profile, reasons.clone()).drawn();
            leading::quantize_before(&mut draft);
            let Some(prices) = profile.prices else { return draft.finish() };
            let widths = Account::new(model, &draft, prices, HashMap::new()).find_widths();
            let account = Account::new(model, &draft, prices, widths.more);
            let slower = if profile.leaves_slow { account.slower() } else { Vec::new() };
            if slower.is_empty() {
                let predicted = Some(account.network());
                return Self { widened: widths.layers, predicted, ..draft.finish() };
            }
            reasons.extend(slower);
        }
    }

    /// The values that need parameters of their own, in graph order.
    pub fn roots(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.values.iter().filter(|(value, root)| value == root).map(|(&value, _)| value)
    }

    /// The value whose parameters a quantized value has.
    pub fn root(&self, value: ValueId) -> ValueId {
        self.values.get(&value).copied().unwrap_or(value)
    }

    /// Whether something other than a layer reads a quantized value for what it is: arithmetic, or, where the value
    /// itself stands for its integers, float nodes and the caller. Movements read it for what reads them.
    pub fn is_read_in_full(&self, graph: &Graph, value: ValueId) -> bool {
        let v = graph.value(value);
        let written = v.producer().is_some_and(|(node, _)| match self.absorbed.get(&node) {
            Some(Absorbed::Clamp { .. }) => !self.keeps_clamps(),
            Some(_) => true,
            None => self.nodes.contains_key(&node),
        });
        let everyone = written && self.profile.quantized_outputs;
        let full = |reader: &Use| match self.nodes.get(&reader.node) {
            Some(Role::Arithmetic | Role::Product | Role::Index) => true,
            Some(&Role::ResidualSum { quantized }) => everyone || reader.slot == quantized,
            Some(Role::Layer(layer)) => everyone && layer.input != value,
            Some(Role::Movement) => everyone && reader.slot != 0,
            None => everyone,
        };
        v.uses().iter().any(full) || (everyone && (graph.is_output(value) || !v.captures().is_empty()))
    }

    /// The quantized layers.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.nodes.values().filter_map(|role| if let Role::Layer(layer) = role { Some(layer) } else { None })
    }

    /// Whether clamps stand before quantizers, which cannot do their work.
    pub fn keeps_clamps(&self) -> bool {
        self.profile.activations == ActivationGrid::Symmetric
    }

    /// Factor and offset per channel that a layer takes in from the batch-norm absorbed behind it.
    pub fn affine_of(&self, model: &Model, layer: &Layer) -> Option<Result<ChannelAffine, crate::pass::PassError>> {
        let next = model.graph.only_use(layer.output)?.node;
        (self.absorbed.get(&next) == Some(&Absorbed::Affine)).then(|| batch_norm_affine(model, next))
    }

    /// What a layer's kernel writes: its output, or that of the last node it absorbed.
    pub fn written_by(&self, graph: &Graph, layer: &Layer) -> ValueId {
        self.written_behind(graph, layer.output)
    }

    /// What is written in the place of what a node computes: the output of the last node absorbed behind it.
    pub fn written_behind(&self, graph: &Graph, mut value: ValueId) -> ValueId {
        while let Some(next) = graph.only_use(value).map(|u| u.node).filter(|n| self.absorbed.contains_key(n)) {
            let Some(output) = graph.node(next).output(0) else { break };
            value = output;
        }
        value
    }

    /// The upper bound the range of a value must keep to because its quantizer stands for a clamp.
    pub fn bound_of(&self, graph: &Graph, value: ValueId) -> Option<f32> {
        let (producer, _) = graph.value(value).producer()?;
        let inner = || self.bound_of(graph, computed_input(graph, producer)?);
        match self.absorbed.get(&producer)? {
            Absorbed::Clamp { bound } => *bound,
            Absorbed::Scale(factor) => inner().map(|bound| bound * factor),
            Absorbed::Affine | Absorbed::Floor(_) => None,
        }
    }

    /// The number at which the quantizer of a value has to saturate because it stands for a clamp from below zero.
    pub fn low_of(&self, graph: &Graph, value: ValueId) -> Option<f32> {
        let (producer, _) = graph.value(value).producer()?;
        if let Absorbed::Floor(low) = self.absorbed.get(&producer)? { Some(*low) } else { None }
    }

    /// Whether the quantizer of a value stands for a clamp from zero.
    pub fn is_clamped(&self, graph: &Graph, value: ValueId) -> bool {
        let Some((producer, _)) = graph.value(value).producer() else { return false };
        match self.absorbed.get(&producer) {
            Some(Absorbed::Clamp { .. }) => !self.keeps_clamps(),
            Some(Absorbed::Scale(_)) => computed_input(graph, producer).is_some_and(|v| self.is_clamped(graph, v)),
            Some(Absorbed::Affine | Absorbed::Floor(_)) | None => false,
        }
    }

    /// A bound below which the value makes no difference, so that its range need not reach further: −c for an x that
    /// is only read as x·clip(x + c, 0, b), the form of a hard swish, whose second factor is 0 there; c where only a clamp
    /// from c reads it, and c/α with a `LeakyRelu` of slope α between them.
    pub fn floor_of(&self, graph: &Graph, value: ValueId) -> Option<f32> {
        Self::floor_of_clamp(graph, value).or_else(|| Self::floor_of_swish(graph, value))
    }

    fn floor_of_clamp(graph: &Graph, value: ValueId) -> Option<f32> {
        let (mut read, mut reader, mut slope) = (value, graph.node(graph.only_use(value)?.node), 1.0);
        if reader.is("LeakyRelu") {
            slope = reader.float_or("alpha", 0.01);
            read = reader.output(0)?;
            reader = graph.node(graph.only_use(read)?.node);
        }
        let clamps = reader.is("Clip") && reader.input(0) == Some(read) && slope > 0.0;
        let low = graph.constant(reader.input(1).filter(|_| clamps)?)?.scalar_f32()?;
        (low.is_finite() && low <= 0.0).then(|| low / slope)
    }

    fn floor_of_swish(graph: &Graph, value: ValueId) -> Option<f32> {
        let mut floor = None;
        let mut gate = None;
        let readers = graph.value(value).uses();
        for reader in readers {
            let node = graph.node(reader.node);
            if let Some(offset) = node.is("Add").then(|| scalar_operand(graph, node)).flatten() {
                let clamp = node.output(0).and_then(|v| graph.only_use(v)).map(|u| u.node)?;
                // It need not be absorbed: a product that stays float is 0 there as well.
                if !matches!(rules::absorbable(graph, graph.node(clamp)), Some((_, Absorbed::Clamp { .. }))) {
                    return None;
                }
                floor = Some(-offset);
                gate = graph.node(clamp).output(0);
            }
        }
        let gate = graph.only_use(gate?)?;
        let product = graph.node(gate.node);
        let gated = product.is("Mul") && product.inputs().contains(&Some(value)) && readers.len() == 2;
        (gated && !graph.is_output(value) && graph.value(value).captures().is_empty()).then_some(floor).flatten()
    }

    /// Magnitude beyond which a value of so many bits makes no difference that its readers could tell apart: all of them
    /// are sigmoids, whose outputs have as many. σ(8) is 1 but for a twelfth of a step of 8 bits, σ(14) but for an
    /// eighteenth of one of 16.
    pub fn saturation_of(&self, graph: &Graph, value: ValueId, bits: u8) -> Option<f32> {
        let entry = graph.value(value);
        let sigmoid = |reader: &Use| {
            graph.node(reader.node).is("Sigmoid") && self.nodes.get(&reader.node) == Some(&Role::Arithmetic)
        };
        let only = !entry.uses().is_empty() && entry.uses().iter().all(sigmoid);
        (only && !graph.is_output(value) && entry.captures().is_empty()).then_some(if bits > 8 { 14.0 } else { 8.0 })
    }

    /// What the quantizer of a value multiplies it with on the way: the product of the absorbed constants before it.
    pub fn factor_of(&self, graph: &Graph, value: ValueId) -> f32 {
        let Some((producer, _)) = graph.value(value).producer() else { return 1.0 };
        let Some(absorbed) = self.absorbed.get(&producer) else { return 1.0 };
        let inner = computed_input(graph, producer);
        let before = inner.map_or(1.0, |v| self.factor_of(graph, v));
        if let Absorbed::Scale(factor) = absorbed { before * factor } else { before }
    }
}

/// The constant operand of a binary node, if it is one number.
fn scalar_operand(graph: &Graph, node: &Node) -> Option<f32> {
    node.inputs().iter().flatten().find_map(|&v| graph.constant(v)?.scalar_f32())
}

/// The input of an absorbed node that is no constant.
fn computed_input(graph: &Graph, node: NodeId) -> Option<ValueId> {
    graph.node(node).inputs().iter().flatten().copied().find(|&v| graph.value(v).producer().is_some())
}
