//! Pass `drop-defaults`: removes attributes that hold their default. No value changes.
//!
//! An attribute is removed if its absence means the same value, by the operator table (`ops`): the defaults of the
//! operator schemas, ones for `strides` and `dilations`, zeros for `pads` and `output_padding`. Floats are compared bit
//! for bit. `kernel_shape` of a convolution is removed if it equals the spatial part of its weight's shape, and that
//! shape is known without running the model: the weight is a constant, or computed from one by operators that preserve
//! shapes (as `insert-qdq` and `store-weights` write it), or reshaped to a constant shape, or cut off a value of such a shape, or
//! declares its shape.
//! Pooling has no weight that states the shape.
//!
//! Not changed: other domains, operators that the model defines as functions, attributes that refer to an attribute of
//! a function, and nodes inside sub-graphs and functions. Declined: a `kernel_shape` whose weight is of unknown or
//! another shape; `pads` beside an `auto_pad` that computes them, which the format forbids and runtimes read
//! differently; operator sets below 7.

use crate::ir::{AttributeProto, AttributeType, Graph, Model, Node, NodeId, ValueId};
use crate::ops::{Absent, Trait, facts, schema};
use crate::pass::{Outcome, Pass, PassError};

/// The lowest operator set the table covers.
const LOWEST: i64 = 7;

/// Removes attributes that hold their default.
#[derive(Clone, Copy, Debug, Default)]
pub struct DropDefaults;

impl Pass for DropDefaults {
    fn name(&self) -> &'static str {
        "drop-defaults"
    }

    fn about(&self) -> &'static str {
        "attributes that hold their default go"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let Some(opset) = model.opset("") else { return Ok(outcome) };
        if opset < LOWEST {
            outcome.decline("opset", format!("the model states {opset}, defaults are known from {LOWEST} on"));
            return Ok(outcome);
        }
        for (id, attribute) in sites(model, opset, &mut outcome) {
            model.graph.remove_attribute(id, &attribute);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// Nodes and the names of their redundant attributes.
fn sites(model: &Model, opset: i64, outcome: &mut Outcome) -> Vec<(NodeId, String)> {
    let mut sites = Vec::new();
    let graph = &model.graph;
    for (id, node) in graph.nodes().filter(|(_, n)| n.domain().is_empty() && !model.is_function("", n.op())) {
        for attribute in node.attributes().iter().filter(|a| a.ref_attr_name().is_empty()) {
            match is_default(graph, node, attribute, opset) {
                Ok(true) => sites.push((id, attribute.name().to_owned())),
                Ok(false) => {}
                Err(reason) => outcome.decline(node.label(graph), reason),
            }
        }
    }
    sites
}

/// Whether the node means the same without the attribute, or why this is unknown.
fn is_default(graph: &Graph, node: &Node, attribute: &AttributeProto, opset: i64) -> Result<bool, &'static str> {
    if attribute.name() == "kernel_shape" {
        return is_kernel_of_weight(graph, node, attribute);
    }
    let absent = schema(node.op()).and_then(|schema| schema.default_of(attribute.name(), opset));
    if !absent.is_some_and(|absent| holds(attribute, absent)) {
        return Ok(false);
    }
    let computed = node.attribute("auto_pad").is_some_and(|a| a.s() != b"NOTSET");
    if attribute.name() == "pads" && computed {
        return Err("it has `pads` beside `auto_pad`");
    }
    Ok(true)
}

/// Whether the attribute has the given value.
fn holds(attribute: &AttributeProto, absent: Absent) -> bool {
    let is = |kind: AttributeType| attribute.r#type() == kind;
    match absent {
        Absent::Int(value) => is(AttributeType::Int) && attribute.i() == value,
        Absent::Float(value) => is(AttributeType::Float) && attribute.f().to_bits() == value.to_bits(),
        Absent::Text(value) => is(AttributeType::String) && attribute.s() == value.as_bytes(),
        Absent::Zeros => is(AttributeType::Ints) && attribute.ints.iter().all(|&n| n == 0),
        Absent::Ones => is(AttributeType::Ints) && attribute.ints.iter().all(|&n| n == 1),
    }
}

fn is_kernel_of_weight(graph: &Graph, node: &Node, attribute: &AttributeProto) -> Result<bool, &'static str> {
    let Some(slot) = facts(node.op()).kernel_slot() else { return Ok(false) };
    let Some(shape) = node.input(slot).and_then(|weight| shape_of(graph, weight)) else {
        return Err("the shape of its weight is not known");
    };
    let spatial = shape.get(2..).unwrap_or_default();
    let kernel = attribute.ints.iter().map(|&n| usize::try_from(n).ok());
    if kernel.eq(spatial.iter().map(|&n| Some(n))) {
        return Ok(true);
    }
    Err("its `kernel_shape` is not that of its weight")
}

/// The value's shape, as far as it follows from constants or is declared.
fn shape_of(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    if let Some(tensor) = graph.constant(value) {
        return tensor.shape().ok();
    }
    let producer = graph.value(value).producer().map(|(id, output)| (graph.node(id), output));
    let producer = producer.filter(|(node, _)| node.domain().is_empty());
    let derived = producer.and_then(|(node, output)| match node.op() {
        op if facts(op).has(Trait::Conversion) => shape_of(graph, node.input(0)?),
        "Mul" => scaled_shape(graph, node),
        "Split" => piece_shape(graph, node, output),
        "Reshape" => graph.constant(node.input(1)?)?.to_i64().ok()?.into_iter().map(positive).collect(),
        _ => None,
    });
    derived.or_else(|| graph.value(value).shape()?.into_iter().collect())
}

/// The shape of a product whose second operand is broadcast over the first.
fn scaled_shape(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    let (shape, scale) = (shape_of(graph, node.input(0)?)?, shape_of(graph, node.input(1)?)?);
    let mut aligned = shape.iter().rev().zip(scale.iter().rev());
    (scale.len() <= shape.len() && aligned.all(|(n, s)| *s == 1 || s == n)).then_some(shape)
}

/// The shape of a piece of a value that is cut into constant lengths.
fn piece_shape(graph: &Graph, node: &Node, output: usize) -> Option<Vec<usize>> {
    let mut shape = shape_of(graph, node.input(0)?)?;
    let lengths = graph.constant(node.input(1)?)?.to_i64().ok()?;
    let axis = node.int_or("axis", 0);
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    *shape.get_mut(axis)? = usize::try_from(*lengths.get(output)?).ok()?;
    Some(shape)
}

/// Whether `Reshape` takes the length literally, rather than from its input.
fn positive(length: i64) -> Option<usize> {
    usize::try_from(length).ok().filter(|&n| n > 0)
}
