//! `ConvTranspose` with a given output shape or `SAME` padding.
//!
//! An axis of n positions, stride s, kernel k, dilation d and output padding a gives `(n − 1)·s + (k − 1)·d + 1 + a` sums, of
//! which the ends are cut off so that as many stay as the output shape says, or n·s: half at either end, the odd one in
//! front, but behind for `SAME_UPPER`. Where there are fewer sums, an output shape adds zeros behind, to which the bias is
//! added. tract 0.23 does not run all of these, and some it computes otherwise. What has explicit pads is left to it.

use super::{Built, tracts};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{OutletId, SpecialOps, TDim, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel, ensure, format_err};
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::cnn::{Deconv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{DimLike, Expansion, check_output_arity, expand};

/// The operator before shapes are known.
#[derive(Clone, Debug)]
struct Deconvolution {
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    added: Option<Vec<usize>>,
    lengths: Option<Vec<usize>>,
    is_upper: bool,
    group: usize,
}

/// What is cut off and added along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    before: usize,
    behind: usize,
    added: usize,
    length: usize,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let padding = node.get_attr_opt::<&str>("auto_pad")?.unwrap_or("NOTSET");
    let lengths: Option<Vec<usize>> = node.get_attr_opt_vec("output_shape")?;
    if lengths.is_none() && !padding.starts_with("SAME") {
        return tracts(context, node);
    }
    let deconvolution = Deconvolution {
        strides: node.get_attr_opt_vec("strides")?,
        dilations: node.get_attr_opt_vec("dilations")?,
        added: node.get_attr_opt_vec("output_padding")?,
        lengths,
        is_upper: padding == "SAME_UPPER",
        group: node.get_attr_opt("group")?.unwrap_or(1),
    };
    Ok((expand(deconvolution), Vec::new()))
}

impl Deconvolution {
    fn ends(&self, input: &[usize], kernel: &[usize]) -> TractResult<Vec<Ends>> {
        let of = |list: &Option<Vec<usize>>, axis: usize, default: usize| {
            list.as_ref().and_then(|list| list.get(axis).copied()).unwrap_or(default)
        };
        let ends = |(axis, (&n, &k)): (usize, (&usize, &usize))| {
            ensure!(n > 0 && k > 0, "a transposed convolution of nothing");
            let (stride, dilation) = (of(&self.strides, axis, 1), of(&self.dilations, axis, 1));
            let added = of(&self.added, axis, 0);
            let sums = (n - 1) * stride + (k - 1) * dilation + 1;
            let given = self.lengths.as_ref().map(|lengths| lengths[lengths.len().saturating_sub(input.len()) + axis]);
            let cut = (sums + added).saturating_sub(given.unwrap_or(n * stride));
            let (less, more) = (cut / 2, cut - cut / 2);
            let (before, behind) = if self.is_upper { (less, more) } else { (more, less) };
            let length = given.unwrap_or(sums + added - cut);
            Ok(Ends { before, behind, added: length + cut - sums, length })
        };
        if let Some(lengths) = &self.lengths {
            ensure!(lengths.len() >= input.len(), "an output shape of {} axes", lengths.len());
        }
        input.iter().zip(kernel).enumerate().map(ends).collect()
    }
}

/// The lengths of a shape, which are all known.
fn known(shape: &[TDim]) -> TractResult<Vec<usize>> {
    shape.iter().map(|length| Ok(length.to_usize()?)).collect()
}

