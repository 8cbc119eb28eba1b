//! Weights to integers.

mod bias_correction;
mod codebook;
pub mod gram;
mod round;

pub(crate) use round::{LayerInput, Rounded, Rounding, round_layer};
