//! Passes that write integers and quantizers into the graph.

mod activation_quantizer;
mod constants;
mod granularity;
mod insert_qdq;
mod integers;
mod pack_weights;
mod quantize_dynamically;
mod split_outliers;
mod store_blocks;
mod store_constants;
mod store_weights;
pub(crate) mod trellis;

pub use activation_quantizer::ActivationQuantizer;
pub use granularity::Granularity;
pub use insert_qdq::{InsertQdq, LayerBias, QuantizedLayer};
pub use integers::Integers;
pub(crate) use integers::{packed, transposed};
pub use pack_weights::{PackWeights, Packing};
pub use quantize_dynamically::QuantizeDynamically;
pub use split_outliers::SplitOutliers;
pub use store_blocks::StoreBlocks;
pub use store_constants::{StoreConstants, StoredTensor};
pub use store_weights::StoreWeights;
pub use trellis::{TrellisCode, TrellisRate, WINDOWS};
