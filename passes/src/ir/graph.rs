//! The graph: arenas of nodes and values with up-to-date definitions and uses.
//!
//! Every method preserves these invariants, which [`super::check`] verifies: a value's producer and uses mirror the
//! nodes' inputs and outputs exactly; names are unique; a removed node or value leaves no trace. Node order is the
//! file's order; nodes added later stand at the end until [`Graph::sort`] moves them before their readers.

use super::value::Port;
use super::{
    GraphProto, Node, NodeId, NodeProto, SparseTensorProto, TensorProto, TypeProto, Use, Value, ValueId,
    ValueInfoProto, subgraph,
};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};

/// A graph of nodes and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The file's graph message, with the parts below left empty.
    pub(super) proto: GraphProto,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) order: Vec<NodeId>,
    pub(super) values: Vec<Option<Value>>,
    pub(super) names: HashMap<String, ValueId>,
    /// Names used inside sub-graphs, which no new value may take: ONNX names are unique across nesting.
    pub(super) reserved: HashSet<String>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) value_info: Vec<Port>,
    pub(super) initializers: IndexMap<ValueId, TensorProto>,
    pub(super) sparse: Vec<SparseTensorProto>,
}

impl Graph {
    /// The node behind a handle.
    ///
    /// # Panics
    /// If the node was removed: keeping a handle over a removal is a programming error.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("the node was removed")
    }

    /// The value behind a handle.
    ///
    /// # Panics
    /// If the value was removed: keeping a handle over a removal is a programming error.
    pub fn value(&self, id: ValueId) -> &Value {
        self.values[id.index()].as_ref().expect("the value was removed")
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("the node was removed")
    }

    pub(super) fn value_mut(&mut self, id: ValueId) -> &mut Value {
        self.values[id.index()].as_mut().expect("the value was removed")
    }

    /// Whether the handle still names a node.
    pub fn contains_node(&self, id: NodeId) -> bool {
        self.nodes.get(id.index()).is_some_and(Option::is_some)
    }

    /// Handles of all nodes, in order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + '_ {
        self.order.iter().copied()
    }

    /// All nodes with their handles, in order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> + '_ {
        self.order.iter().map(|&id| (id, self.node(id)))
    }

    /// All values with their handles, in the order they were made.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> + '_ {
        self.values.iter().enumerate().filter_map(|(i, v)| Some((ValueId(i as u32), v.as_ref()?)))
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        self.proto.name()
    }

    /// Graph inputs, initializers with an input's name among them (IR version 3).
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.inputs.iter().map(|p| p.value)
    }

    /// Graph inputs that a caller must feed: those without an initializer.
    pub fn runtime_inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs().filter(|v| !self.initializers.contains_key(v))
    }

    /// Graph outputs.
    pub fn outputs(&self) -> impl ExactSizeIterator<Item = ValueId> + '_ {
        self.outputs.iter().map(|p| p.value)
    }

    /// Whether the value is a graph output.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.outputs.iter().any(|p| p.value == value)
    }

    /// Whether the value is a graph input.
    pub fn is_input(&self, value: ValueId) -> bool {
        self.inputs.iter().any(|p| p.value == value)
    }

    /// The value called `name`.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Whether anything reads the value: a node, a sub-graph or the caller.
    pub fn is_used(&self, value: ValueId) -> bool {
        let v = self.value(value);
        !v.uses.is_empty() || !v.captures.is_empty() || self.is_output(value)
    }

    /// The input slot that reads the value, if it is the value's only reader.
    pub fn only_use(&self, value: ValueId) -> Option<Use> {
        let v = self.value(value);
        let [only] = v.uses[..] else { return None };
        (v.captures.is_empty() && !self.is_output(value)).then_some(only)
    }

    /// Initializers with their values, in file order.
    pub fn initializers(&self) -> impl ExactSizeIterator<Item = (ValueId, &TensorProto)> + '_ {
        self.initializers.iter().map(|(&v, t)| (v, t))
    }

    /// The initializer that defines the value. A caller may override an initializer that is a graph input too: see
    /// [`Graph::constant`].
    pub fn initializer(&self, value: ValueId) -> Option<&TensorProto> {
        self.initializers.get(&value)
    }

    /// The value's tensor if no caller can change it: an initializer that is not a graph input.
    pub fn constant(&self, value: ValueId) -> Option<&TensorProto> {
        if self.is_input(value) { None } else { self.initializer(value) }
    }

    /// Whether the value is a sparse initializer, whose elements are preserved but never read.
    pub fn is_sparse_initializer(&self, value: ValueId) -> bool {
        let name = self.value(value).name();
        self.sparse.iter().any(|s| s.values.as_ref().is_some_and(|t| t.name() == name))
    }

    /// Replaces or adds the initializer of a value. The tensor takes the value's name; a declared type that differs is
    /// replaced by the tensor's.
    pub fn set_initializer(&mut self, value: ValueId, mut tensor: TensorProto) {
        tensor.name = Some(self.value(value).name.clone());
        self.declare_as(value, &tensor);
        self.initializers.insert(value, tensor);
    }

    fn declare_as(&mut self, value: ValueId, tensor: &TensorProto) {
        let (Some(element), Ok(shape)) = (tensor.element_type(), tensor.shape()) else { return };
        let shape: Vec<Option<usize>> = shape.into_iter().map(Some).collect();
        let declared = self.value(value);
        if declared.ty.is_none()
            || (declared.element_type() == Some(element) && declared.shape() == Some(shape.clone()))
        {
            return;
        }
        let ty = TypeProto::tensor(element, &shape);
        for port in self.value_info.iter_mut().filter(|p| p.value == value) {
            port.info.r#type = Some(ty.clone());
        }
        self.value_mut(value).ty = Some(ty);
    }

    /// Adds a value defined by `tensor`, under the tensor's name or, if that is taken, a name near it.
    pub fn add_initializer(&mut self, tensor: TensorProto) -> ValueId {
        let value = self.add_value(tensor.name());
        self.set_initializer(value, tensor);
        value
    }

    /// Adds a value without a definition, called `name` or, if that is taken, `name_1`, `name_2` and so on.
    pub fn add_value(&mut self, name: &str) -> ValueId {
        let name = self.fresh_name(name);
        self.intern(&name)
    }

    /// A name near `stem` that no value of this graph or of its sub-graphs has.
    pub fn fresh_name(&self, stem: &str) -> String {
        let stem = if stem.is_empty() { "value" } else { stem };
        let taken = |name: &str| self.names.contains_key(name) || self.reserved.contains(name);
        if !taken(stem) {
            return stem.to_owned();
        }
        (1..u64::MAX).map(|i| format!("{stem}_{i}")).find(|n| !taken(n)).unwrap_or_else(|| stem.to_owned())
    }

    /// Whether a sub-graph defines a value of this name, so that no value of this graph may take it.
    pub fn is_reserved(&self, name: &str) -> bool {
        self.reserved.contains(name)
    }

    pub(super) fn intern(&mut self, name: &str) -> ValueId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let id = ValueId(self.values.len() as u32);
        let value = Value { name: name.to_owned(), ty: None, producer: None, uses: Vec::new(), captures: Vec::new() };
        self.values.push(Some(value));
        self.names.insert(name.to_owned(), id);
        id
    }

    /// Sets the type of a value without adding it to the file's value list. An entry of another shape there is taken out:
    /// runtimes refuse a file whose list contradicts what they infer.
    pub fn set_type(&mut self, value: ValueId, ty: TypeProto) {
        let stale = |port: &Port| port.info.r#type.as_ref().is_some_and(|declared| declared.contradicts(&ty));
        self.value_info.retain(|port| port.value != value || !stale(port));
        self.value_mut(value).ty = Some(ty);
    }

    /// Changes the type of an inner value, in the file's value list too, for a pass that computes the value in another
    /// layout under the same name.
    pub(crate) fn change_type(&mut self, value: ValueId, change: impl Fn(&TypeProto) -> TypeProto) {
        for port in self.value_info.iter_mut().filter(|port| port.value == value) {
            port.info.r#type = port.info.r#type.as_ref().map(&change);
        }
        let entry = self.value_mut(value);
        entry.ty = entry.ty.as_ref().map(&change);
    }

    /// Adds a node at the end. Its input and output names are taken from `inputs` and `outputs`, not from `proto`.
    /// An output that already has a producer gets this node as its producer instead.
    pub fn add_node(
        &mut self,
        mut proto: NodeProto,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> NodeId {
        proto.input.clear();
        proto.output.clear();
        let id = NodeId(self.nodes.len() as u32);
        let captures = self.captured_values(&proto);
        for (slot, value) in inputs.iter().enumerate() {
            if let &Some(value) = value {
                self.value_mut(value).uses.push(Use { node: id, slot });
            }
        }
        for &value in &captures {
            self.value_mut(value).captures.push(id);
        }
        for (slot, value) in outputs.iter().enumerate() {
            if let &Some(value) = value {
                self.detach_producer(value);
                self.value_mut(value).producer = Some((id, slot));
            }
        }
        let node = Node { proto, inputs: inputs.to_vec(), outputs: outputs.to_vec(), captures };
        self.nodes.push(Some(node));
        self.order.push(id);
        id
    }

    /// Adds a node of the default domain with one output, a fresh value near `output`, and returns that value.
    pub fn add_op(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        attributes: Vec<super::AttributeProto>,
        output: &str,
    ) -> ValueId {
        let value = self.add_value(output);
        let name = self.value(value).name.clone();
        let proto =
            NodeProto { op_type: Some(op.to_owned()), name: Some(name), attribute: attributes, ..NodeProto::default() };
        self.add_node(proto, inputs, &[Some(value)]);
        value
    }

    fn captured_values(&mut self, proto: &NodeProto) -> Vec<ValueId> {
        let mut free = Vec::new();
        for graph in proto.subgraphs() {
            subgraph::free_names(graph, &mut free);
            subgraph::all_names(graph, &mut self.reserved);
        }
        let mut seen = HashSet::new();
        free.into_iter().map(|name| self.intern(&name)).filter(|v| seen.insert(*v)).collect()
    }

    fn detach_producer(&mut self, value: ValueId) {
        if let Some((node, slot)) = self.value_mut(value).producer.take() {
            self.node_mut(node).outputs[slot] = None;
        }
    }

    /// Removes a node. Its outputs stay as values without a producer; see [`Graph::remove_value`].
    pub fn remove_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes[id.index()].take() else { return };
        for &value in node.inputs.iter().flatten() {
            self.value_mut(value).uses.retain(|u| u.node != id);
        }
        for &value in &node.captures {
            self.value_mut(value).captures.retain(|&n| n != id);
        }
        for &value in node.outputs.iter().flatten() {
            self.value_mut(value).producer = None;
        }
        self.order.retain(|&n| n != id);
    }

    /// Removes several nodes in one sweep.
    pub fn remove_nodes(&mut self, ids: &HashSet<NodeId>) {
        let order = std::mem::take(&mut self.order);
        let (gone, kept): (Vec<_>, Vec<_>) = order.into_iter().partition(|id| ids.contains(id));
        for id in gone {
            self.remove_node(id);
        }
        self.order = kept;
    }

    /// Removes a value that nothing defines or reads, with its initializer and declared type. Returns whether it
    /// could be removed; graph inputs and outputs stay.
    pub fn remove_value(&mut self, id: ValueId) -> bool {
        if self.value(id).producer.is_some() || self.is_used(id) || self.is_input(id) {
            return false;
        }
        self.value_info.retain(|p| p.value != id);
        self.initializers.shift_remove(&id);
        if let Some(value) = self.values[id.index()].take() {
            self.sparse.retain(|s| s.values.as_ref().is_none_or(|t| t.name() != value.name));
            self.proto.quantization_annotation.retain(|a| a.tensor_name() != value.name);
            self.names.remove(&value.name);
        }
        true
    }

    /// Makes input `slot` of a node read `value`; slots in between are omitted inputs.
    pub fn set_input(&mut self, node: NodeId, slot: usize, value: Option<ValueId>) {
        let inputs = &mut self.node_mut(node).inputs;
        if inputs.len() <= slot {
            inputs.resize(slot + 1, None);
        }
        let old = std::mem::replace(&mut inputs[slot], value);
        if let Some(old) = old {
            self.value_mut(old).uses.retain(|u| *u != Use { node, slot });
        }
        if let Some(new) = value {
            self.value_mut(new).uses.push(Use { node, slot });
        }
    }

    /// Leaves out the inputs of a node that are omitted behind the last one that is not.
    pub fn trim_inputs(&mut self, node: NodeId) {
        let inputs = &mut self.node_mut(node).inputs;
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
    }

    /// Makes output `slot` of a node define `value`, taking it from whatever defined it before.
    pub fn set_output(&mut self, node: NodeId, slot: usize, value: ValueId) {
        self.detach_producer(value);
        if let Some(old) = self.node(node).output(slot) {
            self.value_mut(old).producer = None;
        }
        self.node_mut(node).outputs[slot] = Some(value);
        self.value_mut(value).producer = Some((node, slot));
    }

    /// Makes every node and sub-graph that reads `from` read `to`. A graph output stays what it is.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for Use { node, slot } in self.value(from).uses.clone() {
            self.set_input(node, slot, Some(to));
        }
        let (old, new) = (self.value(from).name.clone(), self.value(to).name.clone());
        for node in std::mem::take(&mut self.value_mut(from).captures) {
            let holder = self.node_mut(node);
            holder.subgraphs_mut().for_each(|g| subgraph::rename_free(g, &old, &new));
            holder.captures.retain(|&v| v != from);
            if !holder.captures.contains(&to) {
                holder.captures.push(to);
                self.value_mut(to).captures.push(node);
            }
        }
    }

    /// Renames a value; sub-graphs that read it follow. Returns false, changing nothing, when the name is taken.
    pub fn rename(&mut self, id: ValueId, name: &str) -> bool {
        if self.names.contains_key(name) || self.reserved.contains(name) {
            return false;
        }
        let old = std::mem::replace(&mut self.value_mut(id).name, name.to_owned());
        self.names.remove(&old);
        self.names.insert(name.to_owned(), id);
        if let Some(tensor) = self.initializers.get_mut(&id) {
            tensor.name = Some(name.to_owned());
        }
        for sparse in self.sparse.iter_mut().filter_map(|s| s.values.as_mut()).filter(|t| t.name() == old) {
            sparse.name = Some(name.to_owned());
        }
        for annotation in &mut self.proto.quantization_annotation {
            let parameters = annotation.quant_parameter_tensor_names.iter_mut().map(|p| &mut p.value);
            let names = parameters.chain([&mut annotation.tensor_name]).flatten();
            names.filter(|n| **n == old).for_each(|n| name.clone_into(n));
        }
        for node in self.value(id).captures.clone() {
            self.node_mut(node).subgraphs_mut().for_each(|g| subgraph::rename_free(g, &old, name));
        }
        true
    }

    /// Sets or clears a node's own name.
    pub fn set_node_name(&mut self, id: NodeId, name: Option<String>) {
        self.node_mut(id).proto.name = name;
    }

    /// Sets the domain of a node's operator; empty for the default one.
    pub(crate) fn set_domain(&mut self, id: NodeId, domain: &str) {
        self.node_mut(id).proto.domain = (!domain.is_empty()).then(|| domain.to_owned());
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn set_attribute(&mut self, id: NodeId, attribute: super::AttributeProto) {
        let attributes = &mut self.node_mut(id).proto.attribute;
        match attributes.iter_mut().find(|a| a.name() == attribute.name()) {
            Some(slot) => *slot = attribute,
            None => attributes.push(attribute),
        }
    }

    /// Removes an attribute.
    pub fn remove_attribute(&mut self, id: NodeId, name: &str) {
        self.node_mut(id).proto.attribute.retain(|a| a.name() != name);
    }

    /// Makes the value a graph output too.
    pub fn add_output(&mut self, value: ValueId) {
        let info = ValueInfoProto { r#type: self.value(value).ty.clone(), ..ValueInfoProto::default() };
        self.outputs.push(Port { value, info });
    }

    /// Makes the value a graph input as well. An initializer it has becomes its default.
    pub fn add_input(&mut self, value: ValueId, ty: TypeProto) {
        self.value_mut(value).ty = Some(ty.clone());
        self.inputs.push(Port { value, info: ValueInfoProto { r#type: Some(ty), ..ValueInfoProto::default() } });
    }

    /// Makes these values the graph's only inputs, and detaches them from the nodes that computed them.
    pub fn set_inputs(&mut self, values: Vec<(ValueId, TypeProto)>) {
        self.inputs.clear();
        for (value, ty) in values {
            self.detach_producer(value);
            self.initializers.shift_remove(&value);
            self.add_input(value, ty);
        }
    }

    /// Makes a value that has an initializer no longer a graph input: no caller can override it then. Returns whether
    /// that was the case.
    pub fn seal_initializer(&mut self, value: ValueId) -> bool {
        let before = self.inputs.len();
        if self.initializers.contains_key(&value) {
            self.inputs.retain(|p| p.value != value);
        }
        self.inputs.len() < before
    }

    /// Removes the initializer of a value.
    pub fn take_initializer(&mut self, value: ValueId) -> Option<TensorProto> {
        self.initializers.shift_remove(&value)
    }

    /// Keeps only the given graph outputs, in the given order.
    pub fn set_outputs(&mut self, values: &[ValueId]) {
        self.outputs.clear();
        for &value in values {
            self.add_output(value);
        }
    }

    /// Drops the declared types of inner values, for a caller that infers them again.
    pub fn clear_value_info(&mut self) {
        for port in std::mem::take(&mut self.value_info) {
            if !self.is_input(port.value) && !self.is_output(port.value) {
                self.value_mut(port.value).ty = None;
            }
        }
    }

    /// Leaves the declared types of these values out of the file, but not out of memory. Returns the number of types
    /// left out.
    pub fn drop_value_info(&mut self, values: &HashSet<ValueId>) -> usize {
        let before = self.value_info.len();
        self.value_info.retain(|p| !values.contains(&p.value));
        before - self.value_info.len()
    }
}
