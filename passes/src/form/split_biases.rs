//! Pass `split-biases`: the bias of a convolution becomes a sum behind it, where shapes are open and the graph reads some.
//!
//! ```text
//! y = Conv(x, W, b)  →  y = Add(Conv(x, W), reshape(b, [1, C, 1, …]))
//! ```
//!
//! `OpenVINO` (2026.4.1) reads the length of an open first axis off the first convolution that has a bias, whatever asks for
//! it: a `Shape`, or the states of a recurrent operator. The convolution then has two readers and does not take its bias
//! in, and the quantizer that takes it in instead adds the bias of the first channel to all. A sum in the file is not such a
//! convolution, and is fused as a bias is.
//!
//! Not changed: models whose inputs have a first axis of known length, and those without a `Shape` or a recurrent operator.
//! Declined: a bias that is not a constant vector, an unknown number of axes.

use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::is_recurrent;
use crate::pass::{Outcome, Pass, PassError};

/// Writes biases of convolutions as sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitBiases;

impl Pass for SplitBiases {
    fn name(&self) -> &'static str {
        "split-biases"
    }

    fn about(&self) -> &'static str {
        "biases of convolutions become sums, where shapes are open and read"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let graph = &mut model.graph;
        if !reads_open_shapes(graph) {
            return Ok(outcome);
        }
        let convolutions: Vec<(NodeId, ValueId, ValueId)> =
            graph.nodes().filter_map(|(id, node)| bias_of(node).map(|(bias, output)| (id, bias, output))).collect();
        for (id, bias, output) in convolutions {
            match column(graph, graph.node(id), bias) {
                Ok(column) => {
                    split(graph, id, output, column);
                    outcome.count();
                }
                Err(reason) => outcome.decline(graph.node(id).label(graph), reason),
            }
        }
        Ok(outcome)
    }
}

/// Whether the first axis of an input is open and something asks for the lengths of a value.
pub(crate) fn reads_open_shapes(graph: &Graph) -> bool {
    let open = |value: ValueId| graph.value(value).shape().is_none_or(|shape| shape.first() == Some(&None));
    let reads = |node: &Node| node.is("Shape") || is_recurrent(node.domain(), node.op());
    graph.runtime_inputs().any(open) && graph.nodes().any(|(_, node)| reads(node))
}

/// Bias and output of a convolution.
pub(crate) fn bias_of(node: &Node) -> Option<(ValueId, ValueId)> {
    let bias = node.input(2).filter(|_| node.is("Conv"))?;
    Some((bias, node.output(0)?))
}

/// The bias as a tensor `[1, C, 1, …]`.
fn column(graph: &Graph, node: &Node, bias: ValueId) -> Result<TensorProto, &'static str> {
    let mut tensor = graph.constant(bias).ok_or("its bias is not a constant")?.clone();
    let [channels] = tensor.dims[..] else { return Err("its bias is not a vector") };
    let of_values = || [node.input(0), node.input(1), node.output(0)].into_iter().flatten();
    let known = || of_values().find_map(|value| graph.value(value).shape().map(|shape| shape.len()));
    let lists = [("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 2)];
    let stated = lists.into_iter().map(|(name, each)| node.ints(name).len() / each).find(|&axes| axes > 0);
    let weight = || {
        let (decoder, _) = graph.value(node.input(1)?).producer()?;
        Some(graph.constant(graph.node(decoder).input(0)?)?.dims.len())
    };
    let rank = stated.map(|axes| axes + 2).or_else(known).or_else(weight);
    let rank = rank.ok_or("the number of its axes is unknown")?;
    tensor.dims = vec![1; rank];
    *tensor.dims.get_mut(1).ok_or("it has too few axes")? = channels;
    Ok(tensor)
}

/// Writes the sum; what it computes takes the name and the readers of the convolution's output.
fn split(graph: &mut Graph, id: NodeId, output: ValueId, column: TensorProto) {
    let column = graph.add_initializer(column);
    let stem = graph.value(output).name().to_owned();
    let product = graph.add_value(&format!("{stem}_unbiased"));
    graph.set_input(id, 2, None);
    graph.trim_inputs(id);
    graph.set_output(id, 0, product);
    let proto = crate::ir::NodeProto::of("Add", &format!("{stem}_biased"), Vec::new());
    graph.add_node(proto, &[Some(product), Some(column)], &[Some(output)]);
}
