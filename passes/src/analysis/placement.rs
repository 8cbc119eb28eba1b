//! Where the quantizers go.
//!
//! Integer kernels run only where everything they read and write is quantized. So: the activation a layer reads is
//! quantized always. Going forward, an operator with an integer kernel joins when all it reads is quantized already.
//! Going backward, an operator that is no layer leaves again when no integer kernel reads what it writes: quantizing
//! for a float reader costs time and accuracy and gains nothing. What an integer kernel writes is quantized, except
//! where the kernel can write floats and only floats are wanted.
//!
//! A clamp (`Relu`, `Clip` from zero) right after an integer kernel is absorbed: the quantizer behind it saturates
//! at zero point 0, which is the same function. It is then the clamp's output that is quantized.

use super::{Layer, layers};
use crate::ir::{Graph, Model, Node, NodeId, ValueId};
use crate::profile::{Profile, Support};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

/// What an operator of an integer region is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// A layer.
    Layer(Layer),
    /// Computes from quantized values.
    Arithmetic,
    /// Moves quantized values.
    Movement,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Nodes that run on integers.
    pub nodes: IndexMap<NodeId, Role>,
    /// Quantized values, each with the value whose parameters it has: itself, or the one it was moved from.
    pub values: IndexMap<ValueId, ValueId>,
    /// Clamps that go, each with the upper bound its quantizer must keep to, if it has one.
    pub absorbed: IndexMap<NodeId, Option<f32>>,
    /// Nodes with float work that stay float.
    pub kept: Vec<Kept>,
}

impl Placement {
    /// Places quantizers for a target. `skip` names layers to leave float, with the reason.
    pub fn new(model: &Model, profile: &Profile, skip: impl Fn(&Node, &str) -> Option<String>) -> Self {
        let mut draft = Draft::new(model, profile);
        draft.choose_layers(skip);
        draft.grow_forward();
        draft.shrink_backward();
        draft.finish()
    }

    /// The values that need parameters of their own, in graph order.
    pub fn roots(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.values.iter().filter(|(value, root)| value == root).map(|(&value, _)| value)
    }

    /// The quantized layers.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.nodes.values().filter_map(|role| if let Role::Layer(layer) = role { Some(layer) } else { None })
    }

    /// The upper bound the quantizer of a value must keep to because it stands for an absorbed `Clip`, and whether a
    /// clamp at zero was absorbed at all.
    pub fn clamp_of(&self, graph: &Graph, value: ValueId) -> Option<Option<f32>> {
        let (producer, _) = graph.value(value).producer()?;
        self.absorbed.get(&producer).copied()
    }
}

struct Draft<'a> {
    graph: &'a Graph,
    profile: &'a Profile,
    layers: HashMap<NodeId, Layer>,
    roles: IndexMap<NodeId, Role>,
    /// Values that would be quantized.
    quantized: IndexSet<ValueId>,
    absorbed: IndexMap<NodeId, Option<f32>>,
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
    fn choose_layers(&mut self, skip: impl Fn(&Node, &str) -> Option<String>) {
        for (id, node) in self.graph.nodes() {
            let Some(layer) = self.layers.get(&id) else { continue };
            let refusal = skip(node, &layer.name).or_else(|| refuse_layer(self.graph, self.profile, node, layer));
            match refusal {
                Some(reason) => {
                    self.reasons.insert(id, reason);
                }
                None => {
                    self.quantized.insert(layer.input);
                    self.roles.insert(id, Role::Layer(layer.clone()));
                }
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
            if !node.domain().is_empty() || self.layers.contains_key(&id) {
                continue;
            }
            match self.profile.support(node.op()) {
                Some(Support::Arithmetic) if self.reads_only_quantized(node) => self.join(id, node, Role::Arithmetic),
                Some(Support::Movement) if self.can_move(node) => self.join(id, node, Role::Movement),
                Some(Support::Clamp) => self.absorb(id, node),
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

    /// A clamp is absorbed when it is all that reads what an integer kernel computes.
    fn absorb(&mut self, id: NodeId, node: &Node) {
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return };
        let Some((producer, _)) = self.graph.value(input).producer() else { return };
        let computes = matches!(self.roles.get(&producer), Some(Role::Layer(_) | Role::Arithmetic));
        if !computes || self.graph.only_use(input).is_none() {
            return;
        }
        let Some(bound) = clamp_bound(self.graph, node) else { return };
        self.absorbed.insert(id, bound);
        self.quantized.swap_remove(&input);
        self.quantized.insert(output);
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
                Role::Arithmetic | Role::Movement => {
                    self.roles.shift_remove(&id);
                    self.release(id, written);
                    self.reasons.insert(id, "no integer kernel reads its output".to_owned());
                }
            }
        }
    }

    /// The value a node's kernel writes: its output, or that of the clamp it absorbed.
    fn written(&self, id: NodeId) -> Option<ValueId> {
        let output = self.graph.node(id).output(0)?;
        let clamp = self.graph.only_use(output).map(|u| u.node).filter(|n| self.absorbed.contains_key(n));
        clamp.map_or(Some(output), |n| self.graph.node(n).output(0))
    }

    fn feeds_integers(&self, value: ValueId) -> bool {
        self.graph.value(value).uses().iter().any(|u| match self.roles.get(&u.node) {
            Some(Role::Layer(layer)) => layer.input == value,
            Some(_) => true,
            None => false,
        })
    }

    /// What the node writes stays float, and so does the clamp behind it.
    fn release(&mut self, id: NodeId, written: ValueId) {
        self.quantized.swap_remove(&written);
        let output = self.graph.node(id).output(0);
        if let Some(clamp) = output.and_then(|v| self.graph.only_use(v)) {
            self.absorbed.shift_remove(&clamp.node);
        }
    }

    fn finish(self) -> Placement {
        let mut values: IndexMap<ValueId, ValueId> = IndexMap::new();
        for input in self.graph.inputs().filter(|v| self.quantized.contains(v)) {
            values.insert(input, input);
        }
        for (id, node) in self.graph.nodes() {
            if let Some(role) = self.roles.get(&id) {
                for &value in node.inputs().iter().flatten().filter(|v| self.reads_float(role, **v)) {
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
        Placement { nodes: self.roles, values, absorbed: self.absorbed, kept }
    }

    /// Constants that arithmetic reads are quantized too; weights, biases, shapes and paddings are not activations.
    fn reads_float(&self, role: &Role, value: ValueId) -> bool {
        let constant = self.graph.constant(value).is_some();
        match role {
            Role::Layer(_) | Role::Movement => !constant && self.quantized.contains(&value),
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

/// Upper bound of a clamp from zero: `Relu` has none. Nothing if the node is no such clamp.
fn clamp_bound(graph: &Graph, node: &Node) -> Option<Option<f32>> {
    if node.is("Relu") {
        return Some(None);
    }
    let bound = |slot: usize, name: &str, open: f32| match node.input(slot) {
        Some(value) => graph.constant(value).and_then(crate::ir::TensorProto::scalar_f32),
        None => Some(node.float_or(name, open)),
    };
    let (low, high) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
    (low == 0.0 && high > 0.0).then(|| high.is_finite().then_some(high))
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
