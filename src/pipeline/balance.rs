//! Inputs of recurrent layers are multiplied by powers of two where that loses less of their weights: weights alone tell.

use crate::error::Error;
use crate::execute::coverage::Coverage;
use crate::prepare::annotate;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use indexmap::IndexSet;
use msq_passes::analysis::StoredKind;
use msq_passes::ir::Model;
use msq_passes::ops::is_recurrent;
use msq_passes::pipelines;

/// Multiplies inputs of the recurrent layers of a prepared model whose weights become integers; returns of how many layers.
pub(super) fn balance(model: &mut Model, plan: &BitPlan, options: &Options, runtime: &Runtime) -> Result<usize, Error> {
    let has_recurrent = model.graph.nodes().any(|(_, node)| is_recurrent(node.domain(), node.op()));
    if !options.calibrate.smooth || !has_recurrent {
        return Ok(0);
    }
    let scheme = Scheme::within(model, plan, options, Coverage::within(model, runtime.memory))?;
    let stored = scheme.stored.iter().filter(|weight| weight.kind == StoredKind::Recurrent);
    let nodes: IndexSet<String> = stored.flat_map(|weight| &weight.readers).cloned().collect();
    let records = pipelines::balance(nodes).observed(runtime.passes()).run(model)?;
    let count = records.iter().map(|record| record.outcome.changed).sum();
    if count > 0 {
        annotate(model, &*runtime.backend());
    }
    Ok(count)
}

/// What a user should know of it.
pub(super) fn note(balanced: usize) -> Option<String> {
    let layers = if balanced == 1 { "recurrent layer" } else { "recurrent layers" };
    (balanced > 0).then(|| {
        format!(
            "the inputs of {balanced} {layers} have factors of their own, as their weights differ in size: they lose less \
             so; option `no-smooth` leaves that out"
        )
    })
}
