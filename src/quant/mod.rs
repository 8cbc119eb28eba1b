//! Number grids, scales and the rounding of weights and biases: arithmetic on slices, no graph and no model.
//!
//! Every grid here is affine, `x ≈ (q − z)·s` with an integer q in a fixed interval, a positive scale s and an integer
//! zero point z (equations (1) to (5) of the MSQ paper). Real zero is always exactly representable, because padding,
//! `ReLU` and pruned weights produce it in bulk. Results depend on the inputs alone, never on the number of threads.

mod bias;
mod bit_rate;
mod block_search;
mod error;
mod grid;
pub(crate) mod lanes;
pub(crate) mod power_of_two;
mod rounding;
mod scale_search;
mod spec;
mod sqnr;
#[cfg(test)]
mod tests;
pub(crate) mod trellis;
mod weight;
pub(crate) mod weight_grid;

pub use bias::{QuantizedBias, minimum_weight_scales, quantize_bias};
pub use bit_rate::BitRate;
pub(crate) use block_search::{BlockScale, round_blocks};
pub use error::QuantError;
pub use grid::Affine;
pub use msq_passes::Granularity;
pub(crate) use rounding::{round_half_even, round_half_even_f64, round_to_half};
pub use spec::{GridKind, GridSpec, MAXIMUM_BITS, MINIMUM_BITS, Range, WIDE_BITS};
pub(crate) use spec::{normal_scale, ratio};
pub use sqnr::Sqnr;
pub use weight::{QuantizedWeight, ScaleSearch, WeightQuantizer, ZERO_CHANNEL_SCALE};
