//! Pass `extract-segment`: reduces a model to the nodes between given inputs and given outputs.
//!
//! The given input values are cut off from the nodes that compute them and become the graph's inputs, in the given
//! order; the given output values become the graph's outputs. Nodes and constants that the outputs do not need are
//! removed. The pass is meant for a clone of a model, so that this part can run on stored values.

use crate::ir::{Model, TypeProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::prepare::EliminateDeadNodes;

/// Cuts a segment out of a model.
#[derive(Clone, Debug, Default)]
pub struct ExtractSegment {
    /// Names and types of the input values.
    pub inputs: Vec<(String, TypeProto)>,
    /// Names of the output values.
    pub outputs: Vec<String>,
}

impl Pass for ExtractSegment {
    fn name(&self) -> &'static str {
        "extract-segment"
    }

    fn about(&self) -> &'static str {
        "what lies between given values becomes the whole model"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let find = |name: &String| {
            model.graph.find(name).ok_or_else(|| PassError::Input(format!("there is no value `{name}` to cut at")))
        };
        let inputs: Vec<ValueId> = self.inputs.iter().map(|(name, _)| find(name)).collect::<Result<_, _>>()?;
        let outputs: Vec<ValueId> = self.outputs.iter().map(find).collect::<Result<_, _>>()?;
        if model.graph.inputs().eq(inputs.iter().copied()) && model.graph.outputs().eq(outputs.iter().copied()) {
            return EliminateDeadNodes.run(model);
        }
        let fed = inputs.iter().zip(&self.inputs).map(|(&value, (_, ty))| (value, ty.clone())).collect();
        model.graph.set_inputs(fed);
        model.graph.set_outputs(&outputs);
        let mut outcome = EliminateDeadNodes.run(model)?;
        outcome.count();
        Ok(outcome)
    }
}
