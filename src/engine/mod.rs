//! The engine: runs models with tract. The only folder that names it.
//!
//! A [`Plan`] is a model optimized for one set of input shapes; every thread has its own [`Session`] of it, one image
//! at a time, which is faster in tract than batches. [`Facts`] are what can be said of a model without running it.

mod blowup;
mod contained;
mod error;
mod facts;
mod fake_quantize;
mod load;
mod plan;
mod tensor;

pub(crate) use contained::stopped;
pub use error::EngineError;
pub use facts::Facts;
pub(crate) use load::unknown;
pub use plan::{Plan, Session};
pub use tensor::Output;

/// The version of tract, which has no constant for it.
pub const TRACT_VERSION: &str = "0.23.9";
