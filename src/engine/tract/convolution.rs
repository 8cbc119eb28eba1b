//! Convolutions by kernels of our own.
//!
//! Where all of a convolution is known (floats, constant weights and bias, a fixed shape, rows of channels, one or two
//! spatial axes), an operator that holds the packed weights takes its place before tract rewrites it. Functions of every
//! element right behind it become part of it: see `activation`.

use super::activation;
use super::own::{Kernel, Own, rewrite};
use super::typed::constant;
use crate::engine::EngineError;
use crate::kernels::convolution::{Axis, Convolution, Scratch, Window};
use crate::kernels::product::Activation;
use std::cell::RefCell;
use tract_onnx::prelude::Datum;
use tract_onnx::tract_core::internal::TractResult;
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::math::{Max, Min};
use tract_onnx::tract_core::ops::nn::DataFormat;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Kernel for Convolution {
    const NAME: &'static str = "OwnConvolution";

    /// Sample by sample.
    fn run(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let window = self.window();
        SCRATCH.with_borrow_mut(|scratch| {
            let outputs = output.chunks_exact_mut(window.output_len());
            let samples = inputs.iter().flat_map(|input| input.chunks_exact(window.input_len())).zip(outputs);
            samples.for_each(|(from, to)| self.run(from, to, scratch));
        });
    }

    fn activation(&self) -> Activation {
        self.activation()
    }

    fn with_activation(self, activation: Activation) -> Self {
        self.with_activation(activation)
    }
}

/// Replaces the convolutions of a model that is not yet decluttered.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "own-convolution", replaced)
}

/// Takes functions behind convolutions into them.
pub(super) fn fuse(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite::<Own<Convolution>>(model, "activation", activation::fused)
}

fn replaced(model: &TypedModel, node: &TypedNode, op: &Conv) -> TractResult<Option<TypedModelPatch>> {
    let input = model.outlet_fact(node.inputs[0])?;
    let plain = op.q_params.is_none()
        && op.pool_spec.data_format == DataFormat::NCHW
        && op.kernel_fmt == KernelFormat::OIHW
        && input.datum_type == f32::datum_type();
    let Some(shape) = input.shape.as_concrete().filter(|_| plain && node.inputs.len() == 3) else { return Ok(None) };
    if scaled_behind(model, node)? {
        return Ok(None);
    }
    let spec = &op.pool_spec;
    let padding = spec.computed_padding(&shape[2..]);
    let axis = |at: usize| Axis {
        input: shape[2 + at],
        output: padding[at].convoluted,
        kernel: spec.kernel_shape[at],
        stride: spec.stride(at),
        dilation: spec.dilation(at),
        before: padding[at].pad_before,
    };
    let axes = match spec.rank() {
        1 => [Axis::SINGLE, axis(0)],
        2 => [axis(0), axis(1)],
        _ => return Ok(None),
    };
    let window = Window { inputs: shape[1], outputs: spec.output_channels, groups: op.group, axes };
    let (Some(weights), Some(bias)) = (constant(model, node, 1)?, constant(model, node, 2)?) else { return Ok(None) };
    let bias = if bias.len() == 1 { vec![bias[0]; window.outputs] } else { bias };
    let output = model.outlet_fact(node.id.into())?;
    let Some(shape) = output.shape.as_concrete() else { return Ok(None) };
    let Some(layer) = Convolution::new(window, &weights, bias) else { return Ok(None) };
    TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], Own::new(layer, shape)).map(Some)
}

