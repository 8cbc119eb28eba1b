//! What is known around a node, and the node while it changes.

use crate::ir::{AttributeProto, DataType, GraphProto, NodeProto, TensorProto, TypeProto, ValueInfoProto};
use crate::prepare::names::Names;
use std::collections::{HashMap, HashSet};

/// Names, types and constants of a model. Names are unique across sub-graphs, so one table serves for all.
pub(super) struct Scope {
    names: Names,
    /// What nodes read and callers get.
    read: HashSet<String>,
    types: HashMap<String, DataType>,
    shapes: HashMap<String, Vec<Option<usize>>>,
    constants: HashMap<String, TensorProto>,
    to: i64,
}

impl Scope {
    /// `names` are those of the graph, and of whatever else new names must differ from.
    pub(super) fn new(graph: &GraphProto, names: Names, types: HashMap<String, DataType>, to: i64) -> Self {
        let mut scope =
            Self { names, read: HashSet::new(), types, shapes: HashMap::new(), constants: HashMap::new(), to };
        scope.add(graph);
        scope
    }

    fn add(&mut self, graph: &GraphProto) {
        let defaults: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
        for value in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            let Some(ty) = &value.r#type else { continue };
            let name = || value.name().to_owned();
            self.types.extend(ty.element_type().map(|element| (name(), element)));
            self.shapes.extend(TypeProto::shape(ty).map(|shape| (name(), shape)));
        }
        self.read.extend(graph.output.iter().map(|value| value.name().to_owned()));
        for tensor in &graph.initializer {
            self.types.extend(tensor.element_type().map(|element| (tensor.name().to_owned(), element)));
            if !defaults.contains(tensor.name()) {
                self.constants.insert(tensor.name().to_owned(), tensor.clone());
            }
        }
        for node in &graph.node {
            self.read.extend(node.input.iter().cloned());
            if let ("Constant", [output], [attribute]) = (node.op_type(), &node.output[..], &node.attribute[..]) {
                self.constants.extend(attribute.t.clone().map(|tensor| (output.clone(), tensor)));
            }
            node.subgraphs().for_each(|nested| self.add(nested));
        }
    }

    /// All names, with those made so far.
    pub(super) fn into_names(self) -> Names {
        self.names
    }
}

/// A node while it is carried over.
pub(super) struct Site<'a> {
    /// The node itself.
    pub(super) node: NodeProto,
    /// Nodes needed in front of it.
    pub(super) before: Vec<NodeProto>,
    /// Nodes needed behind it.
    pub(super) after: Vec<NodeProto>,
    /// New constants of the graph it is in.
    pub(super) constants: Vec<TensorProto>,
    /// Whether it was an `Upsample`, which only enlarges.
    pub(super) enlarges: bool,
    scope: &'a mut Scope,
}

impl<'a> Site<'a> {
    pub(super) fn new(node: NodeProto, scope: &'a mut Scope) -> Self {
        Self { node, before: Vec::new(), after: Vec::new(), constants: Vec::new(), enlarges: false, scope }
    }

    /// The operator set wanted.
    pub(super) fn to(&self) -> i64 {
        self.scope.to
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name() == name)
    }

    pub(super) fn take_attribute(&mut self, name: &str) -> Option<AttributeProto> {
        let at = self.node.attribute.iter().position(|a| a.name() == name)?;
        Some(self.node.attribute.remove(at))
    }

    pub(super) fn set_attribute(&mut self, attribute: AttributeProto) {
        self.take_attribute(attribute.name());
        self.node.attribute.push(attribute);
    }

    /// Drops the outputs from `slot` on. Returns false, changing nothing, when somebody reads one.
    pub(super) fn drop_outputs(&mut self, slot: usize) -> bool {
        let unread = self.node.output.iter().skip(slot).all(|name| name.is_empty() || !self.scope.read.contains(name));
        if unread {
            self.node.output.truncate(slot);
        }
        unread
    }

    /// Name of input `slot`; empty if it is left out.
    pub(super) fn input(&self, slot: usize) -> &str {
        self.node.input.get(slot).map_or("", String::as_str)
    }

    /// Makes input `slot` read `name`; slots in between are left out.
    pub(super) fn set_input(&mut self, slot: usize, name: String) {
        if self.node.input.len() <= slot {
            self.node.input.resize(slot + 1, String::new());
        }
        self.node.input[slot] = name;
    }

    /// Adds a constant and returns its name.
    pub(super) fn add_constant(&mut self, role: &str, mut tensor: TensorProto) -> String {
        let name = self.fresh(role);
        tensor.name = Some(name.clone());
        self.constants.push(tensor);
        name
    }

    /// Makes input `slot` read a new constant.
    pub(super) fn set_constant(&mut self, slot: usize, role: &str, tensor: TensorProto) {
        let name = self.add_constant(role, tensor);
        self.set_input(slot, name);
    }

    /// Turns an attribute into input `slot`, if it is there.
    pub(super) fn attribute_to_input(&mut self, name: &str, slot: usize) {
        let Some(attribute) = self.take_attribute(name) else { return };
        let tensor = match attribute {
            AttributeProto { f: Some(f), .. } => TensorProto::from_f32("", &[], &[f]),
            AttributeProto { i: Some(i), .. } => TensorProto::from_i64("", &[1], &[i]),
            AttributeProto { floats, .. } if !floats.is_empty() => TensorProto::from_f32("", &[floats.len()], &floats),
            AttributeProto { ints, .. } => TensorProto::from_i64("", &[ints.len()], &ints),
        };
        self.set_constant(slot, name, tensor);
    }

    /// A name nobody has, after the node's first output.
    pub(super) fn fresh(&mut self, role: &str) -> String {
        let stem = format!("{}_{role}", self.node.output.first().map_or("", String::as_str));
        self.scope.names.fresh(&stem)
    }

    /// The element type of input 0, if it is known.
    pub(super) fn input_type(&self) -> Option<DataType> {
        self.scope.types.get(self.input(0)).copied()
    }

    /// The element type of input 0, which has to be floating-point.
    pub(super) fn float_input_type(&self) -> Result<DataType, String> {
        let name = self.input(0);
        match self.input_type() {
            Some(element) if element.is_float() => Ok(element),
            Some(element) => Err(format!("`{name}` is {element}, not floating-point")),
            None => Err(format!("the element type of `{name}` is unknown")),
        }
    }

    /// A scalar of the type of input 0.
    pub(super) fn scalar_like_input(&self, value: f32) -> Result<TensorProto, String> {
        let element = self.float_input_type()?;
        let like = TensorProto { data_type: Some(element.number()), ..TensorProto::default() };
        Ok(like.with_f32(&[], &[value]))
    }

    /// Declared shape of input 0.
    pub(super) fn input_shape(&self) -> Option<&[Option<usize>]> {
        self.scope.shapes.get(self.input(0)).map(Vec::as_slice)
    }

    /// The constant that input `slot` reads, one made for this node included.
    pub(super) fn constant(&self, slot: usize) -> Option<&TensorProto> {
        let name = self.input(slot);
        self.constants.iter().find(|t| t.name() == name).or_else(|| self.scope.constants.get(name))
    }
}

/// A node of the default domain with one output, named after it.
pub(super) fn node(op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    let input = inputs.iter().map(|&name| name.to_owned()).collect();
    NodeProto { input, output: vec![output.to_owned()], ..NodeProto::of(op, output, attributes) }
}
