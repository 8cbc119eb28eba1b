//! tract's rewrites, with a bound: there are networks for which one of its rules undoes what another one did, and it would
//! go on for ever. And there are nodes for which one of its rules ends with an error, such as a `Slice` with steps behind a
//! `Reshape`: they stay as they are, which computes the same.

use crate::engine::EngineError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_onnx::tract_core::internal::{TractResult, TypedOp, bail};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch, TypedNode};
use tract_onnx::tract_core::ops::dummy::Dummy;
use tract_onnx::tract_core::optim::{Optimizer, OptimizerSession, TypedPass};

/// Rewrites that any network may take, and for each of its nodes: several times what the largest take.
const ANY: usize = 2_000;
const EACH: usize = 100;

/// Brings a network into few forms.
pub(super) fn declutter(model: &mut TypedModel) -> Result<(), EngineError> {
    bounded(Optimizer::declutter(), model).session().optimize(model).map_err(EngineError::load)
}

/// Chooses how every operator of such a network is computed.
pub(super) fn generate(model: &mut TypedModel) -> Result<(), EngineError> {
    let optimizer = bounded(Optimizer::codegen(), model);
    model.optimize_with_session(&mut optimizer.session()).map_err(EngineError::load)
}

fn bounded(mut optimizer: Optimizer, model: &TypedModel) -> Optimizer {
    let left = Arc::new(AtomicUsize::new(ANY + EACH * model.nodes.len()));
    let bound = |pass: Box<dyn TypedPass>| {
        let pass = Rules::of(&*pass).map_or(pass, |rules| Box::new(rules));
        Box::new(Bounded { pass, left: Arc::clone(&left) }) as Box<dyn TypedPass>
    };
    optimizer.passes = optimizer.passes.into_iter().map(bound).collect();
    optimizer
}

/// What operators know of how they are rewritten.
type Rule = fn(&dyn TypedOp, &mut OptimizerSession, &TypedModel, &TypedNode) -> TractResult<Option<TypedModelPatch>>;

/// A pass of tract over the nodes of a network, without the nodes that it ends with an error on.
#[derive(Clone, Debug)]
struct Rules {
    name: &'static str,
    rule: Rule,
    /// The first node to look at.
    next: usize,
}

impl Rules {
    /// The passes over nodes that tract's optimizers have, by their names.
    fn of(pass: &dyn TypedPass) -> Option<Self> {
        let rules: [(&str, Rule); 3] = [
            ("declutter", |op, session, model, node| op.declutter_with_session(session, model, node)),
            ("codegen", |op, _, model, node| op.codegen(model, node)),
            ("fuse", |op, _, model, node| op.fuse(model, node)),
        ];
        let own = format!("{pass:?}");
        rules.into_iter().find(|(name, _)| *name == own).map(|(name, rule)| Self { name, rule, next: 0 })
    }
}

impl TypedPass for Rules {
    fn reset(&mut self) -> TractResult<()> {
        self.next = 0;
        Ok(())
    }

    fn next(&mut self, session: &mut OptimizerSession, model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
        for node in model.nodes.iter().skip(self.next).filter(|node| !node.op_is::<Dummy>()) {
            match (self.rule)(node.op.as_ref(), session, model, node) {
                Ok(None) => {}
                Ok(Some(mut patch)) => {
                    patch.push_context(format!("{} {node}", self.name));
                    self.next = node.id + usize::from(patch.dont_apply_twice.is_some());
                    return Ok(Some(patch));
                }
                Err(error) => tracing::debug!(node = node.name, rule = self.name, %error, "stays as it is"),
            }
        }
        Ok(None)
    }
}

/// A pass of tract that ends with an error when too much was rewritten, by whichever pass.
#[derive(Clone, Debug)]
struct Bounded {
    pass: Box<dyn TypedPass>,
    left: Arc<AtomicUsize>,
}

impl TypedPass for Bounded {
    fn reset(&mut self) -> TractResult<()> {
        self.pass.reset()
    }

    fn next(&mut self, session: &mut OptimizerSession, model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
        let patch = self.pass.next(session, model)?;
        let one_less = |left: usize| left.checked_sub(1);
        if patch.is_some() && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            bail!("rewriting it does not come to an end");
        }
        Ok(patch)
    }

    fn run_direct(&mut self, model: &mut TypedModel) -> TractResult<bool> {
        self.pass.run_direct(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::{DatumExt, IntoRunnable, SpecialOps, Tensor, ToDim, tvec};
    use tract_onnx::tract_core::internal::AxisOp;
    use tract_onnx::tract_core::ops::Downsample;

    /// A pass that finds something to rewrite every time.
    #[derive(Clone, Debug)]
    struct Restless;

    impl TypedPass for Restless {
        fn reset(&mut self) -> TractResult<()> {
            Ok(())
        }

        fn next(&mut self, _: &mut OptimizerSession, _: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
            Ok(Some(TypedModelPatch::default()))
        }
    }

    /// tract would move the steps in front of a `Reshape` that has no such axis.
    #[test]
    fn steps_behind_a_reshape_stay() {
        let mut model = TypedModel::default();
        let input = model.add_source("x", f32::fact([4, 3])).unwrap();
        let parted = AxisOp::Reshape(0, tvec![4.to_dim()], tvec![2.to_dim(), 2.to_dim()]);
        let parted = model.wire_node("parted", parted, &[input]).unwrap();
        let stepped = model.wire_node("stepped", Downsample::new(1, 2, 1), &parted).unwrap();
        model.select_output_outlets(&stepped).unwrap();
        assert!(Optimizer::declutter().session().optimize(&mut model.clone()).is_err());
        declutter(&mut model).unwrap();
        generate(&mut model).unwrap();
        let values = Tensor::from_shape(&[4, 3], &[0_f32, 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]).unwrap();
        let found = model.into_runnable().unwrap().run(tvec![values.into()]).unwrap();
        let expected = Tensor::from_shape(&[2, 1, 3], &[3_f32, 4., 5., 9., 10., 11.]).unwrap();
        assert_eq!(*found[0], expected);
    }

    #[test]
    fn rewriting_comes_to_an_end() {
        let mut model = TypedModel::default();
        let input = model.add_source("x", f32::fact(tvec![4.to_dim()])).unwrap();
        model.select_output_outlets(&[input]).unwrap();
        let optimizer = Optimizer { passes: vec![Box::new(Restless)], steps: None };
        let error = bounded(optimizer, &model).session().optimize(&mut model).unwrap_err();
        assert!(format!("{error:#}").contains("does not come to an end"), "{error:#}");
        declutter(&mut model).unwrap();
        generate(&mut model).unwrap();
    }
}
