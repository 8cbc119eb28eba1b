//! Pass `fuse-batch-norm`: folds an inference-mode batch-norm into the layer before it.
//!
//! With running statistics μ, σ² a batch-norm is the per-channel affine y = a·x + b, where
//! a = γ/√(σ² + ε) and b = β − μ·a. A layer x = W·u + c with constant W and c absorbs it exactly:
//! y = (a·W)·u + (a·c + b). Computed in f64 and rounded once to the weight's type.
//!
//! Layers: `Conv`, `ConvTranspose`, `Gemm`, and `MatMul` followed by `Add` of a constant or by the batch-norm itself.
//! Declined: statistics that are not constant, training mode, a layer output somebody else reads, weights or biases
//! shared with another node or not constant, and a `MatMul` whose rank is not known to be 2 (the channel axis of a
//! batch-norm is axis 1).

use crate::analysis::{batch_norm_affine, batch_norm_channels};
use crate::ir::{Model, NodeId};
use crate::pass::{Outcome, Pass, PassError, in_turn};
use crate::prepare::layer_affine::{Site, fold, site_before};

/// Folds batch-norms into the layers before them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseBatchNorm;

impl Pass for FuseBatchNorm {
    fn name(&self) -> &'static str {
        "fuse-batch-norm"
    }

    fn about(&self) -> &'static str {
        "batch-norms go into the layer before them"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let norms = model.graph.nodes().filter(|(_, n)| n.is("BatchNormalization")).map(|(id, _)| id).collect();
        in_turn(model, norms, |model, norm| {
            let site = site(model, norm)?;
            Ok(Some(fold(model, norm, &site, &batch_norm_affine(model, norm)?)?))
        })
    }
}

fn site(model: &Model, norm: NodeId) -> Result<Site, String> {
    let graph = &model.graph;
    let node = graph.node(norm);
    let channels = batch_norm_channels(graph, node)?;
    let site = site_before(graph, node.input(0).ok_or("it has no input")?)?;
    if site.channels != channels {
        return Err(format!("it has {channels} channels, the layer before it has {}", site.channels));
    }
    Ok(site)
}
