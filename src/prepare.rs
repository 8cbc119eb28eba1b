//! Makes the float graph canonical, so that calibration and lowering meet few forms of the same thing.

use crate::Error;
use crate::engine::Facts;
use msq_passes::ir::{Model, TensorProto};
use msq_passes::{
    EliminateDeadNodes, EliminateIdentities, FoldConstants, FuseBatchNorm, LiftConstants, Manager, Record,
};

/// Operators that show a model is quantized already.
const QUANTIZED_OPS: [&str; 8] = [
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
    "QGemm",
];

/// Refuses models that are quantized already or hold weights that are not numbers.
pub fn refuse_unfit(model: &Model) -> Result<(), Error> {
    msq_passes::ir::check(model)?;
    if let Some((_, node)) = model.graph.nodes().find(|(_, n)| QUANTIZED_OPS.contains(&n.op())) {
        let (node, op) = (node.label(&model.graph).to_owned(), node.op().to_owned());
        return Err(Error::AlreadyQuantized { node, op });
    }
    model.graph.initializers().try_for_each(|(_, tensor)| finite(model, tensor))
}

fn finite(model: &Model, tensor: &TensorProto) -> Result<(), Error> {
    if !tensor.is_float() {
        return Ok(());
    }
    let values = model.loaded(tensor)?.to_f32()?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(Error::NonFiniteWeight { tensor: tensor.name().to_owned(), index, value: values[index] }),
        None => Ok(()),
    }
}

/// Runs the passes that keep the function and simplify the form. What the engine can infer of a model it knows is
/// used; of one it does not, the passes do what they can without.
pub fn prepare(model: &mut Model) -> Result<Vec<Record>, Error> {
    // Weights in Constant nodes come first: everything after looks for initializers.
    let mut records = Manager::new().with(LiftConstants).run(model)?;
    let facts = Facts::infer(model).unwrap_or_else(|error| {
        tracing::warn!(%error, "types and shapes are not known");
        Facts::default()
    });
    facts.annotate(model);
    let passes = Manager::new()
        // Before identities: a Dropout or Pad may become one once its parameters are constants.
        .with(FoldConstants { constants: facts.constants })
        .with(EliminateDeadNodes)
        // Before batch-norms: an Identity in between hides the layer.
        .with(EliminateIdentities)
        .with(FuseBatchNorm)
        .with(EliminateDeadNodes);
    records.extend(passes.run(model)?);
    Ok(records)
}
