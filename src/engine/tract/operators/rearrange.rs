//! Operators that take elements of their input at other places: `Compress`, `ReverseSequence` and `SpaceToDepth`.
//!
//! tract 0.23 does not run the first, does not know the second, and has one order of channels for the third.

use super::{Built, Evaluate, Evaluated, around, axis, computed, tracts};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Datum, DatumType, DatumTypeExt, OutletId, PlainView, TDim, TValue, Tensor, ToDim, f16};
use tract_onnx::tract_core::internal::{
    StaticName, TVec, TractResult, TypedFact, TypedModel, dispatch_numbers, ensure, format_err, tvec,
};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_output_arity, expand};

/// An operator that takes elements of its first input at places that follow from its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    /// Elements where a condition holds, along an axis, or of the flattened input.
    Compress { axis: Option<i64> },
    /// As many of the first elements of a sequence as its length says, in the reverse order.
    Reverse { time: usize, batch: usize },
    /// Squares of pixels as channels, of which those of a pixel come first.
    Blocks { size: usize },
}

pub(super) fn compress(_: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(Move::Compress { axis: node.get_attr_opt("axis")? }), Vec::new()))
}

pub(super) fn reverse_sequence(_: &ParsingContext, node: &NodeProto) -> Built {
    let number = |name, default| Ok::<_, tract_onnx::prelude::TractError>(node.get_attr_opt(name)?.unwrap_or(default));
    Ok((expand(Move::Reverse { time: number("time_axis", 0)?, batch: number("batch_axis", 1)? }), Vec::new()))
}

pub(super) fn space_to_depth(context: &ParsingContext, node: &NodeProto) -> Built {
    if !super::is_other(node, "mode", "DCR")? {
        return tracts(context, node);
    }
    Ok((expand(Move::Blocks { size: node.get_attr("blocksize")? }), Vec::new()))
}

/// The places where a condition holds.
fn held(condition: &Tensor) -> TractResult<Vec<usize>> {
    let condition = condition.cast_to::<bool>()?;
    let plain = condition.try_as_plain_ram()?;
    Ok(plain.as_slice::<bool>()?.iter().enumerate().filter(|(_, holds)| **holds).map(|(place, _)| place).collect())
}

impl Move {
    /// The shape of the result; the condition is given where there is one.
    fn shape(&self, shape: &[TDim], condition: Option<&Tensor>) -> TractResult<TVec<TDim>> {
        let mut result = TVec::from(shape);
        match *self {
            Self::Compress { axis: number } => {
                let condition = condition.ok_or_else(|| format_err!("the condition is not constant"))?;
                let count = held(condition)?.len().to_dim();
                match number {
                    Some(number) => result[axis(number, shape.len())?] = count,
                    None => result = tvec!(count),
                }
            }
            Self::Reverse { time, batch } => ensure!(time < shape.len() && batch < shape.len(), "axes of a sequence"),
            Self::Blocks { size } => {
                ensure!(shape.len() == 4 && size > 0, "blocks of pixels are of images");
                result[1] = result[1].clone() * (size * size);
                result[2] = result[2].clone() / size;
                result[3] = result[3].clone() / size;
            }
        }
        Ok(result)
    }
}

impl Expansion for Move {
    fn name(&self) -> StaticName {
        "Move".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        if let Self::Compress { axis } = self {
            if axis.is_none() {
                solver.equals(&outputs[0].rank, 1)?;
            } else {
                solver.equals(&outputs[0].rank, &inputs[0].rank)?;
            }
            return solver.given_2(&inputs[0].shape, &inputs[1].value, move |solver, shape, condition| {
                solver.equals(&outputs[0].shape, self.shape(&shape, Some(&condition))?)
            });
        }
        solver.given(&inputs[0].shape, move |solver, shape| solver.equals(&outputs[0].shape, self.shape(&shape, None)?))
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let condition = match (self, inputs.get(1)) {
            (Self::Compress { .. }, Some(&input)) => model.outlet_fact(input)?.konst.clone(),
            _ => None,
        };
        let element = model.outlet_fact(inputs[0])?.datum_type;
        let shape = self.shape(&model.outlet_fact(inputs[0])?.shape.to_tvec(), condition.as_deref())?;
        let mut inputs = inputs.to_vec();
        if let Some(second) = inputs.get_mut(1) {
            *second = wire_cast(format!("{prefix}.integers"), model, &[*second], DatumType::I64)?[0];
        }
        inputs[0] = wire_cast(format!("{prefix}.data"), model, &inputs[..1], computed(element))?[0];
        super::wire_back(prefix, model, Evaluated(Moved { how: self.clone(), shape }), &inputs, element)
    }
}

/// A move whose result has a known shape.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moved {
    how: Move,
    shape: TVec<TDim>,
}

