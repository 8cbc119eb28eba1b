//! From our model to tract's. The bridge is the file format itself: tract's own messages lack fields of ours.
//!
//! tract has no elements narrower than a byte, and none of bfloat16. Initializers of INT4, UINT4, INT2 and UINT2 are handed
//! over as int8 and uint8 with the same values, those of bfloat16 as floats: whoever reads them casts or scales them.

use super::differing::{Seen, drops};
use super::{blowup, bounded, compare, convolution, fake_quantize, lowerings, matmul, operators, trees};
use crate::data::ShapeText;
use crate::engine::EngineError;
use crate::runtime::{lock, memory};
use bytes::Bytes;
use msq_passes::ir::{
    self, DataType, DimValue, GraphProto, Model, ModelProto, NodeId, NodeProto, TensorProto, TypeValue, ValueId,
};
use msq_passes::{CompleteNodes, LoadConstants, Pass, inline_calls};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::{Arc, Framework, InferenceModel, OutletId};
use tract_onnx::tract_core::internal::{TractResult, format_err};
use tract_onnx::tract_core::model::{TypedModel, TypedNode};
use tract_onnx::tract_core::ops::cnn::{Conv, MaxPool, SumPool};

/// A model in tract's hands, before type inference.
pub(super) struct Loaded {
    pub(super) model: InferenceModel,
    /// Outlet of every value of the main graph, sorted by name.
    pub(super) outlets: Vec<(String, OutletId)>,
}

/// Hands a model to tract. Declared types of inner values are left out: tract infers them, and stumbles over symbols.
pub(super) fn load(model: &Model) -> Result<Loaded, EngineError> {
    // The copy is gone before its elements are moved on.
    let message = message(&with_readable_elements(model, true)?)?;
    parse(message)
}

/// An operator that tract does not know.
const NOT_BUILT: &str = "NotBuilt";

/// So many nodes that cannot be built are passed over.
const MOST_PASSED_OVER: usize = 16;

/// Hands a model to tract for type inference alone: nodes that tract does not build become operators that it does not know,
/// of which it asks nothing.
pub(super) fn load_what_is_known(model: &Model) -> Result<Loaded, EngineError> {
    let mut proto = message(&with_readable_elements(model, false)?)?;
    for _ in 0..MOST_PASSED_OVER {
        match parse(proto.clone()) {
            Err(error) if pass_over(&mut proto, &error.to_string()) => {}
            parsed => return parsed,
        }
    }
    parse(proto)
}

/// Makes the node that an error names one of an unknown operator.
fn pass_over(proto: &mut ModelProto, error: &str) -> bool {
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    let is_named =
        |node: &&mut NodeProto| error.contains(&format!("Building node {} ({})", node.name(), node.op_type()));
    let Some(node) = nodes.into_iter().find(is_named) else { return false };
    node.op_type = Some(NOT_BUILT.to_owned());
    node.attribute.clear();
    true
}

/// A model of readable elements as tract reads it.
fn message(model: &Model) -> Result<ModelProto, EngineError> {
    let mut proto = ir::export(model);
    inline_calls(&mut proto);
    proto.graph.iter_mut().for_each(name_nodes);
    proto.graph.as_ref().map_or(Ok(()), blowup::refuse)?;
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    nodes.flat_map(sub_graphs).for_each(leave_symbols_open);
    Ok(proto)
}

fn parse(mut proto: ModelProto) -> Result<Loaded, EngineError> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    operators::register(&mut onnx);
    onnx.provider = Arc::new(Elements::take(&mut proto));
    let encoded = ir::encode_model(&proto);
    drop(proto);
    let tracts = onnx.proto_model_for_read(&mut encoded.as_slice()).map_err(EngineError::load)?;
    let parsed = onnx.parse(&tracts, Some("/")).map_err(EngineError::load)?;
    if let Some(input) = parsed.unresolved_inputs.first() {
        return Err(EngineError::NoSuchValue { name: input.clone() });
    }
    let mut outlets: Vec<_> = parsed.outlets_by_name.into_iter().collect();
    outlets.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Loaded { model: parsed.model, outlets })
}

