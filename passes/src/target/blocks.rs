//! Weights with one scale per block, as a target runs them.

/// What a target runs of products whose weight has one scale per block of consecutive values of an output channel,
/// dequantized to float: `DequantizeLinear` with `block_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bits of the weights.
    pub bits: &'static [u8],
    /// Values in a block.
    pub sizes: &'static [usize],
    /// Whether blocks may have zero points other than 0.
    pub zero_points: bool,
    /// Whether the last block of a channel may be shorter than the others.
    pub partial: bool,
}

/// What onnxruntime 1.32 makes `MatMulNBits` of when it loads a model.
pub(super) const ORT: Blocks =
    Blocks { bits: &[2, 4, 8], sizes: &[16, 32, 64, 128, 256], zero_points: true, partial: true };