impl Expansion for Deconvolution {
    fn name(&self) -> StaticName {
        "ConvTranspose".into()
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
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, x, kernel| {
            ensure!(x.len() >= 2 && x.len() == kernel.len(), "axes of a transposed convolution differ");
            solver.equals(&outputs[0].shape[1], kernel[1].clone() * self.group)?;
            let (Ok(x), Ok(kernel)) = (known(&x[2..]), known(&kernel[2..])) else { return Ok(()) };
            for (axis, ends) in self.ends(&x, &kernel)?.into_iter().enumerate() {
                solver.equals(&outputs[0].shape[axis + 2], TDim::from(ends.length))?;
            }
            Ok(())
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?.clone();
        let positions = known(&fact.shape[2..])?;
        let group = self.group;
        // The operator set has kernels of [groups·inputs, outputs, …], tract's operator those of [groups·outputs, inputs, …].
        let split = AxisOp::wire_split_axis(model, format!("{prefix}.split"), inputs[1], 0, group)?;
        let moved = model.wire_node(format!("{prefix}.moved"), AxisOp::Move(1, 2), &split)?;
        let kernel = AxisOp::wire_collapse_axis(model, format!("{prefix}.joined"), moved[0], 0)?;
        let lengths = model.outlet_fact(kernel[0])?.shape.as_concrete().map(<[usize]>::to_vec);
        let lengths = lengths.ok_or_else(|| format_err!("the shape of the kernel is open"))?;
        let bias = match inputs.get(2) {
            Some(&bias) => bias,
            None => model.add_const(format!("{prefix}.bias"), Tensor::zero_scalar_dt(fact.datum_type)?)?,
        };
        let ends = self.ends(&positions, &lengths[2..])?;
        let of = |end: fn(&Ends) -> usize| ends.iter().map(end).collect::<TVec<usize>>();
        let pool = PoolSpec::new(
            DataFormat::NCHW,
            lengths[2..].into(),
            PaddingSpec::Explicit(of(|ends| ends.before), of(|ends| ends.behind)),
            self.dilations.clone().map(TVec::from),
            self.strides.clone().map(TVec::from),
            KernelFormat::OIHW.input_channels(&lengths, group).into_owned(),
            KernelFormat::OIHW.output_channels(&lengths, group).into_owned(),
        );
        let operator = Deconv::new(pool, KernelFormat::OIHW, of(|ends| ends.added), group);
        model.wire_node(prefix, operator, &[inputs[0], kernel[0], bias])
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run_shaped;

    #[track_caller]
    fn check(attributes: &str, expected: &[f32]) {
        let node = format!("y = ConvTranspose <{attributes}> (x, w)");
        let kernel = "float[1,1,3] w = {1.0, 10.0, 100.0}";
        let (shape, y) = run_shaped("float[1,1,4] x", kernel, &node, &[(&[1, 1, 4], &[1.0; 4])]);
        assert_eq!(shape, [1, 1, expected.len()], "{attributes}");
        assert_eq!(y, expected, "{attributes}");
    }

    /// The numbers are onnxruntime's.
    #[test]
    fn output_shapes() {
        check("strides = [2], output_shape = [6]", &[101.0, 10.0, 101.0, 10.0, 101.0, 10.0]);
        check("strides = [2], output_shape = [6], pads = [1, 1]", &[101.0, 10.0, 101.0, 10.0, 101.0, 10.0]);
        check("strides = [2], output_shape = [6], auto_pad = \"SAME_UPPER\"", &[10.0, 101.0, 10.0, 101.0, 10.0, 101.0]);
        check("strides = [2], output_shape = [5]", &[101.0, 10.0, 101.0, 10.0, 101.0]);
        let long = [1.0, 10.0, 101.0, 10.0, 101.0, 10.0, 101.0, 10.0, 100.0, 0.0];
        check("strides = [2], output_shape = [10]", &long);
    }

    /// The numbers are onnxruntime's.
    #[test]
    fn same_padding() {
        check("strides = [2], auto_pad = \"SAME_UPPER\"", &[1.0, 10.0, 101.0, 10.0, 101.0, 10.0, 101.0, 10.0]);
        check("strides = [2], auto_pad = \"SAME_LOWER\"", &[10.0, 101.0, 10.0, 101.0, 10.0, 101.0, 10.0, 100.0]);
        let both = [10.0, 101.0, 10.0, 101.0, 10.0, 101.0, 10.0, 100.0];
        check("strides = [2], auto_pad = \"SAME_UPPER\", output_padding = [1]", &both);
        let gaps = [1.0, 10.0, 100.0, 0.0, 1.0, 10.0, 100.0, 0.0, 1.0, 10.0, 100.0, 0.0, 1.0, 10.0, 100.0];
        check("strides = [4], auto_pad = \"SAME_UPPER\"", &gaps);
    }
}
