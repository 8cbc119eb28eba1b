//! How good a network is, and what is in it.

pub mod agreement;
pub mod compare;
pub(crate) mod comparison;
mod error;
pub mod evaluate;
pub mod inspect;

pub use error::MeasureError;
