//! Graph passes.
pub mod ir;
