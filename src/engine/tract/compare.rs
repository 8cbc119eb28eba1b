//! Comparisons, and choices between floats: tract 0.23 walks over operands that are broadcast index by index, which takes ten
//! times as long. Masks of attention, one-hot codes and gradients of clamps are such.

use super::broadcast::Broadcast;
use super::own::rewrite;
use crate::engine::EngineError;
use tract_onnx::prelude::{Datum, DatumType, PlainView, TValue, Tensor};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TVec, TractResult, TypedFact, TypedOp, as_op, op_as_typed_op, op_out_of_plan,
    tvec,
};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{CompEq, CompGT, CompGTE, CompLT, CompLTE, CompNE, Iff};

/// An operator computed here, with the one of tract that it takes the place of.
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
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Elements that are compared here.
const COMPARED: [DatumType; 4] = [DatumType::F32, DatumType::I32, DatumType::I64, DatumType::Bool];

/// Replaces the operators of a decluttered model.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "choose", |model, node, op: &Iff| {
        let is_float = model.outlet_fact(node.id.into())?.datum_type == f32::datum_type();
        let own = || TypedModelPatch::replace_single_op(model, node, &node.inputs, Own::Choose(op.clone()));
        is_float.then(own).transpose()
    })?;
    rewrite(model, "compare", |model, node, op: &TypedBinOp| {
        let order = match () {
            () if op.0.is::<CompEq>() => Order::Equal,
            () if op.0.is::<CompNE>() => Order::NotEqual,
            () if op.0.is::<CompGT>() => Order::Greater,
            () if op.0.is::<CompGTE>() => Order::GreaterOrEqual,
            () if op.0.is::<CompLT>() => Order::Less,
            () if op.0.is::<CompLTE>() => Order::LessOrEqual,
            () => return Ok(None),
        };
        let types = node.inputs.iter().map(|&input| Ok(model.outlet_fact(input)?.datum_type));
        let types = types.collect::<TractResult<TVec<_>>>()?;
        if types.iter().any(|found| *found != types[0] || !COMPARED.contains(found)) {
            return Ok(None);
        }
        let own = Own::Compare(order, op.clone());
        TypedModelPatch::replace_single_op(model, node, &node.inputs, own).map(Some)
    })
}

/// The result of `Where` for each row of it.
fn choose(by: &Broadcast<3>, (condition, yes, no): (&[bool], &[f32], &[f32]), output: &mut [f32]) {
    // Chunks have one element at least.
    let width = by.width().max(1);
    let [each, each_yes, each_no] = by.varies();
    for (output, [c, y, n]) in output.chunks_exact_mut(width).zip(by.rows()) {
        let (yes, no) = (&yes[y..], &no[n..]);
        if !each {
            let (chosen, varies) = if condition[c] { (yes, each_yes) } else { (no, each_no) };
            if varies {
                output.copy_from_slice(&chosen[..width]);
            } else {
                output.fill(chosen[0]);
            }
            continue;
        }
        let to = output.iter_mut().zip(&condition[c..]);
        match (each_yes, each_no) {
            (true, true) => {
                to.zip(yes.iter().zip(no)).for_each(|((to, &c), (&yes, &no))| *to = if c { yes } else { no });
            }
            (true, false) => to.zip(yes).for_each(|((to, &c), &yes)| *to = if c { yes } else { no[0] }),
            (false, true) => to.zip(no).for_each(|((to, &c), &no)| *to = if c { yes[0] } else { no }),
            (false, false) => to.for_each(|(to, &c)| *to = if c { yes[0] } else { no[0] }),
        }
    }
}

impl Order {
    /// Whether it holds for each element of the result.
    fn compare<T: Datum + Copy + PartialOrd>(
        self,
        by: &Broadcast<2>,
        a: &PlainView,
        b: &PlainView,
    ) -> TractResult<Vec<bool>> {
        let (a, b) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
        Ok(match self {
            Self::Equal => compare(by, a, b, |a, b| a == b),
            Self::NotEqual => compare(by, a, b, |a, b| a != b),
            Self::Greater => compare(by, a, b, |a, b| a > b),
            Self::GreaterOrEqual => compare(by, a, b, |a, b| a >= b),
            Self::Less => compare(by, a, b, |a, b| a < b),
            Self::LessOrEqual => compare(by, a, b, |a, b| a <= b),
        })
    }
}

