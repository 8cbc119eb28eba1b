//! How good a network is, and what is in it.

pub mod agreement;
pub mod compare;
pub(crate) mod comparison;
pub mod evaluate;
pub mod inspect;
