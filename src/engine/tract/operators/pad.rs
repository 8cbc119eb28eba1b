//! `Pad`: every place of the result is one of the input, or holds the constant.
//!
//! tract 0.23 takes negative pads, which cut, for huge ones; knows no `wrap`; pads no booleans; and wants the constant with
//! rank 0. Where pads of an axis cut at one end and add at the other, the input is cut first. Plain pads with constants or
//! copies are left to tract's operator.

use super::through::{Types, through};
use super::{Built, Evaluate, Evaluated, axis, integers};
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{Arc, DatumType, DatumTypeExt, OutletId, SpecialOps, TDim, TValue, Tensor, f16};
use tract_onnx::tract_core::internal::{
    StaticName, TVec, TractResult, TypedFact, TypedModel, bail, dispatch_numbers, ensure, format_err, tvec,
};
use tract_onnx::tract_core::ops::array::{Pad as TractPad, PadMode};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_output_arity};

/// What lies beyond the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// The operator before pads are known.
#[derive(Clone, Debug, PartialEq)]
struct Pad {
    mode: Mode,
    /// Pads and constant that are attributes, before operator set 11.
    fixed: Option<(Vec<i64>, f32)>,
    constant: Option<usize>,
    axes: Option<usize>,
}

/// The operator with the places of the input for each axis; none for the constant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Padded {
    places: Vec<Option<Vec<Option<usize>>>>,
    constant: Arc<Tensor>,
}

pub(super) fn build(_: &ParsingContext, node: &NodeProto) -> Built {
    let mode = match node.get_attr_opt::<&str>("mode")?.unwrap_or("constant") {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => bail!("mode {other} of Pad is not known"),
    };
    let pads = node.get_attr_opt_slice::<i64>("pads")?.map(<[i64]>::to_vec);
    let value = node.get_attr_opt("value")?.unwrap_or(0.0);
    let given: Vec<Option<usize>> = optional_inputs(node).take(4).collect();
    let pad = Pad { mode, fixed: pads.map(|pads| (pads, value)), constant: given[2], axes: given[3] };
    Ok((through(Box::new(pad), Types::BOOLEANS), Vec::new()))
}

impl Pad {
    /// The pads of every axis, before and behind.
    fn pads<T: Clone>(numbers: &[T], axes: Option<&[i64]>, rank: usize, none: &T) -> TractResult<Vec<[T; 2]>> {
        let mut pads = vec![[none.clone(), none.clone()]; rank];
        let axes: Vec<usize> = match axes {
            Some(axes) => axes.iter().map(|&number| axis(number, rank)).collect::<TractResult<_>>()?,
            None => (0..rank).collect(),
        };
        ensure!(numbers.len() == 2 * axes.len(), "{} pads of {} axes", numbers.len(), axes.len());
        for (at, &axis) in axes.iter().enumerate() {
            pads[axis] = [numbers[at].clone(), numbers[axes.len() + at].clone()];
        }
        Ok(pads)
    }
}

/// The lengths that pads make of a shape.
fn padded(shape: &[TDim], pads: &[[TDim; 2]]) -> TVec<TDim> {
    shape.iter().zip(pads).map(|(length, [before, behind])| length.clone() + before + behind).collect()
}

/// Dimensions of a constant of numbers.
fn dimensions(tensor: &Tensor) -> TractResult<Vec<TDim>> {
    Ok(tensor.cast_to::<TDim>()?.try_as_plain_ram()?.as_slice::<TDim>()?.to_vec())
}