/// Whether something holds for each element of the result.
fn compare<T: Copy>(by: &Broadcast<2>, a: &[T], b: &[T], holds: impl Fn(T, T) -> bool) -> Vec<bool> {
    let width = by.width();
    let mut held = Vec::with_capacity(by.shape.iter().product());
    for [start_a, start_b] in by.rows() {
        let (a, b) = (&a[start_a..], &b[start_b..]);
        match by.varies() {
            [true, true] => held.extend(a[..width].iter().zip(b).map(|(&a, &b)| holds(a, b))),
            [true, false] => held.extend(a[..width].iter().map(|&a| holds(a, b[0]))),
            [false, true] => held.extend(b[..width].iter().map(|&b| holds(a[0], b))),
            [false, false] => held.resize(held.len() + width, holds(a[0], b[0])),
        }
    }
    held
}

impl Own {
    /// tract's operator.
    fn tracts(&self) -> &dyn TypedOp {
        match self {
            Self::Choose(op) => op,
            Self::Compare(_, op) => op,
        }
    }

    /// The result; none where the operands' shapes do not fit, of which tract has more to say.
    fn computed(&self, inputs: &[TValue]) -> TractResult<Option<Tensor>> {
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        match (self, &plain[..]) {
            (Self::Choose(_), [condition, yes, no]) => {
                let Some(by) = Broadcast::of([inputs[0].shape(), inputs[1].shape(), inputs[2].shape()]) else {
                    return Ok(None);
                };
                let mut output = Tensor::zero::<f32>(&by.shape)?;
                let mut chosen = output.try_as_plain_ram_mut()?;
                choose(&by, (condition.as_slice()?, yes.as_slice()?, no.as_slice()?), chosen.as_slice_mut()?);
                Ok(Some(output))
            }
            (Self::Compare(order, _), [a, b]) => {
                let Some(by) = Broadcast::of([inputs[0].shape(), inputs[1].shape()]) else { return Ok(None) };
                let held = match inputs[0].datum_type() {
                    DatumType::F32 => order.compare::<f32>(&by, a, b)?,
                    DatumType::I32 => order.compare::<i32>(&by, a, b)?,
                    DatumType::I64 => order.compare::<i64>(&by, a, b)?,
                    DatumType::Bool => order.compare::<bool>(&by, a, b)?,
                    _ => return Ok(None),
                };
                Tensor::from_shape(&by.shape, &held).map(Some)
            }
            _ => Ok(None),
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
        let constants = "float one = {1.0}, float[1,1] two = {2.0}, float[3] row = {1.0, 2.0, 3.0}, float[2,1] column = {1.0, 3.0}, \
            int64[1] last = {-1}, int64[3] classes = {1, 2, 3}";
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

    #[test]
    fn operands_of_several_shapes() {
        assert_eq!(run("c = Greater (x, row)\n y = Where (c, z, one)"), [1.0, 1.0, 1.0, 3.0, 1.0, 1.0]);
        assert_eq!(run("c = Less (row, two)\n y = Where (c, x, z)"), [0.0, 1.0, -1.0, 3.0, 4.0, 2.0]);
        assert_eq!(run("c = Less (row, two)\n y = Where (c, one, z)"), [1.0, 1.0, -1.0, 1.0, 4.0, 2.0]);
        assert_eq!(run("c = Greater (column, two)\n y = Where (c, z, row)"), [1.0, 2.0, 3.0, 3.0, 4.0, 2.0]);
    }

    /// A one-hot code, as exporters write it.
    #[test]
    fn integers_and_truths() {
        let hot = "i = Cast <to = 7> (z)\n n = Abs (i)\n k = Unsqueeze (n, last)\n c = Equal (k, classes)\n";
        let to_row = "f = Cast <to = 1> (c)\n y = ReduceSum <keepdims = 0> (f, last)";
        assert_eq!(run(&format!("{hot}{to_row}")), [0.0, 1.0, 1.0, 1.0, 0.0, 1.0]);
        let truths = "a = Greater (z, one)\n b = Less (x, two)\n c = Equal (a, b)\n y = Where (c, one, two)";
        assert_eq!(run(truths), [1.0, 2.0, 1.0, 2.0, 2.0, 1.0]);
    }
}
