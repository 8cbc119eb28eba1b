//! A layer computed by a kernel of this crate, as an operator of tract.

use crate::engine::EngineError;
use crate::kernels::product::Activation;
use std::fmt::Debug;
use tract_onnx::prelude::{Arc, DatumExt, PlainView, TValue, Tensor};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, Rewriter, StaticName, TVec, TractResult, TypedFact, TypedOp, as_op, op_as_typed_op,
    op_out_of_plan, tvec,
};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};

/// What computes a layer of floats.
pub(super) trait Kernel: Clone + Debug + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;

    /// Computes the output, which holds zeros before, from the inputs.
    fn run(&self, inputs: &[&[f32]], output: &mut [f32]);

    /// The function of every output.
    fn activation(&self) -> Activation;

    /// The kernel with another function of every output.
    fn with_activation(self, activation: Activation) -> Self;
}

/// The operator.
#[derive(Clone, Debug)]
pub(super) struct Own<K> {
    pub(super) kernel: Arc<K>,
    shape: TVec<usize>,
}

impl<K: Kernel> Own<K> {
    /// A layer whose output has this shape.
    pub(super) fn new(kernel: K, shape: &[usize]) -> Self {
        Self { kernel: Arc::new(kernel), shape: shape.into() }
    }

    /// The same layer by another kernel.
    pub(super) fn with(&self, change: impl FnOnce(K) -> K) -> Self {
        Self::new(change(K::clone(&self.kernel)), &self.shape)
    }
}

impl<K> PartialEq for Own<K> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.shape == other.shape
    }
}

impl<K> Eq for Own<K> {}

impl<K: Kernel> Op for Own<K> {
    fn name(&self) -> StaticName {
        K::NAME.into()
    }

    op_as_typed_op!();
}

impl<K: Kernel> EvalOp for Own<K> {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        let slices = plain.iter().map(PlainView::as_slice::<f32>).collect::<TractResult<TVec<_>>>()?;
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        self.kernel.run(&slices, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into()))
    }
}

impl<K: Kernel> TypedOp for Own<K> {
    as_op!();

    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&self.shape)))
    }
}

/// Offers every operator of one kind to a rule, until none changes.
pub(super) fn rewrite<O: Op>(
    model: &mut TypedModel,
    name: &'static str,
    rule: impl Fn(&TypedModel, &TypedNode, &O) -> TractResult<Option<TypedModelPatch>> + 'static,
) -> Result<(), EngineError> {
    let rule = move |(): &(), model: &TypedModel, node: &TypedNode, _: &str, op: &O| rule(model, node, op);
    Rewriter::default().with_rule_for::<O>(name, rule).rewrite(&(), model).map_err(EngineError::load)
}
