//! What each operator needs for an integer kernel to take it. Which operators have one is said by the target's table.

use super::layers;
use super::links::{Links, Output};
use super::types::{TYPES_DIFFER, is_byte, same_type};
use crate::analysis::LayerOp;
use crate::analysis::quantized::Parameters;
use crate::ir::Node;
use crate::ops::facts;
use crate::target::Support;

/// Whether an integer kernel takes the node, or why not.
pub(super) fn verdict(links: &Links, node: &Node) -> Result<(), String> {
    let none = || Err(format!("onnxruntime has no integer kernel for {}", node.op()));
    let Some(kernel) = links.view.profile.kernel(node.op()) else { return none() };
    if kernel.fused_only {
        return fused_only(links, node);
    }
    match (kernel.support, LayerOp::of(node)) {
        (_, Some(LayerOp::Conv)) => layers::conv(links, node),
        (_, Some(LayerOp::Gemm)) => layers::gemm(links, node),
        (_, Some(LayerOp::MatMul)) => layers::matmul(links, node),
        (Support::Arithmetic, _) => arithmetic(links, node),
        (Support::Movement, _) => movement(links, node),
        (Support::Clamp, _) => clamp(links, node),
        (Support::Free, _) => Ok(()),
        (Support::Layer { .. } | Support::ResidualSum | Support::Affine | Support::Index, _) => none(),
    }
}

/// Computes: every operand dequantized, the output quantized.
fn arithmetic(links: &Links, node: &Node) -> Result<(), String> {
    let facts = facts(node.op());
    let mut element = None;
    for value in node.inputs().iter().enumerate().filter(|&(slot, _)| facts.is_data(slot)).filter_map(|(_, v)| *v) {
        let name = links.view.name(value);
        let Some(source) = links.source(value) else {
            return Err(format!("operand `{name}` is float"));
        };
        if !is_byte(source.element) {
            return Err(format!("operand `{name}` is not of 8 bits"));
        }
        if !same_type(element, source.element) {
            return Err(TYPES_DIFFER.to_owned());
        }
        element = source.element;
    }
    match links.output(node) {
        Output::Quantized(quantizer) if !is_byte(quantizer.element) => Err("its output is not of 8 bits".to_owned()),
        Output::Quantized(quantizer) if !same_type(element, quantizer.element) => Err(TYPES_DIFFER.to_owned()),
        Output::Quantized(_) => Ok(()),
        Output::Float => Err("its output is not quantized".to_owned()),
        Output::Blocked(reason) => Err(reason),
    }
}

/// Between quantizers computed in float; on the integers themselves it would not be.
fn fused_only(links: &Links, node: &Node) -> Result<(), String> {
    let source = node.input(0).and_then(|v| links.source(v));
    let sink = node.output(0).and_then(|v| links.only_quantizer(v));
    let between = source.is_some() && sink.is_some();
    let message = || Err("between quantizers it is computed in float, on the integers themselves it is not".to_owned());
    if between { message() } else { Ok(()) }
}

/// Data is moved as it is. Float data is worth a word only for pools, or where quantizers on both sides disagree.
fn movement(links: &Links, node: &Node) -> Result<(), String> {
    let source = node.input(0).and_then(|v| links.source(v));
    let sinks: Vec<_> = node.outputs().iter().flatten().map(|&v| links.only_quantizer(v)).collect();
    let differs =
        |(of, sink): (&Parameters, &Option<Parameters>)| sink.as_ref().is_some_and(|sink| !links.view.alike(of, sink));
    if source.iter().flat_map(|of| sinks.iter().map(move |sink| (of, sink))).any(differs) {
        return Err("the quantizers before and behind it have different parameters".to_owned());
    }
    if source.is_some() && sinks.iter().any(Option::is_some) && sinks.iter().any(Option::is_none) {
        return Err("not all of its outputs are quantized".to_owned());
    }
    let sink = sinks.into_iter().next().flatten();
    let pool = node.is("MaxPool");
    if pool && !links.crosses(node) {
        return Err("its operator set is older than 12".to_owned());
    }
    let (before, behind) = match (&source, &sink) {
        (Some(source), Some(sink)) => (source.element, sink.element),
        (Some(source), None) => (source.element, links.moved_type(node, source)),
        (None, Some(sink)) => (links.final_type(sink, true), sink.element),
        (None, None) if pool => return Err("it reads floats".to_owned()),
        (None, None) => return Ok(()),
    };
    if pool && !same_type(before, behind) { Err(TYPES_DIFFER.to_owned()) } else { Ok(()) }
}

/// A clamp between quantizers that stays. Behind a layer it is named there.
fn clamp(links: &Links, node: &Node) -> Result<(), String> {
    let source = node.input(0).and_then(|v| links.source(v));
    let sink = node.output(0).and_then(|v| links.only_quantizer(v));
    match (source, sink) {
        (Some(_), Some(sink)) => links.redundant(node, &sink),
        _ => Ok(()),
    }
}
