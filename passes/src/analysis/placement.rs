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
//! Where zero points are 0 a quantizer cannot clamp at zero. A clamp then stays, right before the quantizer; factors are
//! not absorbed. Where the target takes a residual sum into the layer before it, the operand that the layer computes is
//! not quantized, the other is.

use super::{ChannelAffine, Layer, LayerOp, batch_norm_affine, batch_norm_channels, layers};
use crate::ir::{Graph, Model, Node, NodeId, Use, ValueId};
use crate::profile::{ActivationGrid, Profile, Support};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

/// What an operator of an integer region is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// A layer.
    Layer(Layer),
    /// Computes from quantized values.
    Arithmetic,
    /// Adds a quantized value to what a layer computes.
    ResidualSum {
        /// Which operand is quantized.
        quantized: usize,
    },
    /// Moves quantized values.
    Movement,
}

/// What a quantizer does in place of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Absorbed {
    /// Saturates at zero, and at the bound if there is one.
    Clamp {
        /// The upper bound the range must keep to.
        bound: Option<f32>,
    },
    /// Multiplies with a positive constant.
    Scale(f32),
    /// Multiplies and adds a channel, in the weights' scales and the bias of the layer before.
    Affine,
}

/// A node that stays float, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
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
}

impl Placement {
    /// Places quantizers for a target. `skip` is asked of every node, with its name, and gives the reason to leave it
    /// float.
    pub fn new(model: &Model, profile: &Profile, skip: impl Fn(&Node, &str) -> Option<String>) -> Self {
        let mut draft = Draft::new(model, profile);
        for (id, node) in model.graph.nodes() {
            draft.reasons.extend(skip(node, node.label(&model.graph)).map(|reason| (id, reason)));
        }
        draft.choose_layers();
        draft.grow_forward();
        draft.shrink_backward();
        draft.finish()
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
            Some(Role::Arithmetic) => true,
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

    /// Factor and offset a channel that a layer takes in from the batch-norm absorbed behind it.
    pub fn affine_of(&self, model: &Model, layer: &Layer) -> Option<Result<ChannelAffine, crate::PassError>> {
        let next = model.graph.only_use(layer.output)?.node;
        (self.absorbed.get(&next) == Some(&Absorbed::Affine)).then(|| batch_norm_affine(model, next))
    }

    /// What a layer's kernel writes: its output, or that of the last node it absorbed.
    pub fn written_by(&self, graph: &Graph, layer: &Layer) -> ValueId {
        let mut value = layer.output;
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
            Absorbed::Affine => None,
        }
    }

    /// Whether the quantizer of a value stands for a clamp from zero.
    pub fn is_clamped(&self, graph: &Graph, value: ValueId) -> bool {
        let Some((producer, _)) = graph.value(value).producer() else { return false };
        match self.absorbed.get(&producer) {
            Some(Absorbed::Clamp { .. }) => !self.keeps_clamps(),
            Some(Absorbed::Scale(_)) => computed_input(graph, producer).is_some_and(|v| self.is_clamped(graph, v)),
            Some(Absorbed::Affine) | None => false,
        }
    }