/// Elements of initializers, which tract reads one tensor at a time, each once, as if they were in other files: encoding,
/// reading and decoding them would hold three more copies of all of them.
struct Elements(Mutex<Vec<Bytes>>);

impl Elements {
    /// Takes them out of a message. In their place stands where [`Elements`] has them: the place as an offset, in a "file"
    /// that only has to exist.
    fn take(proto: &mut ModelProto) -> Self {
        let mut taken = Vec::new();
        let initializers = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        for tensor in initializers {
            let Some(elements) = tensor.raw_data.take_if(|elements| !elements.is_empty()) else { continue };
            tensor.refer(".", taken.len() as u64, elements.len());
            taken.push(elements);
        }
        Self(Mutex::new(taken))
    }
}

impl ModelDataResolver for Elements {
    fn read_bytes_from_path(&self, to: &mut Vec<u8>, _: &Path, place: usize, _: Option<usize>) -> TractResult<()> {
        let elements = lock(&self.0).get_mut(place).map(std::mem::take);
        to.extend_from_slice(&elements.ok_or_else(|| format_err!("no initializer {place}"))?);
        Ok(())
    }
}

/// Gives nodes names that nothing else has: tract knows inputs, constants and nodes by one kind of name. A node without a
/// name, or with that of a value or of another node, is called as its first result.
fn name_nodes(graph: &mut GraphProto) {
    let read = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
    let defined =
        graph.input.iter().map(ir::ValueInfoProto::name).chain(graph.initializer.iter().map(TensorProto::name));
    let written = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let mut taken: HashSet<String> = read.chain(defined).chain(written).map(str::to_owned).collect();
    for node in &mut graph.node {
        if node.name().is_empty() || !taken.insert(node.name().to_owned()) {
            let result = node.output.iter().find(|name| !name.is_empty()).cloned();
            node.name = result.or_else(|| node.name.take());
        }
        sub_graphs(node).for_each(name_nodes);
    }
}

fn sub_graphs(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// Leaves the dimensions open that a sub-graph declares as symbols: tract does not match them with the lengths that the
/// graph around hands in.
fn leave_symbols_open(graph: &mut GraphProto) {
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        let Some(TypeValue::Tensor(tensor)) = value.r#type.as_mut().and_then(|ty| ty.value.as_mut()) else { continue };
        for dimension in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            dimension.value.take_if(|value| matches!(value, DimValue::Param(_)));
        }
    }
    graph.node.iter_mut().flat_map(sub_graphs).for_each(leave_symbols_open);
}

/// Operator sets the engine knows operators of. It goes by an operator's name alone, so the domain is looked at here.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// The nodes the engine does not know, or would compute otherwise, with the reason. Where one is in a sub-graph, the node
/// that holds it counts.
pub(super) fn unknown(model: &Model) -> Vec<(NodeId, String)> {
    let operators = tract_onnx::onnx().op_register.0;
    let known = |domain: &str, op: &str| {
        DOMAINS.contains(&domain) && (operators.contains_key(op) || operators::is_registered(op))
    };
    let reason = |(id, node): (NodeId, &ir::Node)| {
        let label = node.label(&model.graph);
        if model.is_function(node.domain(), node.op()) {
            let inner = unknown_called(model, node.domain(), node.op(), &known, 0)?;
            return Some((id, format!("the engine {inner}, which is in the function of node `{label}`")));
        }
        let graph = &model.graph;
        if lowerings::mends(graph, id) {
            return None;
        }
        if !known(node.domain(), node.op()) {
            let named = name(node.domain(), node.op());
            return Some((id, format!("the engine does not know `{named}` of node `{label}`")));
        }
        if drops(&model.graph, node) {
            let named = format!("as `Dropout` of node `{label}` does; a model exported for inference has none such");
            return Some((id, format!("the engine does not drop at random, {named}")));
        }
        if let Some(named) = refused(&Seen::node(node)) {
            return Some((id, format!("the engine {named}, of node `{label}`")));
        }
        let inner = node.subgraphs().find_map(|graph| unknown_inside(model, &graph.node, &known, 0))?;
        Some((id, format!("the engine {inner}, which is inside node `{label}`")))
    };
    model.graph.nodes().filter_map(reason).collect()
}

