//! Weights to integers.

mod bias_correction;
mod codebook;
mod round;

pub(crate) use round::{LayerInput, Rounding, round_layer};
