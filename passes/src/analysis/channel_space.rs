//! Values that hold the same channels, between the convolutions that mix channels.

use crate::ir::{Graph, Node, NodeId, Use, ValueId, axis_of};
use crate::ops::{Trait, facts};
use indexmap::{IndexMap, IndexSet};

/// Operators that compute each element from the one in its place, and a finite number from 0.
const ELEMENTWISE: [&str; 19] = [
    "Abs",
    "Cast",
    "Clip",
    "DequantizeLinear",
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Mish",
    "Neg",
    "QuantizeLinear",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Swish",
    "Tanh",
];

/// Operators of two operands that do so, with broadcasting.
const OF_TWO: [&str; 5] = ["Add", "Max", "Min", "Mul", "Sub"];

/// Values with the same channels on axis 1. Between the convolutions over all channels that write them and those that read
/// them, nothing mixes channels: more channels, with weights of 0, change no other value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSpace {
    /// The number of channels.
    pub channels: usize,
    /// The values.
    pub values: IndexSet<ValueId>,
    /// Convolutions over all channels that write some.
    pub writers: IndexSet<NodeId>,
    /// Convolutions over all channels that read some.
    pub readers: IndexSet<NodeId>,
    /// Convolutions of each channel alone.
    pub depthwise: IndexSet<NodeId>,
}

/// How a value with these channels meets a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Written,
    Read(usize),
}

impl ChannelSpace {
    /// The values that share the output channels of a convolution, which is depthwise or over all channels, or why they have
    /// other ends than convolutions. `weight_shape` gives the
    /// shape of a convolution's weight.
    pub fn around(
        graph: &Graph,
        convolution: NodeId,
        weight_shape: impl Fn(NodeId) -> Option<Vec<usize>>,
    ) -> Result<Self, String> {
        let node = graph.node(convolution);
        let outputs = weight_shape(convolution).and_then(|shape| shape.first().copied());
        let channels = outputs.ok_or_else(|| unknown(graph, node))?;
        let none = || (IndexSet::new(), IndexSet::new(), IndexSet::new());
        let (writers, readers, inner) = none();
        let space = Self { channels, values: IndexSet::new(), writers, readers, depthwise: inner };
        let start = node.output(0).ok_or("nothing reads it")?;
        let mut walk = Walk { graph, weight_shape, space, next: vec![start] };
        while let Some(value) = walk.next.pop() {
            if !walk.space.values.insert(value) {
                continue;
            }
            let entry = graph.value(value);
            if graph.is_output(value) || !entry.captures().is_empty() {
                return Err(format!("`{}` is read outside the graph's nodes", entry.name()));
            }
            let (producer, slot) = entry.producer().ok_or_else(|| format!("no node computes `{}`", entry.name()))?;
            if slot != 0 {
                return Err(walk.mixes(producer));
            }
            walk.pass(producer, End::Written)?;
            for &Use { node, slot } in entry.uses() {
                walk.pass(node, End::Read(slot))?;
            }
        }
        Ok(walk.space)
    }

    /// The convolutions that get channels where the values get `more`, each with so many more output and input channels.
    pub fn convolutions(&self, more: usize) -> IndexMap<NodeId, [usize; 2]> {
        let mut added: IndexMap<NodeId, [usize; 2]> = IndexMap::new();
        for &node in self.writers.iter().chain(&self.depthwise) {
            added.entry(node).or_default()[0] = more;
        }
        for &node in &self.readers {
            added.entry(node).or_default()[1] = more;
        }
        added
    }
}

fn unknown(graph: &Graph, convolution: &Node) -> String {
    format!("the shape of the weight of `{}` is unknown", convolution.label(graph))
}

struct Walk<'a, S> {
    graph: &'a Graph,
    weight_shape: S,
    space: ChannelSpace,
    next: Vec<ValueId>,
}

