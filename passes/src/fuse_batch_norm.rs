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

use crate::ir::{Graph, Model, Node, NodeId};
use crate::layer_affine::{Affine, Site, constant, fold, site_before};
use crate::pass::{Outcome, Pass, PassError};

/// Folds batch-norms into the layers before them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseBatchNorm;

impl Pass for FuseBatchNorm {
    fn name(&self) -> &'static str {
        "fuse-batch-norm"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let norms: Vec<NodeId> =
            model.graph.nodes().filter(|(_, n)| n.is("BatchNormalization")).map(|(id, _)| id).collect();
        for norm in norms {
            match site(model, norm) {
                Ok(site) => {
                    let affine = affine(model, norm)?;
                    fold(model, norm, &site, &affine)?;
                    outcome.count();
                }
                Err(reason) => outcome.decline(model.graph.node(norm).label(&model.graph), reason),
            }
        }
        Ok(outcome)
    }
}

fn site(model: &Model, norm: NodeId) -> Result<Site, String> {
    let graph = &model.graph;
    let node = graph.node(norm);
    if node.int_or("training_mode", 0) != 0 || node.outputs().iter().skip(1).any(Option::is_some) {
        return Err("it is in training mode".into());
    }
    let channels = statistics_length(graph, node)?;
    let site = site_before(graph, node.input(0).ok_or("it has no input")?)?;
    if site.channels != channels {
        return Err(format!("it has {channels} channels, the layer before it has {}", site.channels));
    }
    Ok(site)
}

fn statistics_length(graph: &Graph, norm: &Node) -> Result<usize, String> {
    let mut length = None;
    for slot in 1..5 {
        let value = norm.input(slot).ok_or("a statistic is missing")?;
        let tensor = graph.constant(value).ok_or_else(|| format!("`{}` is not constant", graph.value(value).name()))?;
        let [n] = tensor.shape().map_err(|e| e.to_string())?[..] else { return Err("a statistic is no vector".into()) };
        if *length.get_or_insert(n) != n {
            return Err("its statistics differ in length".into());
        }
    }
    length.ok_or_else(|| "a statistic is missing".into())
}

/// Factor γ/√(σ² + ε) and offset β − μ·factor of each channel.
fn affine(model: &Model, norm: NodeId) -> Result<Affine, PassError> {
    let node = model.graph.node(norm);
    let epsilon = f64::from(node.float_or("epsilon", 1e-5));
    let statistic = |slot: usize| -> Result<Vec<f32>, PassError> {
        match node.input(slot) {
            Some(value) => Ok(constant(model, value)?.to_f32()?),
            None => Ok(Vec::new()),
        }
    };
    let (gamma, beta, mean, variance) = (statistic(1)?, statistic(2)?, statistic(3)?, statistic(4)?);
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt()).collect();
    let offset = factor.iter().zip(beta.iter().zip(&mean)).map(|(f, (&b, &m))| f64::from(b) - f64::from(m) * f);
    let offset = offset.collect();
    Ok(Affine { factor, offset })
}
