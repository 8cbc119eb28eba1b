//! Fusions as descriptions, and the one driver that judges and applies them.
//!
//! A fusion describes what would happen at a site as a [`Rewrite`]: the nodes it replaces, the nodes it changes but
//! keeps, the values it takes for its own, and what is new. The driver alone decides whether that may happen. A value
//! that vanishes, or whose elements change, must be read once, by a node of the rewrite; otherwise somebody else would
//! miss it or read other numbers. The reasons to refuse are the same for every fusion:
//!
//! * `v` is a graph output: the caller fetches it;
//! * a sub-graph reads `v`: by name, out of sight of the rewrite;
//! * `v` is read by another node too.
//!
//! A value whose readers move to another value (see [`Rewrite::forward`]) must be neither an input nor an output of the
//! graph, and its readers must be able to see the other value.
//!
//! Sites are judged before the graph changes: all of them first ([`Plan`]), or, where a rewrite makes the next one
//! possible, one after the other ([`in_turn`]). Refusals and near misses end in the [`Outcome`] of the pass.

use crate::ir::{AttributeProto, Graph, Model, NodeId, NodeProto, TensorError, TensorProto, ValueId};
use crate::pass::{Outcome, PassError};
use indexmap::IndexSet;
use std::collections::HashMap;

/// What a fusion finds at a site: nothing that resembles its pattern, a rewrite, or a near miss.
pub(crate) type Found = Result<Option<Rewrite>, Miss>;

/// Why a site has no rewrite.
#[derive(Debug)]
pub(crate) enum Miss {
    /// The site resembles the pattern and is left alone, for this reason.
    Declined(String),
    /// The site cannot be read.
    Failed(PassError),
}

impl From<String> for Miss {
    fn from(reason: String) -> Self {
        Self::Declined(reason)
    }
}

impl From<&str> for Miss {
    fn from(reason: &str) -> Self {
        Self::Declined(reason.to_owned())
    }
}

impl From<PassError> for Miss {
    fn from(error: PassError) -> Self {
        Self::Failed(error)
    }
}

impl From<TensorError> for Miss {
    fn from(error: TensorError) -> Self {
        Self::Failed(error.into())
    }
}

/// What a new node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A value of the graph.
    Value(ValueId),
    /// The constant or the result that the rewrite makes as its n-th.
    New(usize),
    /// Nothing: an optional input is left out.
    Absent,
}

impl From<ValueId> for Operand {
    fn from(value: ValueId) -> Self {
        Self::Value(value)
    }
}

impl From<Option<ValueId>> for Operand {
    fn from(value: Option<ValueId>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }
}

/// Something a rewrite adds.
#[derive(Clone, Debug)]
enum New {
    /// An initializer.
    Constant(TensorProto),
    /// An initializer that all rewrites of one run share under its name.
    Shared(TensorProto),
    /// A node whose result is a fresh value near this name, which may name the node as well.
    Op { proto: NodeProto, inputs: Vec<Operand>, output: String, named_after: bool },
    /// A node that writes a value of the graph instead of the node that wrote it before.
    Node { proto: NodeProto, inputs: Vec<Operand>, output: Option<ValueId> },
}

/// A change to a node that stays.
#[derive(Clone, Debug)]
enum Edit {
    RemoveAttribute(NodeId, &'static str),
    Input(NodeId, usize, Operand),
    Output(NodeId, usize, ValueId),
}

/// What a fusion does at one site.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewrite {
    replaced: Vec<NodeId>,
    kept: Vec<NodeId>,
    private: Vec<ValueId>,
    unread: Vec<ValueId>,
    constants: Vec<(ValueId, TensorProto)>,
    new: Vec<New>,
    made: usize,
    edits: Vec<Edit>,
    forward: Option<(ValueId, ValueId)>,
}

impl Rewrite {
    /// A rewrite that replaces a node.
    pub(crate) fn of(node: NodeId) -> Self {
        Self { replaced: vec![node], ..Self::default() }
    }

    /// Replaces this node as well.
    #[must_use]
    pub(crate) fn and(mut self, node: NodeId) -> Self {
        if !self.replaced.contains(&node) {
            self.replaced.push(node);
        }
        self
    }

    /// Changes this node but keeps it.
    #[must_use]
    pub(crate) fn keeping(mut self, node: NodeId) -> Self {
        self.kept.push(node);
        self
    }

    /// The value vanishes, or its elements change: only a node of this rewrite may read it.
    #[must_use]
    pub(crate) fn private(mut self, value: ValueId) -> Self {
        self.private.push(value);
        self
    }

    /// These values go if nothing reads them any more.
    #[must_use]
    pub(crate) fn dropping(mut self, values: impl IntoIterator<Item = ValueId>) -> Self {
        self.unread.extend(values);
        self
    }