impl Expansion for Pad {
    fn name(&self) -> StaticName {
        "Pad".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].rank, &outputs[0].rank)?;
        let none = TDim::from(0);
        if let Some((pads, _)) = &self.fixed {
            return solver.given(&inputs[0].shape, move |solver, shape| {
                let pads: Vec<TDim> = pads.iter().map(|&pad| TDim::from(pad)).collect();
                solver.equals(&outputs[0].shape, padded(&shape, &Self::pads(&pads, None, shape.len(), &TDim::from(0))?))
            });
        }
        ensure!(inputs.len() > 1, "no pads");
        let Some(axes) = self.axes else {
            return solver.given_2(&inputs[0].shape, &inputs[1].value, move |solver, shape, pads| {
                let pads = Self::pads(&dimensions(&pads)?, None, shape.len(), &none)?;
                solver.equals(&outputs[0].shape, padded(&shape, &pads))
            });
        };
        solver.given_3(&inputs[0].shape, &inputs[1].value, &inputs[axes].value, move |solver, shape, pads, axes| {
            let axes = axes.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
            let pads = Self::pads(&dimensions(&pads)?, Some(&axes), shape.len(), &TDim::from(0))?;
            solver.equals(&outputs[0].shape, padded(&shape, &pads))
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?.clone();
        let axes = match self.axes {
            Some(axes) => Some(integers(model, inputs[axes])?.ok_or_else(|| format_err!("axes are not constant"))?),
            None => None,
        };
        let numbers = match &self.fixed {
            Some((pads, _)) => pads.clone(),
            None => integers(model, inputs[1])?.ok_or_else(|| format_err!("pads are not constant"))?,
        };
        let pads = Self::pads(&numbers, axes.as_deref(), fact.rank(), &0)?;
        let element = fact.datum_type;
        let constant = match (self.constant, &self.fixed) {
            (Some(slot), _) => {
                let constant = model.outlet_fact(inputs[slot])?.konst.clone();
                let constant = constant.filter(|constant| constant.len() == 1);
                let constant = constant.ok_or_else(|| format_err!("what is padded with is not constant"))?;
                constant.cast_to_dt(element)?.into_owned().into_shape(&[])?
            }
            (None, Some((_, value))) => Tensor::from(*value).cast_to_dt(element)?.into_owned(),
            (None, None) => Tensor::zero_scalar_dt(element)?,
        };
        let constant = Arc::new(constant);
        let mode = match self.mode {
            Mode::Constant => Some(PadMode::Constant(Arc::clone(&constant))),
            Mode::Reflect => Some(PadMode::Reflect),
            Mode::Edge => Some(PadMode::Edge),
            Mode::Wrap => None,
        };
        let fits = |length: &TDim, [before, behind]: &[i64; 2]| {
            // Reflections of what is shorter than its pads are not tract's.
            let is_short = length.to_i64().is_ok_and(|length| *before >= length || *behind >= length);
            *before >= 0 && *behind >= 0 && !(self.mode == Mode::Reflect && is_short)
        };
        let is_plain = fact.shape.iter().zip(&pads).all(|(length, pads)| fits(length, pads));
        let is_dimension = element == DatumType::TDim;
        if let (Some(mode), true) = (mode, is_plain) {
            let pads = pads.iter().map(|pads| (pads[0].unsigned_abs() as usize, pads[1].unsigned_abs() as usize));
            return model.wire_node(prefix, TractPad { mode, pads: pads.collect() }, &inputs[..1]);
        }
        ensure!(!is_dimension, "pads that cut dimensions");
        let places = fact.shape.iter().zip(&pads).map(|(length, pads)| {
            if *pads == [0, 0] { Ok(None) } else { Ok(Some(self.mode.places(length.to_i64()?, *pads)?)) }
        });
        let padded = Padded { places: places.collect::<TractResult<_>>()?, constant };
        model.wire_node(prefix, Evaluated(padded), &inputs[..1])
    }
}

