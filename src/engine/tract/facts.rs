//! What tract infers of a model: types, shapes, constants.

use super::{load, tensor};
use crate::engine::{EngineError, Facts};
use msq_passes::ir::{DataType, Model, TensorProto, TypeProto, ValueId};
use std::borrow::Cow;
use tract_onnx::prelude::{InferenceFact, OutletId, Tensor};
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModelExt};

/// Infers the facts of a model. Dynamic axes stay symbols, so a shape that depends on them is no constant; an operator
/// tract does not know leaves what follows it open.
pub(super) fn infer(model: &Model) -> Result<Facts, EngineError> {
    let mut loaded = load::load_what_is_known(&without_large_weights(model))?;
    if let Err(error) = loaded.model.analyse(true) {
        tracing::debug!(%error, "type inference stopped early");
    }
    let mut facts = Facts::default();
    for (name, outlet) in &loaded.outlets {
        let Some(fact) = fact_of(&loaded, *outlet) else { continue };
        facts.types.extend(type_of(fact).map(|ty| (name.clone(), ty)));
        let known = model.graph.find(name).is_none_or(|v| model.graph.initializer(v).is_some());
        let constant = if known { None } else { fact.value.concretize() }.and_then(|t| constant_of(name, &t));
        facts.constants.extend(constant.map(|t| (name.clone(), t)));
    }
    Ok(facts)
}

/// External floats of more elements than this are left where they are: facts follow from their types and shapes.
const LARGE: usize = 1 << 16;

/// The model with large external floats as inputs.
fn without_large_weights(model: &Model) -> Cow<'_, Model> {
    let large = |tensor: &TensorProto| {
        let elements = tensor.shape().map_or(0, |shape| shape.iter().product::<usize>());
        tensor.is_external() && tensor.is_float() && elements > LARGE
    };
    let values: Vec<ValueId> = model.graph.initializers().filter(|(_, t)| large(t)).map(|(v, _)| v).collect();
    let mut lighter = Cow::Borrowed(model);
    for value in values {
        let graph = &mut lighter.to_mut().graph;
        let Some(tensor) = graph.take_initializer(value) else { continue };
        let (Some(element), Ok(shape)) = (tensor.element_type(), tensor.shape()) else { continue };
        let shape: Vec<Option<usize>> = shape.into_iter().map(Some).collect();
        graph.add_input(value, TypeProto::tensor(element, &shape));
    }
    lighter
}

fn fact_of(loaded: &load::Loaded, outlet: OutletId) -> Option<&InferenceFact> {
    loaded.model.nodes().get(outlet.node)?.outputs.get(outlet.slot).map(|o| &o.fact)
}

fn type_of(fact: &InferenceFact) -> Option<TypeProto> {
    let element = tensor::data_type(fact.datum_type.concretize()?)?;
    if fact.shape.is_open() {
        return None;
    }
    let axis = |d: &tract_onnx::tract_hir::infer::DimFact| d.concretize().and_then(|d| d.to_usize().ok());
    let shape: Vec<Option<usize>> = fact.shape.dims().map(axis).collect();
    Some(TypeProto::tensor(element, &shape))
}

/// The constant as a message. Symbolic dimensions count as int64 once they are numbers, as in `Shape`.
fn constant_of(name: &str, tensor: &Tensor) -> Option<TensorProto> {
    let element = tensor::data_type(tensor.datum_type())?;
    let tensor = if element == DataType::Int64 { tensor.cast_to::<i64>().ok()?.into_owned() } else { tensor.clone() };
    Some(TensorProto::from_raw(name, element, tensor.shape(), tensor.as_bytes().to_vec()))
}
