//! Weights to integers.

mod round;

pub use round::{Rounding, round_layer};