/// The name of an operator with its domain.
fn name(domain: &str, op: &str) -> String {
    if domain.is_empty() { op.to_owned() } else { format!("{domain}.{op}") }
}

/// What the engine does with an operator that tract knows but does not compute right.
fn refused(node: &Seen) -> Option<String> {
    if let Some(activation) = node.unknown_activation() {
        return Some(format!("does not know `{activation}` in `{}`", node.op()));
    }
    Some(format!("computes `{}` otherwise {}", node.op(), node.difference()?))
}

/// Functions call each other no deeper.
const DEEPEST_CALL: usize = 64;

/// What the engine does not know, or computes otherwise, in a function.
fn unknown_called(
    model: &Model,
    domain: &str,
    op: &str,
    known: &impl Fn(&str, &str) -> bool,
    depth: usize,
) -> Option<String> {
    if depth > DEEPEST_CALL {
        return Some(format!("does not know `{op}`"));
    }
    model.functions(domain, op).find_map(|function| unknown_inside(model, &function.node, known, depth + 1))
}

/// What the engine does not know, or computes otherwise, among the nodes of a sub-graph or a function.
fn unknown_inside(
    model: &Model,
    nodes: &[NodeProto],
    known: &impl Fn(&str, &str) -> bool,
    depth: usize,
) -> Option<String> {
    nodes.iter().find_map(|node| {
        let (domain, op) = (node.domain(), node.op_type());
        if model.is_function(domain, op) {
            return unknown_called(model, domain, op, known, depth);
        }
        if !known(domain, op) {
            return Some(format!("does not know `{op}`"));
        }
        let refused = refused(&Seen::proto(node));
        refused.or_else(|| node.subgraphs().find_map(|graph| unknown_inside(model, &graph.node, known, depth)))
    })
}

/// Why the engine cannot run the model at all, before it tries.
pub(super) fn check(model: &Model) -> Result<(), EngineError> {
    match unknown(model).into_iter().next() {
        None => Ok(()),
        Some((_, reason)) => Err(EngineError::Load { reason }),
    }
}

/// The model with external tensors read in, because the engine needs every element, and narrow ones widened. To be run,
/// integers of 16 bits have to be floats; the types of values are then no longer those of the model.
fn with_readable_elements(model: &Model, to_run: bool) -> Result<Model, EngineError> {
    let mut copy = model.clone();
    LoadConstants.run(&mut copy).map_err(EngineError::load)?;
    CompleteNodes.run(&mut copy).map_err(EngineError::load)?;
    let is_brain = |tensor: &TensorProto| tensor.element_type() == Some(DataType::Bfloat16);
    let unreadable = |tensor: &TensorProto| tensor.is_external() || Narrow::of(tensor).is_some() || is_brain(tensor);
    let values: Vec<ValueId> = copy.graph.initializers().filter(|(_, t)| unreadable(t)).map(|(v, _)| v).collect();
    for value in values {
        let Some(tensor) = copy.graph.initializer(value) else { continue };
        let loaded = model.loaded(tensor)?.into_owned();
        if is_brain(&loaded) {
            let floats = loaded.to_f32().map_err(EngineError::load)?;
            let shape = loaded.shape().map_err(EngineError::load)?;
            copy.graph.set_initializer(value, TensorProto::from_f32(loaded.name(), &shape, &floats));
            continue;
        }
        let tensor = Narrow::of(&loaded).map_or_else(|| Ok(loaded.clone()), |narrow| narrow.widen(&loaded))?;
        copy.graph.set_initializer(value, tensor);
    }
    if to_run {
        lowerings::lower_to_run(&mut copy)?;
    } else {
        lowerings::lower(&mut copy)?;
        conceal(&mut copy)?;
    }
    Ok(copy)
}

