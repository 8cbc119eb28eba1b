//! Why a tensor cannot be put on a grid.

use thiserror::Error;

/// A request that no grid can satisfy. The caller names the layer; these messages name the numbers.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantError {
    /// The width lies outside the supported interval.
    #[error("a grid of {bits} bits is not supported, use 2 to 8")]
    UnsupportedBits {
        /// The width asked for.
        bits: u8,
    },
    /// Weights are stored without zero points, so their grid must be symmetric.
    #[error("weights need a symmetric grid, zero points of weights are not written")]
    AsymmetricWeightGrid,
    /// The data does not fill the shape.
    #[error("shape {shape:?} does not hold {length} values")]
    ShapeMismatch {
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        length: usize,
    },
    /// The channel axis does not exist.
    #[error("axis {axis} does not exist in a tensor of rank {rank}")]
    AxisOutOfRange {
        /// The axis asked for.
        axis: usize,
        /// The rank of the tensor.
        rank: usize,
    },
    /// One value per channel was expected.
    #[error("expected one scale or {expected}, one per channel, found {found}")]
    ChannelCount {
        /// The number of channels.
        expected: usize,
        /// The number of scales given.
        found: usize,
    },
    /// The weight holds NaN or infinity.
    #[error("the weight holds {count} values that are not finite")]
    NonFiniteWeight {
        /// How many of them there are.
        count: usize,
    },
}
