//! What tract infers of a model: types, shapes, constants.

use super::{load, symbolic, tensor};
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
    let graph = &model.graph;
    let is_taken = |outlet: OutletId| fact_of(&loaded, outlet)?.value.concretize().filter(|value| is_of_numbers(value));
    let taken = loaded.outlets.iter().filter(|(_, outlet)| is_taken(*outlet).is_some());
    let taken = taken.filter_map(|(name, _)| graph.find(name)).collect();
    let constants = symbolic::constants(graph, &taken);
    let unsure = symbolic::unsure_types(graph, &taken, &constants);
    for (name, outlet) in &loaded.outlets {
        let Some(fact) = fact_of(&loaded, *outlet) else { continue };
        if graph.find(name).is_none_or(|value| !unsure.contains(&value)) {
            facts.types.extend(type_of(fact).map(|ty| (name.clone(), ty)));
        }
        let is_known = |value| graph.initializer(value).is_some() || !constants.contains(&value);
        let known = graph.find(name).is_none_or(is_known);
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

/// Whether no element is a length left open.
fn is_of_numbers(tensor: &Tensor) -> bool {
    tensor::data_type(tensor.datum_type()) != Some(DataType::Int64) || tensor.cast_to::<i64>().is_ok()
}

/// The constant as a message. Symbolic dimensions count as int64 once they are numbers, as in `Shape`.
fn constant_of(name: &str, tensor: &Tensor) -> Option<TensorProto> {
    let element = tensor::data_type(tensor.datum_type())?;
    let tensor = if element == DataType::Int64 { tensor.cast_to::<i64>().ok()?.into_owned() } else { tensor.clone() };
    Some(TensorProto::from_raw(name, element, tensor.shape(), tensor.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use crate::engine::Backend;
    use crate::engine::tract::Tract;
    use msq_passes::ir::{self, DataType, TensorProto};

    /// The constant that a node makes of constants.
    fn constant(opset: i64, constants: &str, nodes: &str) -> Option<TensorProto> {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\": {opset}]>\n g (float[1] x) => (float y)\n\
             <{constants}>\n{{\n{nodes}\n y = Add (c, x)\n}}"
        );
        let model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
        Tract.infer(&model).unwrap().constants.get("c").cloned()
    }

    fn floats(opset: i64, constants: &str, nodes: &str) -> Option<Vec<f32>> {
        constant(opset, constants, nodes).map(|tensor| tensor.to_f32().unwrap())
    }

    /// A constant that the engine would compute otherwise than the runtime is none.
    #[test]
    fn nothing_is_folded_through_what_differs() {
        let weights =
            "float[1,2,2] a = {1.0, 2.0, 3.0, 4.0}, float[2] s = {1.0, 1.0}, float half = {0.5}, bool yes = {1}";
        assert!(floats(17, weights, "c = BatchNormalization (a, s, s, s, s)").is_some());
        assert!(floats(17, weights, "c = BatchNormalization <training_mode = 1> (a, s, s, s, s)").is_none());
        assert!(floats(17, weights, "c = Dropout (a, half)").is_some());
        assert!(floats(17, weights, "c = Dropout (a, half, yes)").is_none());
        let branch = "c = If (yes) <then_branch = t () => (float z) { z = BatchNormalization <training_mode = 1> (a, s, s, s, s) },
            else_branch = e () => (float z) { z = Neg (a) }>";
        assert!(floats(17, weights, branch).is_none());
        let quantized = |attributes: &str| format!("q = QuantizeLinear {attributes} (a, half)\n c = Cast <to = 1> (q)");
        assert!(floats(21, weights, &quantized("")).is_some());
        assert!(floats(21, weights, &quantized("<output_dtype = 5>")).is_none());
    }

    /// What is put right is put right in constants too.
    #[test]
    fn what_is_folded_is_right() {
        let numbers =
            "int64[3] a = {-7, 7, -3}, int64 n = {3}, float[1,1,2] f = {3.0, -4.0}, float[3,1,1] t = {1.0, -2.0, 3.0},
            float[1,1,1] w = {1.0}, float[1,1,1] r = {0.5}";
        let remainder = constant(17, numbers, "c = Mod (a, n)").unwrap();
        assert_eq!((remainder.element_type(), remainder.to_i64().unwrap()), (Some(DataType::Int64), vec![2, 1, 0]));
        assert_eq!(floats(17, numbers, "c = GlobalLpPool (f)"), Some(vec![5.0]));
        let layer = "u, c = RNN <hidden_size = 1, activations = [\"Relu\"]> (t, w, r)";
        assert_eq!(floats(17, numbers, layer), Some(vec![3.0]));
    }
}
