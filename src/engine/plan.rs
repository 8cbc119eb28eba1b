//! Plans and sessions.

use super::contained::contained;
use super::tensor::{Output, to_tract};
use super::{EngineError, load};
use crate::data::Array;
use msq_passes::ir::Model;
use tract_onnx::prelude::{Arc, InferenceFact, TValue};
use tract_onnx::tract_core::internal::{TVec, TypedSimplePlan, TypedSimpleState};

/// A model optimized for one set of input shapes. Cheap to clone; sessions of all threads share it.
#[derive(Clone, Debug)]
pub struct Plan {
    plan: Arc<TypedSimplePlan>,
    outputs: usize,
}

impl Plan {
    /// Optimizes a model for runtime inputs of these shapes, in the model's order. Its graph outputs, taps among them,
    /// are the plan's outputs in the same order.
    pub fn build(model: &Model, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        contained(|| Self::built(model, shapes), |reason| EngineError::Load { reason })
    }

    fn built(model: &Model, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        load::check(model)?;
        let mut loaded = load::load(model)?;
        for (index, (value, shape)) in model.graph.runtime_inputs().zip(shapes).enumerate() {
            let element = model.graph.value(value).element_type();
            let fact = match element.and_then(super::tensor::datum_type) {
                Some(datum) => InferenceFact::dt_shape(datum, shape),
                None => InferenceFact::shape(shape),
            };
            loaded.model.set_input_fact(index, fact).map_err(EngineError::load)?;
        }
        let typed = load::optimize(loaded.model)?;
        let outputs = model.graph.outputs().len();
        let plan = TypedSimplePlan::new(typed).map_err(EngineError::load)?;
        Ok(Self { plan, outputs })
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// A session of this plan, for one thread.
    pub fn session(&self) -> Result<Session, EngineError> {
        Ok(Session { state: self.state()?, plan: self.clone() })
    }

    fn state(&self) -> Result<TypedSimpleState, EngineError> {
        let state = || TypedSimpleState::new(&self.plan).map_err(EngineError::run);
        contained(state, |reason| EngineError::Run { reason })
    }
}

/// A plan being run by one thread.
#[derive(Clone, Debug)]
pub struct Session {
    plan: Plan,
    state: TypedSimpleState,
}

impl Session {
    /// Runs the model once on the runtime inputs in their order. Nothing is left of the runs before. After an error the
    /// session is of no use.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        // A recurrent layer would go on from where it was.
        if self.state.op_states.iter().any(Option::is_some) {
            self.state = self.plan.state()?;
        }
        let inputs: Result<TVec<TValue>, EngineError> =
            inputs.iter().map(|array| Ok(to_tract(array)?.into())).collect();
        let inputs = inputs?;
        let run = || self.state.run(inputs).map_err(EngineError::run);
        let outputs = contained(run, |reason| EngineError::Run { reason })?;
        Ok(outputs.into_iter().map(Output::new).collect())
    }
}
