//! What is to be done with each layer and value of a model.

pub(crate) mod bit_plan;
pub(crate) mod ends;
pub mod metadata;
pub(crate) mod options;
pub(crate) mod select;