/// Makes nodes that tract would compute otherwise ones of an operator that it does not know: nothing is to be concluded
/// from them.
fn conceal(model: &mut Model) -> Result<(), EngineError> {
    let known = |_: &str, _: &str| true;
    let differs = |node: &ir::Node| {
        if model.is_function(node.domain(), node.op()) {
            return unknown_called(model, node.domain(), node.op(), &known, 0).is_some();
        }
        let inside = |graph: &GraphProto| unknown_inside(model, &graph.node, &known, 0).is_some();
        drops(&model.graph, node) || refused(&Seen::node(node)).is_some() || node.subgraphs().any(inside)
    };
    let found: Vec<NodeId> = model.graph.nodes().filter(|(_, node)| differs(node)).map(|(id, _)| id).collect();
    if found.is_empty() {
        return Ok(());
    }
    for id in found {
        let node = model.graph.node(id);
        let concealed = NodeProto::of(NOT_BUILT, node.name(), Vec::new());
        let (inputs, outputs) = (node.inputs().to_vec(), node.outputs().to_vec());
        model.graph.remove_node(id);
        model.graph.add_node(concealed, &inputs, &outputs);
    }
    model.graph.sort().map_err(EngineError::load)
}

/// An element type narrower than a byte.
#[derive(Clone, Copy, Debug)]
struct Narrow {
    bits: usize,
    signed: bool,
}

impl Narrow {
    fn of(tensor: &TensorProto) -> Option<Self> {
        let (bits, signed) = match tensor.element_type()? {
            DataType::Int4 => (4, true),
            DataType::Uint4 => (4, false),
            DataType::Int2 => (2, true),
            DataType::Uint2 => (2, false),
            _ => return None,
        };
        Some(Self { bits, signed })
    }

    /// The tensor with one byte per element. Elements fill bytes from the low end; without raw data there is a byte in each
    /// int32.
    fn widen(self, tensor: &TensorProto) -> Result<TensorProto, EngineError> {
        let shape = tensor.shape().map_err(EngineError::load)?;
        let bytes = match &tensor.raw_data {
            Some(raw) => raw.to_vec(),
            None => tensor.int32_data.iter().map(|&v| v as u8).collect(),
        };
        let (count, per) = (shape.iter().product::<usize>(), 8 / self.bits);
        if bytes.len() != count.div_ceil(per) {
            let name = tensor.name();
            let reason =
                format!("tensor `{name}`: {} bytes cannot be {count} elements of {} bits", bytes.len(), self.bits);
            return Err(EngineError::Load { reason });
        }
        let spare = 8 - self.bits;
        let element = |i: usize| {
            // To the top of the byte and back: the sign, or zeros, fill up.
            let top = bytes[i / per] >> (i % per * self.bits) << spare;
            if self.signed { (top.cast_signed() >> spare).cast_unsigned() } else { top >> spare }
        };
        let wide: Vec<u8> = (0..count).map(element).collect();
        let element = if self.signed { DataType::Int8 } else { DataType::Uint8 };
        Ok(TensorProto::from_raw(tensor.name(), element, &shape, wide))
    }
}

/// Type inference and optimization. The outputs chosen before are kept whatever is fused around them.
pub(super) fn optimize(model: InferenceModel) -> Result<TypedModel, EngineError> {
    use tract_onnx::tract_hir::infer::InferenceModelExt;
    let mut model = model.into_typed().map_err(EngineError::load)?;
    refuse_huge(&model)?;
    refuse_empty(&model)?;
    model.prop_consts().map_err(EngineError::load)?;
    convolution::replace(&mut model)?;
    fake_quantize::replace(&mut model)?;
    trees::replace(&mut model)?;
    bounded::declutter(&mut model)?;
    fake_quantize::fuse(&mut model)?;
    convolution::fuse(&mut model)?;
    matmul::replace(&mut model)?;
    compare::replace(&mut model)?;
    bounded::declutter(&mut model)?;
    bounded::generate(&mut model)?;
    Ok(model)
}

