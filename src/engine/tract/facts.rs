//! What tract infers of a model: types, shapes, constants.

use super::{load, symbolic, tensor};
use crate::engine::{EngineError, Facts};
use msq_passes::ir::{DataType, DimValue, Model, TensorProto, TypeProto, TypeValue, ValueId};
use std::borrow::Cow;
use tract_onnx::prelude::{InferenceFact, OutletId, Tensor};
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModelExt};

/// Infers the facts of a model. Dynamic axes stay symbols, so a shape that depends on them is no constant; an operator
/// tract does not know leaves what follows it open.
///
/// tract loses the ranks behind products and sums whose operands have lengths that are neither numbers nor symbols. So
/// axes without a name get one each. Where types cannot be told with those, as where two such axes must be equally long,
/// they are told without.
pub(super) fn infer(model: &Model) -> Result<Facts, EngineError> {
    let lighter = without_large_weights(model);
    let Some(named) = with_named_axes(&lighter) else { return infer_as_it_is(&lighter) };
    let unnamed = infer_as_it_is(&lighter)?;
    let mut facts = infer_as_it_is(&named).unwrap_or_default();
    for (name, ty) in unnamed.types {
        facts.types.entry(name).or_insert(ty);
    }
    for (name, tensor) in unnamed.constants {
        facts.constants.entry(name).or_insert(tensor);
    }
    facts.types.sort_keys();
    facts.constants.sort_keys();
    Ok(facts)
}

fn infer_as_it_is(model: &Model) -> Result<Facts, EngineError> {
    let mut loaded = load::load_what_is_known(model)?;
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

/// The model with a symbol of its own for each axis of an input that has neither a length nor a name; nothing where no
/// input has such an axis.
fn with_named_axes(model: &Model) -> Option<Model> {
    let named: Vec<Option<TypeProto>> =
        model.graph.runtime_inputs().enumerate().map(|(at, input)| named(model.graph.value(input).ty()?, at)).collect();
    named.iter().any(Option::is_some).then(|| {
        let mut copy = model.clone();
        let own = |input: ValueId| model.graph.value(input).ty().cloned().unwrap_or_default();
        let inputs = model.graph.runtime_inputs().zip(named);
        copy.graph.set_inputs(inputs.map(|(input, named)| (input, named.unwrap_or_else(|| own(input)))).collect());
        copy
    })
}

/// The type with names for its open axes, made of the input's number and the axis; nothing where none is open.
fn named(ty: &TypeProto, input: usize) -> Option<TypeProto> {
    let lengths = ty.shape()?;
    let symbols = ty.symbols();
    let mut ty = ty.clone();
    let Some(TypeValue::Tensor(tensor)) = &mut ty.value else { return None };
    let mut found = false;
    for (axis, dimension) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).enumerate() {
        if lengths[axis].is_none() && symbols[axis].is_none() {
            dimension.value = Some(DimValue::Param(format!("msq_unnamed_{input}_{axis}")));
            found = true;
        }
    }
    found.then_some(ty)
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

    /// Ranks of inner values do not depend on whether open axes have names, nor on what else is open.
    #[test]
    fn axes_without_names_leave_ranks_known() {
        let rank = |shapes: [&str; 2], nodes: &str, value: &str| {
            let [x, z] = shapes;
            let text = format!(
                "<ir_version: 10, opset_import: [\"\": 17]>\n g (float[{x}] x, float[{z}] z) => (float y)\n\
                 <float[4,4] w = {{}}, float[1,4] b = {{}}>\n{{\n{nodes}\n}}"
            );
            let mut model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
            for name in ["w", "b"] {
                let value = model.graph.find(name).unwrap();
                let shape = model.graph.initializer(value).unwrap().shape().unwrap();
                let zeros = vec![0.0; shape.iter().product()];
                model.graph.set_initializer(value, TensorProto::from_f32(name, &shape, &zeros));
            }
            let facts = Tract.infer(&model).unwrap();
            facts.types.get(value).and_then(ir::TypeProto::shape)
        };
        let layers = "m = MatMul (x, w)\n a = Add (m, b)\n r = Relu (a)\n n = MatMul (r, w)\n y = Add (n, z)";
        for x in ["n,4", "?,4", "?,?"] {
            assert_eq!(rank([x, "4"], layers, "n"), Some(vec![None, Some(4)]), "{x}");
        }
        assert_eq!(rank(["?,?,?", "4"], layers, "r"), Some(vec![None, None, Some(4)]));
        // Two axes that must be equally long, which two names are not.
        let joined = "a = Relu (x)\n c = Concat <axis = 1> (x, z)\n y = Relu (c)";
        assert_eq!(rank(["?,4", "?,4"], joined, "c").map(|shape| shape.len()), Some(2));
    }
}