impl<S: Fn(NodeId) -> Option<Vec<usize>>> Walk<'_, S> {
    /// Goes on behind a node.
    fn pass(&mut self, id: NodeId, end: End) -> Result<(), String> {
        let node = self.graph.node(id);
        let is_any = |operators: &[&str]| operators.iter().any(|op| node.is(op));
        if node.is("Conv") {
            return self.convolution(id, node, end);
        }
        let one_output = node.outputs().iter().flatten().count() == 1;
        let one_data = matches!(end, End::Written | End::Read(0));
        if one_output && one_data && (is_any(&ELEMENTWISE) || self.works_in_channels(node)) {
            self.next.extend(node.input(0).into_iter().chain(node.output(0)));
            return if self.has_one_parameter_for_all(node) { Ok(()) } else { Err(self.mixes(id)) };
        }
        if let Some(operands) = node.two_inputs().filter(|_| is_any(&OF_TWO)) {
            for operand in operands {
                if self.has_channels(operand).ok_or_else(|| self.mixes(id))? {
                    self.next.push(operand);
                }
            }
            self.next.extend(node.output(0));
            return Ok(());
        }
        Err(self.mixes(id))
    }

    fn convolution(&mut self, id: NodeId, node: &Node, end: End) -> Result<(), String> {
        let channels = self.space.channels;
        let shape = (self.weight_shape)(id).ok_or_else(|| unknown(self.graph, node))?;
        let [outputs, inputs, ..] = shape[..] else { return Err(self.mixes(id)) };
        let groups = node.int_or("group", 1);
        let depthwise = usize::try_from(groups) == Ok(channels) && outputs == channels && inputs == 1;
        match end {
            End::Written | End::Read(0) if depthwise => {
                self.space.depthwise.insert(id);
                self.next.extend(node.input(0).into_iter().chain(node.output(0)));
            }
            End::Written if groups == 1 && outputs == channels => drop(self.space.writers.insert(id)),
            End::Read(0) if groups == 1 && inputs == channels => drop(self.space.readers.insert(id)),
            _ => return Err(self.mixes(id)),
        }
        Ok(())
    }

    /// Whether a node of one data input computes each channel alone: pools, means over positions, larger images.
    fn works_in_channels(&self, node: &Node) -> bool {
        let positions_alone = || {
            let given = node.input(1).and_then(|axes| self.graph.constant(axes)?.to_i64().ok());
            let axes = given.unwrap_or_else(|| node.ints("axes").to_vec());
            let rank = node.input(0).and_then(|value| self.graph.value(value).shape()).map_or(0, |shape| shape.len());
            let is_position = |&axis: &i64| axis_of(axis, rank).is_some_and(|axis| axis >= 2);
            node.int_or("keepdims", 1) == 1 && !axes.is_empty() && axes.iter().all(is_position)
        };
        let enlarges_positions = || {
            let factors = node.input(2).and_then(|factors| self.graph.constant(factors)?.to_f32().ok());
            node.input(3).is_none() && factors.is_some_and(|factors| factors.len() > 2 && factors[..2] == [1.0, 1.0])
        };
        let pools = node.domain().is_empty() && facts(node.op()).has(Trait::Pooling);
        pools || node.is("ReduceMean") && positions_alone() || node.is("Resize") && enlarges_positions()
    }

    /// Whether what an operator has beside its data is the same for all channels.
    fn has_one_parameter_for_all(&self, node: &Node) -> bool {
        let single = |value: ValueId| self.graph.constant(value).is_some_and(|t| t.element_count() == Ok(1));
        let listed = node.is("ReduceMean") || node.is("Resize");
        listed || node.inputs().iter().skip(1).flatten().all(|&value| single(value))
    }

    /// Whether an operand has the channels, or one value for all of them; nothing where it has others, or none are known.
    fn has_channels(&self, operand: ValueId) -> Option<bool> {
        if self.space.values.contains(&operand) {
            return Some(true);
        }
        let source = self.behind_quantizers(operand);
        if let Some(constant) = self.graph.constant(source) {
            return (constant.element_count() == Ok(1)).then_some(false);
        }
        let shape = [operand, source].into_iter().find_map(|value| self.graph.value(value).shape())?;
        match shape.get(1..)? {
            [Some(1), _, ..] => Some(false),
            [Some(channels), _, ..] => (*channels == self.space.channels).then_some(true),
            _ => None,
        }
    }

    /// What quantizers and dequantizers read whose result a value is.
    fn behind_quantizers(&self, mut value: ValueId) -> ValueId {
        while let Some((producer, _)) = self.graph.value(value).producer() {
            let node = self.graph.node(producer);
            let is_quantizer = node.is("QuantizeLinear") || node.is("DequantizeLinear");
            let Some(read) = node.input(0).filter(|_| is_quantizer) else { break };
            value = read;
        }
        value
    }

    fn mixes(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        format!("{} `{}` does not keep channels apart", node.op(), node.label(self.graph))
    }
}
