//! Which axes of which values count samples and positions of a sequence.
//!
//! A forward pass over the graph. An axis is a product of [`Part`]s: a Reshape that joins samples and positions to rows
//! gives an axis of both. Every rule is conservative: where an operator is not known, or moves positions, its output has
//! no marked axis. Sizes are checked again when a sample has run, see [`Positions`](super::Positions).
//!
//! ```text
//! this file   the walk: from inputs through nodes in graph order
//! inputs      the axes of inputs
//! operators   the rules of operators
//! reshape     the rules of Reshape, Flatten, Squeeze and Unsqueeze
//! axis        one axis, and how several become one
//! ```

mod axis;
mod inputs;
mod operators;
mod reshape;

use super::source::Source;
use axis::Axis;
pub(super) use axis::{Axes, Part};
use msq_passes::ir::{Graph, Model, ValueId};
use std::collections::HashMap;

/// Marked axes of every value that has any.
pub(super) fn propagate(model: &Model, sources: &[Source]) -> HashMap<String, Axes> {
    let graph = &model.graph;
    let mut known: HashMap<ValueId, Axes> = HashMap::new();
    for input in graph.runtime_inputs() {
        if let Some(axes) = inputs::input_axes(graph, input, sources) {
            known.insert(input, axes);
        }
    }
    for (_, node) in graph.nodes() {
        if node.subgraphs().next().is_some() {
            continue;
        }
        let read = |slot: usize| node.input(slot).and_then(|value| axes_of(graph, &known, value));
        for (slot, axes) in operators::outputs(graph, node, &read) {
            let Some(output) = node.output(slot) else { continue };
            known.insert(output, with_declared(graph, output, axes));
        }
    }
    let marked = known.into_iter().filter(|(_, axes)| axes.iter().any(Axis::is_marked));
    marked.map(|(value, axes)| (graph.value(value).name().to_owned(), axes)).collect()
}

/// Sizes that the graph declares take the place of unknown ones; a declared rank that differs is believed.
fn with_declared(graph: &Graph, value: ValueId, mut axes: Axes) -> Axes {
    let Some(declared) = graph.value(value).shape() else { return axes };
    if declared.len() != axes.len() {
        return declared.into_iter().map(Axis::plain).collect();
    }
    for (axis, size) in axes.iter_mut().zip(declared) {
        axis.size = size.or(axis.size);
    }
    axes
}

/// The axes of a value: those found, or plain ones where its rank is known.
fn axes_of(graph: &Graph, known: &HashMap<ValueId, Axes>, value: ValueId) -> Option<Axes> {
    if let Some(axes) = known.get(&value) {
        return Some(axes.clone());
    }
    let constant = graph.constant(value).and_then(|tensor| tensor.shape().ok());
    if let Some(shape) = constant {
        return Some(shape.into_iter().map(|size| Axis::plain(Some(size))).collect());
    }
    Some(graph.value(value).shape()?.into_iter().map(Axis::plain).collect())
}
