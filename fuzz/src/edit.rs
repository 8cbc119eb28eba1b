//! Edits of a model, as a damaged or hostile file would have them.
//!
//! Indices wrap around, so that nearly every edit has an effect.

use crate::networks;
use arbitrary::Arbitrary;
use msq_passes::ir::{
    AttributeProto, DimValue, DimensionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    TensorTypeProto, TypeValue, ValueInfoProto,
};

/// A model of the repository, edited.
#[derive(Arbitrary, Debug)]
pub struct Case {
    network: u16,
    edits: Vec<Edit>,
}

impl Case {
    /// One of these models with the edits.
    pub fn model(&self, models: &[ModelProto]) -> ModelProto {
        let mut model = models[usize::from(self.network) % models.len()].clone();
        self.edits.iter().for_each(|edit| edit.apply(&mut model));
        model
    }
}

/// A number: likely a small one or one at the edge of what fits.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    Small(i8),
    Power(u8),
    Most,
    Least,
    Any(i64),
}

impl Number {
    fn value(self) -> i64 {
        match self {
            Self::Small(n) => n.into(),
            Self::Power(n) => 1 << (n % 63),
            Self::Most => i64::MAX,
            Self::Least => i64::MIN,
            Self::Any(n) => n,
        }
    }
}

/// A change to a model.
#[derive(Arbitrary, Debug)]
pub enum Edit {
    DropNode(u8),
    DuplicateNode(u8),
    SwapNodes(u8, u8),
    Operator { node: u8, of: u8 },
    OperatorOf { node: u8, network: u8, of: u8 },
    Input { node: u8, slot: u8, value: u16 },
    NoInput { node: u8, slot: u8 },
    MoreInputs { node: u8, value: u16 },
    FewerInputs(u8),
    Output { node: u8, slot: u8, value: u16 },
    MoreOutputs(u8),
    FewerOutputs(u8),
    DropAttribute { node: u8, attribute: u8 },
    Integer { node: u8, attribute: u8, value: Number },
    Integers { node: u8, attribute: u8, values: Vec<Number> },
    Real { node: u8, attribute: u8, bits: u32 },
    TypeOfAttribute { node: u8, attribute: u8, number: i8 },
    Dim { tensor: u8, axis: u8, value: Number },
    MoreDims { tensor: u8, value: Number },
    FewerDims(u8),
    Element { tensor: u8, number: i8 },
    Truncate { tensor: u8, bytes: u16 },
    Extend { tensor: u8, bytes: u8 },
    Bits { tensor: u8, at: u16, bits: u32 },
    Typed(u8),
    External { tensor: u8, location: u8, offset: Option<Number>, length: Option<Number> },
    DropTensor(u8),
    NameTensor { tensor: u8, value: u16 },
    DeclaredDim { value: u8, axis: u8, dim: Option<Number> },
    DeclaredRank { value: u8, rank: u8 },
    DeclaredElement { value: u8, number: i8 },
    Undeclared(u8),
    GraphOutput(u16),
    NoGraphOutput(u8),
    GraphInput(u16),
    Opset(Number),
    Nested { node: u8, into: u8 },
}

