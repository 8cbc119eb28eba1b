//! Brings the float graph into a canonical form, so that calibration and lowering see few forms of the same thing.

mod admit;
mod error;
mod external;
mod fixed_input;
mod options;
pub(crate) mod quantized;
mod shapes;

pub(crate) use admit::admit;
pub use error::PrepareError;
pub(crate) use fixed_input::fix_inputs;
pub use fixed_input::{FixedInput, contradicted};
pub use options::{BatchNorm, FreezeInitializers, PrepareOptions};

use crate::engine::{Backend, Facts};
use msq_passes::analysis::{layers, stored_weights};
use msq_passes::ir::{Model, TensorProto};
use msq_passes::ops::{Trait, facts, ir_version_of_opset};
use msq_passes::{FuseGelu, FuseLayerNorm, InsertQdq, PassObserver, Record, UnfuseContrib, pipelines};

/// Refuses invalid models.
pub(crate) fn check(model: &Model) -> Result<(), PrepareError> {
    Ok(msq_passes::ir::check(model)?)
}

/// Refuses models that are quantized already.
pub(crate) fn refuse_quantized(model: &Model) -> Result<(), PrepareError> {
    let Some((_, node)) = model.graph.nodes().find(|(_, n)| facts(n.op()).has(Trait::Quantized)) else { return Ok(()) };
    Err(PrepareError::AlreadyQuantized { node: node.label(&model.graph).to_owned(), op: node.op().to_owned() })
}

/// Refuses weights, biases and batch-norm statistics that are not finite, and tables and recurrent weights that are not
/// numbers. Other constants may be infinite, such as the initial value of a maximum.
pub(crate) fn refuse_non_finite(model: &Model) -> Result<(), PrepareError> {
    let layers = layers(model);
    let weights = layers.iter().flat_map(|l| std::iter::once(l.weight).chain(l.bias));
    let norms = model.graph.nodes().filter(|(_, n)| n.is("BatchNormalization"));
    let statistics = norms.flat_map(|(_, n)| n.inputs().iter().skip(1).flatten().copied());
    let constant = |v| model.constant(v);
    weights.chain(statistics).filter_map(constant).try_for_each(|tensor| refuse(&*tensor?, |v| !v.is_finite()))?;
    // Of other weights an infinity may be meant, as in a table of masks.
    let stored = stored_weights(model);
    stored.iter().filter_map(|weight| constant(weight.value)).try_for_each(|tensor| refuse(&*tensor?, f32::is_nan))
}

/// Refuses a tensor with such elements.
fn refuse(tensor: &TensorProto, wrong: impl Fn(f32) -> bool) -> Result<(), PrepareError> {
    if !tensor.is_float() {
        return Ok(());
    }
    let values = tensor.to_f32()?;
    let Some(index) = values.iter().position(|&v| wrong(v)) else { return Ok(()) };
    Err(PrepareError::NonFiniteWeight { tensor: tensor.name().to_owned(), index, value: values[index] })
}

/// Runs the passes that keep the function and simplify the form. What the engine can infer of a model it knows is
/// used; of one it does not, the passes do what they can without. Nodes of the operators `kept`
/// are neither folded into layers nor written in another way.
pub(crate) fn prepare(
    model: &mut Model,
    batch_norm: BatchNorm,
    kept: &[String],
    backend: &dyn Backend,
    observer: Option<&dyn PassObserver>,
) -> Result<(), PrepareError> {
    let stated = shapes::stated(model);
    pipelines::lift().observed(observer).run(model)?;
    refuse_non_finite(model)?;
    import_default_domain(model);
    let mut folded = fold(model, backend, observer)?;
    // What is constant in a branch shows when its nodes are part of the graph, and ranks behind a fused node when it is
    // written out.
    while changed(&folded, "inline-branches") || unfuse(model, kept, observer)? {
        folded = fold(model, backend, observer)?;
    }
    refuse_old_opset(model, folded.last())?;
    annotate(model, backend);
    shapes::refuse_contradictions(model, &stated)?;
    let unknown = without_shape(model);
    pipelines::canonicalize(batch_norm == BatchNorm::Fold, kept).observed(observer).run(model)?;
    if without_shape(model) > unknown {
        // What a pass wrote has no shape yet, and without shapes nobody knows what a node costs.
        annotate(model, backend);
    }
    // A second check, since finite statistics can produce infinite weights when they are folded.
    refuse_non_finite(model)
}

