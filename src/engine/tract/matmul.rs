//! Products of two tensors by kernels of our own.
//!
//! What tract's simplification leaves as sums of products over axes becomes, where all is floats of fixed shapes, an
//! operator that holds its constant operand packed. A constant that is added right behind it becomes part of it where
//! nothing else reads what lies between, and so do functions of every element: see `activation`.

use super::activation;
use super::own::{Kernel, Own, rewrite};
use super::typed::{behind, constant, other_input};
use crate::engine::EngineError;
use crate::kernels::matmul::{Addend, Axis, MatMul, Scratch};
use crate::kernels::product::Activation;
use std::cell::RefCell;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::internal::{Axis as TractAxis, TVec, TractResult, TypedFact};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math::Add;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The kernel. Its inputs are the operands that are not constant.
#[derive(Clone, Debug)]
struct Given {
    product: MatMul,
    /// Which operands are inputs.
    given: [bool; 2],
}

impl Kernel for Given {
    const NAME: &'static str = "OwnMatMul";

    fn run(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let mut inputs = inputs.iter().copied();
        let operands = self.given.map(|given| given.then(|| inputs.next()).flatten().unwrap_or(&[]));
        SCRATCH.with_borrow_mut(|scratch| self.product.run(operands, output, scratch));
    }

    fn activation(&self) -> Activation {
        self.product.activation()
    }

    fn with_activation(self, activation: Activation) -> Self {
        Self { product: self.product.with_activation(activation), ..self }
    }
}

/// Replaces the products of a simplified model, and takes what stands behind them into them.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "own-matmul", replaced)?;
    rewrite(model, "bias-and-activation", fused)
}

fn replaced(model: &TypedModel, node: &TypedNode, op: &EinSum) -> TractResult<Option<TypedModelPatch>> {
    let is_float = |fact: &TypedFact| fact.datum_type == DatumType::F32 && !fact.is_exotic();
    let (inputs, results) = model.node_facts(node.id)?;
    let plain = op.q_params.is_none() && inputs.len() == 2 && inputs.iter().chain(&results).all(|fact| is_float(fact));
    let shapes = inputs.iter().chain(&results).map(|fact| fact.shape.as_concrete()).collect::<Option<TVec<_>>>();
    let Some(shapes) = shapes.filter(|_| plain) else { return Ok(None) };
    let Some(axes) = op.axes.iter_all_axes().map(|axis| product_axis(axis, &shapes)).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let constants = [constant(model, node, 0)?, constant(model, node, 1)?];
    let given = [constants[0].is_none(), constants[1].is_none()];
    let [left, right] = &constants;
    let Some(product) = MatMul::new(&axes, [left.as_deref(), right.as_deref()]) else { return Ok(None) };
    let own = Own::new(Given { product, given }, shapes[2]);
    let inputs: TVec<_> = node.inputs.iter().zip(given).filter(|(_, given)| *given).map(|(input, _)| *input).collect();
    TypedModelPatch::replace_single_op(model, node, &inputs, own).map(Some)
}

/// Length and strides of an axis; `None` where it is a diagonal of a tensor.
fn product_axis(axis: &TractAxis, shapes: &[&[usize]]) -> Option<Axis> {
    let mut length = 1;
    let mut strides = [0; 3];
    for ((places, shape), stride) in axis.inputs.iter().chain(&axis.outputs).zip(shapes).zip(&mut strides) {
        match places[..] {
            [] => {}
            [at] if shape[at] == 1 => {}
            [at] => (length, *stride) = (shape[at], shape[at + 1..].iter().product()),
            _ => return None,
        }
    }
    let [left, right, output] = strides;
    // A sum over what one operand does not have is one of more terms than products, one over nothing is none.
    let summed_alone = output == 0 && length > 1 && (left == 0 || right == 0);
    (!summed_alone && length > 0).then_some(Axis { length, left, right, output })
}

fn fused(model: &TypedModel, node: &TypedNode, op: &Own<Given>) -> TractResult<Option<TypedModelPatch>> {
    let product = behind(model, node)?.map(|next| with_addend(model, node, next, MatMul::clone(&op.kernel.product)));
    let Some(product) = product.transpose()?.flatten() else { return activation::fused(model, node, op) };
    TypedModelPatch::fuse_with_next(model, node, op.with(|given| Given { product, ..given })).map(Some)
}

