//! What a graph contains: derived when asked for, never stored beside it.

mod dataflow;
mod layers;
mod placement;

pub use dataflow::{dataflow, dot};
pub use layers::{Layer, LayerOp, layers};
pub use placement::{Absorbed, Kept, Placement, Role};
