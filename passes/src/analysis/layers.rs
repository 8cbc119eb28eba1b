//! Layers: nodes that multiply an activation with a constant weight.

use super::decoding::decodes;
use crate::ir::{Graph, Model, Node, NodeId, ValueId};
use crate::ops::{LayerOp, facts};

impl LayerOp {
    /// The layer operator of a node, whatever its operands are.
    pub fn of(node: &Node) -> Option<Self> {
        if node.domain().is_empty() { facts(node.op()).float_layer() } else { None }
    }
}

/// A layer: y = W·x + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The node.
    pub node: NodeId,
    /// The node's name, or its output's where it has none: stable across the passes.
    pub name: String,
    /// The operator.
    pub op: LayerOp,
    /// The activation read.
    pub input: ValueId,
    /// The constant weight.
    pub weight: ValueId,
    /// Which input of the node the weight is.
    pub weight_slot: usize,
    /// Shape of the weight as stored.
    pub shape: Vec<usize>,
    /// Axis of the weight along which output channels lie; `None` where the weight has none (a vector).
    pub axis: Option<usize>,
    /// The bias input, constant or not.
    pub bias: Option<ValueId>,
    /// What the node writes.
    pub output: ValueId,
}

impl Layer {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the layer is the plain product of an activation with a matrix on its right: `MatMul`, or `Gemm` without
    /// factors and transposed input.
    pub fn is_matrix_product(&self, graph: &Graph) -> bool {
        let node = graph.node(self.node);
        let plain = match self.op {
            LayerOp::MatMul => true,
            LayerOp::Gemm => {
                let factors = [("alpha", true), ("beta", self.bias.is_some())];
                node.int_or("transA", 0) == 0
                    && factors.iter().all(|&(factor, counts)| !counts || node.float_or(factor, 1.0) == 1.0)
            }
            _ => false,
        };
        plain && self.weight_slot == 1 && self.shape.len() == 2 && self.weights() > 0
    }

    /// Number of output channels of a group; 1 where the weight has none.
    pub fn channels(&self) -> usize {
        self.axis.map_or(1, |axis| self.shape[axis])
    }

    /// Multiply-accumulates for an output of the given shape; none where they are more than anything could run: a file
    /// can declare any shape, and what is counted is added up.
    pub fn macs(&self, output: &[usize]) -> Option<u64> {
        const MOST: u64 = 1 << 44;
        let times = |from: u64, axes: &[usize]| axes.iter().try_fold(from, |count, &n| count.checked_mul(n as u64));
        let (batch, places) = (output.get(..1).unwrap_or_default(), output.get(2..).unwrap_or_default());
        let weights = self.weights() as u64;
        let macs = match (self.op, self.axis) {
            (op, _) if op.is_convolution() => times(times(weights, batch)?, places),
            (_, Some(axis)) => times(weights / (self.shape[axis].max(1) as u64), output),
            (_, None) => Some(weights),
        };
        macs.filter(|&macs| macs <= MOST)
    }

    /// Multiply-accumulates for one sample; none where an axis of the output besides the first is open.
    pub fn macs_per_sample(&self, graph: &Graph) -> Option<u64> {
        let shape = graph.value(self.output).shape()?;
        let one = |(axis, n): (usize, &Option<usize>)| if axis == 0 { Some(n.unwrap_or(1)) } else { *n };
        let shape: Vec<usize> = shape.iter().enumerate().map(one).collect::<Option<_>>()?;
        self.macs(&shape)
    }
}

/// The layers of a graph in node order. A product of two activations, or of two constants, is none, and neither is one
/// that decodes boxes (`analysis/decoding.rs`).
pub fn layers(model: &Model) -> Vec<Layer> {
    model.graph.nodes().filter_map(|(id, node)| layer(&model.graph, id, node)).collect()
}

fn layer(graph: &Graph, id: NodeId, node: &Node) -> Option<Layer> {
    let op = LayerOp::of(node)?;
    let operands = facts(op.name()).operands?;
    let constant = |slot: &usize| node.input(*slot).is_some_and(|v| graph.constant(v).is_some());
    let weight_slot = operands.weight.iter().copied().find(constant)?;
    let weight = node.input(weight_slot)?;
    let input = node.input(usize::from(weight_slot == 0))?;
    let tensor = graph.constant(weight)?;
    if graph.constant(input).is_some() || !tensor.is_float() || decodes(graph, node).is_some() {
        return None;
    }
    let shape = tensor.shape().ok()?;
    let axis = operands.layout.output_axis(weight_slot, shape.len(), |attribute| node.int_or(attribute, 0) != 0);
    let bias = operands.bias.and_then(|slot| node.input(slot));
    let output = node.output(0)?;
    let name = node.label(graph).to_owned();
    Some(Layer { node: id, name, op, input, weight, weight_slot, axis, shape, bias, output })
}