/// Folds what is constant, and takes in the branches that this decides.
fn fold(
    model: &mut Model,
    backend: &dyn Backend,
    observer: Option<&dyn PassObserver>,
) -> Result<Vec<Record>, PrepareError> {
    let mut constants = annotate(model, backend).constants;
    constants.extend(external::transposed(model)?);
    Ok(pipelines::fold(constants).observed(observer).run(model)?)
}

/// Whether a pass changed something.
fn changed(records: &[Record], pass: &str) -> bool {
    records.iter().any(|record| record.pass == pass && record.outcome.changed > 0)
}

/// Writes fused operators of onnxruntime out, in an operator set that has what they become. Whether there were any.
fn unfuse(model: &mut Model, kept: &[String], observer: Option<&dyn PassObserver>) -> Result<bool, PrepareError> {
    let Some(opset) = UnfuseContrib::needed_opset(model) else { return Ok(false) };
    if model.opset("").unwrap_or_default() < opset {
        let records = pipelines::raise_opset(opset).observed(observer).run(model)?;
        for declined in records.iter().flat_map(|record| &record.outcome.declined) {
            tracing::info!(node = declined.site, reason = declined.reason, "fused operators stay");
        }
    }
    let records = pipelines::unfuse(kept).observed(observer).run(model)?;
    Ok(changed(&records, "unfuse-contrib"))
}

/// Writes functions that are spelled out as one node, for targets that have integer kernels for these alone. The operator
/// set is raised as far as they need, if it can be.
pub(crate) fn fuse_functions(
    model: &mut Model,
    kept: &[String],
    backend: &dyn Backend,
    observer: Option<&dyn PassObserver>,
) -> Result<(), PrepareError> {
    let norms = FuseLayerNorm::applies(model).then_some(FuseLayerNorm::LOWEST_OPSET);
    let gelus = FuseGelu::applies(model).then_some(FuseGelu::LOWEST_OPSET);
    let Some(opset) = norms.max(gelus) else { return Ok(()) };
    if model.opset("").unwrap_or_default() < opset {
        let records = pipelines::raise_opset(opset).observed(observer).run(model)?;
        for declined in records.iter().flat_map(|record| &record.outcome.declined) {
            tracing::info!(node = declined.site, reason = declined.reason, "functions stay spelled out");
        }
        annotate(model, backend);
    }
    pipelines::fuse_functions(kept).observed(observer).run(model)?;
    annotate(model, backend);
    Ok(())
}

/// Scales channels between layers of a prepared model, for quantization only.
pub(crate) fn equalize(model: &mut Model, observer: Option<&dyn PassObserver>) -> Result<(), PrepareError> {
    pipelines::equalize().observed(observer).run(model)?;
    Ok(())
}

/// Imports the default domain, where nothing is of it and nothing imports it: quantizers will be.
fn import_default_domain(model: &mut Model) {
    let implied = model.ir_version() < 3;
    let is_used = || model.has_functions() || model.graph.nodes().any(|(_, node)| node.domain().is_empty());
    if model.opset("").is_none() && !implied && !is_used() {
        model.set_opset("", InsertQdq::LOWEST_OPSET);
        model.set_ir_version(model.ir_version().max(ir_version_of_opset(InsertQdq::LOWEST_OPSET)));
    }
}

/// Quantizers with an axis need opset 13; `upgrade` is the record of the pass that raises it.
fn refuse_old_opset(model: &Model, upgrade: Option<&Record>) -> Result<(), PrepareError> {
    let opset = model.opset("").unwrap_or_default();
    if opset >= InsertQdq::LOWEST_OPSET {
        return Ok(());
    }
    let declined = upgrade.and_then(|record| record.outcome.declined.first());
    let declined = declined.map(|declined| format!(": `{}`: {}", declined.site, declined.reason));
    Err(PrepareError::OldOpset { opset, reason: declined.unwrap_or_default() })
}

/// Values that nodes write and whose shape is not known.
fn without_shape(model: &Model) -> usize {
    let graph = &model.graph;
    let written = graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten());
    written.filter(|&&value| graph.value(value).shape().is_none()).count()
}

/// Writes the types and shapes that the engine can infer into the graph.
pub(crate) fn annotate(model: &mut Model, backend: &dyn Backend) -> Facts {
    let facts = backend.infer(model).unwrap_or_else(|error| {
        tracing::info!(%error, "types and shapes are not known");
        Facts::default()
    });
    facts.annotate(model);
    facts
}
