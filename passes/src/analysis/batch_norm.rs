//! What an inference-mode batch-norm computes: y = a·x + b in each channel, with running statistics μ, σ² and
//! a = γ/√(σ² + ε), b = β − μ·a.

use crate::ir::{Graph, Model, Node, NodeId};
use crate::pass::PassError;

/// Factor and offset of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelAffine {
    /// What the channel is multiplied with; may be negative or 0.
    pub factor: Vec<f64>,
    /// What is added then.
    pub offset: Vec<f64>,
}

/// Number of channels of a batch-norm whose statistics are constant, or why it is none.
pub(crate) fn batch_norm_channels(graph: &Graph, norm: &Node) -> Result<usize, String> {
    if norm.int_or("training_mode", 0) != 0 || norm.outputs().iter().skip(1).any(Option::is_some) {
        return Err("it is in training mode".into());
    }
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

/// Factor and offset of a batch-norm whose statistics are constant.
pub(crate) fn batch_norm_affine(model: &Model, norm: NodeId) -> Result<ChannelAffine, PassError> {
    let node = model.graph.node(norm);
    let epsilon = f64::from(node.float_or("epsilon", 1e-5));
    let statistic = |slot: usize| -> Result<Vec<f32>, PassError> {
        match node.input(slot).and_then(|value| model.constant(value)) {
            Some(tensor) => Ok(tensor?.to_f32()?),
            None => Err(PassError::Input(format!("`{}` has no constant statistics", node.label(&model.graph)))),
        }
    };
    let (gamma, beta, mean, variance) = (statistic(1)?, statistic(2)?, statistic(3)?, statistic(4)?);
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt()).collect();
    let offset = factor.iter().zip(beta.iter().zip(&mean)).map(|(f, (&b, &m))| f64::from(b) - f64::from(m) * f);
    let offset = offset.collect();
    Ok(ChannelAffine { factor, offset })
}