impl Edit {
    fn apply(&self, model: &mut ModelProto) {
        if let Self::Opset(version) = self {
            model.opset_import.iter_mut().for_each(|set| set.version = Some(version.value()));
        }
        let Some(graph) = &mut model.graph else { return };
        match self {
            Self::DropNode(node) => drop(remove(&mut graph.node, *node)),
            Self::DuplicateNode(node) => {
                let copy = at(&mut graph.node, *node).cloned();
                graph.node.extend(copy);
            }
            Self::SwapNodes(a, b) => swap(&mut graph.node, *a, *b),
            Self::DropTensor(tensor) => drop(remove(&mut graph.initializer, *tensor)),
            Self::NameTensor { tensor, value } => {
                let name = name(graph, *value);
                set(at(&mut graph.initializer, *tensor), |tensor| tensor.name = Some(name));
            }
            Self::GraphOutput(value) => {
                let name = Some(name(graph, *value));
                graph.output.push(ValueInfoProto { name, ..ValueInfoProto::default() });
            }
            Self::NoGraphOutput(output) => drop(remove(&mut graph.output, *output)),
            Self::GraphInput(value) => {
                let name = Some(name(graph, *value));
                graph.input.push(ValueInfoProto { name, ..ValueInfoProto::default() });
            }
            Self::Undeclared(value) => set(declared(graph, *value), |info| info.r#type = None),
            Self::DeclaredDim { .. } | Self::DeclaredRank { .. } | Self::DeclaredElement { .. } => self.declare(graph),
            Self::Operator { .. } | Self::OperatorOf { .. } | Self::Nested { .. } => self.replace(graph),
            _ => {
                self.connect(graph);
                self.attribute(graph);
                self.tensor(graph);
            }
        }
    }

    /// Edits of what a node does.
    fn replace(&self, graph: &mut GraphProto) {
        match *self {
            Self::Operator { node, of } => {
                let op = at(&mut graph.node, of).and_then(|node| node.op_type.clone());
                set(at(&mut graph.node, node), |node| node.op_type = op);
            }
            Self::OperatorOf { node, network, of } => {
                let other = networks();
                let other = other[usize::from(network) % other.len()].graph.as_ref();
                let nodes = other.map_or(&[][..], |graph| &graph.node);
                let Some(other) = nodes.get(usize::from(of) % nodes.len().max(1)) else { return };
                set(at(&mut graph.node, node), |node| {
                    node.op_type.clone_from(&other.op_type);
                    node.attribute.clone_from(&other.attribute);
                });
            }
            Self::Nested { node, into } => {
                let Some(inner) = at(&mut graph.node, node).cloned() else { return };
                if depth(&inner) > 3 {
                    return;
                }
                let output = inner
                    .output
                    .iter()
                    .map(|name| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() });
                let body = GraphProto { output: output.collect(), node: vec![inner], ..GraphProto::default() };
                let body = AttributeProto { name: Some("body".to_owned()), g: Some(body), ..AttributeProto::default() };
                set(at(&mut graph.node, into), |node| node.attribute.push(body));
            }
            _ => {}
        }
    }

    /// Edits of what a node reads and writes.
    fn connect(&self, graph: &mut GraphProto) {
        match *self {
            Self::Input { node, slot, value } => {
                let name = name(graph, value);
                set(at(&mut graph.node, node).and_then(|node| at(&mut node.input, slot)), |input| *input = name);
            }
            Self::NoInput { node, slot } => {
                set(at(&mut graph.node, node).and_then(|node| at(&mut node.input, slot)), String::clear);
            }
            Self::MoreInputs { node, value } => {
                let name = name(graph, value);
                set(at(&mut graph.node, node), |node| node.input.push(name));
            }
            Self::FewerInputs(node) => set(at(&mut graph.node, node), |node| drop(node.input.pop())),
            Self::Output { node, slot, value } => {
                let name = name(graph, value);
                set(at(&mut graph.node, node).and_then(|node| at(&mut node.output, slot)), |output| *output = name);
            }
            Self::MoreOutputs(node) => set(at(&mut graph.node, node), |node| {
                node.output.push(format!("more{}", node.output.len()));
            }),
            Self::FewerOutputs(node) => set(at(&mut graph.node, node), |node| drop(node.output.pop())),
            _ => {}
        }
    }

    /// Edits of a node's attributes.
    fn attribute(&self, graph: &mut GraphProto) {
        let (Self::DropAttribute { node, attribute }
        | Self::Integer { node, attribute, .. }
        | Self::Integers { node, attribute, .. }
        | Self::Real { node, attribute, .. }
        | Self::TypeOfAttribute { node, attribute, .. }) = *self
        else {
            return;
        };
        let Some(node) = at(&mut graph.node, node) else { return };
        let Some(found) = at(&mut node.attribute, attribute) else { return };
        match self {
            Self::Integer { value, .. } => found.i = Some(value.value()),
            Self::Integers { values, .. } => found.ints = values.iter().map(|n| n.value()).collect(),
            Self::Real { bits, .. } => found.f = Some(f32::from_bits(*bits)),
            Self::TypeOfAttribute { number, .. } => found.r#type = Some((*number).into()),
            _ => drop(remove(&mut node.attribute, attribute)),
        }
    }

