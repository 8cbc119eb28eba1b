//! `MaxPool` and `AveragePool` whose kernels are dilated and whose padding is `SAME`.
//!
//! onnxruntime pads by the length of the kernel without dilation, `(⌈n/stride⌉ − 1)·stride + kernel − n`, and gives as many
//! results as dilated kernels fit: so does what is written here as explicit pads. tract counts the dilation as well. All
//! other pools are left to it.

use super::{Built, tracts};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{OutletId, TDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel, ensure};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{DimLike, Expansion, check_output_arity, expand};
use tract_onnx::tract_hir::ops::cnn::{HirMaxPool, HirSumPool, PaddingSpec, PoolSpec};
use tract_onnx::tract_hir::ops::nn::DataFormat;

/// The operator before the length of the input is known.
#[derive(Clone, Debug)]
struct Pool {
    kernel: TVec<usize>,
    strides: TVec<usize>,
    dilations: TVec<usize>,
    is_upper: bool,
    /// Whether the mean counts pads; none for the maximum.
    mean: Option<bool>,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let padding = node.get_attr_opt::<&str>("auto_pad")?.unwrap_or("NOTSET");
    let dilations: Option<TVec<usize>> = node.get_attr_opt_tvec("dilations")?;
    let dilations = dilations.filter(|dilations| dilations.iter().any(|&dilation| dilation != 1));
    let (Some(dilations), true, 1) = (dilations, padding.starts_with("SAME"), node.output.len()) else {
        return tracts(context, node);
    };
    let kernel: TVec<usize> = node.get_attr_tvec("kernel_shape")?;
    let strides = node.get_attr_opt_tvec("strides")?.unwrap_or_else(|| kernel.iter().map(|_| 1).collect());
    ensure!(kernel.len() == dilations.len() && kernel.len() == strides.len(), "axes of a pool differ");
    let counts_pads = node.get_attr_opt("count_include_pad")?.unwrap_or(false);
    let mean = (node.op_type == "AveragePool").then_some(counts_pads);
    Ok((expand(Pool { kernel, strides, dilations, is_upper: padding == "SAME_UPPER", mean }), Vec::new()))
}

impl Pool {
    /// The same pool with pads for an input of this shape.
    fn padded(&self, shape: &[TDim]) -> TractResult<Box<dyn Expansion>> {
        ensure!(shape.len() == self.kernel.len() + 2, "a pool of {} axes", self.kernel.len());
        let (mut before, mut behind) = (TVec::new(), TVec::new());
        for (axis, length) in shape[2..].iter().enumerate() {
            let (length, stride) = (length.to_usize()?, self.strides[axis]);
            let pads = ((length.div_ceil(stride) - 1) * stride + self.kernel[axis]).saturating_sub(length);
            let (less, more) = (pads / 2, pads - pads / 2);
            before.push(if self.is_upper { less } else { more });
            behind.push(if self.is_upper { more } else { less });
        }
        let padding = PaddingSpec::ExplicitOnnxPool(before, behind, false);
        let (dilations, strides) = (Some(self.dilations.clone()), Some(self.strides.clone()));
        let pool = PoolSpec::new(DataFormat::NCHW, self.kernel.clone(), padding, dilations, strides, 0, 0);
        Ok(match self.mean {
            Some(counts_pads) => Box::new(HirSumPool::new(pool, counts_pads, true)),
            None => Box::new(HirMaxPool::new(pool, None)),
        })
    }
}

impl Expansion for Pool {
    fn name(&self) -> StaticName {
        "Pool".into()
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
        solver.equals(&inputs[0].shape[0], &outputs[0].shape[0])?;
        solver.equals(&inputs[0].shape[1], &outputs[0].shape[1])
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.to_tvec();
        self.padded(&shape)?.wire(prefix, model, inputs)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run_shaped;

    #[track_caller]
    fn check(node: &str, expected: &[f32]) {
        let x: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let (shape, y) = run_shaped("float[1,1,12] x", "", node, &[(&[1, 1, 12], &x)]);
        assert_eq!(shape, [1, 1, expected.len()]);
        assert_eq!(y, expected, "{node}");
    }

    /// The numbers are onnxruntime's.
    #[test]
    fn dilated_kernels_with_same_padding() {
        let same = |op: &str, end: &str, rest: &str| {
            format!("y = {op} <kernel_shape = [3], auto_pad = \"SAME_{end}\", {rest}> (x)")
        };
        let two = "strides = [2], dilations = [2]";
        check(&same("MaxPool", "UPPER", two), &[4.0, 6.0, 8.0, 10.0, 10.0]);
        check(&same("AveragePool", "UPPER", two), &[2.0, 4.0, 6.0, 8.0, 9.0]);
        check(&same("MaxPool", "LOWER", two), &[3.0, 5.0, 7.0, 9.0, 11.0]);
        check(&same("AveragePool", "LOWER", two), &[2.0, 3.0, 5.0, 7.0, 9.0]);
        check(&same("MaxPool", "UPPER", "strides = [3], dilations = [3]"), &[6.0, 9.0]);
        check(&same("MaxPool", "UPPER", "dilations = [2]"), &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 10.0]);
    }
}
