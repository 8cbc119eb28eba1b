//! Graph passes of msq-onnx: a lossless in-memory ONNX model ([`ir`]) and the rewrites that prepare, observe and
//! quantize it.
//!
//! A [`Pass`] is a small value; a [`Manager`] runs an ordered list of them and, in debug and test builds, validates
//! the model after each. Nothing here runs a model or knows a runtime: what has to be computed by running is handed
//! in through a pass's fields.

pub mod analysis;
mod clean_names;
mod compact_integers;
mod drop_defaults;
mod element_types;
mod eliminate_dead_nodes;
mod eliminate_identities;
mod equalize_channels;
mod extract_segment;
mod fold_constants;
mod fuse_affine;
mod fuse_batch_norm;
mod fuse_qlinear;
mod half_constants;
mod insert_qdq;
mod insert_taps;
mod integers;
pub mod ir;
mod layer_affine;
mod lift_constants;
pub mod lint;
mod lower_integer;
mod manager;
mod normalize_gemm;
mod normalize_pooling;
mod pack_weights;
mod pass;
mod profile;
mod qdq;
mod rewrite_activations;
mod share_constants;
mod store_weights;
mod upgrade_opset;

pub use clean_names::CleanNames;
pub use compact_integers::CompactIntegers;
pub use drop_defaults::DropDefaults;
pub use eliminate_dead_nodes::EliminateDeadNodes;
pub use eliminate_identities::EliminateIdentities;
pub use equalize_channels::EqualizeChannels;
pub use extract_segment::ExtractSegment;
pub use fold_constants::FoldConstants;
pub use fuse_affine::FuseAffine;
pub use fuse_batch_norm::FuseBatchNorm;
pub use fuse_qlinear::FuseQlinear;
pub use half_constants::HalfConstants;
pub use insert_qdq::{ActivationQuantizer, InsertQdq, LayerBias, QuantizedLayer};
pub use insert_taps::InsertTaps;
pub use integers::Integers;
pub use lift_constants::LiftConstants;
pub use lower_integer::LowerInteger;
pub use manager::{Manager, Record, run_pass};
pub use normalize_gemm::NormalizeGemm;
pub use normalize_pooling::NormalizePooling;
pub use pack_weights::{PackWeights, Packing};
pub use pass::{Declined, Outcome, Pass, PassError};
pub use profile::{ActivationGrid, BiasForm, Profile, Support};
pub use rewrite_activations::RewriteActivations;
pub use share_constants::ShareConstants;
pub use store_weights::StoreWeights;
pub use upgrade_opset::UpgradeOpset;