    /// A bound below which the value makes no difference, so that its range need not reach further: −c for an x that
    /// is only read as x·clip(x + c, 0, b), the form of a hard swish, whose second factor is 0 there.
    pub fn floor_of(&self, graph: &Graph, value: ValueId) -> Option<f32> {
        let mut floor = None;
        let mut gate = None;
        let readers = graph.value(value).uses();
        for reader in readers {
            let node = graph.node(reader.node);
            if let Some(offset) = node.is("Add").then(|| scalar_operand(graph, node)).flatten() {
                let clamp = node.output(0).and_then(|v| graph.only_use(v)).map(|u| u.node)?;
                if !matches!(self.absorbed.get(&clamp), Some(Absorbed::Clamp { .. })) {
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

struct Draft<'a> {
    graph: &'a Graph,
    profile: &'a Profile,
    layers: HashMap<NodeId, Layer>,
    roles: IndexMap<NodeId, Role>,
    /// Values that would be quantized.
    quantized: IndexSet<ValueId>,
    absorbed: IndexMap<NodeId, Absorbed>,
    reasons: HashMap<NodeId, String>,
}

impl<'a> Draft<'a> {
    fn new(model: &'a Model, profile: &'a Profile) -> Self {
        let layers = layers(model).into_iter().map(|l| (l.node, l)).collect();
        Self {
            graph: &model.graph,
            profile,
            layers,
            roles: IndexMap::new(),
            quantized: IndexSet::new(),
            absorbed: IndexMap::new(),
            reasons: HashMap::new(),
        }
    }

    /// Layers the target has kernels for; their inputs are quantized.
    fn choose_layers(&mut self) {
        for (id, node) in self.graph.nodes() {
            let Some(layer) = self.layers.get(&id) else { continue };
            if self.reasons.contains_key(&id) {
                continue;
            }
            if let Some(reason) = refuse_layer(self.graph, self.profile, node, layer) {
                self.reasons.insert(id, reason);
            } else {
                self.quantized.insert(layer.input);
                self.roles.insert(id, Role::Layer(layer.clone()));
            }
        }
    }

    /// In node order: operators whose inputs are all quantized join, and clamps behind integer kernels are absorbed.
    fn grow_forward(&mut self) {
        for (id, node) in self.graph.nodes() {
            if self.roles.contains_key(&id) {
                self.quantized.extend(node.output(0));
                continue;
            }
            if !node.domain().is_empty() || self.layers.contains_key(&id) || self.reasons.contains_key(&id) {
                continue;
            }
            if self.profile.support(node.op()).is_none() || self.absorb(id, node) {
                continue;
            }
            match self.profile.support(node.op()) {
                Some(Support::Arithmetic) if self.reads_only_quantized(node) => self.join(id, node, Role::Arithmetic),
                Some(Support::Movement) if self.can_move(node) => self.join(id, node, Role::Movement),
                Some(Support::ResidualSum) => self.join_sum(id, node),
                _ => {}
            }
        }
    }

    fn join(&mut self, id: NodeId, node: &Node, role: Role) {
        if node.outputs().iter().skip(1).any(Option::is_some) {
            return;
        }
        self.quantized.extend(node.output(0));
        self.roles.insert(id, role);
    }

    /// A sum joins when a layer computes one operand for it alone.
    fn join_sum(&mut self, id: NodeId, node: &Node) {
        let (Some(a), Some(b), Some(output)) = (node.input(0), node.input(1), node.output(0)) else { return };
        let constant = [a, b].iter().any(|&v| self.graph.constant(v).is_some());
        let Some(slot) = [a, b].iter().position(|&v| self.only_feeds_sum(v)).filter(|_| !constant && a != b) else {
            return;
        };
        let (computed, other) = if slot == 0 { (a, b) } else { (b, a) };
        self.quantized.swap_remove(&computed);
        self.quantized.extend([other, output]);
        self.roles.insert(id, Role::ResidualSum { quantized: 1 - slot });
    }

    fn only_feeds_sum(&self, value: ValueId) -> bool {
        let Some((producer, _)) = self.graph.value(value).producer() else { return false };
        let computed = matches!(self.roles.get(&producer), Some(Role::Layer(_)))
            || self.absorbed.get(&producer) == Some(&Absorbed::Affine);
        computed && self.graph.only_use(value).is_some()
    }

    fn reads_only_quantized(&self, node: &Node) -> bool {
        let mut dynamic = false;
        let fits = node.inputs().iter().flatten().all(|&value| {
            let constant = self.graph.constant(value);
            dynamic |= constant.is_none();
            constant.map_or_else(|| self.quantized.contains(&value), crate::ir::TensorProto::is_float)
        });
        fits && dynamic
    }

    fn can_move(&self, node: &Node) -> bool {
        let Some(data) = node.input(0) else { return false };
        let pads_zero = node.op() != "Pad" || pads_with_zero(self.graph, node);
        self.quantized.contains(&data) && self.graph.constant(data).is_none() && pads_zero
    }

    /// A node is absorbed when it is all that reads what an integer kernel, or a node absorbed before it, computes.
    fn absorb(&mut self, id: NodeId, node: &Node) -> bool {
        let Some((input, absorbed)) = absorbable(self.graph, node) else { return false };
        let symmetric = self.profile.activations == ActivationGrid::Symmetric;
        if symmetric && matches!(absorbed, Absorbed::Scale(_)) {
            return false;
        }
        let (Some(output), Some((producer, _))) = (node.output(0), self.graph.value(input).producer()) else {
            return false;
        };
        let computes =
            matches!(self.roles.get(&producer), Some(Role::Layer(_) | Role::Arithmetic | Role::ResidualSum { .. }))
                || self.absorbed.contains_key(&producer);
        if !computes || self.graph.only_use(input).is_none() {
            return false;
        }
        if absorbed == Absorbed::Affine && !self.takes_affine(producer, node) {
            return false;
        }
        self.absorbed.insert(id, absorbed);
        self.quantized.swap_remove(&input);
        self.quantized.insert(output);
        true
    }

    /// Whether the node is a layer with a bias of its own and as many channels as the batch-norm has.
    fn takes_affine(&self, producer: NodeId, norm: &Node) -> bool {
        let Some(Role::Layer(layer)) = self.roles.get(&producer) else { return false };
        let takes = matches!(layer.op, LayerOp::Conv | LayerOp::Gemm);
        takes && layer.axis.map(|axis| layer.shape[axis]) == batch_norm_channels(self.graph, norm).ok()
    }

    /// In reverse order: operators that feed no integer kernel leave.
    fn shrink_backward(&mut self) {
        let ids: Vec<NodeId> = self.graph.node_ids().rev().collect();
        for id in ids {
            let Some(role) = self.roles.get(&id) else { continue };
            let Some(written) = self.written(id) else { continue };
            if self.feeds_integers(written) {
                continue;
            }
            let op = self.graph.node(id).op();
            match role {
                Role::Layer(_) => {
                    if self.profile.support(op) == Some(Support::Layer { float_output: true }) {
                        self.release(id, written);
                    }
                }
                Role::ResidualSum { .. } => self.release(id, written),
                Role::Arithmetic | Role::Movement => {
                    self.roles.shift_remove(&id);
                    self.release(id, written);
                    self.reasons.insert(id, "no integer kernel reads its output".to_owned());
                }
            }
        }
    }

    /// The value a node's kernel writes: its output, or that of the last node it absorbed.
    fn written(&self, id: NodeId) -> Option<ValueId> {
        let mut value = self.graph.node(id).output(0)?;
        while let Some(next) = self.absorber(value) {
            value = self.graph.node(next).output(0)?;
        }
        Some(value)
    }

    fn absorber(&self, value: ValueId) -> Option<NodeId> {
        self.graph.only_use(value).map(|u| u.node).filter(|n| self.absorbed.contains_key(n))
    }

    fn feeds_integers(&self, value: ValueId) -> bool {
        self.graph.value(value).uses().iter().any(|u| match self.roles.get(&u.node) {
            Some(Role::Layer(layer)) => layer.input == value,
            Some(&Role::ResidualSum { quantized }) => u.slot == quantized,
            Some(_) => true,
            None => false,
        })
    }

    /// What the node writes stays float, and so do the nodes it had absorbed.
    fn release(&mut self, id: NodeId, written: ValueId) {
        self.quantized.swap_remove(&written);
        let mut value = self.graph.node(id).output(0);
        while let Some(next) = value.and_then(|v| self.absorber(v)) {
            value = self.graph.node(next).output(0);
            self.absorbed.shift_remove(&next);
        }
    }

    fn finish(self) -> Placement {
        let mut values: IndexMap<ValueId, ValueId> = IndexMap::new();
        for input in self.graph.inputs().filter(|v| self.quantized.contains(v)) {
            values.insert(input, input);
        }
        for (id, node) in self.graph.nodes() {
            if let Some(role) = self.roles.get(&id) {
                for &value in node.inputs().iter().flatten().filter(|v| self.reads_float(role, node, **v)) {
                    values.entry(value).or_insert(value);
                }
            }
            let moved = (self.roles.get(&id) == Some(&Role::Movement)).then(|| node.input(0)).flatten();
            for &value in node.outputs().iter().flatten().filter(|v| self.quantized.contains(*v)) {
                let root = moved.and_then(|v| values.get(&v).copied()).unwrap_or(value);
                values.entry(value).or_insert(root);
            }
        }
        let kept = self.kept();
        Placement { profile: *self.profile, nodes: self.roles, values, absorbed: self.absorbed, kept }
    }

    /// Constants that arithmetic reads are quantized too; weights, biases, shapes and paddings are not activations.
    fn reads_float(&self, role: &Role, node: &Node, value: ValueId) -> bool {
        let constant = self.graph.constant(value).is_some();
        match role {
            Role::Layer(_) | Role::Movement => !constant && self.quantized.contains(&value),
            Role::ResidualSum { quantized } => node.input(*quantized) == Some(value),
            Role::Arithmetic => true,
        }
    }

    fn kept(&self) -> Vec<Kept> {
        let float_ops = self.graph.nodes().filter(|(id, node)| {
            let integer = self.roles.contains_key(id) || self.absorbed.contains_key(id);
            !integer && (self.reasons.contains_key(id) || worth_naming(node.op()))
        });
        let kept = |(id, node): (NodeId, &Node)| Kept {
            node: node.label(self.graph).to_owned(),
            op: node.op().to_owned(),
            reason: self.reason(id, node),
        };
        float_ops.map(kept).collect()
    }

    fn reason(&self, id: NodeId, node: &Node) -> String {
        if let Some(reason) = self.reasons.get(&id) {
            return reason.clone();
        }
        match (node.op(), self.profile.support(node.op())) {
            ("Conv" | "ConvTranspose" | "Gemm", _) => "its weight is not a float constant".to_owned(),
            ("MatMul", _) => "both operands are activations".to_owned(),
            (_, Some(_)) => "it reads values that are not quantized".to_owned(),
            (_, None) => format!("`{}` has no integer kernel for {}", self.profile.name, node.op()),
        }
    }
}

/// Operators whose staying float a user wants to know about; shape arithmetic and the like are not among them.
fn worth_naming(op: &str) -> bool {
    const SILENT: [&str; 18] = [
        "Shape",
        "Gather",
        "Constant",
        "ConstantOfShape",
        "Cast",
        "Range",
        "Slice",
        "Concat",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Identity",
        "Expand",
        "Where",
        "Equal",
        "Less",
        "Greater",
        "Not",
    ];
    !SILENT.contains(&op)
}

fn refuse_layer(graph: &Graph, profile: &Profile, node: &Node, layer: &Layer) -> Option<String> {
    if !matches!(profile.support(node.op()), Some(Support::Layer { .. })) {
        return Some(format!("`{}` has no integer kernel for {}", profile.name, node.op()));
    }
    if layer.weight_slot != 1 {
        return Some("its constant operand is on the left".to_owned());
    }
    if layer.axis.is_none() {
        return Some(format!("its weight has shape {:?}", layer.shape));
    }
    if node.op() == "MatMul" && layer.shape.len() != 2 {
        return Some("its weight is not a matrix".to_owned());
    }
    if layer.weights() == 0 {
        return Some("its weight is empty".to_owned());
    }
    if node.int_or("transA", 0) != 0 {
        return Some("it transposes its activation".to_owned());
    }
    if node.float_or("alpha", 1.0) != 1.0 || node.float_or("beta", 1.0) != 1.0 {
        return Some("it scales its product".to_owned());
    }
    refuse_tensors(graph, layer)
}

fn refuse_tensors(graph: &Graph, layer: &Layer) -> Option<String> {
    let weight = graph.constant(layer.weight)?;
    if weight.element_type() != Some(crate::ir::DataType::Float) {
        return Some(format!("its weight is {}", weight.element_type().map_or("unknown", crate::ir::DataType::name)));
    }
    let bias = layer.bias?;
    let Some(tensor) = graph.constant(bias) else { return Some("its bias is not constant".to_owned()) };
    let channels = layer.axis.map_or(0, |axis| layer.shape[axis]);
    (tensor.shape() != Ok(vec![channels])).then(|| "its bias is no vector over the channels".to_owned())
}

/// The activation a node reads and what a quantizer would do in the node's place, if it is a clamp from zero, a
/// product with a positive constant or a batch-norm.
fn absorbable(graph: &Graph, node: &Node) -> Option<(ValueId, Absorbed)> {
    let constant = |v: ValueId| graph.constant(v).and_then(crate::ir::TensorProto::scalar_f32);
    let input = node.input(0)?;
    match node.op() {
        "Relu" => Some((input, Absorbed::Clamp { bound: None })),
        "Clip" => {
            let bound = |slot: usize, name: &str, open: f32| match node.input(slot) {
                Some(value) => constant(value),
                None => Some(node.float_or(name, open)),
            };
            let (low, high) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
            let bound = high.is_finite().then_some(high);
            (low == 0.0 && high > 0.0).then_some((input, Absorbed::Clamp { bound }))
        }
        "BatchNormalization" => batch_norm_channels(graph, node).ok().map(|_| (input, Absorbed::Affine)),
        "Mul" => {
            let other = node.input(1)?;
            let (value, factor) = match (constant(input), constant(other)) {
                (None, Some(factor)) => (input, factor),
                (Some(factor), None) => (other, factor),
                _ => return None,
            };
            (factor > 0.0 && factor.is_normal()).then_some((value, Absorbed::Scale(factor)))
        }
        _ => None,
    }
}

/// Whether what a layer computes is cut off below zero, behind its batch-norm if it has one, before anything reads it.
pub fn is_rectified(graph: &Graph, layer: &Layer) -> bool {
    let mut value = layer.output;
    while let Some(reader) = graph.only_use(value).map(|reader| graph.node(reader.node)) {
        match absorbable(graph, reader) {
            Some((_, Absorbed::Clamp { .. })) => return true,
            Some((_, Absorbed::Affine)) => {}
            _ => return false,
        }
        let Some(next) = reader.output(0) else { return false };
        value = next;
    }
    false
}

fn pads_with_zero(graph: &Graph, node: &Node) -> bool {
    if node.string("mode").is_some_and(|m| m != "constant") {
        return true;
    }
    match node.input(2) {
        Some(value) => graph.constant(value).and_then(crate::ir::TensorProto::scalar_f32) == Some(0.0),
        None => node.float_or("value", 0.0) == 0.0,
    }
}
