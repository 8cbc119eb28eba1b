//! Runs a model, or a part of one, on many samples.

pub(crate) mod coverage;
mod pool;
pub(crate) mod prefix;
pub(crate) mod segment;
pub(crate) mod sequential;
pub(crate) mod stages;

pub use pool::{Lane, Pool, SHARD, Visitor};
