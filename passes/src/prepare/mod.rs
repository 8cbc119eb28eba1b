//! Passes that keep what a model computes and bring it into few, simple forms.

mod eliminate_dead_nodes;
mod eliminate_identities;
mod equalize_channels;
mod fold_constants;
mod fuse_affine;
mod fuse_batch_norm;
mod hoist_constants;
mod layer_affine;
mod lift_constants;
mod normalize_gemm;
mod normalize_pooling;
mod rewrite_activations;
mod upgrade_opset;

pub use eliminate_dead_nodes::EliminateDeadNodes;
pub use eliminate_identities::EliminateIdentities;
pub use equalize_channels::EqualizeChannels;
pub use fold_constants::FoldConstants;
pub use fuse_affine::FuseAffine;
pub use fuse_batch_norm::FuseBatchNorm;
pub use hoist_constants::HoistConstants;
pub use lift_constants::LiftConstants;
pub use normalize_gemm::NormalizeGemm;
pub use normalize_pooling::NormalizePooling;
pub use rewrite_activations::RewriteActivations;
pub use upgrade_opset::UpgradeOpset;
