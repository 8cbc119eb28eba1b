//! From our model to tract's. The bridge is the file format itself: tract's own messages lack fields of ours.

use super::EngineError;
use msq_passes::ir::{self, Model, ValueId};
use tract_onnx::prelude::{Framework, InferenceModel, OutletId};
use tract_onnx::tract_core::model::TypedModel;

/// A model in tract's hands, before type inference.
pub(super) struct Loaded {
    pub(super) model: InferenceModel,
    /// Outlet of every value of the main graph, sorted by name.
    pub(super) outlets: Vec<(String, OutletId)>,
}

/// Hands a model to tract. Declared types of inner values are left out: tract infers them, and stumbles over symbols.
pub(super) fn load(model: &Model) -> Result<Loaded, EngineError> {
    let proto = ir::export(&with_elements(model)?);
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    let encoded = ir::encode_model(&proto);
    let proto = onnx.proto_model_for_read(&mut encoded.as_slice()).map_err(EngineError::load)?;
    drop(encoded);
    let parsed = onnx.parse(&proto, None).map_err(EngineError::load)?;
    if let Some(input) = parsed.unresolved_inputs.first() {
        return Err(EngineError::NoSuchValue { name: input.clone() });
    }
    let mut outlets: Vec<_> = parsed.outlets_by_name.into_iter().collect();
    outlets.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Loaded { model: parsed.model, outlets })
}

/// The model with external tensors read in: the engine needs every element.
fn with_elements(model: &Model) -> Result<Model, EngineError> {
    let mut copy = model.clone();
    let external: Vec<ValueId> = model.graph.initializers().filter(|(_, t)| t.is_external()).map(|(v, _)| v).collect();
    for value in external {
        if let Some(tensor) = model.graph.initializer(value) {
            copy.graph.set_initializer(value, model.loaded(tensor)?.into_owned());
        }
    }
    Ok(copy)
}

/// Type inference and optimization. The outputs chosen before are kept whatever is fused around them.
pub(super) fn optimize(model: InferenceModel) -> Result<TypedModel, EngineError> {
    use tract_onnx::tract_hir::infer::InferenceModelExt;
    model.into_optimized().map_err(EngineError::load)
}