/// The product with the constant that the node behind it adds.
fn with_addend(model: &TypedModel, node: &TypedNode, next: &TypedNode, product: MatMul) -> TractResult<Option<MatMul>> {
    let is_sum = next.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Add>());
    let Some(at) = other_input(node, next).filter(|_| is_sum) else { return Ok(None) };
    let Some(values) = constant(model, next, at)? else { return Ok(None) };
    let fact = model.outlet_fact(next.inputs[at])?;
    let (Some(small), Some(shape)) = (fact.shape.as_concrete(), model.outlet_fact(node.id.into())?.shape.as_concrete())
    else {
        return Ok(None);
    };
    let stride = |shape: &[usize], at: usize| shape[at + 1..].iter().product::<usize>();
    let axes = (0..shape.len()).filter(|&at| shape[at] > 1);
    let strides: Vec<_> =
        axes.map(|at| (stride(shape, at), if small[at] == 1 { 0 } else { stride(small, at) })).collect();
    Ok(product.with_bias(Addend { values: &values, strides: &strides }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tract_onnx::prelude::tract_ndarray::ArrayD;
    use tract_onnx::prelude::{DatumExt, IntoTensor, Tensor, tensor1};
    use tract_onnx::tract_core::internal::{AxesMapping, IntoRunnable, SpecialOps};
    use tract_onnx::tract_core::ops::math;

    fn tensor(shape: &[usize], seed: u32) -> Tensor {
        let count = shape.iter().product::<usize>() as u32;
        let mixed = (0..count).map(|at| (at + 977 * seed).wrapping_mul(2_654_435_761).rotate_left(11) >> 8);
        let values = mixed.map(|v| v as f32 / (1 << 23) as f32 - 1.0).collect();
        ArrayD::from_shape_vec(shape, values).unwrap().into_tensor()
    }

    /// A product whose right operand is `constant` or not, with a bias of one shape and a lower bound behind it.
    fn model(formula: &str, left: &[usize], right: &[usize], constant: bool, bias: Option<&[usize]>) -> TypedModel {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(left)).unwrap();
        let y = if constant {
            model.add_const("y", tensor(right, 1)).unwrap()
        } else {
            model.add_source("y", f32::fact(right)).unwrap()
        };
        let axes: AxesMapping = formula.parse().unwrap();
        let mut wire = model.wire_node("product", EinSum::new(axes, DatumType::F32), &[x, y]).unwrap()[0];
        if let Some(shape) = bias {
            let bias = model.add_const("bias", tensor(shape, 2)).unwrap();
            wire = model.wire_node("sum", math::add(), &[wire, bias]).unwrap()[0];
            let zero = tensor1(&[0.0_f32]).into_shape(&vec![1; shape.len()]).unwrap();
            let zero = model.add_const("zero", zero).unwrap();
            wire = model.wire_node("bound", math::max(), &[wire, zero]).unwrap()[0];
        }
        model.select_output_outlets(&[wire]).unwrap();
        model.into_decluttered().unwrap()
    }

    fn run(model: TypedModel) -> Vec<f32> {
        let shapes: Vec<Vec<usize>> = (0..model.inputs.len())
            .map(|at| model.input_fact(at).unwrap().shape.as_concrete().unwrap().to_vec())
            .collect();
        let model = model.into_optimized().unwrap().into_runnable().unwrap();
        let inputs = shapes.iter().enumerate().map(|(at, shape)| tensor(shape, 3 + at as u32).into()).collect();
        let outputs = model.run(inputs).unwrap();
        outputs[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    #[track_caller]
    fn agrees(formula: &str, left: &[usize], right: &[usize], biases: &[&[usize]]) {
        for constant in [false, true] {
            for bias in biases.iter().copied().map(Some).chain([None]) {
                let plain = model(formula, left, right, constant, bias);
                let mut own = plain.clone();
                replace(&mut own).unwrap();
                let names: Vec<_> = own.nodes.iter().map(|node| node.op.name()).collect();
                assert!(names.iter().all(|name| *name == "Source" || *name == "OwnMatMul"), "{formula} {names:?}");
                let (wanted, found) = (run(plain), run(own));
                assert_eq!(wanted.len(), found.len());
                let wrong = wanted.iter().zip(&found).find(|(a, b)| (*a - *b).abs() > 1e-5 * a.abs().max(1.0));
                assert!(wrong.is_none(), "{formula} {left:?} {right:?}: {wrong:?}");
            }
        }
    }

    #[test]
    fn agrees_with_tract() {
        agrees("mk,kn->mn", &[5, 9], &[9, 37], &[&[1, 37], &[5, 1], &[1, 1]]);
        agrees("mk,nk->mn", &[1, 9], &[70, 9], &[&[1, 70]]);
        agrees("km,kn->nm", &[9, 11], &[9, 13], &[&[13, 1]]);
        agrees("bmk,bkn->bmn", &[3, 5, 9], &[3, 9, 17], &[&[1, 1, 17]]);
        agrees("bmk,bkn->bmn", &[1, 5, 9], &[3, 9, 17], &[&[1, 5, 1]]);
        agrees("bmk,bkn->bmn", &[3, 5, 9], &[1, 9, 17], &[&[1, 1, 17]]);
        agrees("bmhk,bnhk->bhmn", &[2, 7, 3, 8], &[2, 19, 3, 8], &[]);
        agrees("bhmk,bkhn->bmhn", &[2, 3, 7, 8], &[2, 8, 3, 20], &[]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_tract_on_any_shape(m in 1..20_usize, k in 1..40_usize, n in 1..80_usize, b in 2..4_usize) {
            // One number per product of a batch: those stay with the engine.
            prop_assume!(m * n > 1);
            agrees("bmk,bkn->bmn", &[b, m, k], &[b, k, n], &[&[1, 1, n]]);
            agrees("mk,nk->mn", &[m, k], &[n, k], &[&[1, n]]);
        }
    }

    /// A bias that differs from product to product, and what something else reads, stay operators.
    #[test]
    fn other_sums_stay_operators() {
        let mut apart = model("bmk,bkn->bmn", &[3, 5, 9], &[3, 9, 17], true, Some(&[3, 1, 17]));
        let wanted = run(apart.clone());
        replace(&mut apart).unwrap();
        assert!(apart.nodes.iter().any(TypedNode::op_is::<TypedBinOp>));
        let found = run(apart);
        assert!(wanted.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5));
        let mut twice = model("mk,kn->mn", &[5, 9], &[9, 17], true, Some(&[1, 17]));
        let product = twice.nodes.iter().find(|node| node.op_is::<EinSum>()).unwrap().id;
        let last = twice.outputs[0];
        twice.select_output_outlets(&[last, product.into()]).unwrap();
        replace(&mut twice).unwrap();
        assert!(twice.nodes.iter().any(TypedNode::op_is::<TypedBinOp>));
    }
}
