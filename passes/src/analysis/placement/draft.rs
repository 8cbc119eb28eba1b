//! A placement in the making.

use super::joined::Joined;
use super::limits::refuse_form;
use super::roots::roots_of_squares;
use super::rules::{
    absorbable, counts_padding, floor, keeps_elements, operands, reads_constant, refuse_constant, refuse_layer,
};
use super::{Absorbed, Kept, Placement, Role};
use crate::analysis::dataflow::constant_values;
use crate::analysis::decoding::decodes;
use crate::analysis::element_types::element_types;
use crate::analysis::{Layer, LayerOp, batch_norm_channels, layers};
use crate::ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use crate::ops::{Trait, facts};
use crate::target::{ActivationGrid, Profile, Support};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

/// The reason for the nodes of a root of squares.
const ROOT: &str = "it is part of a root of squares or a division by it, which 8 bits do not hold";

/// The reason for a layer that reads nothing of the inputs.
const CONSTANT: &str =
    "the runtime computes it once, when it loads the file: nothing that it reads depends on an input";

/// The reason for an operator with an integer kernel that feeds no other one.
pub(super) const UNREAD: &str = "no integer kernel reads its output";

pub(super) struct Draft<'a> {
    pub(super) graph: &'a Graph,
    pub(super) profile: &'a Profile,
    pub(super) layers: HashMap<NodeId, Layer>,
    pub(super) roles: IndexMap<NodeId, Role>,
    /// Values that would be quantized.
    pub(super) quantized: IndexSet<ValueId>,
    absorbed: IndexMap<NodeId, Absorbed>,
    /// Why nodes stay float.
    pub(super) reasons: HashMap<NodeId, String>,
    /// Types of values, where the target runs nothing but integers: what is float is quantized for whatever reads it.
    types: HashMap<ValueId, DataType>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(model: &'a Model, profile: &'a Profile, mut reasons: HashMap<NodeId, String>) -> Self {
        let layers: HashMap<NodeId, Layer> = layers(model).into_iter().map(|l| (l.node, l)).collect();
        if profile.folds_decoders {
            // Quantizers would keep the runtime from that.
            let constant = constant_values(&model.graph);
            for layer in layers.values().filter(|layer| constant.contains(&layer.input)) {
                reasons.entry(layer.node).or_insert_with(|| CONSTANT.to_owned());
            }
        }
        if profile.integers_only {
            for node in roots_of_squares(&model.graph) {
                reasons.entry(node).or_insert_with(|| ROOT.to_owned());
            }
        }
        Self {
            graph: &model.graph,
            profile,
            layers,
            roles: IndexMap::new(),
            quantized: IndexSet::new(),
            absorbed: IndexMap::new(),
            reasons,
            types: if profile.integers_only { element_types(&model.graph) } else { HashMap::new() },
        }
    }

    /// Places all nodes.
    pub(super) fn drawn(mut self) -> Self {
        self.choose_layers();
        self.grow_forward();
        self.shrink_backward();
        self.join_products();
        self.forget_unread();
        self
    }

    /// Whether a node runs on integers or is absorbed by a quantizer.
    pub(super) fn is_on_integers(&self, id: NodeId) -> bool {
        self.roles.contains_key(&id) || self.absorbed.contains_key(&id)
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
        let joined = Joined::of(self.graph, &self.layers, self.profile);
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
            if let Some(reason) = self.refuse_form(node) {
                self.reasons.insert(id, reason);
                continue;
            }
            if joined.has(node) {
                self.reasons.insert(id, format!("`{}` computes it within the layer before it", self.profile.name));
                continue;
            }
            match self.profile.support(node.op()) {
                Some(Support::Arithmetic) if self.reads_only_quantized(node) => match self.refuse_arithmetic(node) {
                    Some(reason) => drop(self.reasons.insert(id, reason)),
                    None => self.join(id, node, Role::Arithmetic),
                },
                Some(Support::Clamp) if self.can_clamp(node) => self.join(id, node, Role::Arithmetic),
                Some(Support::Movement) if self.can_move(node) => self.join(id, node, Role::Movement),
                Some(Support::Index) if self.reads_only_quantized(node) => {
                    self.quantized.extend(node.input(0));
                    self.roles.insert(id, Role::Index);
                }
                Some(Support::ResidualSum) => self.join_sum(id, node),
                Some(Support::Layer { float_output: false })
                    if self.two_activations(node) && self.reads_only_quantized(node) =>
                {
                    self.join(id, node, Role::Arithmetic);
                }
                _ => {}
            }
        }
    }

    /// Why the target's kernel does not take a node that reads quantized values, if it does not.
    fn refuse_form(&self, node: &Node) -> Option<String> {
        let data = node.input(0)?;
        refuse_form(self.graph, self.profile, node).filter(|_| self.can_be_read(data))
    }

    /// Why arithmetic on quantized operands stays float, if it does.
    fn refuse_arithmetic(&self, node: &Node) -> Option<String> {
        let padded = || counts_padding(node) && !node.input(0).is_some_and(|value| self.starts_at_zero(value));
        if !self.profile.forms.pads_zero_point && padded() {
            return Some(format!("`{}` pads integers with 0, whatever their zero point", self.profile.name));
        }
        refuse_constant(self.graph, self.profile, node)
    }

    /// Whether the quantizer of a value clamps at zero, so that its zero point is 0.
    fn starts_at_zero(&self, mut value: ValueId) -> bool {
        while let Some((producer, _)) = self.graph.value(value).producer() {
            if matches!(self.absorbed.get(&producer), Some(Absorbed::Clamp { .. })) {
                return true;
            }
            let moves = self.roles.get(&producer) == Some(&Role::Movement);
            let Some(input) = self.graph.node(producer).input(0).filter(|_| moves) else { return false };
            value = input;
        }
        false
    }

    fn join(&mut self, id: NodeId, node: &Node, role: Role) {
        if self.has_fitting_outputs(node) {
            if self.profile.integers_only {
                let read: Vec<ValueId> = match role {
                    Role::Movement => node.input(0).into_iter().collect(),
                    _ => operands(node).filter(|&value| self.graph.constant(value).is_none()).collect(),
                };
                self.quantized.extend(read);
            }
            self.quantized.extend(node.outputs().iter().flatten());
            self.roles.insert(id, role);
        }
    }

    /// Whether an integer kernel can read a value: it is quantized, or, where the target runs nothing but integers, a float
    /// value that is quantized for the kernel.
    fn can_be_read(&self, value: ValueId) -> bool {
        self.quantized.contains(&value) || self.types.get(&value) == Some(&DataType::Float)
    }

    /// What was to be quantized for kernels that have left again is not.
    fn forget_unread(&mut self) {
        if !self.profile.integers_only {
            return;
        }
        let written: IndexSet<ValueId> = self.roles.keys().flat_map(|&id| self.written(id)).collect();
        let kept: Vec<ValueId> = self.quantized.iter().copied().collect();
        let kept: IndexSet<ValueId> =
            kept.into_iter().filter(|value| written.contains(value) || self.feeds_integers(*value)).collect();
        self.quantized = kept;
    }

    /// Whether the node has one output, or is a `Split` each part of which somebody reads: runtimes match its parts
    /// with as many quantizers.
    fn has_fitting_outputs(&self, node: &Node) -> bool {
        let read = |&value: &ValueId| {
            let entry = self.graph.value(value);
            !entry.uses().is_empty() || !entry.captures().is_empty() || self.graph.is_output(value)
        };
        match node.outputs() {
            [Some(_)] => true,
            [_, rest @ ..] if !node.is("Split") => rest.iter().all(Option::is_none),
            outputs => outputs.iter().all(|output| output.as_ref().is_some_and(read)),
        }
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
        let fits = operands(node).all(|value| {
            let constant = self.graph.constant(value);
            dynamic |= constant.is_none();
            constant.map_or_else(|| self.can_be_read(value), |tensor| reads_constant(self.profile, node, tensor))
        });
        fits && dynamic
    }

    fn can_move(&self, node: &Node) -> bool {
        let Some(data) = node.input(0) else { return false };
        self.can_be_read(data) && self.graph.constant(data).is_none() && keeps_elements(self.graph, self.profile, node)
    }

    /// Whether a clamp that no quantizer stands for runs on integers of its own, where the target runs nothing else.
    fn can_clamp(&self, node: &Node) -> bool {
        let constant = |value: &ValueId| self.graph.constant(*value).is_some();
        let bounded = node.inputs().iter().skip(1).flatten().all(constant);
        self.profile.integers_only && bounded && self.reads_only_quantized(node)
    }

    /// A node is absorbed when it is all that reads what an integer kernel, or a node absorbed before it, computes.
    fn absorb(&mut self, id: NodeId, node: &Node) -> bool {
        let symmetric = self.profile.activations == ActivationGrid::Symmetric;
        let floors = self.profile.integers_only && !symmetric;
        let found = absorbable(self.graph, node).or_else(|| floor(self.graph, node).filter(|_| floors));
        let Some((input, absorbed)) = found else { return false };
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
            let written = self.written(id);
            if written.iter().any(|&value| self.feeds_integers(value)) {
                continue;
            }
            let op = self.graph.node(id).op();
            match role {
                Role::Layer(_) => {
                    let may_write_floats = self.profile.support(op) == Some(Support::Layer { float_output: true });
                    if may_write_floats && !self.wants_quantizer(id) {
                        self.release(id, &written);
                    }
                }
                Role::Product | Role::Index => {}
                Role::ResidualSum { .. } => self.release(id, &written),
                Role::Arithmetic | Role::Movement => {
                    self.roles.shift_remove(&id);
                    self.release(id, &written);
                    self.reasons.insert(id, UNREAD.to_owned());
                }
            }
        }
    }

    /// Whether the target's kernel runs on integers only with a quantizer behind the clamp that alone reads the layer:
    /// where one node reads the clamp. With more readers the runtime does not look at the clamp.
    fn wants_quantizer(&self, layer: NodeId) -> bool {
        let clamp = self.graph.node(layer).output(0).and_then(|value| self.absorber(value));
        let clamped = |clamp: NodeId| {
            let alone = self.graph.node(clamp).output(0).is_some_and(|value| self.graph.only_use(value).is_some());
            alone && matches!(self.absorbed.get(&clamp), Some(Absorbed::Clamp { .. }))
        };
        self.profile.clamps_need_quantizer && clamp.is_some_and(clamped)
    }

    /// The values a node's kernel writes: its outputs, or in place of one that of the last node it absorbed.
    pub(super) fn written(&self, id: NodeId) -> Vec<ValueId> {
        let behind = |&value: &ValueId| {
            let mut value = value;
            while let Some(next) = self.absorber(value).and_then(|next| self.graph.node(next).output(0)) {
                value = next;
            }
            value
        };
        self.graph.node(id).outputs().iter().flatten().map(behind).collect()
    }

    fn absorber(&self, value: ValueId) -> Option<NodeId> {
        self.graph.only_use(value).map(|u| u.node).filter(|n| self.absorbed.contains_key(n))
    }

    pub(super) fn feeds_integers(&self, value: ValueId) -> bool {
        self.graph.value(value).uses().iter().any(|u| match self.roles.get(&u.node) {
            Some(Role::Layer(layer)) => layer.input == value,
            Some(&Role::ResidualSum { quantized }) => u.slot == quantized,
            Some(Role::Arithmetic) => facts(self.graph.node(u.node).op()).is_data(u.slot),
            Some(Role::Product) => true,
            Some(Role::Movement | Role::Index) => u.slot == 0,
            None => false,
        })
    }

    /// What the node writes stays float, and so do the nodes it had absorbed.
    fn release(&mut self, id: NodeId, written: &[ValueId]) {
        self.quantized.retain(|value| !written.contains(value));
        let mut value = self.graph.node(id).output(0);
        while let Some(next) = value.and_then(|v| self.absorber(v)) {
            value = self.graph.node(next).output(0);
            self.absorbed.shift_remove(&next);
        }
    }

    /// Whether the target's kernel multiplies two activations as well.
    fn two_activations(&self, node: &Node) -> bool {
        self.profile.kernel(node.op()).is_some_and(|kernel| kernel.placed && kernel.two_activations)
    }

    /// Products of two activations that kernels have written on integers anyway, and what only moves these activations
    /// on the way, where such kernels may write floats. No value is quantized for such a product: that takes longer than it saves, and runtimes run it on
    /// integers whether or not the file says so.
    fn join_products(&mut self) {
        // Where kernels write integers only, products that read integers have joined as other operators do.
        let floats = |op: &str| self.profile.support(op) == Some(Support::Layer { float_output: true });
        let products: Vec<NodeId> = self
            .graph
            .nodes()
            .filter(|(id, node)| {
                node.domain().is_empty()
                    && floats(node.op())
                    && self.two_activations(node)
                    && !self.layers.contains_key(id)
                    && !self.reasons.contains_key(id)
            })
            .map(|(id, _)| id)
            .collect();
        for id in products {
            let Some(factors) = self.graph.node(id).two_inputs() else { continue };
            let Some(paths) =
                factors.into_iter().map(|value| self.moved_from_kernel(value)).collect::<Option<Vec<_>>>()
            else {
                continue;
            };
            for movement in paths.into_iter().flatten().rev() {
                self.reasons.remove(&movement);
                self.join(movement, self.graph.node(movement), Role::Movement);
            }
            self.roles.insert(id, Role::Product);
        }
    }

    /// The movements between a value and the integer kernel that writes it, the last one first; nothing where
    /// something else than movements lies between.
    fn moved_from_kernel(&self, mut value: ValueId) -> Option<Vec<NodeId>> {
        let mut path = Vec::new();
        loop {
            let (producer, _) = self.graph.value(value).producer()?;
            if self.quantized.contains(&value) {
                let writes = self.roles.contains_key(&producer) || self.absorbed.contains_key(&producer);
                return writes.then_some(path);
            }
            let node = self.graph.node(producer);
            let moves = node.domain().is_empty()
                && self.profile.support(node.op()) == Some(Support::Movement)
                && keeps_elements(self.graph, self.profile, node)
                && self.has_fitting_outputs(node)
                // What the caller wants in float stays so.
                && self.reasons.get(&producer).is_none_or(|reason| reason == UNREAD);
            value = node.input(0).filter(|_| moves)?;
            path.push(producer);
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
        let widened = IndexMap::new();
        let (profile, nodes, absorbed) = (*self.profile, self.roles, self.absorbed);
        Placement { profile, nodes, values, absorbed, kept, predicted: None, widened }
    }

    /// Constants that arithmetic reads are quantized too; weights, biases, shapes and paddings are not activations.
    fn reads_float(&self, role: &Role, node: &Node, value: ValueId) -> bool {
        let constant = self.graph.constant(value).is_some();
        match role {
            Role::Layer(_) | Role::Product | Role::Movement | Role::Index => {
                !constant && self.quantized.contains(&value)
            }
            Role::ResidualSum { quantized } => node.input(*quantized) == Some(value),
            Role::Arithmetic => operands(node).any(|operand| operand == value),
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
        if let Some(reason) = decodes(self.graph, node) {
            return reason.to_owned();
        }
        match (facts(node.op()).float_layer(), self.profile.support(node.op())) {
            (Some(LayerOp::MatMul), _) => "both operands are activations".to_owned(),
            (Some(_), _) => "its weight is not a float constant".to_owned(),
            (_, Some(_)) => "it reads values that are not quantized".to_owned(),
            (_, None) => format!("`{}` has no integer kernel for {}", self.profile.name, node.op()),
        }
    }
}
