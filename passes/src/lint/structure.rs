//! Rules about where quantizers stand.

use super::Site;
use super::ort;
use super::view::View;
use crate::analysis::LayerOp;
use crate::analysis::quantized::{is_dequantizer, is_quantizer};
use crate::ir::{DataType, Node, ValueId};
use crate::ops::{Trait, facts};
use crate::target::Support;

pub(super) fn outputs(view: &View) -> Vec<Site> {
    let quantized = |&value: &ValueId| {
        let producer = view.producer(value);
        producer.is_some_and(is_quantizer) || view.dequantized(value).is_some_and(|q| !view.is_constant(q.integers))
    };
    let outputs = view.graph.outputs().filter(quantized);
    outputs.map(|value| (view.name(value), "the graph output is quantized".to_owned())).collect()
}

pub(super) fn residual_sums(view: &View) -> Vec<Site> {
    let sums = view
        .graph
        .nodes()
        .filter(|(_, node)| node.domain().is_empty() && view.profile.support(node.op()) == Some(Support::ResidualSum));
    let sums = sums.filter(|(_, node)| {
        let quantized = |v: &ValueId| view.dequantized(*v).is_some_and(|q| !view.is_constant(q.integers));
        let operands: Vec<ValueId> = node.inputs().iter().flatten().copied().collect();
        operands.len() == 2 && operands.iter().all(quantized) && operands.iter().any(|&v| from_layer(view, v))
    });
    sums.map(|(id, _)| (view.label(id), "both operands of the sum are quantized".to_owned())).collect()
}

/// Whether the dequantized value is what a layer wrote.
fn from_layer(view: &View, value: ValueId) -> bool {
    let quantizer = view.dequantized(value).and_then(|q| view.producer(q.integers));
    let before = quantizer.filter(|node| is_quantizer(node)).and_then(|node| node.input(0));
    before.and_then(|v| view.producer(v)).is_some_and(|node| LayerOp::of(node).is_some())
}

pub(super) fn float_operands(view: &View) -> Vec<Site> {
    let arithmetic =
        |node: &Node| node.domain().is_empty() && view.profile.support(node.op()) == Some(Support::Arithmetic);
    let nodes = view.graph.nodes().filter(|(_, node)| arithmetic(node));
    let found = nodes.filter_map(|(id, node)| {
        let operands = || node.inputs().iter().flatten().copied();
        let quantized = operands().any(|v| view.dequantized(v).is_some());
        let float = operands().find(|&v| view.dequantized(v).is_none() && !holds_integers(view, v));
        quantized.then_some((id, float?))
    });
    found.map(|(id, value)| (view.label(id), format!("operand `{}` is float", view.name(value)))).collect()
}

/// Shapes, axes and the like are no operands to quantize.
fn holds_integers(view: &View, value: ValueId) -> bool {
    view.element_of(value).is_some_and(|element| !element.is_float())
}

pub(super) fn float_operators(view: &View) -> Vec<Site> {
    if !view.is_quantized() {
        return Vec::new();
    }
    let nodes = view.graph.nodes().filter(|(_, node)| {
        let border = is_quantizer(node) || is_dequantizer(node);
        !border && node.domain().is_empty() && node.output(0).is_some_and(|v| !view.is_constant(v))
    });
    let found = nodes.filter_map(|(id, node)| Some((view.label(id), float_end(view, node)?)));
    found.collect()
}

/// The first input or output of a node on floats that no quantizer stands at.
fn float_end(view: &View, node: &Node) -> Option<String> {
    let written = node.output(0)?;
    let float = |v: ValueId| view.element_of(v).is_none_or(DataType::is_float);
    let support = view.profile.support(node.op());
    let finds = support == Some(Support::Index);
    if !(float(written) || finds) || !node.inputs().iter().flatten().any(|&v| float(v)) {
        return None;
    }
    // Biases, bounds of clamps and what is padded with stay float.
    let operands = match support {
        Some(Support::Movement | Support::Clamp) => 1,
        _ if LayerOp::of(node).is_some() => 2,
        _ => node.inputs().len(),
    };
    let read = node.inputs().iter().take(operands).flatten().copied();
    let open = read.into_iter().find(|&v| float(v) && view.dequantized(v).is_none() && !behind_kernel(view, v));
    if let Some(value) = open {
        return Some(format!("reads `{}`, which is not quantized", view.name(value)));
    }
    if finds {
        return None;
    }
    let readers = view.graph.value(written).uses();
    let quantized = readers.iter().all(|u| is_quantizer(view.graph.node(u.node)) || is_clamp(view.graph.node(u.node)));
    let open = readers.is_empty() || !quantized;
    open.then(|| format!("writes `{}`, which is not quantized", view.name(written)))
}

fn is_clamp(node: &Node) -> bool {
    node.domain().is_empty() && facts(node.op()).has(Trait::Clamp)
}

/// A clamp may read what the kernel before it writes.
fn behind_kernel(view: &View, value: ValueId) -> bool {
    let clamps = view.graph.only_use(value).is_some_and(|u| is_clamp(view.graph.node(u.node)));
    clamps && view.producer(value).is_some_and(|node| !is_quantizer(node))
}

pub(super) fn stays_float(view: &View) -> Vec<Site> {
    if !view.is_quantized() {
        return Vec::new();
    }
    let found = ort::predict(view).into_iter();
    found.map(|float| (float.node, format!("{} stays float: {}", float.op, float.reason))).collect()
}

pub(super) fn refused(view: &View) -> Vec<Site> {
    if view.is_quantized() { ort::refused(view) } else { Vec::new() }
}
