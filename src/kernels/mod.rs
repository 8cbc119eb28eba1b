//! Layers as matrix products: float convolutions, products of tensors, how a layer reads its input, and second moments of
//! what it reads.
//!
//! Every layer with a constant weight is y = W·x at each of its positions, W of shape `[O, K]` and x a column of K
//! values taken from the activation ([`Geometry`] says which, [`unfold`](Unfolded) takes them). Closed-form solvers need
//! no more of the data than the sums of products of such columns, [`Moments`], others a limited number of them,
//! [`Columns`]: the size of either does not depend on the number of samples.

mod columns;
pub(crate) mod convolution;
mod geometry;
mod gram;
pub(crate) mod matmul;
pub(crate) mod product;
mod stride;
mod unfold;

#[cfg(test)]
mod tests;

pub use columns::{ColumnSampler, Columns, Means};
pub use geometry::Geometry;
pub use gram::{Gram, Moments};
pub(crate) use stride::{coprime_stride, start};
pub use unfold::{Sampling, Unfolded};

use thiserror::Error;

/// Whether an element of an activation, given by its index, counts.
pub type Keep<'a> = &'a dyn Fn(usize) -> bool;

/// Why a layer, or an activation, cannot be written as a matrix product.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// The layer's form is not known here.
    #[error("{reason}")]
    Unsupported {
        /// What about it.
        reason: String,
    },
    /// The activation is not one the layer reads.
    #[error("an activation of shape {shape:?} with {length} values does not fit the layer")]
    Shape {
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        length: usize,
    },
    /// The matrices would take too much memory.
    #[error("columns of {size} values are longer than {limit}, the most whose products are kept")]
    TooLarge {
        /// Values in a column.
        size: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Sums of different layers were to be merged.
    #[error("moments of different layers cannot be merged")]
    Merge,
}

impl KernelError {
    fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported { reason: reason.into() }
    }
}
