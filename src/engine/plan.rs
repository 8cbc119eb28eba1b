//! Plans and sessions.

use super::tensor::{Output, to_tract};
use super::{EngineError, load};
use crate::data::Array;
use msq_passes::ir::{Model, ValueId};
use std::collections::HashSet;
use tract_onnx::prelude::{Arc, InferenceFact, TValue};
use tract_onnx::tract_core::internal::{TVec, TypedSimplePlan, TypedSimpleState};

/// How a plan is built.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Shape of every runtime input, in the model's order.
    pub shapes: Vec<Vec<usize>>,
    /// Initializers to be fed like inputs, after the model's own: their elements can be exchanged without planning
    /// anew.
    pub swappable: Vec<String>,
}

/// A model optimized for one set of input shapes. Cheap to clone; sessions of all threads share it.
#[derive(Clone, Debug)]
pub struct Plan {
    plan: Arc<TypedSimplePlan>,
    outputs: usize,
}

impl Plan {
    /// Optimizes a model. Its graph outputs, taps among them, are the plan's outputs in the same order.
    pub fn build(model: &Model, options: &PlanOptions) -> Result<Self, EngineError> {
        load::check(model)?;
        let mut loaded = load::load(&feeding(model, &options.swappable)?)?;
        let inputs: Vec<ValueId> = model.graph.runtime_inputs().collect();
        for (index, (&value, shape)) in inputs.iter().zip(&options.shapes).enumerate() {
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
        let state = TypedSimpleState::new(&self.plan).map_err(EngineError::run)?;
        Ok(Session { state, plan: self.plan.clone(), kept: false })
    }
}

/// The model with some initializers turned into inputs.
fn feeding(model: &Model, swappable: &[String]) -> Result<Model, EngineError> {
    let mut copy = model.clone();
    for name in swappable {
        let missing = || EngineError::NoSuchValue { name: name.clone() };
        let value = copy.graph.find(name).ok_or_else(missing)?;
        let tensor = copy.graph.take_initializer(value).ok_or_else(missing)?;
        let shape: Vec<Option<usize>> = tensor.shape().map_err(EngineError::run)?.into_iter().map(Some).collect();
        let element = tensor.element_type().ok_or_else(missing)?;
        copy.graph.add_input(value, msq_passes::ir::TypeProto::tensor(element, &shape));
    }
    Ok(copy)
}

/// A plan being run by one thread.
#[derive(Clone, Debug)]
pub struct Session {
    plan: Arc<TypedSimplePlan>,
    state: TypedSimpleState,
    /// Whether the intermediate values of the last run are at hand.
    kept: bool,
}

impl Session {
    /// Runs the model once on the runtime inputs in their order, followed by the swappable tensors in theirs.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        self.kept = false;
        let outputs = self.state.run(feed(inputs)?).map_err(EngineError::run)?;
        Ok(outputs.into_iter().map(Output::new).collect())
    }

    /// Runs the model and keeps every intermediate value, so that [`Session::swap`] can run a part of it again. Takes
    /// the memory of all activations.
    pub fn run_keeping(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        self.state.set_inputs(feed(inputs)?).map_err(EngineError::run)?;
        for &node in self.plan.order_without_consts() {
            if !self.is_input(node) {
                self.state.compute_one(node).map_err(EngineError::run)?;
            }
        }
        self.kept = true;
        self.outputs()
    }

    /// After [`Session::run_keeping`]: exchanges input number `index` (runtime inputs first, then swappable tensors)
    /// and computes again what depends on it.
    pub fn swap(&mut self, index: usize, tensor: &Array) -> Result<Vec<Output>, EngineError> {
        if !self.kept {
            return Err(EngineError::Run { reason: "no run has kept its values".to_owned() });
        }
        let outlets = self.plan.model().input_outlets().map_err(EngineError::run)?;
        let Some(source) = outlets.get(index).map(|o| o.node) else {
            return Err(EngineError::NoSuchValue { name: format!("input {index}") });
        };
        let value: TValue = to_tract(tensor)?.into();
        self.state.set_value(source, value).map_err(EngineError::run)?;
        let mut changed = HashSet::from([source]);
        for &node in self.plan.order_without_consts() {
            let reads_changed = self.plan.model().node(node).inputs.iter().any(|i| changed.contains(&i.node));
            if reads_changed && !self.is_input(node) {
                self.state.compute_one(node).map_err(EngineError::run)?;
                changed.insert(node);
            }
        }
        self.outputs()
    }

    fn is_input(&self, node: usize) -> bool {
        self.plan.model().input_outlets().is_ok_and(|inputs| inputs.iter().any(|o| o.node == node))
    }

    fn outputs(&mut self) -> Result<Vec<Output>, EngineError> {
        let outputs = self.state.outputs().map_err(EngineError::run)?;
        Ok(outputs.into_iter().map(Output::new).collect())
    }
}

fn feed(inputs: &[Array]) -> Result<TVec<TValue>, EngineError> {
    inputs.iter().map(|array| Ok(to_tract(array)?.into())).collect()
}
