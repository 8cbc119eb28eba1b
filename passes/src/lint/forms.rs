//! Rules about forms of valid files that a runtime refuses, or computes otherwise than the file says.

use super::Site;
use super::view::View;
use crate::analysis::counts_padding;
use crate::analysis::quantized::{is_dequantizer, is_quantizer};
use crate::form::{bias_of, reads_open_shapes};
use crate::ir::{DataType, NodeId, ValueId};
use crate::ops::{Trait, facts};
use crate::target::needs_constants;

/// Whether the graph computes the value from constants.
fn is_decoded(view: &View, value: ValueId) -> bool {
    view.is_constant(value) && view.producer(value).is_some()
}

pub(super) fn decoded_weights(view: &View) -> Vec<Site> {
    let found = view.graph.nodes().filter_map(|(id, node)| {
        let read: Vec<ValueId> = if facts(node.op()).has(Trait::Recurrent) && needs_constants(node) {
            [node.input(1), node.input(2)].into_iter().flatten().collect()
        } else if node.is("Scan") {
            node.captures().to_vec()
        } else {
            return None;
        };
        let decoded = read.into_iter().find(|&value| is_decoded(view, value))?;
        Some((view.label(id), format!("its weight `{}` is computed from integers", view.name(decoded))))
    });
    found.collect()
}

pub(super) fn padded_averages(view: &View) -> Vec<Site> {
    let found = view.graph.nodes().filter(|(_, node)| counts_padding(node)).filter_map(|(id, node)| {
        let read = view.dequantized(node.input(0)?)?;
        let zero = view.zero_points(&read)?.into_iter().find(|&zero| zero != 0)?;
        Some((view.label(id), format!("it pads with 0 where the zero point is {zero}")))
    });
    found.collect()
}

pub(super) fn open_shape_biases(view: &View) -> Vec<Site> {
    if !view.is_quantized() || !reads_open_shapes(view.graph) {
        return Vec::new();
    }
    let quantized =
        |value: ValueId| view.graph.value(value).uses().iter().any(|u| is_quantizer(view.graph.node(u.node)));
    let found = view.graph.nodes().filter_map(|(id, node)| {
        let (_, output) = bias_of(node)?;
        let clamps = view.graph.only_use(output).map(|u| view.graph.node(u.node));
        let behind = clamps.filter(|node| facts(node.op()).has(Trait::Clamp)).and_then(|node| node.output(0));
        (quantized(output) || behind.is_some_and(quantized))
            .then(|| (view.label(id), "its bias goes into a quantizer, and an open length is read".to_owned()))
    });
    found.collect()
}

pub(super) fn decoded_by_vectors(view: &View) -> Vec<Site> {
    let found = view.graph.nodes().filter(|(_, node)| node.is("MatMul")).filter_map(|(id, node)| {
        let [left, right] = node.two_inputs()?;
        let vector = view.graph.value(source(view, right)).shape()?.len() == 1;
        (vector && is_decoded(view, left)).then(|| (view.label(id), "its right operand is a vector".to_owned()))
    });
    found.collect()
}

/// The float value that a dequantized one was quantized from, or the value itself.
fn source(view: &View, value: ValueId) -> ValueId {
    let before = || {
        let integers = view.producer(value).filter(|node| is_dequantizer(node))?.input(0)?;
        view.producer(integers).filter(|node| is_quantizer(node))?.input(0)
    };
    before().unwrap_or(value)
}

pub(super) fn doubles(view: &View) -> Vec<Site> {
    if !view.is_quantized() {
        return Vec::new();
    }
    let inputs = view.graph.runtime_inputs();
    let doubles = inputs.filter(|&value| view.element_of(value) == Some(DataType::Double));
    let found = |value| {
        let reader = view.label(scaling_reader(view, value)?);
        Some((view.name(value), format!("it is of type double, and `{reader}` reads it as if it were quantized")))
    };
    doubles.filter_map(found).collect()
}

/// The first reader of a value that `OpenVINO` takes for a quantizer, or for a scale or a zero point of integers, once it has
/// dropped the `Cast` before it: arithmetic with a constant.
fn scaling_reader(view: &View, input: ValueId) -> Option<NodeId> {
    let mut waiting = vec![input];
    while let Some(value) = waiting.pop() {
        for reader in view.graph.value(value).uses() {
            let node = view.graph.node(reader.node);
            let constant = || node.two_inputs().is_some_and(|both| both.iter().any(|&other| view.is_constant(other)));
            match node.op() {
                _ if is_quantizer(node) => return Some(reader.node),
                "Neg" => return Some(reader.node),
                "Add" | "Sub" | "Mul" | "Div" if constant() => return Some(reader.node),
                "Cast" | "Identity" => waiting.extend(node.output(0)),
                _ => {}
            }
        }
    }
    None
}