/// Whether what reads a convolution is arithmetic with one constant per channel, which tract folds into the weights.
fn scaled_behind(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    let Some(next) = model.single_succ(node.id)?.filter(|_| !model.outputs.contains(&node.id.into())) else {
        return Ok(false);
    };
    let Some(op) = next.op_as::<TypedBinOp>() else { return Ok(false) };
    if op.0.is::<Max>() || op.0.is::<Min>() {
        return Ok(false);
    }
    let mut others = next.inputs.iter().filter(|input| input.node != node.id);
    Ok(others.all(|&input| model.outlet_fact(input).is_ok_and(|fact| fact.konst.is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::tract_ndarray::ArrayD;
    use tract_onnx::prelude::{DatumExt, IntoTensor, OutletId, Tensor};
    use tract_onnx::tract_core::internal::{IntoRunnable, SpecialOps, tvec};
    use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};
    use tract_onnx::tract_core::ops::{math, nn};

    fn tensor(shape: &[usize], seed: u32) -> Tensor {
        let count = shape.iter().product::<usize>() as u32;
        let mixed = (0..count).map(|at| (at + 977 * seed).wrapping_mul(2_654_435_761).rotate_left(11) >> 8);
        let values = mixed.map(|v| v as f32 / (1 << 23) as f32 - 1.0).collect();
        ArrayD::from_shape_vec(shape, values).unwrap().into_tensor()
    }

    /// What stands behind a convolution.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Tail {
        Nothing,
        Bounds,
        Silu,
        HardSwish,
    }

    fn model(
        input: &[usize],
        kernel: &[usize],
        group: usize,
        change: impl Fn(&mut PoolSpec),
        tail: Tail,
    ) -> TypedModel {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(input)).unwrap();
        let weights = model.add_const("weights", tensor(kernel, 1)).unwrap();
        let bias = model.add_const("bias", tensor(&kernel[..1], 2)).unwrap();
        let mut pool_spec = PoolSpec {
            kernel_shape: kernel[2..].into(),
            input_channels: input[1],
            output_channels: kernel[0],
            ..PoolSpec::default()
        };
        change(&mut pool_spec);
        let conv = Conv { pool_spec, kernel_fmt: KernelFormat::OIHW, group, q_params: None };
        let conv = model.wire_node("conv", conv, &[x, weights, bias]).unwrap()[0];
        let scalar = |model: &mut TypedModel, name: &str, op: TypedBinOp, wire: OutletId, value: f32| {
            let value = tract_onnx::prelude::tensor1(&[value]).into_shape(&vec![1; input.len()]).unwrap();
            let value = model.add_const(format!("{name}.value"), value).unwrap();
            model.wire_node(name, op, &[wire, value]).unwrap()[0]
        };
        let output = match tail {
            Tail::Nothing => conv,
            Tail::Bounds => {
                let low = scalar(&mut model, "low", math::max(), conv, 0.0);
                scalar(&mut model, "high", math::min(), low, 1.0)
            }
            Tail::Silu => {
                let gate = model.wire_node("gate", nn::sigmoid(), &[conv]).unwrap()[0];
                model.wire_node("product", math::mul(), &[conv, gate]).unwrap()[0]
            }
            Tail::HardSwish => {
                let sum = scalar(&mut model, "sum", math::add(), conv, 0.5);
                let low = scalar(&mut model, "low", math::max(), sum, 0.0);
                let high = scalar(&mut model, "high", math::min(), low, 1.0);
                let product = model.wire_node("product", math::mul(), &[high, conv]).unwrap()[0];
                let scaled = scalar(&mut model, "scaled", math::mul(), product, 0.25);
                scalar(&mut model, "moved", math::add(), scaled, -0.5)
            }
        };
        model.select_output_outlets(&[output]).unwrap();
        model
    }

    fn run(model: TypedModel, input: &[usize]) -> Vec<f32> {
        let model = model.into_optimized().unwrap().into_runnable().unwrap();
        let outputs = model.run(tvec!(tensor(input, 3).into())).unwrap();
        outputs[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    fn own(mut model: TypedModel) -> TypedModel {
        replace(&mut model).unwrap();
        let mut model = model.into_decluttered().unwrap();
        fuse(&mut model).unwrap();
        model
    }

    #[track_caller]
    fn agrees(input: &[usize], kernel: &[usize], group: usize, change: impl Fn(&mut PoolSpec)) {
        for tail in [Tail::Nothing, Tail::Bounds, Tail::Silu, Tail::HardSwish] {
            let plain = model(input, kernel, group, &change, tail);
            let replaced = own(plain.clone());
            let names: Vec<_> = replaced.nodes.iter().map(|node| node.op.name()).collect();
            assert_eq!(names, ["Source", "OwnConvolution"], "{input:?} {kernel:?} {tail:?}");
            let (wanted, found) = (run(plain, input), run(replaced, input));
            assert_eq!(wanted.len(), found.len());
            let wrong = wanted.iter().zip(&found).find(|(a, b)| (*a - *b).abs() > 1e-5 * a.abs().max(1.0));
            assert!(wrong.is_none(), "{input:?} {kernel:?}: {wrong:?}");
        }
    }

    #[test]
    fn agrees_with_tract() {
        let padded = |before: &[usize], after: &[usize]| PaddingSpec::Explicit(before.into(), after.into());
        agrees(&[1, 5, 9, 11], &[7, 5, 3, 3], 1, |_| {});
        agrees(&[1, 5, 9, 11], &[7, 5, 3, 3], 1, |spec| spec.padding = padded(&[1, 0], &[0, 2]));
        agrees(&[3, 4, 12, 7], &[8, 4, 1, 1], 1, |_| {});
        agrees(&[1, 40, 7, 7], &[50, 40, 1, 1], 1, |_| {});
        agrees(&[1, 3, 33, 32], &[16, 3, 3, 3], 1, |spec| {
            spec.strides = Some(tvec![2, 2]);
            spec.padding = PaddingSpec::SameUpper;
        });
        agrees(&[2, 6, 13, 9], &[6, 1, 5, 3], 6, |spec| {
            spec.strides = Some(tvec![1, 2]);
            spec.padding = padded(&[2, 1], &[2, 1]);
        });
        agrees(&[1, 6, 13, 9], &[12, 1, 3, 3], 6, |_| {});
        agrees(&[1, 8, 9, 9], &[12, 2, 3, 3], 4, |spec| spec.dilations = Some(tvec![2, 1]));
        agrees(&[2, 4, 50], &[6, 4, 5], 1, |spec| spec.strides = Some(tvec![3]));
        agrees(&[1, 4, 50], &[4, 1, 7], 4, |spec| spec.padding = padded(&[3], &[3]));
        agrees(&[1, 4, 8, 8], &[6, 4, 1, 1], 1, |spec| spec.strides = Some(tvec![2, 2]));
    }

    #[test]
    fn what_is_computed_or_folded_stays_with_tract() {
        let mut folded = model(&[1, 4, 8, 8], &[6, 4, 3, 3], 1, |_| {}, Tail::Nothing);
        let output = folded.output_outlets().unwrap()[0];
        let scale = folded.add_const("scale", tensor(&[1, 6, 1, 1], 5)).unwrap();
        let scaled = folded.wire_node("scaled", math::mul(), &[output, scale]).unwrap();
        folded.select_output_outlets(&scaled).unwrap();
        let has = |model: &TypedModel| model.nodes.iter().any(TypedNode::op_is::<Own<Convolution>>);
        assert!(!has(&own(folded)));
        let volume = model(&[1, 2, 4, 4, 4], &[3, 2, 2, 2, 2], 1, |_| {}, Tail::Nothing);
        assert!(!has(&own(volume)));
    }

    /// A bound that something else sees the other side of stays an operator.
    #[test]
    fn a_value_that_is_read_twice_is_not_bounded() {
        let mut model = model(&[1, 4, 8, 8], &[6, 4, 3, 3], 1, |_| {}, Tail::Bounds);
        let conv = model.node_by_name("conv").unwrap().id;
        let high = model.output_outlets().unwrap()[0];
        model.select_output_outlets(&[high, conv.into()]).unwrap();
        let found = run(own(model.clone()), &[1, 4, 8, 8]);
        assert!(found.iter().all(|v| (0.0..=1.0).contains(v)));
        let names: Vec<_> = own(model).nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(names.iter().filter(|name| *name == "OwnConvolution").count(), 1);
        assert!(names.len() > 2, "{names:?}");
    }
}
