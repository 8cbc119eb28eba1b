//! Two layers with nothing between them that a factor per channel does not pass through.

use crate::analysis::{Layer, LayerOp};
use crate::ir::{DataType, Graph, Node, NodeId, Use, ValueId};
use crate::ops::{Trait, WeightLayout, facts};
use crate::pass::shared_with;
use std::collections::HashMap;

/// Layers one of which feeds the other alone.
pub(super) struct Pair {
    /// Weight of the layer in front, by its output channels.
    pub(super) first: Weight,
    /// What is added to its output, one element a channel.
    pub(super) bias: Option<ValueId>,
    /// Weight of the layer behind, by its input channels.
    pub(super) second: Weight,
    /// The values between the two.
    pub(super) between: Vec<ValueId>,
}

impl Pair {
    /// Weights and bias.
    pub(super) fn constants(&self) -> impl Iterator<Item = ValueId> + '_ {
        [self.first.value, self.second.value].into_iter().chain(self.bias)
    }
}

/// A weight and where its channels lie.
pub(super) struct Weight {
    pub(super) value: ValueId,
    pub(super) channels: Channels,
}

/// Which channel an element of a weight belongs to: channels change every `inner` elements and start again after
/// `count` of them; each `block` of elements, a group's, has channels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) inner: usize,
    pub(super) count: usize,
    pub(super) block: usize,
    /// Channels of all blocks.
    pub(super) total: usize,
}

impl Channels {
    /// Channels along an axis of a weight that is split into `groups` along its first axis; for that axis itself into one.
    fn along(shape: &[usize], axis: usize, groups: usize) -> Self {
        let inner = shape[axis + 1..].iter().product::<usize>();
        let block = shape.iter().product::<usize>() / groups;
        Self { inner: inner.max(1), count: shape[axis], block: block.max(1), total: shape[axis] * groups }
    }

    pub(super) fn of(&self, element: usize) -> usize {
        element / self.block * self.count + element / self.inner % self.count
    }
}

/// Where the channels of a value lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// On axis 1, spatial axes behind.
    Image,
    /// On axis 1 of two, each channel's positions one after the other.
    Flat,
    /// On the last axis.
    Row,
}

/// The pair a layer is the first of, nothing where nobody reads what it computes, or why there is none.
pub(super) fn pair_after(
    graph: &Graph,
    first: &Layer,
    layers: &HashMap<NodeId, &Layer>,
) -> Result<Option<Pair>, String> {
    let mut layout = match first.op {
        op if op.is_convolution() => Layout::Image,
        _ => Layout::Row,
    };
    let (mut value, mut between) = (first.output, Vec::new());
    let mut bias = first.bias.map(|bias| (bias, first.node));
    let second = loop {
        let Some(reader) = only_reader(graph, value)? else { return Ok(None) };
        between.push(value);
        if let Some(layer) = layers.get(&reader.node).filter(|layer| layer.input == value) {
            break layer;
        }
        let node = graph.node(reader.node);
        if let Some(constant) = sum_behind_product(graph, first, value, node) {
            bias = Some((constant, reader.node));
        } else {
            layout = passed(graph, reader, value, layout)?;
        }
        value = node.output(0).ok_or("what follows has no output")?;
    };
    let first_weight =
        Weight { value: parameter(graph, first.weight, first.node)?, channels: output_channels(graph, first)? };
    let channels = first_weight.channels.total;
    if let Some((bias, reader)) = bias {
        check_bias(graph, bias, reader, channels)?;
    }
    let second = Weight {
        value: parameter(graph, second.weight, second.node)?,
        channels: input_channels(graph, second, layout, channels)?,
    };
    Ok(Some(Pair { first: first_weight, bias: bias.map(|(bias, _)| bias), second, between }))
}

/// The one place a value is read, or nothing if there is none.
fn only_reader(graph: &Graph, value: ValueId) -> Result<Option<Use>, String> {
    let [first, ..] = graph.value(value).uses() else { return Ok(None) };
    match shared_with(graph, value, |node| node == first.node) {
        None => Ok(Some(*first)),
        Some(reason) => Err(reason),
    }
}

/// The constant of a sum right behind a `MatMul`: its bias.
fn sum_behind_product(graph: &Graph, first: &Layer, value: ValueId, node: &Node) -> Option<ValueId> {
    if first.op != LayerOp::MatMul || value != first.output || !node.is("Add") {
        return None;
    }
    let other = node.inputs().iter().flatten().copied().find(|&input| input != value)?;
    graph.constant(other).map(|_| other)
}

/// The layout behind an operator that factors a channel pass through.
fn passed(graph: &Graph, reader: Use, value: ValueId, layout: Layout) -> Result<Layout, String> {
    let node = graph.node(reader.node);
    let refused = || format!("{} `{}` behind it does not pass a factor on", node.op(), node.label(graph));
    if LayerOp::of(node).is_some() {
        return Err(format!("the weight of `{}` behind it is not constant", node.label(graph)));
    }
    if !node.domain().is_empty() || reader.slot != 0 {
        return Err(refused());
    }
    let image = layout == Layout::Image;
    match node.op() {
        op if facts(op).has(Trait::Homogeneous) && (image || !facts(op).has(Trait::Pooling)) => Ok(layout),
        "Flatten" if image && node.int_or("axis", 1) == 1 => Ok(Layout::Flat),
        "Reshape" if image && flattens(graph, node, value) => Ok(Layout::Flat),
        _ => Err(refused()),
    }
}

