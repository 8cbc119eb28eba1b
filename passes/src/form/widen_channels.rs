//! Pass `widen-channels`: convolutions get channels of zeros, up to a number that the target has a fast kernel for.
//!
//! ```text
//! y = Conv<group = 72>(x, W, b)  →  y = Conv<group = 80>(x, [W; 0], [b; 0])
//! ```
//!
//! and what writes and reads these channels gets weights of 0 for them, through everything between that works on each
//! channel alone ([`ChannelSpace`]). onnxruntime computes depthwise convolutions on integers 16 channels at a time where
//! their number is a multiple of 16, and in a loop that takes two to three times as long where it is not: 72, 88, 120, 184
//! and 200 channels in `MobileNetV3`. Convolutions over all channels it computes without gathering what they read where they
//! write 16 channels or more. Placement chooses the layers, by prices.
//!
//! Every other value keeps its integers. Weights that are computed, from packed words or codes, get a `Pad` behind them,
//! which the target folds as it does the steps before.
//!
//! Declined: channels that are a graph output, or that anything but convolutions, elementwise operators and pools reads or
//! writes; weights whose integers have less than a byte each; a weight in blocks, or with several readers.

use crate::analysis::ChannelSpace;
use crate::analysis::quantized::{QuantizedGraph, is_dequantizer, is_quantizer};
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};

/// Gives convolutions on integers more channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WidenChannels {
    /// The channels that the file is to have, by the name of the layer.
    pub layers: IndexMap<String, usize>,
    /// Shapes of the weights of convolutions, by name, for those that the graph computes in a way that hides them.
    pub weights: IndexMap<String, Vec<usize>>,
    /// Whether the metadata says how many channels layers had ([`narrow_channels`]).
    pub records: bool,
}

/// The metadata with a line for each widened layer: how many output channels it had, and its name.
const RECORD: &str = "msq-onnx.widened";

/// The output channels that layers had before they were widened, by name.
pub fn narrow_channels(model: &Model) -> HashMap<&str, usize> {
    let lines = model.metadata(RECORD).unwrap_or_default().lines();
    let parsed = lines.filter_map(|line| line.split_once(' '));
    parsed.filter_map(|(channels, name)| Some((name, channels.parse().ok()?))).collect()
}

impl Pass for WidenChannels {
    fn name(&self) -> &'static str {
        "widen-channels"
    }

    fn about(&self) -> &'static str {
        "convolutions get channels of zeros, up to a number that a fast kernel takes"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let (mut outcome, mut record) = (Outcome::default(), Vec::new());
        for (name, &channels) in &self.layers {
            let is_layer = |(_, node): &(NodeId, &Node)| node.is("Conv") && node.label(&model.graph) == name;
            let Some(id) = model.graph.nodes().find(is_layer).map(|(id, _)| id) else { continue };
            match self.plan(model, id, channels) {
                // Done around another layer.
                Ok((space, _)) if space.channels == channels => {}
                Ok((space, edits)) => {
                    let writers = space.writers.iter().chain(&space.depthwise);
                    let names = writers.map(|&node| model.graph.node(node).label(&model.graph));
                    record.extend(names.map(|name| format!("{} {name}", space.channels)));
                    for edit in edits {
                        edit.apply(&mut model.graph);
                    }
                    let group = AttributeProto::int("group", i64::try_from(channels).unwrap_or_default());
                    space.depthwise.iter().for_each(|&node| model.graph.set_attribute(node, group.clone()));
                    model.graph.drop_value_info(&space.values.into_iter().collect::<HashSet<_>>());
                    outcome.count();
                }
                Err(reason) => outcome.decline(name, reason),
            }
        }
        model.graph.sort()?;
        if self.records && !record.is_empty() {
            model.set_metadata(RECORD, &record.join("\n"));
        }
        Ok(outcome)
    }
}

/// Another constant for a node, or another length of a computed one.
#[derive(Debug)]
enum Edit {
    Constant { node: NodeId, slot: usize, tensor: TensorProto },
    Computed { node: NodeId, slot: usize, more: Vec<usize>, filler: TensorProto },
}

impl Edit {
    fn apply(self, graph: &mut Graph) {
        match self {
            Self::Constant { node, slot, mut tensor } => {
                tensor.name = Some(graph.fresh_name(&format!("{}_wide", tensor.name())));
                let value = graph.add_initializer(tensor);
                graph.set_input(node, slot, Some(value));
            }
            Self::Computed { node, slot, more, filler } => {
                let Some(narrow) = graph.node(node).input(slot) else { return };
                let name = format!("{}_wide", graph.value(narrow).name());
                // Where each axis begins to be longer, and where it ends.
                let lengths =
                    std::iter::repeat_n(0, more.len()).chain(more.iter().map(|&n| i64::try_from(n).unwrap_or(0)));
                let pads = TensorProto::from_i64(
                    &graph.fresh_name(&format!("{name}_pads")),
                    &[2 * more.len()],
                    &lengths.collect::<Vec<_>>(),
                );
                let (pads, filler) = (graph.add_initializer(pads), {
                    let named = TensorProto { name: Some(graph.fresh_name(&format!("{name}_zero"))), ..filler };
                    graph.add_initializer(named)
                });
                let wide = graph.add_value(&name);
                graph.add_node(
                    NodeProto::of("Pad", &name, Vec::new()),
                    &[Some(narrow), Some(pads), Some(filler)],
                    &[Some(wide)],
                );
                graph.set_input(node, slot, Some(wide));
            }
        }
    }
}