    /// Edits of an initializer.
    fn tensor(&self, graph: &mut GraphProto) {
        let mut with = |tensor: u8, change: &mut dyn FnMut(&mut TensorProto)| {
            set(at(&mut graph.initializer, tensor), |tensor| change(tensor));
        };
        match *self {
            Self::Dim { tensor, axis, value } => {
                with(tensor, &mut |t| set(at(&mut t.dims, axis), |dim| *dim = value.value()));
            }
            Self::MoreDims { tensor, value } => with(tensor, &mut |t| t.dims.push(value.value())),
            Self::FewerDims(tensor) => with(tensor, &mut |t| t.dims.truncate(t.dims.len().saturating_sub(1))),
            Self::Element { tensor, number } => with(tensor, &mut |t| t.data_type = Some(number.into())),
            Self::Truncate { tensor, bytes } => with(tensor, &mut |t| {
                let raw = t.raw_data.take();
                t.raw_data = raw.map(|raw| raw.slice(..raw.len().saturating_sub(bytes.into())));
            }),
            Self::Extend { tensor, bytes } => with(tensor, &mut |t| {
                let raw = t.raw_data.take().unwrap_or_default();
                t.raw_data = Some([raw.to_vec(), vec![0x3f; bytes.into()]].concat().into());
            }),
            Self::Bits { tensor, at, bits } => with(tensor, &mut |t| {
                let mut raw = t.raw_data.take().unwrap_or_default().to_vec();
                let words = raw.as_chunks_mut().0;
                let place = usize::from(at) % words.len().max(1);
                set(words.get_mut(place), |word| *word = bits.to_le_bytes());
                t.raw_data = Some(raw.into());
            }),
            Self::Typed(tensor) => with(tensor, &mut |t| {
                if let Ok(values) = t.to_f32() {
                    t.float_data = values;
                    t.raw_data = None;
                }
            }),
            Self::External { tensor, location, offset, length } => with(tensor, &mut |t| {
                const LOCATIONS: [&str; 8] = ["w.bin", "", ".", "..", "../w.bin", "/dev/zero", "a/b", "\0"];
                let entry =
                    |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
                let location = LOCATIONS[usize::from(location) % LOCATIONS.len()].to_owned();
                t.data_location = Some(1);
                t.external_data = vec![entry("location", location)];
                t.external_data.extend(offset.map(|n| entry("offset", n.value().to_string())));
                t.external_data.extend(length.map(|n| entry("length", n.value().to_string())));
            }),
            _ => {}
        }
    }

    /// Edits of the types declared.
    fn declare(&self, graph: &mut GraphProto) {
        match *self {
            Self::DeclaredDim { value, axis, dim } => {
                let dims = tensor_type(graph, value).and_then(|ty| ty.shape.as_mut());
                let value = dim.map(|dim| DimValue::Value(dim.value()));
                set(dims.and_then(|shape| at(&mut shape.dim, axis)), |dim| dim.value = value);
            }
            Self::DeclaredRank { value, rank } => {
                let dims = tensor_type(graph, value).and_then(|ty| ty.shape.as_mut());
                set(dims, |shape| shape.dim.resize((rank % 9).into(), DimensionProto::default()));
            }
            Self::DeclaredElement { value, number } => {
                set(tensor_type(graph, value), |ty| ty.elem_type = Some(number.into()));
            }
            _ => {}
        }
    }
}

fn at<T>(items: &mut [T], index: u8) -> Option<&mut T> {
    let count = items.len().max(1);
    items.get_mut(usize::from(index) % count)
}

fn set<T>(item: Option<&mut T>, change: impl FnOnce(&mut T)) {
    item.map(change);
}

fn remove<T>(items: &mut Vec<T>, index: u8) -> Option<T> {
    (!items.is_empty()).then(|| items.remove(usize::from(index) % items.len()))
}

fn swap<T>(items: &mut [T], a: u8, b: u8) {
    if !items.is_empty() {
        items.swap(usize::from(a) % items.len(), usize::from(b) % items.len());
    }
}

/// How deep graphs are nested in a node. A node nested in itself doubles: this bounds how often.
fn depth(node: &NodeProto) -> usize {
    let graphs = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref());
    graphs.flat_map(|graph| &graph.node).map(|inner| 1 + depth(inner)).max().unwrap_or(0)
}

/// The name of some value of the graph.
fn name(graph: &GraphProto, index: u16) -> String {
    let nodes = graph.node.iter().flat_map(|node| node.output.iter().cloned());
    let tensors = graph.initializer.iter().map(|tensor| tensor.name().to_owned());
    let inputs = graph.input.iter().map(|input| input.name().to_owned());
    let names: Vec<String> = nodes.chain(tensors).chain(inputs).collect();
    names.get(usize::from(index) % names.len().max(1)).cloned().unwrap_or_default()
}

fn declared(graph: &mut GraphProto, index: u8) -> Option<&mut ValueInfoProto> {
    let count = (graph.input.len() + graph.output.len() + graph.value_info.len()).max(1);
    let all = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    all.into_iter().nth(usize::from(index) % count)
}

fn tensor_type(graph: &mut GraphProto, index: u8) -> Option<&mut TensorTypeProto> {
    match declared(graph, index)?.r#type.as_mut()?.value.as_mut()? {
        TypeValue::Tensor(ty) => Some(ty),
        _ => None,
    }
}
