//! Nodes: operations that read and write values.

use super::{AttributeProto, AttributeType, DataType, GraphProto, NodeProto, TensorProto, ValueId};
use bytes::Bytes;

/// Handle of a [`Node`] within its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An operation. Everything except its inputs and outputs stays in the imported message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub(super) proto: NodeProto,
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) outputs: Vec<Option<ValueId>>,
    pub(super) captures: Vec<ValueId>,
}

impl Node {
    /// The operator, for instance `Conv`.
    pub fn op(&self) -> &str {
        self.proto.op_type()
    }

    /// The operator's domain; the default domain is empty however the file spells it.
    pub fn domain(&self) -> &str {
        normal_domain(self.proto.domain())
    }

    /// Whether this is `op` of the default domain.
    pub fn is(&self, op: &str) -> bool {
        self.op() == op && self.domain().is_empty()
    }

    /// The node's own name; may be empty.
    pub fn name(&self) -> &str {
        self.proto.name()
    }

    /// The values read; `None` where an optional input is left out.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }

    /// Input `slot`, if it is present.
    pub fn input(&self, slot: usize) -> Option<ValueId> {
        self.inputs.get(slot).copied().flatten()
    }

    /// Both inputs of a node with exactly two: files may give an operator more inputs than it takes.
    pub fn two_inputs(&self) -> Option<[ValueId; 2]> {
        let &[Some(a), Some(b)] = self.inputs() else { return None };
        Some([a, b])
    }

    /// The outputs; `None` where an output is omitted.
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }

    /// Output `slot`, if it is not omitted.
    pub fn output(&self, slot: usize) -> Option<ValueId> {
        self.outputs.get(slot).copied().flatten()
    }

    /// Outer values read by this node's sub-graphs.
    pub fn captures(&self) -> &[ValueId] {
        &self.captures
    }

    /// All attributes.
    pub fn attributes(&self) -> &[AttributeProto] {
        &self.proto.attribute
    }

    /// The attribute called `name`.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name() == name)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    /// An integer attribute, or its default.
    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    /// A float attribute, or its default.
    pub fn float_or(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    /// A list of integers; empty when the attribute is absent.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |a| &a.ints)
    }

    /// A string attribute that is valid UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name)?.t.as_ref()
    }

    /// The node's sub-graphs, in attribute order.
    pub fn subgraphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.proto.subgraphs()
    }

    pub(super) fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut GraphProto> {
        self.proto.subgraphs_mut()
    }

    /// The node in messages: its name, or its operator and first output.
    pub fn label<'a>(&'a self, graph: &'a super::Graph) -> &'a str {
        if self.name().is_empty() {
            self.outputs.iter().flatten().next().map_or(self.op(), |&v| graph.value(v).name())
        } else {
            self.name()
        }
    }

    /// The tensor of a `Constant` node; `None` where its value is a string, sparse or missing.
    pub(crate) fn constant(&self) -> Option<TensorProto> {
        let [attribute] = self.attributes() else { return None };
        let tensor = match attribute.name() {
            "value" => attribute.t.clone()?,
            "value_float" => TensorProto::from_f32("", &[], &[attribute.f?]),
            "value_floats" => TensorProto::from_f32("", &[attribute.floats.len()], &attribute.floats),
            "value_int" => TensorProto::from_i64("", &[], &[attribute.i?]),
            "value_ints" => TensorProto::from_i64("", &[attribute.ints.len()], &attribute.ints),
            _ => return None,
        };
        (tensor.element_type() != Some(DataType::String)).then_some(tensor)
    }
}

pub(crate) fn normal_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

impl NodeProto {
    /// The sub-graphs, in attribute order.
    pub fn subgraphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
    }

    /// The sub-graphs, to be changed.
    pub fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut GraphProto> {
        self.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
    }

    /// A node of the default domain, without inputs and outputs.
    pub fn of(op: &str, name: &str, attributes: Vec<AttributeProto>) -> Self {
        Self {
            op_type: Some(op.to_owned()),
            name: (!name.is_empty()).then(|| name.to_owned()),
            attribute: attributes,
            ..Self::default()
        }
    }
}

impl AttributeProto {
    fn new(name: &str, kind: AttributeType) -> Self {
        Self { name: Some(name.to_owned()), r#type: Some(kind as i32), ..Self::default() }
    }

    /// An integer attribute.
    pub fn int(name: &str, value: i64) -> Self {
        Self { i: Some(value), ..Self::new(name, AttributeType::Int) }
    }

    /// An attribute that names an element type, such as `to` of a `Cast`.
    pub fn element(name: &str, element: DataType) -> Self {
        Self::int(name, i64::from(element.number()))
    }

    /// A float attribute.
    pub fn float(name: &str, value: f32) -> Self {
        Self { f: Some(value), ..Self::new(name, AttributeType::Float) }
    }

    /// A list of integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self { ints: values.to_vec(), ..Self::new(name, AttributeType::Ints) }
    }

    /// A string attribute.
    pub fn string(name: &str, value: &str) -> Self {
        Self { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..Self::new(name, AttributeType::String) }
    }

    /// A tensor attribute.
    pub fn tensor(name: &str, value: TensorProto) -> Self {
        Self { t: Some(value), ..Self::new(name, AttributeType::Tensor) }
    }

    /// A sub-graph attribute.
    pub fn graph(name: &str, value: GraphProto) -> Self {
        Self { g: Some(value), ..Self::new(name, AttributeType::Graph) }
    }
}