    /// Gives a constant of the graph other elements; it is private thereby.
    pub(crate) fn set_constant(&mut self, value: ValueId, tensor: TensorProto) {
        self.private.push(value);
        self.constants.push((value, tensor));
    }

    /// Adds an initializer called as the tensor is, or near that.
    pub(crate) fn constant(&mut self, tensor: TensorProto) -> Operand {
        self.make(New::Constant(tensor))
    }

    /// A new constant that all rewrites of a run share which ask for it by the same name.
    pub(crate) fn shared_constant(&mut self, tensor: TensorProto) -> Operand {
        self.make(New::Shared(tensor))
    }

    /// Adds a node of the default domain whose result is a fresh value near `output`, named after that value.
    pub(crate) fn op(
        &mut self,
        op: &str,
        inputs: &[Operand],
        attributes: Vec<AttributeProto>,
        output: String,
    ) -> Operand {
        let proto = NodeProto::of(op, "", attributes);
        self.make(New::Op { proto, inputs: inputs.to_vec(), output, named_after: true })
    }

    /// Adds a node, named or not as it is, whose result is a fresh value near `output`.
    pub(crate) fn named_op(&mut self, proto: NodeProto, inputs: &[Operand], output: String) -> Operand {
        self.make(New::Op { proto, inputs: inputs.to_vec(), output, named_after: false })
    }

    /// Adds a node that writes `output`, which another node wrote before.
    pub(crate) fn node(&mut self, proto: NodeProto, inputs: &[Operand], output: Option<ValueId>) {
        self.new.push(New::Node { proto, inputs: inputs.to_vec(), output });
    }

    /// Removes an attribute of a node that stays.
    pub(crate) fn remove_attribute(&mut self, node: NodeId, name: &'static str) {
        self.edits.push(Edit::RemoveAttribute(node, name));
    }

    /// Makes a node that stays read another operand.
    pub(crate) fn set_input(&mut self, node: NodeId, slot: usize, operand: Operand) {
        self.edits.push(Edit::Input(node, slot, operand));
    }

    /// Makes a node that stays write another value, which it takes from the node that wrote it before.
    pub(crate) fn set_output(&mut self, node: NodeId, slot: usize, value: ValueId) {
        self.edits.push(Edit::Output(node, slot, value));
    }

    /// Makes all that reads `from`, sub-graphs included, read `to`; `from` vanishes.
    #[must_use]
    pub(crate) fn forward(mut self, from: ValueId, to: ValueId) -> Self {
        self.forward = Some((from, to));
        self
    }

    /// The nodes that go.
    pub(crate) fn replaced(&self) -> &[NodeId] {
        &self.replaced
    }

    fn make(&mut self, new: New) -> Operand {
        self.new.push(new);
        self.made += 1;
        Operand::New(self.made - 1)
    }

    /// Whether a new node is of this domain.
    fn is_of_domain(&self, domain: &str) -> bool {
        self.new.iter().any(|new| match new {
            New::Op { proto, .. } | New::Node { proto, .. } => proto.domain() == domain,
            New::Constant(_) | New::Shared(_) => false,
        })
    }

    /// Why the rewrite would take something from somebody else.
    fn refusal(&self, graph: &Graph) -> Option<String> {
        let own = |node: NodeId| self.replaced.contains(&node) || self.kept.contains(&node);
        let shared = self.private.iter().find_map(|&value| shared_with(graph, value, own));
        shared.or_else(|| self.forward.and_then(|(from, to)| not_forwarded(graph, from, to)))
    }
}

/// Who besides one node of a rewrite needs a value that the rewrite takes for its own.
pub(crate) fn shared_with(graph: &Graph, value: ValueId, own: impl Fn(NodeId) -> bool) -> Option<String> {
    let (name, v) = (graph.value(value).name(), graph.value(value));
    if graph.is_output(value) {
        return Some(format!("`{name}` is a graph output"));
    }
    if !v.captures().is_empty() {
        return Some(format!("a sub-graph reads `{name}`"));
    }
    if let Some(other) = v.uses().iter().find(|reader| !own(reader.node)) {
        return Some(format!("`{name}` is read by `{}` too", graph.node(other.node).label(graph)));
    }
    let reader = v.uses().get(1)?;
    Some(format!("`{name}` is read twice by `{}`", graph.node(reader.node).label(graph)))
}

/// Why not all that needs `from` can have `to` instead.
fn not_forwarded(graph: &Graph, from: ValueId, to: ValueId) -> Option<String> {
    let name = graph.value(from).name();
    if graph.is_output(from) {
        return Some(format!("`{name}` is a graph output"));
    }
    if graph.is_input(from) {
        return Some(format!("`{name}` is an input that a caller can override"));
    }
    let hidden = !graph.value(from).captures().is_empty() && graph.is_reserved(graph.value(to).name());
    hidden.then(|| {
        format!(
            "a sub-graph reads `{name}`, and a sub-graph has a value of its own called `{}`",
            graph.value(to).name()
        )
    })
}

