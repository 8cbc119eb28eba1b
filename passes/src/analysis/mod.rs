//! What a graph contains: derived when asked for, never stored beside it.

mod layers;
mod placement;

pub use layers::{Layer, LayerOp, layers};
pub use placement::{Absorbed, Kept, Placement, Role};