/// Whether a `Reshape` gives each sample one row: the length of the batch or of the row is kept, and there are two axes.
fn flattens(graph: &Graph, node: &Node, value: ValueId) -> bool {
    let target = node.input(1).and_then(|shape| graph.constant(shape)?.to_i64().ok());
    let Some(&[rows, columns]) = target.as_deref() else { return false };
    if rows == 0 && node.int_or("allowzero", 0) == 0 {
        return true;
    }
    let shape = graph.value(value).shape().unwrap_or_default();
    let known = |length: Option<usize>, wanted: i64| length.is_some_and(|n| i64::try_from(n) == Ok(wanted));
    let row = shape.get(1..).unwrap_or_default().iter().copied().try_fold(1_usize, |n, length| n.checked_mul(length?));
    known(shape.first().copied().flatten(), rows) || known(row.filter(|_| shape.len() > 1), columns)
}

/// A constant that may be changed because only `reader` reads it.
fn parameter(graph: &Graph, value: ValueId, reader: NodeId) -> Result<ValueId, String> {
    let name = graph.value(value).name();
    let tensor = graph.constant(value).ok_or_else(|| format!("`{name}` is not constant"))?;
    if tensor.element_type() != Some(DataType::Float) {
        return Err(format!("`{name}` is not single precision"));
    }
    match shared_with(graph, value, |node| node == reader) {
        None => Ok(value),
        Some(reason) => Err(reason),
    }
}

fn check_bias(graph: &Graph, bias: ValueId, reader: NodeId, channels: usize) -> Result<(), String> {
    let bias = parameter(graph, bias, reader)?;
    let shape = graph.constant(bias).and_then(|tensor| tensor.shape().ok()).unwrap_or_default();
    let vector = shape.last() == Some(&channels) && shape.iter().product::<usize>() == channels;
    let name = graph.value(bias).name();
    if vector { Ok(()) } else { Err(format!("`{name}` is no vector over the channels")) }
}

fn output_channels(graph: &Graph, layer: &Layer) -> Result<Channels, String> {
    match weight_layout(layer) {
        Some(WeightLayout::Filter { output, .. }) => filter_channels(graph, layer, output),
        _ => matrix_channels(graph, layer, 1),
    }
}

fn weight_layout(layer: &Layer) -> Option<WeightLayout> {
    facts(layer.op.name()).operands.map(|operands| operands.layout)
}

/// Channels of what a layer reads, of which the value in front has `channels`.
fn input_channels(graph: &Graph, layer: &Layer, layout: Layout, channels: usize) -> Result<Channels, String> {
    let name = &layer.name;
    let found = match (weight_layout(layer), layout) {
        (Some(WeightLayout::Filter { input, .. }), Layout::Image) => filter_channels(graph, layer, input)?,
        (Some(WeightLayout::Matrix { .. } | WeightLayout::Stack), Layout::Row) => matrix_channels(graph, layer, 0)?,
        (Some(WeightLayout::Matrix { .. } | WeightLayout::Stack), Layout::Flat) => {
            let columns = matrix_channels(graph, layer, 0)?;
            let positions = columns.count / channels.max(1);
            // A rest of the division fails the comparison below.
            let total = if positions * channels == columns.count { channels } else { columns.count };
            Channels { inner: columns.inner * positions.max(1), count: total, total, ..columns }
        }
        _ => return Err(format!("`{name}` behind it multiplies along another axis")),
    };
    let wanted = found.total;
    if wanted == channels && wanted > 0 {
        return Ok(found);
    }
    Err(format!("it has {channels} channels, `{name}` behind it reads {wanted}"))
}

/// Channels along an axis of a filter, whose second axis has those of one group.
fn filter_channels(graph: &Graph, layer: &Layer, axis: usize) -> Result<Channels, String> {
    let shape = image_shape(layer)?;
    let groups = if axis == 0 { 1 } else { groups(graph, layer)? };
    Ok(Channels::along(shape, axis, groups))
}

fn image_shape(layer: &Layer) -> Result<&[usize], String> {
    if layer.shape.len() >= 3 { Ok(&layer.shape) } else { Err(format!("the weight of `{}` is no filter", layer.name)) }
}

fn groups(graph: &Graph, layer: &Layer) -> Result<usize, String> {
    let groups = usize::try_from(graph.node(layer.node).int_or("group", 1)).unwrap_or(0);
    let divides = groups > 0 && layer.shape[0].is_multiple_of(groups);
    if divides { Ok(groups) } else { Err(format!("the groups of `{}` do not fit its weight", layer.name)) }
}

/// Channels of the axis that is `axis` where a matrix is stored as x·W multiplies it.
fn matrix_channels(graph: &Graph, layer: &Layer, axis: usize) -> Result<Channels, String> {
    let node = graph.node(layer.node);
    if layer.weight_slot != 1 || layer.shape.len() != 2 || node.int_or("transA", 0) != 0 {
        return Err(format!("`{}` is no product with a matrix on the right", layer.name));
    }
    let transposed = layer.op == LayerOp::Gemm && node.int_or("transB", 0) != 0;
    Ok(Channels::along(&layer.shape, if transposed { 1 - axis } else { axis }, 1))
}
