//! Operators by indices: `OneHot`, `GatherND` and `ScatterND`. tract 0.23 stops at indices out of range and at negative ones.

use super::{Built, Evaluate, Evaluated, around, axis, integers, tracts, tracts_expansion};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{
    Arc, Datum, DatumExt, DatumType, DatumTypeExt, OutletId, SpecialOps, TDim, TValue, Tensor, ToDim, f16,
};
use tract_onnx::tract_core::internal::{
    StaticName, TVec, TractResult, TypedFact, TypedModel, dispatch_numbers, ensure, format_err, tvec,
};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{DimLike, Expansion, check_input_arity, check_output_arity, expand};

/// tract's operator with another way to wire it.
#[derive(Clone, Debug)]
struct Selection {
    tracts: Box<dyn Expansion>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    OneHot { axis: i64 },
    Indices { leading: usize },
}

pub(super) fn one_hot(context: &ParsingContext, node: &NodeProto) -> Built {
    let kind = Kind::OneHot { axis: node.get_attr_opt("axis")?.unwrap_or(-1) };
    Ok((expand(Selection { tracts: tracts_expansion(context, node)?, kind }), Vec::new()))
}

/// `GatherND` and `ScatterND`.
pub(super) fn indices(context: &ParsingContext, node: &NodeProto) -> Built {
    let leading = node.get_attr_opt("batch_dims")?.unwrap_or(0);
    let (built, _) = tracts(context, node)?;
    // `GatherND` is no expansion in tract: its rules are its own.
    let Some(tracts) = built.as_op().downcast_ref::<Box<dyn Expansion>>().cloned() else {
        return Ok((expand(GatherNd { leading }), Vec::new()));
    };
    Ok((expand(Selection { tracts, kind: Kind::Indices { leading } }), Vec::new()))
}

impl Expansion for Selection {
    fn name(&self) -> StaticName {
        self.tracts.name()
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
        match self.kind {
            Kind::Indices { leading } => {
                let mut inputs = inputs.to_vec();
                inputs[1] = wire_wrapped(prefix, model, inputs[0], inputs[1], leading)?;
                self.tracts.wire(prefix, model, &inputs)
            }
            Kind::OneHot { axis: number } => {
                let depth = integers(model, inputs[1])?.and_then(|depth| depth.first().copied());
                let depth = depth.ok_or_else(|| format_err!("the depth is not constant"))?;
                let values = model.outlet_fact(inputs[2])?.konst.clone();
                let values = values.ok_or_else(|| format_err!("on and off are not constant"))?;
                let axis = axis(number, model.outlet_fact(inputs[0])?.rank() + 1)?;
                let element = values.datum_type();
                let values = Arc::new(values.cast_to_dt(super::computed(element))?.into_owned());
                let one_hot = OneHot { axis, depth: usize::try_from(depth)?, values };
                let indices = wire_cast(format!("{prefix}.indices"), model, &inputs[..1], DatumType::I64)?;
                super::wire_back(prefix, model, Evaluated(one_hot), &indices, element)
            }
        }
    }
}

/// Indices of the first axes of data, of which negative ones count from the end.
fn wire_wrapped(
    prefix: &str,
    model: &mut TypedModel,
    data: OutletId,
    indices: OutletId,
    leading: usize,
) -> TractResult<OutletId> {
    let indices = wire_cast(format!("{prefix}.integers"), model, &[indices], DatumType::I64)?;
    let constant = model.outlet_fact(indices[0])?.konst.clone();
    if let Some(constant) = constant {
        let plain = constant.try_as_plain_ram()?;
        if plain.as_slice::<i64>()?.iter().all(|&index| index >= 0) {
            return Ok(indices[0]);
        }
    }
    Ok(model.wire_node(format!("{prefix}.wrapped"), Evaluated(Wrapped { leading }), &[indices[0], data])?[0])
}

/// Indices, with negative ones counted from the end of the axes of the second input.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrapped {
    /// Axes of the data that are not indexed.
    leading: usize,
}

