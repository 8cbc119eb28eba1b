//! tract's rewrites, with a bound: there are networks for which one of its rules undoes what another one did, and it would
//! go on for ever.

use crate::engine::EngineError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_onnx::tract_core::internal::{TractResult, bail};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch};
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
    let bound = |pass| Box::new(Bounded { pass, left: Arc::clone(&left) }) as Box<dyn TypedPass>;
    optimizer.passes = optimizer.passes.into_iter().map(bound).collect();
    optimizer
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
    use tract_onnx::prelude::{DatumExt, ToDim, tvec};

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
