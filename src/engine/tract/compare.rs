//! Comparisons of floats, and choices between floats, whose operands have one shape or one element: tract 0.23 walks over
//! them index by index, which takes ten times as long. Masks of attention and gradients of clamps are such.

use super::own::rewrite;
use crate::engine::EngineError;
use tract_onnx::prelude::{Datum, TValue, Tensor};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TVec, TractResult, TypedFact, TypedOp, as_op, op_as_typed_op, op_out_of_plan,
    tvec,
};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{CompGT, CompGTE, CompLT, CompLTE, Iff};

/// An operator computed here where [`shape`] finds a shape for its operands, and otherwise by tract's, which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    /// `Where`.
    Choose(Iff),
    /// A comparison.
    Compare(Order, TypedBinOp),
}

/// What holds between the first operand and the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Replaces the operators of a decluttered model.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "choose", |model, node, op: &Iff| {
        let is_float = model.outlet_fact(node.id.into())?.datum_type == f32::datum_type();
        let own = || TypedModelPatch::replace_single_op(model, node, &node.inputs, Own::Choose(op.clone()));
        is_float.then(own).transpose()
    })?;
    rewrite(model, "compare", |model, node, op: &TypedBinOp| {
        let order = match () {
            () if op.0.is::<CompGT>() => Order::Greater,
            () if op.0.is::<CompGTE>() => Order::GreaterOrEqual,
            () if op.0.is::<CompLT>() => Order::Less,
            () if op.0.is::<CompLTE>() => Order::LessOrEqual,
            () => return Ok(None),
        };
        for &input in &node.inputs {
            if model.outlet_fact(input)?.datum_type != f32::datum_type() {
                return Ok(None);
            }
        }
        let own = Own::Compare(order, op.clone());
        TypedModelPatch::replace_single_op(model, node, &node.inputs, own).map(Some)
    })
}

/// The shape that all operands have but those of one element; none where they have several, or all have one element.
fn shape(operands: &[TValue]) -> Option<&[usize]> {
    let wide = |operand: &&TValue| operand.len() != 1;
    let shape = operands.iter().find(wide)?.shape();
    operands.iter().filter(wide).all(|operand| operand.shape() == shape).then_some(shape)
}

/// The result of `choose` for each element of a condition.
fn choose(condition: &[bool], yes: &[f32], no: &[f32], output: &mut [f32]) {
    let chosen = |(&c, (&yes, &no)): (&bool, (&f32, &f32))| if c { yes } else { no };
    let to = output.iter_mut();
    match (yes, no) {
        ([yes], [no]) => to.zip(condition).for_each(|(to, c)| *to = chosen((c, (yes, no)))),
        ([yes], no) => to.zip(condition.iter().zip(no)).for_each(|(to, (c, no))| *to = chosen((c, (yes, no)))),
        (yes, [no]) => to.zip(condition.iter().zip(yes)).for_each(|(to, (c, yes))| *to = chosen((c, (yes, no)))),
        (yes, no) => to.zip(condition.iter().zip(yes.iter().zip(no))).for_each(|(to, each)| *to = chosen(each)),
    }
}

/// Whether something holds for each element of two operands.
fn compare(a: &[f32], b: &[f32], holds: impl Fn(f32, f32) -> bool) -> Vec<bool> {
    match (a, b) {
        (&[a], b) => b.iter().map(|&b| holds(a, b)).collect(),
        (a, &[b]) => a.iter().map(|&a| holds(a, b)).collect(),
        (a, b) => a.iter().zip(b).map(|(&a, &b)| holds(a, b)).collect(),
    }
}

impl Order {
    /// Whether it holds for each element of two operands.
    fn compare(self, a: &[f32], b: &[f32]) -> Vec<bool> {
        match self {
            Self::Greater => compare(a, b, |a, b| a > b),
            Self::GreaterOrEqual => compare(a, b, |a, b| a >= b),
            Self::Less => compare(a, b, |a, b| a < b),
            Self::LessOrEqual => compare(a, b, |a, b| a <= b),
        }
    }
}

impl Own {
    /// tract's operator.
    fn tracts(&self) -> &dyn TypedOp {
        match self {
            Self::Choose(op) => op,
            Self::Compare(_, op) => op,
        }
    }

    /// The result, where operands have one shape or one element.
    fn computed(&self, inputs: &[TValue]) -> TractResult<Option<Tensor>> {
        let Some(shape) = shape(inputs) else { return Ok(None) };
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        match self {
            // The condition decides for each element alone where it is as long as the result.
            Self::Choose(_) if inputs[0].shape() != shape => Ok(None),
            Self::Choose(_) => {
                let mut output = Tensor::zero::<f32>(shape)?;
                let mut chosen = output.try_as_plain_ram_mut()?;
                let (condition, yes, no) = (plain[0].as_slice()?, plain[1].as_slice()?, plain[2].as_slice()?);
                choose(condition, yes, no, chosen.as_slice_mut()?);
                Ok(Some(output))
            }
            Self::Compare(order, _) => {
                let held = order.compare(plain[0].as_slice()?, plain[1].as_slice()?);
                Tensor::from_shape(shape, &held).map(Some)
            }
        }
    }
}

impl Op for Own {
    fn name(&self) -> StaticName {
        match self {
            Self::Choose(_) => "Choose".into(),
            Self::Compare(..) => "Compare".into(),
        }
    }

    op_as_typed_op!();
}

impl EvalOp for Own {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        match self.computed(&inputs)? {
            Some(output) => Ok(tvec!(output.into())),
            None => self.tracts().eval(context, inputs),
        }
    }
}

impl TypedOp for Own {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.tracts().output_facts(inputs)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing;

    /// What nodes make of x and z, 2 by 3, and of constants of other shapes.
    fn run(nodes: &str) -> Vec<f32> {
        let constants = "float one = {1.0}, float[1,1] two = {2.0}, float[3] row = {1.0, 2.0, 3.0}";
        let (x, z) = ([0.0, 1.0, 2.0, 3.0, f32::NAN, 1.0], [5.0, 1.0, -1.0, 3.0, 4.0, 2.0]);
        testing::run("float[2,3] x, float[2,3] z", constants, nodes, &[(&[2, 3], &x), (&[2, 3], &z)])
    }

    #[test]
    fn operands_of_one_shape_or_one_element() {
        assert_eq!(run("c = Greater (x, one)\n y = Where (c, z, one)"), [1.0, 1.0, -1.0, 3.0, 1.0, 1.0]);
        assert_eq!(run("c = Less (x, z)\n y = Where (c, one, z)"), [1.0, 1.0, -1.0, 3.0, 4.0, 1.0]);
        assert_eq!(run("c = GreaterOrEqual (two, x)\n y = Where (c, one, two)"), [1.0, 1.0, 1.0, 2.0, 2.0, 1.0]);
        assert_eq!(run("c = LessOrEqual (x, z)\n n = Not (c)\n y = Where (n, one, z)"), [5.0, 1.0, 1.0, 3.0, 1.0, 2.0]);
    }

    /// Where tract's operators compute.
    #[test]
    fn operands_of_several_shapes() {
        assert_eq!(run("c = Greater (x, row)\n y = Where (c, z, one)"), [1.0, 1.0, 1.0, 3.0, 1.0, 1.0]);
        assert_eq!(run("c = Less (row, two)\n y = Where (c, x, z)"), [0.0, 1.0, -1.0, 3.0, 4.0, 2.0]);
    }
}
