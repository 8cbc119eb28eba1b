//! `CumSum` of integers as well.
//!
//! tract 0.23 takes whatever is cast to int64 for dimensions, which its cumulative sum does not add. Here such an input
//! becomes int64 before the sum, and a dimension behind it. The axis is a constant of one element, of rank 0 as the
//! operator set wants it or of rank 1 as some exporters write it; any other axis is left to fail.

use super::{Built, axis, integers};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, OutletId, SpecialOps, TDim, TractError};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel, format_err};
use tract_onnx::tract_core::ops::array::CumSum as TractCumSum;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_input_arity, check_output_arity, expand};

/// The operator before types are inferred.
#[derive(Clone, Debug)]
struct CumSum {
    exclusive: bool,
    reverse: bool,
}

pub(super) fn build(_: &ParsingContext, node: &NodeProto) -> Built {
    let is_set = |name: &str| Ok::<_, TractError>(node.get_attr_opt::<i64>(name)? == Some(1));
    let sum = CumSum { exclusive: is_set("exclusive")?, reverse: is_set("reverse")? };
    Ok((expand(sum), Vec::new()))
}

impl Expansion for CumSum {
    fn name(&self) -> StaticName {
        "CumSum".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let number = integers(model, inputs[1])?.filter(|numbers| numbers.len() == 1);
        let number = number.ok_or_else(|| format_err!("the axis is not a constant of one element"))?[0];
        let fact = model.outlet_fact(inputs[0])?;
        let is_dimension = fact.datum_type == TDim::datum_type();
        let axis = axis(number, fact.rank())?;
        let sum = TractCumSum { axis, exclusive: self.exclusive, reverse: self.reverse };
        if !is_dimension {
            return model.wire_node(prefix, sum, &inputs[..1]);
        }
        let integers = model.wire_node(format!("{prefix}.integers"), cast(i64::datum_type()), &inputs[..1])?;
        let sums = model.wire_node(format!("{prefix}.sums"), sum, &integers)?;
        model.wire_node(prefix, cast(TDim::datum_type()), &sums)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run;
    use msq_passes::ir;

    /// The sums along rows of 1, 2, 3 and 4, 5, 6, which are cast to a type before and to floats behind.
    fn sums(element: i32, axis: &str, attributes: &str) -> Vec<f32> {
        let constants = "int64 last = {1}, int64 negative = {-1}, int64[1] list = {1}, int32 first = {0}";
        let nodes =
            format!("c = Cast <to = {element}> (x)\n s = CumSum{attributes} (c, {axis})\n y = Cast <to = 1> (s)");
        run("float[2,3] x", constants, &nodes, &[(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])])
    }

    #[test]
    fn integers_and_floats_are_summed() {
        for element in [ir::DataType::Float, ir::DataType::Int32, ir::DataType::Int64].map(ir::DataType::number) {
            let sums = |attributes| sums(element, "last", attributes);
            assert_eq!(sums(""), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
            assert_eq!(sums(" <exclusive = 1>"), [0.0, 1.0, 3.0, 0.0, 4.0, 9.0]);
            assert_eq!(sums(" <reverse = 1>"), [6.0, 5.0, 3.0, 15.0, 11.0, 6.0]);
            assert_eq!(sums(" <exclusive = 1, reverse = 1>"), [5.0, 3.0, 0.0, 11.0, 6.0, 0.0]);
        }
    }

    #[test]
    fn the_axis_is_a_number_from_either_end_or_a_list_of_one() {
        let element = ir::DataType::Int64.number();
        assert_eq!(sums(element, "negative", ""), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(sums(element, "list", ""), [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        assert_eq!(sums(element, "first", ""), [1.0, 2.0, 3.0, 5.0, 7.0, 9.0]);
    }

    /// What follows from constants alone is computed while the model is loaded.
    #[test]
    fn sums_of_constants() {
        let nodes =
            "o = ConstantOfShape <value = int64[1] {1}> (s)  c = CumSum (o, a)  f = Cast <to = 1> (c)  y = Mul (x, f)";
        let found = run("float[2,3] x", "int64[1] s = {3}, int64 a = {0}", nodes, &[(&[2, 3], &[1.0; 6])]);
        assert_eq!(found, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    }
}