impl WidenChannels {
    /// The channels around a layer, and what has to be longer for them.
    fn plan(&self, model: &Model, id: NodeId, to: usize) -> Result<(ChannelSpace, Vec<Edit>), String> {
        let graph = &model.graph;
        if !is_on_integers(graph, graph.node(id)) {
            return Err("it is not on integers".to_owned());
        }
        let widening = Widening { quantized: &QuantizedGraph::new(model), weights: &self.weights };
        let space = ChannelSpace::around(graph, id, |node| widening.weight_shape(node))?;
        let more = to.checked_sub(space.channels).ok_or("it has more channels already")?;
        let mut edits = Vec::new();
        for (node, [outputs, inputs]) in space.convolutions(more) {
            let named = |reason: String| format!("{reason}, in `{}`", graph.node(node).label(graph));
            widening.operand(node, 1, &[outputs, inputs], &mut edits).map_err(named)?;
            if outputs > 0 && graph.node(node).input(2).is_some() {
                widening.operand(node, 2, &[outputs], &mut edits).map_err(named)?;
            }
        }
        Ok((space, edits))
    }
}

/// Whether a layer reads and writes integers.
fn is_on_integers(graph: &Graph, node: &Node) -> bool {
    let producer = |value: ValueId| graph.value(value).producer().map(|(id, _)| graph.node(id));
    let reads = node.input(0).and_then(producer).is_some_and(is_dequantizer);
    let mut written = node.output(0);
    // The quantizer may stand behind an activation.
    while let Some(value) = written {
        let Some(reader) = graph.only_use(value).map(|only| graph.node(only.node)) else { return false };
        if is_quantizer(reader) {
            return reads;
        }
        written = reader.output(0).filter(|_| reader.is("Relu") || reader.is("Clip"));
    }
    false
}

struct Widening<'a> {
    quantized: &'a QuantizedGraph<'a>,
    weights: &'a IndexMap<String, Vec<usize>>,
}

impl Widening<'_> {
    /// The shape of a convolution's weight.
    fn weight_shape(&self, node: NodeId) -> Option<Vec<usize>> {
        let graph = self.quantized.graph;
        let weight = graph.node(node).input(1)?;
        let decoder = self.quantized.producer(weight).filter(|node| is_dequantizer(node));
        let stored = decoder.map_or(Some(weight), |node| node.input(0));
        let seen = stored.and_then(|stored| self.quantized.shape(stored));
        seen.or_else(|| self.weights.get(graph.node(node).label(graph)).cloned())
    }

    /// What makes an operand of a convolution longer by so much on its first axes.
    fn operand(&self, node: NodeId, slot: usize, more: &[usize], edits: &mut Vec<Edit>) -> Result<(), String> {
        let graph = self.quantized.graph;
        let value = graph.node(node).input(slot).ok_or("an operand is missing")?;
        let decoder = graph.value(value).producer().filter(|&(id, _)| is_dequantizer(graph.node(id)));
        let Some((decoder, _)) = decoder else {
            edits.push(self.longer(node, slot, more, 0)?);
            return Ok(());
        };
        let decoding = graph.node(decoder);
        if graph.only_use(value).is_none() {
            return Err("its integers have several readers".to_owned());
        }
        if decoding.int_or("block_size", 0) != 0 {
            return Err("its integers have a scale per block".to_owned());
        }
        // Scales and zero points of more channels are those of the first.
        let axis = usize::try_from(decoding.int_or("axis", 1)).map_err(|_| "the axis of its scales is unknown")?;
        for slot in [1, 2] {
            let Some(parameters) = decoding.input(slot) else { continue };
            let length = self.quantized.shape(parameters).ok_or("the shape of its scales is unknown")?;
            if let ([_], Some(&more @ 1..)) = (&length[..], more.get(axis)) {
                edits.push(self.longer(decoder, slot, &[more], self.first(parameters)?)?);
            }
        }
        let zero = decoding.input(2).map_or(Ok(0), |zero| self.only(zero))?;
        let integers = decoding.input(0).ok_or("an operand is missing")?;
        if let Some(stored) = self.quantized.constant(integers) {
            if is_binary(&stored, zero) {
                return Err("its grid has no 0".to_owned());
            }
            edits.push(self.longer(decoder, 0, more, zero)?);
            return Ok(());
        }
        let rank =
            self.weight_shape(node).filter(|_| slot == 1).ok_or("what it is computed from has no known shape")?.len();
        let element = self.quantized.element(decoding, integers);
        let element = element.filter(|element| matches!(element, DataType::Int8 | DataType::Uint8));
        let element = element.ok_or("what it is computed from has no integers of a byte")?;
        let filler = TensorProto::from_raw("", element, &[], vec![zero.to_le_bytes()[0]]);
        let mut more = more.to_vec();
        more.resize(rank, 0);
        edits.push(Edit::Computed { node: decoder, slot: 0, more, filler });
        Ok(())
    }

    /// An input of a node with more elements at the end of its first axes: of an integer type this number, of floats the
    /// first of the tensor where that is a vector of scales, and else 0.
    fn longer(&self, node: NodeId, slot: usize, more: &[usize], filler: i64) -> Result<Edit, String> {
        let value = self.quantized.graph.node(node).input(slot).ok_or("an operand is missing")?;
        let shape = self.quantized.shape(value).ok_or("a shape is unknown")?;
        let mut lengths = more.to_vec();
        lengths.resize(shape.len(), 0);
        let tensor = self.quantized.constant(value).ok_or("its scales are computed")?;
        let is_scale = is_dequantizer(self.quantized.graph.node(node)) && slot == 1;
        Ok(Edit::Constant { node, slot, tensor: longer(&tensor, &shape, &lengths, filler, is_scale)? })
    }

    /// The first element of constant integers; 0 of floats.
    fn first(&self, value: ValueId) -> Result<i64, String> {
        let tensor = self.quantized.constant(value).ok_or("its scales are computed")?;
        Ok(tensor.to_i64().ok().and_then(|elements| elements.first().copied()).unwrap_or_default())
    }

    /// The one number that constant integers are.
    fn only(&self, value: ValueId) -> Result<i64, String> {
        let tensor = self.quantized.constant(value).ok_or("its zero points are computed")?;
        let elements = tensor.to_i64().map_err(|error| error.to_string())?;
        let first = elements.first().copied().unwrap_or_default();
        if elements.iter().all(|&element| element == first) {
            Ok(first)
        } else {
            Err("its zero points differ".to_owned())
        }
    }
}

