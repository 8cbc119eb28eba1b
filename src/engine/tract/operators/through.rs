//! Operators of tract on elements of another type, cast before and behind.
//!
//! tract 0.23 takes whatever is cast to int64 for dimensions, of which it knows neither signs nor bits, and whose remainder
//! it takes for that of lengths, which are not negative; of booleans it compares none. Dimensions that are symbols stay
//! what they are: lengths that are left open are followed no further as integers.

use super::{Built, tracts, tracts_expansion};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, OutletId, TDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, expand};

/// Which elements tract does not compute with, and with which it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    from: DatumType,
    to: DatumType,
    /// Whether outputs are cast back.
    back: bool,
}

impl Types {
    /// Booleans as bytes.
    pub(super) const BOOLEANS: Self = Self { from: DatumType::Bool, to: DatumType::U8, back: true };
    /// Comparisons of booleans as bytes.
    const COMPARED: Self = Self { back: false, ..Self::BOOLEANS };
    /// Dimensions as integers.
    const DIMENSIONS: Self = Self { from: DatumType::TDim, to: DatumType::I64, back: true };
}

/// tract's operator, with a cast before and behind.
#[derive(Clone, Debug)]
struct Through {
    operator: Box<dyn Expansion>,
    types: Types,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let types = match node.op_type.as_str() {
        "Equal" => Types::COMPARED,
        // The remainder with the sign of the dividend, of floats as well.
        "Mod" if node.get_attr_opt::<i64>("fmod")? == Some(1) => return tracts(context, node),
        _ => Types::DIMENSIONS,
    };
    Ok((through(tracts_expansion(context, node)?, types), Vec::new()))
}

/// An operator on elements of another type.
pub(super) fn through(
    operator: Box<dyn Expansion>,
    types: Types,
) -> Box<dyn tract_onnx::tract_hir::infer::InferenceOp> {
    expand(Through { operator, types })
}

/// Whether an input has a constant value that depends on lengths left open.
fn is_symbol(model: &TypedModel, input: OutletId) -> TractResult<bool> {
    let fact = model.outlet_fact(input)?;
    Ok(fact
        .konst
        .as_ref()
        .is_some_and(|constant| constant.datum_type() == TDim::datum_type() && constant.cast_to::<i64>().is_err()))
}

impl Expansion for Through {
    fn name(&self) -> StaticName {
        self.operator.name()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.operator.nboutputs()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.operator.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let Types { from, to, back } = self.types;
        let mut changed = inputs.to_vec();
        let mut is_changed = false;
        for input in &mut changed {
            if model.outlet_fact(*input)?.datum_type == from && !is_symbol(model, *input)? {
                *input = wire_cast(format!("{prefix}.{to:?}"), model, &[*input], to)?[0];
                is_changed = true;
            }
        }
        if !is_changed || inputs.iter().any(|&input| is_symbol(model, input).unwrap_or(true)) {
            return self.operator.wire(prefix, model, inputs);
        }
        let outputs = self.operator.wire(prefix, model, &changed)?;
        let back = |model: &mut TypedModel, output: OutletId| -> TractResult<OutletId> {
            let is_same = !back || model.outlet_fact(output)?.datum_type != to;
            if is_same { Ok(output) } else { Ok(wire_cast(format!("{prefix}.back"), model, &[output], from)?[0]) }
        };
        outputs.into_iter().map(|output| back(model, output)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run;

    #[test]
    fn booleans_are_compared() {
        let node = "b = Less (x, zero)\n t = Equal (b, yes)\n y = Cast <to = 1> (t)";
        let constants = "float zero = {0.0}, bool yes = {1}";
        assert_eq!(run("float[4] x", constants, node, &[(&[4], &[-1.0, 1.0, -2.0, 0.0])]), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn integers_are_no_dimensions() {
        let input: [(&[usize], &[f32]); 1] = [(&[4], &[-7.0, 7.0, -3.0, 0.0])];
        let of = |node: &str, constants: &str| {
            let text = format!("i = Cast <to = 7> (x)\n r = {node}\n y = Cast <to = 1> (r)");
            run("float[4] x", constants, &text, &input)
        };
        assert_eq!(of("Sign (i)", ""), [-1.0, 1.0, -1.0, 0.0]);
        assert_eq!(of("Mod (i, n)", "int64 n = {3}"), [2.0, 1.0, 0.0, 0.0]);
        assert_eq!(of("Mod (i, n)", "int64 n = {-3}"), [-1.0, -2.0, 0.0, 0.0]);
        assert_eq!(of("Mod <fmod = 1> (i, n)", "int64 n = {3}"), [-1.0, 1.0, 0.0, 0.0]);
        assert_eq!(of("BitwiseAnd (i, n)", "int64 n = {5}"), [1.0, 5.0, 5.0, 0.0]);
        assert_eq!(of("BitwiseOr (i, n)", "int64 n = {5}"), [-3.0, 7.0, -3.0, 5.0]);
        assert_eq!(of("BitwiseXor (i, n)", "int64 n = {5}"), [-4.0, 2.0, -8.0, 5.0]);
        assert_eq!(of("BitwiseNot (i)", ""), [6.0, -8.0, 2.0, -1.0]);
    }
}
