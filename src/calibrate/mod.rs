//! Statistics of activations, and the ranges that observers choose from them.
//!
//! While the model runs, each tap is reduced to [`Statistics`]: a [`Histogram`] of fixed size, a [`MovingAverage`] of the
//! extremes, and the [`Peaks`], the outermost of them. Memory does not grow with the number of samples, parts merge, and the histogram of a merge has the
//! same bits whatever the order, the number of threads or the size of the batches. Afterwards an [`ObserverKind`]
//! turns the statistics into a range for a grid; all observers read the same statistics, so they can be compared
//! without running the model again.

mod alike;
mod binning;
mod channel_means;
mod collect;
mod concat;
mod cosine;
mod dyadic;
mod entropy;
mod error;
mod histogram;
pub(crate) mod magnitudes;
pub(crate) mod masks;
mod min_max;
mod moving_average;
mod mse;
pub(crate) mod observe;
mod observer;
pub(crate) mod outliers;
mod peaks;
mod percentile;
mod search;
mod shard;
pub(crate) mod smooth;
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

pub use crate::scheme::observer::{DEFAULT_PERCENTILE, ObserverKind, ParseObserverError};
pub use channel_means::ChannelMeans;
pub use cosine::cosine_similarity;
pub use error::CalibrateError;
pub use histogram::{BINS, Bin, Histogram};
pub use moving_average::{AVERAGING_CONSTANT, MovingAverage};
pub use mse::expected_squared_error;
pub use observer::{Statistics, widen};
pub use peaks::{FarOut, Peaks};
pub use shard::{Shard, ShardStatistics};
