//! Plans and sessions.

use super::load;
use super::tensor::{TractValue, datum_type, to_tract};
use crate::data::Array;
use crate::engine::contained::contained;
use crate::engine::{EngineError, Length, Output, Plan, Session};
use msq_passes::ir::Model;
use std::time::{Duration, Instant};
use tract_onnx::prelude::{Arc, InferenceFact, TDim, TValue, ToDim};
use tract_onnx::tract_core::internal::{TVec, TypedSimplePlan, TypedSimpleState};
use tract_onnx::tract_core::plan::eval;

/// A model optimized for its input shapes. Cheap to clone; sessions of all threads share it.
#[derive(Clone, Debug)]
pub(super) struct TractPlan(Arc<TypedSimplePlan>);

impl TractPlan {
    /// Optimizes a model for runtime inputs of these shapes, in the model's order. Its graph outputs, taps among them,
    /// are the plan's outputs in the same order.
    pub(super) fn new(model: &Model, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        let fixed = |shape: &Vec<usize>| shape.iter().map(|&length| Length::Fixed(length)).collect();
        Self::of_lengths(model, &shapes.iter().map(fixed).collect::<Vec<_>>())
    }

    /// The same for shapes with lengths left free, which become symbols.
    pub(super) fn of_lengths(model: &Model, shapes: &[Vec<Length>]) -> Result<Self, EngineError> {
        load::check(model)?;
        let mut loaded = load::load(model)?;
        let symbols = loaded.model.symbols.clone();
        let dimension = |length: &Length| match length {
            Length::Fixed(length) => length.to_dim(),
            Length::Free(number) => symbols.sym(&format!("length_{number}")).to_dim(),
        };
        for (index, (value, shape)) in model.graph.runtime_inputs().zip(shapes).enumerate() {
            let shape: TVec<TDim> = shape.iter().map(dimension).collect();
            let element = model.graph.value(value).element_type();
            let fact = match element.and_then(datum_type) {
                Some(datum) => InferenceFact::dt_shape(datum, shape),
                None => InferenceFact::shape(shape),
            };
            loaded.model.set_input_fact(index, fact).map_err(EngineError::load)?;
        }
        let typed = load::optimize(loaded.model)?;
        Ok(Self(TypedSimplePlan::new(typed).map_err(EngineError::load)?))
    }

    fn state(&self) -> Result<TypedSimpleState, EngineError> {
        let state = || TypedSimpleState::new(&self.0).map_err(EngineError::run);
        contained(state, |reason| EngineError::Run { reason })
    }
}

impl Plan for TractPlan {
    fn session(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TractSession { state: self.state()?, plan: self.clone() }))
    }
}

/// A plan being run by one thread.
#[derive(Debug)]
struct TractSession {
    plan: TractPlan,
    state: TypedSimpleState,
}

impl TractSession {
    /// Lets a session begin, and hands over the inputs of a run.
    fn begin(&mut self, inputs: &[Array]) -> Result<TVec<TValue>, EngineError> {
        // A recurrent layer would go on from where it was.
        if self.state.op_states.iter().any(Option::is_some) {
            self.state = self.plan.state()?;
        }
        inputs.iter().map(|array| Ok(to_tract(array)?.into())).collect()
    }
}

impl Session for TractSession {
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        let inputs = self.begin(inputs)?;
        let run = || self.state.run(inputs).map_err(EngineError::run);
        let outputs = contained(run, |reason| EngineError::Run { reason })?;
        Ok(outputs.into_iter().map(|value| Output::new(TractValue(value))).collect())
    }

    fn profile(&mut self, inputs: &[Array]) -> Result<Vec<(String, Duration)>, EngineError> {
        let inputs = self.begin(inputs)?;
        let mut times = Vec::new();
        let run = || {
            let outputs = self.state.run_plan_with_eval(inputs, |context, state, node, inputs| {
                let start = Instant::now();
                let outputs = eval(context, state, node, inputs);
                times.push((node.op.name().into_owned(), start.elapsed()));
                outputs
            });
            outputs.map(drop).map_err(EngineError::run)
        };
        contained(run, |reason| EngineError::Run { reason })?;
        Ok(times)
    }
}
