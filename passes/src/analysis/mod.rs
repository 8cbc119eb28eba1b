//! What a graph contains: derived when asked for, never stored beside it.

mod batch_norm;
mod channel_space;
mod content;
mod dataflow;
mod decoding;
pub(crate) mod element_types;
mod forms;
mod layers;
mod lookups;
mod matrices;
mod placement;
pub mod quantized;
mod stored;

pub use crate::ops::LayerOp;
pub use batch_norm::ChannelAffine;
pub(crate) use batch_norm::{batch_norm_affine, batch_norm_channels};
pub use channel_space::ChannelSpace;
pub use content::{content_hash, content_hashes};
pub use dataflow::{dataflow, dot};
pub use forms::{refuses_layer, refuses_stored};
pub use layers::{Layer, layers};
pub use lookups::{LookupCost, choose_lookups};
pub(crate) use placement::counts_padding;
pub use placement::{Absorbed, Kept, Placement, Role, is_rectified};
pub use stored::{StoredKind, StoredWeight, stored_weights};