impl Mode {
    /// Which place of an axis of this length each place of the result holds.
    fn places(self, length: i64, [before, behind]: [i64; 2]) -> TractResult<Vec<Option<usize>>> {
        // What is cut is not copied from.
        let (first, last) = ((-before).max(0), length - (-behind).max(0));
        let kept = last - first;
        ensure!(kept > 0 || self == Self::Constant, "nothing is left to pad with");
        let (before, behind) = (before.max(0), behind.max(0));
        let place = |at: i64| -> Option<usize> {
            let inside = match self {
                _ if (0..kept).contains(&at) => at,
                Self::Constant => return None,
                Self::Edge => at.clamp(0, kept - 1),
                Self::Wrap => at.rem_euclid(kept),
                Self::Reflect if kept == 1 => 0,
                Self::Reflect => {
                    let turn = at.rem_euclid(2 * (kept - 1));
                    turn.min(2 * (kept - 1) - turn)
                }
            };
            usize::try_from(first + inside).ok()
        };
        Ok((-before..kept.max(0) + behind).map(place).collect())
    }
}

impl Padded {
    fn fill<T: tract_onnx::prelude::Datum + Copy>(&self, input: &Tensor) -> TractResult<Tensor> {
        let value = *self.constant.try_as_plain_ram()?.to_scalar::<T>()?;
        let mut shape = input.shape().to_vec();
        let mut values = input.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
        for (axis, places) in self.places.iter().enumerate() {
            let Some(places) = places else { continue };
            let (before, length, behind) = super::around(&shape, axis);
            let mut filled = Vec::with_capacity(before * places.len() * behind);
            for block in 0..before {
                for place in places {
                    match place {
                        Some(place) => filled.extend_from_slice(&values[(block * length + place) * behind..][..behind]),
                        None => filled.resize(filled.len() + behind, value),
                    }
                }
            }
            shape[axis] = places.len();
            values = filled;
        }
        Tensor::from_shape(&shape, &values)
    }
}

impl Evaluate for Padded {
    const NAME: &'static str = "Padded";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        for (length, places) in shape.iter_mut().zip(&self.places) {
            if let Some(places) = places {
                *length = TDim::from(places.len());
            }
        }
        Ok(tvec!(inputs[0].datum_type.fact(&*shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let element = inputs[0].datum_type();
        Ok(tvec!(dispatch_numbers!(Self::fill(element)(self, &inputs[0]))?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{run, run_shaped};

    #[track_caller]
    fn check(mode: &str, pads: &str, expected: &[f32]) {
        let node = format!("y = Pad <mode = \"{mode}\"> (x, p)");
        let constants = format!("int64[2] p = {{{pads}}}");
        let (shape, y) = run_shaped("float[4] x", &constants, &node, &[(&[4], &[1.0, 2.0, 3.0, 4.0])]);
        assert_eq!(shape, [expected.len()]);
        assert_eq!(y, expected, "{mode} {pads}");
    }

    #[test]
    fn pads_that_cut() {
        check("constant", "-1, 2", &[2.0, 3.0, 4.0, 0.0, 0.0]);
        check("constant", "1, -2", &[0.0, 1.0, 2.0]);
        check("edge", "-2, 1", &[3.0, 4.0, 4.0]);
        check("reflect", "2, -1", &[3.0, 2.0, 1.0, 2.0, 3.0]);
        check("constant", "-1, -1", &[2.0, 3.0]);
    }

    #[test]
    fn pads_that_wrap() {
        check("wrap", "1, 2", &[4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0]);
        check("wrap", "-1, 2", &[2.0, 3.0, 4.0, 2.0, 3.0]);
    }

    #[test]
    fn booleans_and_constants_of_rank_one() {
        let values: [(&[usize], &[f32]); 1] = [(&[2], &[-1.0, 1.0])];
        let node = "b = Less (x, zero)\n p = Pad (b, n)\n y = Cast <to = 1> (p)";
        assert_eq!(run("float[2] x", "float zero = {0.0}, int64[2] n = {1, 0}", node, &values), [0.0, 1.0, 0.0]);
        let constants = "int64[2] n = {1, 0}, float[1] seven = {7.0}";
        assert_eq!(run("float[2] x", constants, "y = Pad (x, n, seven)", &values), [7.0, -1.0, 1.0]);
    }
}