impl Evaluate for Wrapped {
    const NAME: &'static str = "Wrapped";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(i64::fact(&*inputs[0].shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let lengths = &inputs[1].shape()[self.leading..];
        let plain = inputs[0].try_as_plain_ram()?;
        let mut indices = plain.as_slice::<i64>()?.to_vec();
        let count = inputs[0].shape().last().copied().unwrap_or(1).max(1);
        ensure!(count <= lengths.len(), "an index of {count} axes of {}", lengths.len());
        for (at, index) in indices.iter_mut().enumerate() {
            let length = i64::try_from(lengths[at % count])?;
            ensure!((-length..length).contains(index), "index {index} of {length}");
            *index = if *index < 0 { *index + length } else { *index };
        }
        Ok(tvec!(Tensor::from_shape(inputs[0].shape(), &indices)?))
    }
}

/// `GatherND` before shapes are known.
#[derive(Clone, Debug)]
struct GatherNd {
    leading: usize,
}

impl Expansion for GatherNd {
    fn name(&self) -> StaticName {
        "GatherNd".into()
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
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, data, indices| {
            let Some((count, kept)) = indices.split_last() else { return Ok(()) };
            let Ok(count) = count.to_usize() else { return Ok(()) };
            let from = count + self.leading;
            ensure!(from <= data.len(), "an index of {from} axes of {}", data.len());
            let shape: TVec<TDim> = kept.iter().chain(&data[from..]).cloned().collect();
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let indices = wire_wrapped(prefix, model, inputs[0], inputs[1], self.leading)?;
        let gather = tract_onnx::tract_core::ops::array::GatherNd::new(self.leading);
        model.wire_node(prefix, gather, &[inputs[0], indices])
    }
}

/// Ones where an index says, of which those out of range say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OneHot {
    axis: usize,
    depth: usize,
    /// Off and on.
    values: Arc<Tensor>,
}

impl OneHot {
    fn fill<T: Datum + Copy>(&self, indices: &Tensor) -> TractResult<Tensor> {
        let [off, on] = *self.values.try_as_plain_ram()?.as_slice::<T>()? else {
            return Err(format_err!("off and on are not two values"));
        };
        let mut shape = indices.shape().to_vec();
        shape.insert(self.axis, self.depth);
        let (before, depth, behind) = around(&shape, self.axis);
        let mut values = vec![off; before * depth * behind];
        let plain = indices.try_as_plain_ram()?;
        let length = i64::try_from(depth)?;
        for (at, &index) in plain.as_slice::<i64>()?.iter().enumerate() {
            if (-length..length).contains(&index) {
                let place = usize::try_from(index.rem_euclid(length))?;
                values[(at / behind * depth + place) * behind + at % behind] = on;
            }
        }
        Tensor::from_shape(&shape, &values)
    }
}

impl Evaluate for OneHot {
    const NAME: &'static str = "OneHot";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        shape.insert(self.axis, self.depth.to_dim());
        Ok(tvec!(self.values.datum_type().fact(&*shape)))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let element = self.values.datum_type();
        Ok(tvec!(dispatch_numbers!(Self::fill(element)(self, &inputs[0]))?))
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{run, run_shaped};

    const SIX: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn one_hot_out_of_range() {
        let constants = "int64 d = {3}, float[2] v = {9.0, 1.0}";
        let node = "i = Cast <to = 7> (x)\n y = OneHot (i, d, v)";
        let values: [(&[usize], &[f32]); 1] = [(&[4], &[-4.0, -1.0, 1.0, 3.0])];
        let (shape, y) = run_shaped("float[4] x", constants, node, &values);
        assert_eq!(shape, [4, 3]);
        assert_eq!(y, [9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 1.0, 9.0, 9.0, 9.0, 9.0]);
        let node = "i = Cast <to = 7> (x)\n y = OneHot <axis = 0> (i, d, v)";
        let (shape, y) = run_shaped("float[4] x", constants, node, &values);
        assert_eq!(shape, [3, 4]);
        assert_eq!(y, [9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0, 9.0]);
    }

    #[test]
    fn negative_indices() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 3], &SIX)];
        let constants = "int64[2,2] i = {0, -1, -1, 0}, float[2] u = {7.0, 8.0}";
        assert_eq!(run("float[2,3] x", constants, "y = GatherND (x, i)", &values), [3.0, 4.0]);
        let scattered = run("float[2,3] x", constants, "y = ScatterND (x, i, u)", &values);
        assert_eq!(scattered, [1.0, 2.0, 7.0, 8.0, 5.0, 6.0]);
        let batched = "int64[2,1] i = {-1, 1}";
        assert_eq!(run("float[2,3] x", batched, "y = GatherND <batch_dims = 1> (x, i)", &values), [3.0, 5.0]);
    }
}