/// The rewrites of all sites of a graph, judged on the graph as it is before the first of them.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rewrites: Vec<Rewrite>,
    outcome: Outcome,
    /// Constants that rewrites share, by name.
    shared: Shared,
}

impl Plan {
    /// Adds what a fusion found at a site, unless somebody else needs what it would take. `site` is the name that
    /// messages use for it.
    pub(crate) fn add(&mut self, graph: &Graph, site: &str, found: Found) -> Result<(), PassError> {
        match found {
            Ok(None) => {}
            Ok(Some(rewrite)) => match rewrite.refusal(graph) {
                None => self.rewrites.push(rewrite),
                Some(reason) => self.outcome.decline(site, reason),
            },
            Err(Miss::Declined(reason)) => self.outcome.decline(site, reason),
            Err(Miss::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    /// Whether a node of this domain will be added.
    pub(crate) fn adds_domain(&self, domain: &str) -> bool {
        self.rewrites.iter().any(|rewrite| rewrite.is_of_domain(domain))
    }

    /// Carries the rewrites out, in the order in which they were added.
    pub(crate) fn apply(mut self, graph: &mut Graph) -> Outcome {
        self.carry_out(graph);
        self.outcome
    }

    fn carry_out(&mut self, graph: &mut Graph) {
        for rewrite in std::mem::take(&mut self.rewrites) {
            apply(graph, rewrite, &mut self.shared);
            self.outcome.count();
        }
    }
}

/// Describes and rewrites one site after the other, each on the graph that the rewrites before it left.
pub(crate) fn in_turn(
    model: &mut Model,
    sites: Vec<NodeId>,
    describe: impl Fn(&Model, NodeId) -> Found,
) -> Result<Outcome, PassError> {
    let mut plan = Plan::default();
    for id in sites {
        // A rewrite before may have replaced it.
        if model.graph.contains_node(id) {
            plan.add(&model.graph, model.graph.node(id).label(&model.graph), describe(model, id))?;
            plan.carry_out(&mut model.graph);
        }
    }
    Ok(plan.outcome)
}

/// Shared constants of a run, by name.
type Shared = HashMap<String, ValueId>;

fn apply(graph: &mut Graph, rewrite: Rewrite, shared: &mut Shared) {
    for (value, tensor) in rewrite.constants {
        graph.set_initializer(value, tensor);
    }
    let mut made = Vec::with_capacity(rewrite.made);
    for new in rewrite.new {
        made.extend(add(graph, new, &made, shared));
    }
    for edit in rewrite.edits {
        match edit {
            Edit::RemoveAttribute(node, name) => graph.remove_attribute(node, name),
            Edit::Input(node, slot, operand) => graph.set_input(node, slot, value(operand, &made)),
            Edit::Output(node, slot, output) => graph.set_output(node, slot, output),
        }
    }
    for node in rewrite.replaced {
        graph.remove_node(node);
    }
    if let Some((from, to)) = rewrite.forward {
        graph.replace_uses(from, to);
    }
    let from = rewrite.forward.map(|(from, _)| from);
    let gone: IndexSet<ValueId> = rewrite.private.into_iter().chain(rewrite.unread).chain(from).collect();
    for value in gone {
        graph.remove_value(value);
    }
}

fn value(operand: Operand, made: &[ValueId]) -> Option<ValueId> {
    match operand {
        Operand::Value(value) => Some(value),
        Operand::New(index) => made.get(index).copied(),
        Operand::Absent => None,
    }
}

/// Adds a constant or a node; returns the value it makes, if that is a new one.
fn add(graph: &mut Graph, new: New, made: &[ValueId], shared: &mut Shared) -> Option<ValueId> {
    let operands = |inputs: Vec<Operand>| inputs.into_iter().map(|o| value(o, made)).collect::<Vec<_>>();
    match new {
        New::Constant(tensor) => Some(graph.add_initializer(tensor)),
        New::Shared(tensor) => {
            let name = tensor.name().to_owned();
            Some(*shared.entry(name).or_insert_with(|| graph.add_initializer(tensor)))
        }
        New::Op { mut proto, inputs, output, named_after } => {
            let result = graph.add_value(&output);
            if named_after {
                proto.name = Some(graph.value(result).name().to_owned());
            }
            graph.add_node(proto, &operands(inputs), &[Some(result)]);
            Some(result)
        }
        New::Node { proto, inputs, output } => {
            graph.add_node(proto, &operands(inputs), &[output]);
            None
        }
    }
}