impl Moved {
    /// The place in the input of each element of the result.
    fn places(&self, shape: &[usize], second: Option<&[i64]>) -> TractResult<Vec<usize>> {
        let second = second.unwrap_or_default();
        match self.how {
            Move::Compress { axis: number } => {
                let held = second.iter().enumerate().filter(|(_, holds)| **holds != 0).map(|(place, _)| place);
                let Some(number) = number else { return Ok(held.collect()) };
                let (before, length, behind) = around(shape, axis(number, shape.len())?);
                let held: Vec<usize> = held.filter(|place| *place < length).collect();
                let rows =
                    (0..before).flat_map(|block| held.iter().map(move |place| (block * length + place) * behind));
                Ok(rows.flat_map(|row| row..row + behind).collect())
            }
            Move::Reverse { time, batch } => {
                let (_, steps, behind_time) = around(shape, time);
                let (_, batches, behind_batch) = around(shape, batch);
                ensure!(second.len() == batches, "{} lengths of {batches} sequences", second.len());
                let count: usize = shape.iter().product();
                let place = |at: usize| {
                    let (step, of) = (at / behind_time % steps, at / behind_batch % batches);
                    let length = usize::try_from(second[of]).unwrap_or(0).min(steps);
                    if step < length { at + (length - 1 - step) * behind_time - step * behind_time } else { at }
                };
                Ok((0..count).map(place).collect())
            }
            Move::Blocks { size } => {
                let &[batch, channels, height, width] = shape else { return Ok(Vec::new()) };
                let (rows, columns) = (height / size, width / size);
                ensure!(rows * size == height && columns * size == width, "blocks of {size} of {height} by {width}");
                let place = |at: usize| {
                    let (column, row) = (at % columns, at / columns % rows);
                    let channel = at / (columns * rows);
                    let (right, down) = (channel % size, channel / size % size);
                    let plane = channel / (size * size);
                    (plane * height + row * size + down) * width + column * size + right
                };
                Ok((0..batch * channels * height * width).map(place).collect())
            }
        }
    }

    fn take<T: Datum + Copy>(data: &Tensor, places: &[usize], shape: &[usize]) -> TractResult<Tensor> {
        let plain = data.try_as_plain_ram()?;
        let values = plain.as_slice::<T>()?;
        let taken = places.iter().map(|&place| values.get(place).copied()).collect::<Option<Vec<T>>>();
        Tensor::from_shape(shape, &taken.ok_or_else(|| format_err!("an element out of range"))?)
    }
}

impl Evaluate for Moved {
    const NAME: &'static str = "Moved";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(&*self.shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let data = &inputs[0];
        let second = inputs.get(1).map(|second| second.try_as_plain_ram()).transpose()?;
        let second = second.as_ref().map(PlainView::as_slice::<i64>).transpose()?;
        let places = self.places(data.shape(), second)?;
        let mut shape: Vec<usize> = data.shape().to_vec();
        match self.how {
            Move::Compress { axis: None } => shape = vec![places.len()],
            Move::Compress { axis: Some(number) } => {
                let axis = axis(number, shape.len())?;
                let rest: usize = shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, n)| n).product();
                shape[axis] = places.len().checked_div(rest).unwrap_or(0);
            }
            Move::Reverse { .. } => {}
            Move::Blocks { size } => {
                shape = vec![shape[0], shape[1] * size * size, shape[2] / size, shape[3] / size];
            }
        }
        let element = data.datum_type();
        Ok(tvec!(dispatch_numbers!(Self::take(element)(data, &places, &shape))?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{run, run_shaped};

    const SIX: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn compressed_along_an_axis_or_not() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 3], &SIX)];
        let of = |axis: &str, condition: &str| {
            run_shaped("float[2,3] x", condition, &format!("y = Compress {axis} (x, c)"), &values)
        };
        assert_eq!(of("<axis = -1>", "bool[3] c = {1, 0, 1}"), (vec![2, 2], vec![1.0, 3.0, 4.0, 6.0]));
        assert_eq!(of("<axis = 0>", "bool[2] c = {0, 1}"), (vec![1, 3], vec![4.0, 5.0, 6.0]));
        assert_eq!(of("", "bool[5] c = {0, 1, 0, 0, 1}"), (vec![2], vec![2.0, 5.0]));
    }

    #[test]
    fn sequences_reversed() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 3], &SIX)];
        let node = "y = ReverseSequence <time_axis = 1, batch_axis = 0> (x, n)";
        assert_eq!(run("float[2,3] x", "int64[2] n = {2, 3}", node, &values), [2.0, 1.0, 3.0, 6.0, 5.0, 4.0]);
        let node = "y = ReverseSequence (x, n)";
        assert_eq!(run("float[2,3] x", "int64[3] n = {2, 1, 2}", node, &values), [4.0, 2.0, 6.0, 1.0, 5.0, 3.0]);
    }

    #[test]
    fn channels_before_blocks() {
        let pixels: Vec<f32> = (0..8_u8).map(f32::from).collect();
        let node = "y = SpaceToDepth <blocksize = 2, mode = \"CRD\"> (x)";
        let y = run("float[1,2,2,2] x", "", node, &[(&[1, 2, 2, 2], &pixels)]);
        assert_eq!(y, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
}
