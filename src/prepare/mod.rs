//! Makes the float graph canonical, so that calibration and lowering meet few forms of the same thing.

mod error;
mod options;
pub(crate) mod quantized;

pub use error::PrepareError;
pub use options::{BatchNorm, PrepareOptions};

use crate::engine::{Backend, Facts};
use msq_passes::analysis::layers;
use msq_passes::ir::{Model, TensorProto};
use msq_passes::ops::{Trait, facts};
use msq_passes::{
    CleanNames, EliminateDeadNodes, EliminateIdentities, EqualizeChannels, FoldConstants, FuseAffine, FuseBatchNorm,
    InsertQdq, LiftConstants, Manager, NormalizeGemm, NormalizePooling, Record, RewriteActivations, UpgradeOpset,
};

/// Refuses models that contradict themselves.
pub(crate) fn check(model: &Model) -> Result<(), PrepareError> {
    Ok(msq_passes::ir::check(model)?)
}

/// Refuses models that are quantized already.
pub(crate) fn refuse_quantized(model: &Model) -> Result<(), PrepareError> {
    check(model)?;
    let Some((_, node)) = model.graph.nodes().find(|(_, n)| facts(n.op()).has(Trait::Quantized)) else { return Ok(()) };
    Err(PrepareError::AlreadyQuantized { node: node.label(&model.graph).to_owned(), op: node.op().to_owned() })
}

/// Refuses weights, biases and batch-norm statistics that are not numbers. Other constants may hold infinities, as
/// the start of a maximum does.
pub(crate) fn refuse_non_finite(model: &Model) -> Result<(), PrepareError> {
    let layers = layers(model);
    let weights = layers.iter().flat_map(|l| std::iter::once(l.weight).chain(l.bias));
    let norms = model.graph.nodes().filter(|(_, n)| n.is("BatchNormalization"));
    let statistics = norms.flat_map(|(_, n)| n.inputs().iter().skip(1).flatten().copied());
    weights.chain(statistics).filter_map(|v| model.constant(v)).try_for_each(|tensor| finite(&*tensor?))
}

fn finite(tensor: &TensorProto) -> Result<(), PrepareError> {
    if !tensor.is_float() {
        return Ok(());
    }
    let values = tensor.to_f32()?;
    let Some(index) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    Err(PrepareError::NonFiniteWeight { tensor: tensor.name().to_owned(), index, value: values[index] })
}

/// Runs the passes that keep the function and simplify the form. What the engine can infer of a model it knows is
/// used; of one it does not, the passes do what they can without.
pub(crate) fn prepare(
    model: &mut Model,
    batch_norm: BatchNorm,
    backend: &dyn Backend,
) -> Result<Vec<Record>, PrepareError> {
    // Weights in Constant nodes come first: everything after looks for initializers.
    let mut records = Manager::new()
        .with(LiftConstants)
        // Layers go by name from here on.
        .with(CleanNames { strip: false })
        .run(model)?;
    refuse_non_finite(model)?;
    let constants = annotate(model, backend).constants;
    let folding = Manager::new()
        // Before the upgrade: it wants scales and shapes as constants.
        .with(FoldConstants { constants })
        .with(EliminateDeadNodes)
        // Before the rest: quantizers with an axis need opset 13, and the passes below know one form of each operator.
        .with(UpgradeOpset::default());
    records.extend(folding.run(model)?);
    refuse_old_opset(model, records.last())?;
    annotate(model, backend);
    let mut passes = Manager::new()
        // Before batch-norms: an Identity in between hides the layer.
        .with(EliminateIdentities)
        .with(NormalizeGemm);
    if batch_norm == BatchNorm::Fold {
        passes = passes.with(FuseBatchNorm);
    }
    let passes = passes
        // After batch-norms, which may stand between a layer and an affine.
        .with(FuseAffine)
        // After both, which may stand between a layer and its activation.
        .with(RewriteActivations)
        .with(NormalizePooling)
        .with(EliminateDeadNodes);
    records.extend(passes.run(model)?);
    // Again: statistics that are finite each can give infinite weights together.
    refuse_non_finite(model)?;
    Ok(records)
}

/// Scales channels between layers, which keeps what the outputs are but not what lies between: for quantization only, of
/// a prepared model. Batch-norms that are left are in its way, so it is after they were folded.
pub(crate) fn equalize(model: &mut Model) -> Result<(), PrepareError> {
    Manager::new().with(EqualizeChannels).run(model)?;
    Ok(())
}

/// Quantizers with an axis need opset 13; `upgrade` is the record of the pass that raises it.
fn refuse_old_opset(model: &Model, upgrade: Option<&Record>) -> Result<(), PrepareError> {
    let opset = model.opset("").unwrap_or_default();
    if opset >= InsertQdq::LOWEST_OPSET {
        return Ok(());
    }
    let declined = upgrade.and_then(|record| record.outcome.declined.first());
    let (node, reason) = declined.map(|d| (d.site.clone(), d.reason.clone())).unwrap_or_default();
    Err(PrepareError::OldOpset { opset, node, reason })
}

/// States the types and shapes the engine can infer.
pub(crate) fn annotate(model: &mut Model, backend: &dyn Backend) -> Facts {
    let facts = backend.infer(model).unwrap_or_else(|error| {
        tracing::info!(%error, "types and shapes are not known");
        Facts::default()
    });
    facts.annotate(model);
    facts
}