/// Whether integers are of two values, neither of them the zero point, as those of binary weights.
fn is_binary(integers: &TensorProto, zero: i64) -> bool {
    let elements = integers.to_i64().unwrap_or_default();
    let is_of = |a: i64, b: i64| elements.iter().all(|&element| element == a || element == b);
    match (elements.iter().min(), elements.iter().max()) {
        (Some(&least), Some(&most)) => least < most && least != zero && most != zero && is_of(least, most),
        _ => false,
    }
}

/// A tensor with more elements at the end of its axes.
fn longer(
    tensor: &TensorProto,
    shape: &[usize],
    more: &[usize],
    filler: i64,
    is_scale: bool,
) -> Result<TensorProto, String> {
    let to: Vec<usize> = shape.iter().zip(more).map(|(&length, &more)| length + more).collect();
    let readable = |error: crate::ir::TensorError| error.to_string();
    let element = tensor.element_type().ok_or("its type is unknown")?;
    Ok(match element {
        DataType::Float => {
            let elements = tensor.to_f32().map_err(readable)?;
            let filler = if is_scale { elements.first().copied().unwrap_or(1.0) } else { 0.0 };
            TensorProto::from_f32(tensor.name(), &to, &padded(&elements, shape, &to, filler))
        }
        DataType::Int8 | DataType::Uint8 | DataType::Int32 => {
            let elements = padded(&tensor.to_i64().map_err(readable)?, shape, &to, filler);
            let width = if element == DataType::Int32 { 4 } else { 1 };
            let raw = elements.iter().flat_map(|element| element.to_le_bytes().into_iter().take(width));
            TensorProto::from_raw(tensor.name(), element, &to, raw.collect::<Vec<u8>>())
        }
        _ => return Err(format!("its elements are {element}")),
    })
}

/// Elements in row-major order with more at the end of each axis.
fn padded<T: Copy>(elements: &[T], from: &[usize], to: &[usize], filler: T) -> Vec<T> {
    let (Some((&rows, inner)), Some((&wide, wide_inner))) = (from.split_first(), to.split_first()) else {
        return elements.to_vec();
    };
    let each: usize = inner.iter().product();
    let wide_each: usize = wide_inner.iter().product();
    let mut result = Vec::with_capacity(wide * wide_each);
    for row in 0..rows {
        result.extend(padded(
            elements.get(row * each..(row + 1) * each).unwrap_or_default(),
            inner,
            wide_inner,
            filler,
        ));
    }
    result.resize(wide * wide_each, filler);
    result
}

#[cfg(test)]
mod tests {
    use super::padded;

    #[test]
    fn elements_are_added_at_the_end_of_each_axis() {
        assert_eq!(padded(&[1, 2, 3, 4], &[2, 2], &[3, 3], 0), [1, 2, 0, 3, 4, 0, 0, 0, 0]);
        assert_eq!(padded(&[1, 2], &[2], &[4], 7), [1, 2, 7, 7]);
        assert_eq!(padded(&[1, 2], &[2, 1, 1], &[2, 3, 1], 0), [1, 0, 0, 2, 0, 0]);
    }
}
