//! Functions of single elements: `Celu`, `Swish` and `BitShift`.
//!
//! `Celu(x) = max(0, x) + min(0, α·(exp(x/α) − 1))`, `Swish(x) = x / (1 + exp(−α·x))`. Bits that are shifted by the width of
//! the type or more are gone.

use super::{Built, Evaluate, tracts, wire_floats};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, DatumType, OutletId, TValue, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, bail, tvec};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_core::ops::change_axes::wire_rank_broadcast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_input_arity, check_output_arity, expand};

/// A function of floats.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Celu(f32),
    Swish(f32),
}

pub(super) fn celu(context: &ParsingContext, node: &NodeProto) -> Built {
    with_alpha(context, node, Function::Celu)
}

pub(super) fn swish(context: &ParsingContext, node: &NodeProto) -> Built {
    with_alpha(context, node, Function::Swish)
}

/// tract's operator where α is 1, and the function where not.
fn with_alpha(context: &ParsingContext, node: &NodeProto, function: fn(f32) -> Function) -> Built {
    let alpha = node.get_attr_opt("alpha")?.unwrap_or(1.0);
    if alpha == 1.0 { tracts(context, node) } else { Ok((expand(function(alpha)), Vec::new())) }
}

impl Function {
    fn of(self, x: f32) -> f32 {
        match self {
            Self::Celu(alpha) => x.max(0.0) + (alpha * ((x / alpha).exp() - 1.0)).min(0.0),
            Self::Swish(alpha) => x / (1.0 + (-alpha * x).exp()),
        }
    }
}

impl Expansion for Function {
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
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let element = model.outlet_fact(inputs[0])?.datum_type;
        wire_floats(prefix, model, *self, inputs, element)
    }
}

impl Evaluate for Function {
    const NAME: &'static str = "Function";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].without_value()))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let plain = inputs[0].try_as_plain_ram()?;
        let result: Vec<f32> = plain.as_slice::<f32>()?.iter().map(|&x| self.of(x)).collect();
        Ok(tvec!(Tensor::from_shape(inputs[0].shape(), &result)?))
    }
}

/// A shift of bits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct BitShift {
    is_right: bool,
    /// The width of the type.
    bits: i64,
    signed: bool,
}

pub(super) fn bit_shift(_: &ParsingContext, node: &NodeProto) -> Built {
    let is_right = node.get_attr_opt::<&str>("direction")?.unwrap_or("LEFT") == "RIGHT";
    Ok((expand(BitShift { is_right, bits: 0, signed: false }), Vec::new()))
}

impl BitShift {
    fn of(self, x: i64, by: i64) -> i64 {
        let is_gone = !(0..self.bits).contains(&by);
        match (self.is_right, is_gone) {
            (true, true) => {
                if self.signed && x < 0 {
                    -1
                } else {
                    0
                }
            }
            (false, true) => 0,
            (true, false) if self.signed => x >> by,
            (true, false) => (x.cast_unsigned() >> by).cast_signed(),
            (false, false) => x << by,
        }
    }
}

impl Expansion for BitShift {
    fn name(&self) -> StaticName {
        Self::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let first = |first: DatumType, _: DatumType| Ok(first);
        tract_onnx::tract_hir::ops::binary::rules(solver, inputs, outputs, first)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let element = model.outlet_fact(inputs[0])?.datum_type;
        let (bits, signed) = match element {
            DatumType::U8 => (8, false),
            DatumType::I8 => (8, true),
            DatumType::U16 => (16, false),
            DatumType::I16 => (16, true),
            DatumType::U32 => (32, false),
            DatumType::I32 => (32, true),
            DatumType::U64 => (64, false),
            DatumType::I64 | DatumType::TDim => (64, true),
            _ => bail!("no bits to shift in {element:?}"),
        };
        let inputs = wire_cast(format!("{prefix}.integers"), model, inputs, DatumType::I64)?;
        let inputs = wire_rank_broadcast(prefix, model, &inputs)?;
        let shift = super::Evaluated(Self { bits, signed, ..*self });
        super::wire_back(prefix, model, shift, &inputs, element)
    }
}

impl Evaluate for BitShift {
    const NAME: &'static str = "BitShift";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = tract_onnx::tract_core::broadcast::multi_broadcast(&[&inputs[0].shape, &inputs[1].shape])?;
        Ok(tvec!(i64::fact(shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let shape = tract_onnx::tract_core::broadcast::multi_broadcast(&[inputs[0].shape(), inputs[1].shape()])?;
        let [x, by] = [0, 1].map(|at| inputs[at].broadcast_to_shape(&shape));
        let (x, by) = (x?, by?);
        let (x, by) = (x.try_as_plain_ram()?, by.try_as_plain_ram()?);
        let pairs = x.as_slice::<i64>()?.iter().zip(by.as_slice::<i64>()?);
        let result: Vec<i64> = pairs.map(|(&x, &by)| self.of(x, by)).collect();
        Ok(tvec!(Tensor::from_shape(&shape, &result)?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run};

    #[test]
    fn alpha_counts() {
        let values: [(&[usize], &[f32]); 1] = [(&[3], &[-1.0, 0.0, 2.0])];
        let celu = run("float[3] x", "", "y = Celu <alpha = 2.0> (x)", &values);
        assert_close(&celu, &[2.0 * ((-0.5_f32).exp() - 1.0), 0.0, 2.0]);
        let plain = run("float[3] x", "", "y = Celu (x)", &values);
        assert_close(&plain, &[(-1.0_f32).exp() - 1.0, 0.0, 2.0]);
    }

    #[test]
    fn bits_shifted_by_the_width_are_gone() {
        let values: [(&[usize], &[f32]); 1] = [(&[4], &[1.0, 128.0, 255.0, 7.0])];
        let node = |direction| {
            format!(
                "u = Cast <to = 2> (x)\n s = BitShift <direction = \"{direction}\"> (u, by)\n y = Cast <to = 1> (s)"
            )
        };
        let by = "uint8[4] by = {8, 9, 3, 200}";
        assert_eq!(run("float[4] x", by, &node("LEFT"), &values), [0.0, 0.0, 248.0, 0.0]);
        assert_eq!(run("float[4] x", by, &node("RIGHT"), &values), [0.0, 0.0, 31.0, 0.0]);
    }
}
