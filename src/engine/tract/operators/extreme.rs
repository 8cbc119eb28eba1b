//! `ReduceMax` and `ReduceMin` of floats and booleans, and `ReduceLogSumExp`.
//!
//! tract 0.23 begins with the ends of the type's finite numbers, so that a row of −∞, which an all-hidden row of a mask is,
//! has a finite maximum. Here it begins with infinities. Booleans go as bytes; other integers are left to tract.
//! The logarithm of a sum of exponentials is taken beside the maximum, `m + ln Σ exp(x − m)`: without, numbers above 88 give
//! an infinity.

use super::through::{Types, through};
use super::{Built, Evaluate, around, axis, integers, tracts_expansion, wire_floats};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, OutletId, SpecialOps, TValue, Tensor, ToDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, format_err, tvec};
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::Expansion;

/// What is left of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Max,
    Min,
    LogSumExp,
}

/// The operator before types are known.
#[derive(Clone, Debug)]
struct Reduce {
    kind: Kind,
    /// Where axes are an attribute; none for all.
    axes: Option<Vec<i64>>,
    keeps: bool,
    /// Whether no axes mean that nothing is reduced.
    is_noop: bool,
    tracts: Box<dyn Expansion>,
}

/// The extreme along axes, which stay with length 1.
#[derive(Clone, Debug, PartialEq)]
struct Extreme {
    kind: Kind,
    axes: Vec<usize>,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let is_set = |name, default| {
        Ok::<_, tract_onnx::prelude::TractError>(node.get_attr_opt::<i64>(name)?.unwrap_or(default) == 1)
    };
    let reduce = Reduce {
        kind: match node.op_type.as_str() {
            "ReduceMax" => Kind::Max,
            "ReduceMin" => Kind::Min,
            _ => Kind::LogSumExp,
        },
        axes: node.get_attr_opt_vec("axes")?,
        keeps: is_set("keepdims", 1)?,
        is_noop: is_set("noop_with_empty_axes", 0)?,
        tracts: tracts_expansion(context, node)?,
    };
    Ok((through(Box::new(reduce), Types::BOOLEANS), Vec::new()))
}

impl Expansion for Reduce {
    fn name(&self) -> StaticName {
        Extreme::NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.tracts.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        let (element, rank) = (fact.datum_type, fact.rank());
        if !element.is_float() {
            return self.tracts.wire(prefix, model, inputs);
        }
        let given = match inputs.get(1) {
            Some(&axes) => Some(integers(model, axes)?.ok_or_else(|| format_err!("the axes are not constant"))?),
            None => self.axes.clone(),
        };
        let mut axes = match given.filter(|axes| !axes.is_empty()) {
            Some(axes) => axes.iter().map(|&number| axis(number, rank)).collect::<TractResult<Vec<_>>>()?,
            None if self.is_noop => Vec::new(),
            None => (0..rank).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let extreme = Extreme { kind: self.kind, axes: axes.clone() };
        let mut outputs = wire_floats(prefix, model, extreme, &inputs[..1], element)?;
        if !self.keeps {
            for axis in axes.into_iter().rev() {
                outputs = model.wire_node(format!("{prefix}.without.{axis}"), AxisOp::Rm(axis), &outputs)?;
            }
        }
        Ok(outputs)
    }
}

impl Evaluate for Extreme {
    const NAME: &'static str = "Extreme";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        self.axes.iter().for_each(|&axis| shape[axis] = 1.to_dim());
        Ok(tvec!(f32::fact(&*shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let mut shape = inputs[0].shape().to_vec();
        let mut values = inputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        for &axis in &self.axes {
            let lengths = around(&shape, axis);
            values = match self.kind {
                Kind::Max => extremes(&values, lengths, true),
                Kind::Min => extremes(&values, lengths, false),
                Kind::LogSumExp => log_sums(&values, lengths),
            };
            shape[axis] = 1;
        }
        Ok(tvec!(Tensor::from_shape(&shape, &values)?))
    }
}

/// The extremes along the middle of three axes.
fn extremes(values: &[f32], (before, length, behind): (usize, usize, usize), is_max: bool) -> Vec<f32> {
    let worst = if is_max { f32::NEG_INFINITY } else { f32::INFINITY };
    let better = |a: f32, b: f32| if (a < b) == is_max { b } else { a };
    if behind == 1 {
        let row = |row: &[f32]| row.iter().fold(worst, |best, &value| better(best, value));
        return (0..before).map(|at| row(&values[at * length..(at + 1) * length])).collect();
    }
    let mut best = vec![worst; before * behind];
    for (at, best) in best.chunks_mut(behind.max(1)).enumerate() {
        for row in values[at * length * behind..(at + 1) * length * behind].chunks(behind.max(1)) {
            best.iter_mut().zip(row).for_each(|(best, &value)| *best = better(*best, value));
        }
    }
    best
}

/// The logarithms of sums of exponentials along the middle of three axes.
fn log_sums(values: &[f32], lengths: (usize, usize, usize)) -> Vec<f32> {
    let (_, length, behind) = lengths;
    let mut sums = extremes(values, lengths, true);
    for (at, sum) in sums.iter_mut().enumerate().filter(|(_, most)| most.is_finite()) {
        let first = at / behind * length * behind + at % behind;
        let shares: f32 = (0..length).map(|row| (values[first + row * behind] - *sum).exp()).sum();
        *sum += shares.ln();
    }
    sums
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run, run_shaped};

    const VALUES: [f32; 6] = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY, 3.0, -5.0, 4.0];

    #[test]
    fn rows_of_infinities() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 3], &VALUES)];
        let of = |node: &str, axes: &str| run_shaped("float[2,3] x", axes, node, &values);
        let last = "int64[1] a = {-1}";
        assert_eq!(of("y = ReduceMax (x, a)", last), (vec![2, 1], vec![f32::NEG_INFINITY, 4.0]));
        assert_eq!(of("y = ReduceMin <keepdims = 0> (x, a)", last), (vec![2], vec![f32::NEG_INFINITY, -5.0]));
        assert_eq!(of("y = ReduceMax (x, a)", "int64[1] a = {0}"), (vec![1, 3], vec![3.0, -5.0, 4.0]));
        assert_eq!(of("y = ReduceMax <keepdims = 0> (x)", ""), (vec![], vec![4.0]));
        assert_eq!(of("n = Neg (x)\n y = ReduceMin (n, a)", last), (vec![2, 1], vec![f32::INFINITY, -4.0]));
    }

    #[test]
    fn sums_of_large_exponentials() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 2], &[200.0, 200.0, -1.0, 1.0])];
        let of = |axes: &str| run("float[2,2] x", axes, "y = ReduceLogSumExp (x, a)", &values);
        assert_close(&of("int64[1] a = {1}"), &[200.0 + 2.0_f32.ln(), 1.126_928]);
        assert_close(&of("int64[1] a = {0}"), &[200.0, 200.0]);
        assert_close(&of("int64[2] a = {0, 1}"), &[200.0 + 2.0_f32.ln()]);
    }

    #[test]
    fn booleans() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 3], &VALUES)];
        let of = |op: &str| {
            let node = format!("b = Less (x, one)\n r = {op} (b, a)\n y = Cast <to = 1> (r)");
            run("float[2,3] x", "float one = {1.0}, int64[1] a = {1}", &node, &values)
        };
        assert_eq!(of("ReduceMax"), [1.0, 1.0]);
        assert_eq!(of("ReduceMin"), [1.0, 0.0]);
    }
}
