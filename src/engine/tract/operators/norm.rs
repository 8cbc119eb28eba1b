//! `GlobalLpPool`: `(Σ |x|^p)^(1/p)` over all positions. tract 0.23 divides the sum by the number of positions.

use super::{Built, Evaluate, wire_floats};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, OutletId, TValue, Tensor, ToDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, tvec};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_input_arity, check_output_arity, expand};

/// The exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct GlobalLpPool(i64);

pub(super) fn build(_: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(GlobalLpPool(node.get_attr_opt("p")?.unwrap_or(2))), Vec::new()))
}

impl Expansion for GlobalLpPool {
    fn name(&self) -> StaticName {
        Self::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].rank, &outputs[0].rank)?;
        solver.given(&inputs[0].shape, move |solver, shape| {
            for (axis, length) in shape.iter().enumerate() {
                let length = if axis < 2 { length.clone() } else { 1.to_dim() };
                solver.equals(&outputs[0].shape[axis], length)?;
            }
            Ok(())
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let element = model.outlet_fact(inputs[0])?.datum_type;
        wire_floats(prefix, model, *self, inputs, element)
    }
}

impl Evaluate for GlobalLpPool {
    const NAME: &'static str = "GlobalLpPool";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let ones = inputs[0].shape.iter().skip(2).map(|_| 1.to_dim());
        let shape: TVec<_> = inputs[0].shape.iter().take(2).cloned().chain(ones).collect();
        Ok(tvec!(f32::fact(&*shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let shape = inputs[0].shape();
        let positions: usize = shape.iter().skip(2).product();
        let plain = inputs[0].try_as_plain_ram()?;
        let p = self.0 as f32;
        let of = |channel: &[f32]| channel.iter().map(|x| x.abs().powf(p)).sum::<f32>().powf(1.0 / p);
        let result: Vec<f32> = plain.as_slice::<f32>()?.chunks(positions.max(1)).map(of).collect();
        let lengths: Vec<usize> = shape.iter().enumerate().map(|(i, &length)| if i < 2 { length } else { 1 }).collect();
        Ok(tvec!(Tensor::from_shape(&lengths, &result)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run};

    #[test]
    fn sums_are_not_divided() {
        let values: [(&[usize], &[f32]); 1] = [(&[1, 2, 1, 2], &[3.0, -4.0, 1.0, -2.0])];
        assert_close(&run("float[1,2,1,2] x", "", "y = GlobalLpPool (x)", &values), &[5.0, 5.0_f32.sqrt()]);
        assert_close(&run("float[1,2,1,2] x", "", "y = GlobalLpPool <p = 1> (x)", &values), &[7.0, 3.0]);
        assert_close(&run("float[1,2,1,2] x", "", "y = GlobalLpPool <p = 3> (x)", &values), &[4.497_941, 2.080_083_8]);
    }
}
