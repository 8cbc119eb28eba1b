//! What is to be done with each layer and value of a model: options, bit plan, grids and selection, resolved once into a
//! `Scheme`.

pub(crate) mod bit_plan;
pub(crate) mod bits;
pub(crate) mod encodings;
pub(crate) mod ends;
mod error;
mod given;
pub(crate) mod gradient_code;
pub mod metadata;
pub(crate) mod observer;
pub(crate) mod options;
pub(crate) mod outliers;
pub(crate) mod output_kind;
mod plan_file;
mod resolved;
mod select;
mod shared;
pub(crate) mod solver_name;
mod stored;
mod widths;
pub(crate) use widths::WIDE;

pub use error::SchemeError;
pub(crate) use given::refuse_unknown;
pub(crate) use resolved::{Scheme, packings};
pub(crate) use select::refuse_unknown_operators;
pub(crate) use shared::Twin;