/// Refuses values that there is no memory for: a few bytes of a model can ask for any.
fn refuse_huge(model: &TypedModel) -> Result<(), EngineError> {
    for (node, output) in model.nodes.iter().flat_map(|node| node.outputs.iter().map(move |output| (node, output))) {
        let Some(shape) = output.fact.shape.as_concrete() else { continue };
        let bytes = shape.iter().try_fold(output.fact.datum_type.size_of(), |bytes, &dim| bytes.checked_mul(dim));
        if !bytes.is_some_and(memory::is_there) {
            let reason = format!("there is no memory for what node `{}` computes, of shape {shape:?}", node.name);
            return Err(EngineError::Memory { reason });
        }
    }
    Ok(())
}

/// Refuses windows over nothing, along any axis but the first: runtimes do not define what they give, and tract counts on
/// elements.
fn refuse_empty(model: &TypedModel) -> Result<(), EngineError> {
    let windowed = |node: &&TypedNode| node.op_is::<Conv>() || node.op_is::<MaxPool>() || node.op_is::<SumPool>();
    for node in model.nodes.iter().filter(windowed) {
        let read = model.outlet_fact(node.inputs[0]).map_err(EngineError::load)?;
        let written = node.outputs.iter().map(|output| &output.fact);
        let shapes = [read].into_iter().chain(written).filter_map(|fact| fact.shape.as_concrete());
        if let Some(shape) = shapes.into_iter().find(|shape| shape.iter().skip(1).any(|&length| length == 0)) {
            return Err(EngineError::Empty { node: node.name.clone(), shape: ShapeText::of(shape) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn widened(tensor: &TensorProto, wanted: DataType, values: &[i64]) {
        let wide = Narrow::of(tensor).unwrap().widen(tensor).unwrap();
        assert_eq!(wide.element_type(), Some(wanted));
        assert_eq!(wide.to_i64().unwrap(), values);
        assert_eq!((wide.name(), &wide.dims), (tensor.name(), &tensor.dims));
    }

    #[test]
    fn narrow_elements_become_bytes() {
        let raw = |element, shape: &[usize], bytes: &[u8]| TensorProto::from_raw("w", element, shape, bytes.to_vec());
        widened(&raw(DataType::Int4, &[3], &[0x78, 0xff]), DataType::Int8, &[-8, 7, -1]);
        widened(&raw(DataType::Uint4, &[2, 2], &[0x78, 0xf0]), DataType::Uint8, &[8, 7, 0, 15]);
        widened(&raw(DataType::Int2, &[5], &[0b01_11_10_00, 0b10]), DataType::Int8, &[0, -2, -1, 1, -2]);
        widened(&raw(DataType::Uint2, &[1, 4], &[0b11_10_01_00]), DataType::Uint8, &[0, 1, 2, 3]);
        widened(&raw(DataType::Int4, &[0], &[]), DataType::Int8, &[]);
        let spread = TensorProto { raw_data: None, int32_data: vec![0x78, 0x0f], ..raw(DataType::Int4, &[3], &[]) };
        widened(&spread, DataType::Int8, &[-8, 7, -1]);
        assert!(Narrow::of(&raw(DataType::Int8, &[1], &[1])).is_none());
    }

    #[test]
    fn missing_elements_are_an_error() {
        let short = TensorProto::from_raw("w", DataType::Int4, &[3], vec![0x78]);
        let said = Narrow::of(&short).unwrap().widen(&short).unwrap_err().to_string();
        assert!(said.contains("tensor `w`: 1 bytes cannot be 3 elements of 4 bits"), "{said}");
    }
}
