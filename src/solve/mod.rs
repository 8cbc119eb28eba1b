//! Weights to integers.

mod bias_correction;
mod round;

pub use round::{LayerInput, Rounding, round_layer};
