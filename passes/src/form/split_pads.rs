//! Pass `split-pads`: a float convolution over one column gets its padding from a node in front of it.
//!
//! ```text
//! y = Conv<pads = [a, 0, b, 0]>(x, W, …)  →  y = Conv<auto_pad = VALID>(Pad(x, [0, 0, a, 0, 0, 0, b, 0]), W, …)
//! ```
//!
//! onnxruntime (1.31, x86) computes an image of width 1 as one row of pixels, many at a time, unless the kernel pads the
//! column itself. Convolutions over sound and series that are written with such images take 1.4 to 3.8 times as long with the
//! padding inside (`bench/padded_columns.py`). `auto_pad` keeps the runtime from taking the node back in; a padding that has a node already gets the attribute.
//!
//! Not changed: what runs on integers, several groups, rows in steps, kernels of fewer than [`SplitPads::SMALLEST`] rows, images that are
//! wider or of unknown width, operator sets before 11.

use crate::ir::{AttributeProto, Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Writes padding of columns as nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitPads;

impl SplitPads {
    /// Rows of the smallest kernel that is faster so.
    pub const SMALLEST: i64 = 3;
    /// The first operator set whose `Pad` reads lengths.
    const OPSET: i64 = 11;
}

impl Pass for SplitPads {
    fn name(&self) -> &'static str {
        "split-pads"
    }

    fn about(&self) -> &'static str {
        "padding of float convolutions over one column becomes a node"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if model.opset("").is_none_or(|opset| opset < Self::OPSET) {
            return Ok(outcome);
        }
        let graph = &mut model.graph;
        let found: Vec<(NodeId, ValueId, Padding)> =
            graph.nodes().filter_map(|(id, node)| padding(graph, node).map(|(x, padding)| (id, x, padding))).collect();
        for (id, x, padding) in found {
            if let Padding::Inside(ends) = padding {
                let padded = padded(graph, id, x, ends);
                graph.set_input(id, 0, Some(padded));
            }
            graph.remove_attribute(id, "pads");
            graph.set_attribute(id, AttributeProto::string("auto_pad", "VALID"));
            outcome.count();
        }
        graph.sort()?;
        Ok(outcome)
    }
}

/// Where a column gets its padding.
enum Padding {
    /// In the convolution: so much above and below.
    Inside([i64; 2]),
    /// In a node in front of it.
    Before,
}

/// What a float convolution over one column reads, and where that gets its padding.
fn padding(graph: &Graph, node: &Node) -> Option<(ValueId, Padding)> {
    let x = node.input(0).filter(|_| node.is("Conv"))?;
    let is_column = graph.value(x).shape().is_some_and(|shape| matches!(shape[..], [_, _, _, Some(1)]));
    let explicit = node.attribute("auto_pad").is_none_or(|mode| mode.s.as_deref() == Some(b"NOTSET"));
    let tall = matches!(kernel(graph, node)?[..], [rows, 1] if rows >= SplitPads::SMALLEST);
    let producer = graph.value(x).producer().map(|(producer, _)| graph.node(producer));
    let is_integer = producer.is_some_and(|producer| producer.is("DequantizeLinear"));
    let in_steps = node.ints("strides").first().is_some_and(|&rows| rows != 1);
    if in_steps || !is_column || !explicit || !tall || is_integer || node.int("group").unwrap_or(1) != 1 {
        return None;
    }
    match *node.ints("pads") {
        [above, 0, below, 0] if above >= 0 && below >= 0 && above + below > 0 => {
            Some((x, Padding::Inside([above, below])))
        }
        [] | [0, 0, 0, 0] if producer.is_some_and(|producer| producer.is("Pad")) => Some((x, Padding::Before)),
        _ => None,
    }
}

/// Rows and columns of the kernel.
fn kernel(graph: &Graph, node: &Node) -> Option<Vec<i64>> {
    match node.ints("kernel_shape") {
        [] => Some(graph.constant(node.input(1)?)?.dims.get(2..)?.to_vec()),
        stated => Some(stated.to_vec()),
    }
}

/// The column with so many zeros above and below.
fn padded(graph: &mut Graph, id: NodeId, x: ValueId, [above, below]: [i64; 2]) -> ValueId {
    let stem = graph.node(id).label(graph).to_owned();
    let lengths = TensorProto::from_i64(&format!("{stem}_pads"), &[8], &[0, 0, above, 0, 0, 0, below, 0]);
    let lengths = graph.add_initializer(lengths);
    graph.add_op("Pad", &[Some(x), Some(lengths)], Vec::new(), &format!("{stem}_padded"))
}
