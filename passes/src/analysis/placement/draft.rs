//! A placement in the making.

use super::rules::{absorbable, pads_with_zero, refuse_constant, refuse_layer};
use super::{Absorbed, Kept, Placement, Role};
use crate::analysis::{Layer, LayerOp, batch_norm_channels, layers};
use crate::ir::{Graph, Model, Node, NodeId, ValueId};
use crate::ops::{Trait, facts};
use crate::target::{ActivationGrid, Profile, Support};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

pub(super) struct Draft<'a> {
    graph: &'a Graph,
    profile: &'a Profile,
    layers: HashMap<NodeId, Layer>,
    roles: IndexMap<NodeId, Role>,
    /// Values that would be quantized.
    quantized: IndexSet<ValueId>,
    absorbed: IndexMap<NodeId, Absorbed>,
    /// Why nodes stay float.
    pub(super) reasons: HashMap<NodeId, String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(model: &'a Model, profile: &'a Profile) -> Self {
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
    pub(super) fn choose_layers(&mut self) {
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
    pub(super) fn grow_forward(&mut self) {
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
                Some(Support::Arithmetic) if self.reads_only_quantized(node) => match refuse_constant(self.graph, node)
                {
                    Some(reason) => drop(self.reasons.insert(id, reason)),
                    None => self.join(id, node, Role::Arithmetic),
                },
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
    pub(super) fn shrink_backward(&mut self) {
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

    pub(super) fn finish(self) -> Placement {
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
            !integer && (self.reasons.contains_key(id) || !facts(node.op()).has(Trait::ShapeArithmetic))
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
        match (facts(node.op()).float_layer(), self.profile.support(node.op())) {
            (Some(LayerOp::MatMul), _) => "both operands are activations".to_owned(),
            (Some(_), _) => "its weight is not a float constant".to_owned(),
            (_, Some(_)) => "it reads values that are not quantized".to_owned(),
            (_, None) => format!("`{}` has no integer kernel for {}", self.profile.name, node.op()),
        }
    }
}
