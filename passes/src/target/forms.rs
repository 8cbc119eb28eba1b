//! Forms of a valid file that a target does not take, or computes otherwise than the file says.

use crate::ir::Node;

/// What a target makes of forms that the kernel table says nothing about; all are run where nothing is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Each a fact of its own.
pub struct Forms {
    /// Weights of `LSTM` and `GRU` and those that the body of a `Scan` reads may be computed from integers.
    pub decoded_weights: bool,
    /// An `AveragePool` that counts its padding pads integers with their zero point, not with 0.
    pub pads_zero_point: bool,
    /// Convolutions add their own bias where the first axis of an input is open and lengths are read.
    pub biases_of_open_shapes: bool,
    /// A weight on the left of a product with a vector may be computed from integers.
    pub decoded_by_vector: bool,
    /// Quantizers and arithmetic with constants read inputs of type double.
    pub doubles: bool,
}

impl Forms {
    /// Everything is run.
    pub const ALL: Self = Self {
        decoded_weights: true,
        pads_zero_point: true,
        biases_of_open_shapes: true,
        decoded_by_vector: true,
        doubles: true,
    };
}

/// Whether the node is one whose weights have to be constants where the target wants that: not an `RNN`, nor an `LSTM` in
/// both directions, whose weights are split and thereby folded.
pub(crate) fn needs_constants(node: &Node) -> bool {
    node.is("GRU") || (node.is("LSTM") && node.string("direction") != Some("bidirectional"))
}
