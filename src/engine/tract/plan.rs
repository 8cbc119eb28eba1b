//! Plans and sessions.

use super::load;
use super::own::Kernel;
use super::tensor::{TractValue, datum_type, to_tract};
use crate::data::Array;
use crate::engine::contained::contained;
use crate::engine::{EngineError, Length, Output, Plan, Session, Visit};
use crate::kernels::convolution::Convolution;
use msq_passes::ir::Model;
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tract_onnx::prelude::{Arc, InferenceFact, OutletId, TDim, TValue, ToDim};
use tract_onnx::tract_core::internal::{
    EvalContext, OpState, TVec, TractResult, TypedModel, TypedNode, TypedSimplePlan, TypedSimpleState, ensure,
    format_err,
};
use tract_onnx::tract_core::plan;

/// A model optimized for its input shapes. Cheap to clone; sessions of all threads share it.
#[derive(Clone, Debug)]
pub(super) struct TractPlan(Arc<Shared>);

/// What sessions share.
#[derive(Debug)]
struct Shared {
    /// The plan that keeps all outputs until the end of a run.
    whole: Arc<TypedSimplePlan>,
    /// The plan that keeps none longer than it takes, once it is asked for.
    streamed: OnceLock<Streamed>,
}

impl TractPlan {
    /// Optimizes a model for runtime inputs of these shapes, in the model's order. Its graph outputs, taps among them,
    /// are the plan's outputs in the same order.
    pub(super) fn new(model: &Model, shapes: &[Vec<usize>]) -> Result<Self, EngineError> {
        let fixed = |shape: &Vec<usize>| shape.iter().map(|&length| Length::Fixed(length)).collect();
        Self::of_lengths(model, &shapes.iter().map(fixed).collect::<Vec<_>>())
    }

    /// Optimizes a model for runtime inputs of shapes with lengths left free, which become symbols.
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
        let whole = TypedSimplePlan::new(typed).map_err(EngineError::load)?;
        Ok(Self(Arc::new(Shared { whole, streamed: OnceLock::new() })))
    }

    fn streamed(&self) -> Result<&Streamed, EngineError> {
        let Shared { whole, streamed } = &*self.0;
        if let Some(streamed) = streamed.get() {
            return Ok(streamed);
        }
        let made = Streamed::new(whole).map_err(EngineError::load)?;
        Ok(streamed.get_or_init(|| made))
    }
}

/// The optimized model with fewer outputs: only those that nothing in it reads. All others are shown where they are computed,
/// and let go of when their last reader has them.
#[derive(Debug)]
struct Streamed {
    plan: Arc<TypedSimplePlan>,
    /// By node: which of its values are outputs of the whole plan, and which outputs.
    shown: HashMap<usize, Vec<(usize, usize)>>,
    /// The outputs of the whole plan that are outputs of this one.
    last: Vec<usize>,
}

impl Streamed {
    fn new(whole: &TypedSimplePlan) -> TractResult<Self> {
        let mut model = TypedModel::clone(whole.model());
        let outlets = model.output_outlets()?.to_vec();
        let node = |outlet: &OutletId| &model.nodes[outlet.node];
        let is_last = |outlet: &OutletId| {
            // What nothing computes is not seen being computed.
            node(outlet).outputs[outlet.slot].successors.is_empty() || node(outlet).inputs.is_empty()
        };
        let mut last: Vec<usize> = (0..outlets.len()).filter(|&at| is_last(&outlets[at])).collect();
        let mut computed = HashSet::new();
        let mut waiting: Vec<usize> = last.iter().map(|&at| outlets[at].node).collect();
        while let Some(id) = waiting.pop() {
            if computed.insert(id) {
                waiting.extend(model.nodes[id].inputs.iter().map(|input| input.node));
            }
        }
        last.extend((0..outlets.len()).filter(|&at| !computed.contains(&outlets[at].node)));
        let mut shown: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        for (at, outlet) in outlets.iter().enumerate().filter(|(at, _)| !last.contains(at)) {
            shown.entry(outlet.node).or_default().push((outlet.slot, at));
        }
        model.select_output_outlets(&last.iter().map(|&at| outlets[at]).collect::<Vec<_>>())?;
        Ok(Self { plan: TypedSimplePlan::new(model)?, shown, last })
    }
}

/// A plan being run, with what its operators remember.
#[derive(Debug)]
struct State {
    plan: Arc<TypedSimplePlan>,
    state: TypedSimpleState,
}

impl State {
    fn new(plan: &Arc<TypedSimplePlan>) -> Result<Self, EngineError> {
        let state = || TypedSimpleState::new(plan).map_err(EngineError::run);
        Ok(Self { plan: Arc::clone(plan), state: contained(state, |reason| EngineError::Run { reason })? })
    }

    /// Lets a session begin, and hands over the inputs of a run.
    fn begin(&mut self, inputs: &[Array]) -> Result<TVec<TValue>, EngineError> {
        // A recurrent layer would go on from where it was.
        if self.state.op_states.iter().any(Option::is_some) {
            *self = Self::new(&self.plan)?;
        }
        inputs.iter().map(|array| Ok(to_tract(array)?.into())).collect()
    }
}

/// Operators that slide windows, once it is chosen how they are computed.
const WINDOWED: [&str; 9] = [
    "Conv",
    "DepthWiseConv",
    "Im2col",
    "LazyIm2col",
    "MaxPool",
    "OptMaxPool",
    "SumPool",
    "OptSumPool",
    <Convolution as Kernel>::NAME,
];

/// Runs an operator. A panic is an error that names the node. So is a window over nothing, which may end the process: where
/// lengths are left open, it is seen here first.
fn eval(
    context: &EvalContext,
    state: Option<&mut (dyn OpState + 'static)>,
    node: &TypedNode,
    inputs: TVec<TValue>,
) -> TractResult<TVec<TValue>> {
    if let Some(empty) = inputs.first().filter(|input| input.shape().iter().skip(1).any(|&length| length == 0)) {
        let shape = empty.shape();
        ensure!(!WINDOWED.contains(&&*node.op.name()), "node `{}` reads nothing, of shape {shape:?}", node.name);
    }
    let run = || plan::eval(context, state, node, inputs);
    contained(run, |panic| format_err!("node `{}` ({}): {panic}", node.name, node.op.name()))
}

impl Plan for TractPlan {
    fn session(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(TractSession { plan: self.clone(), whole: None, streamed: None }))
    }
}

/// A plan being run by one thread.
#[derive(Debug)]
struct TractSession {
    plan: TractPlan,
    whole: Option<State>,
    streamed: Option<State>,
}

impl TractSession {
    /// The state of a run that keeps all outputs.
    fn whole(&mut self) -> Result<&mut State, EngineError> {
        match &mut self.whole {
            Some(state) => Ok(state),
            none => Ok(none.insert(State::new(&self.plan.0.whole)?)),
        }
    }
}

impl Session for TractSession {
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        let whole = self.whole()?;
        let inputs = whole.begin(inputs)?;
        let run = || whole.state.run_plan_with_eval(inputs, eval).map_err(EngineError::run);
        let outputs = contained(run, |reason| EngineError::Run { reason })?;
        Ok(outputs.into_iter().map(|value| Output::new(TractValue(value))).collect())
    }

    fn show(&mut self, inputs: &[Array], visit: &mut Visit) -> Result<(), EngineError> {
        let streamed = self.plan.streamed()?;
        // A run that does not come to its end leaves none.
        let mut state = self.streamed.take().map_or_else(|| State::new(&streamed.plan), Ok)?;
        let inputs = state.begin(inputs)?;
        let mut stopped = false;
        let mut look = |at: usize, value: TValue| {
            stopped = visit(at, &Output::new(TractValue(value))).is_break();
            ensure!(!stopped, "stopped by the caller");
            Ok(())
        };
        let run = || {
            let outputs = state.state.run_plan_with_eval(inputs, |context, state, node, inputs| {
                let outputs = eval(context, state, node, inputs)?;
                for &(slot, at) in streamed.shown.get(&node.id).into_iter().flatten() {
                    look(at, outputs[slot].clone())?;
                }
                TractResult::Ok(outputs)
            })?;
            streamed.last.iter().zip(outputs).try_for_each(|(&at, value)| look(at, value))
        };
        match contained(|| run().map_err(EngineError::run), |reason| EngineError::Run { reason }) {
            Ok(()) => self.streamed = Some(state),
            Err(error) if !stopped => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn profile(&mut self, inputs: &[Array]) -> Result<Vec<(String, Duration)>, EngineError> {
        let whole = self.whole()?;
        let inputs = whole.begin(inputs)?;
        let mut times = Vec::new();
        let run = || {
            let outputs = whole.state.run_plan_with_eval(inputs, |context, state, node, inputs| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::{DatumExt, SpecialOps};
    use tract_onnx::tract_core::internal::{
        EvalOp, Op, StaticName, TypedFact, TypedOp, as_op, op_as_typed_op, op_out_of_plan, tvec,
    };

    /// An operator that panics.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Panics;

    impl Op for Panics {
        fn name(&self) -> StaticName {
            "Panics".into()
        }

        op_as_typed_op!();
    }

    impl EvalOp for Panics {
        op_out_of_plan!();

        fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
            panic!("out of range")
        }
    }

    impl TypedOp for Panics {
        as_op!();

        fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
            Ok(tvec!(inputs[0].without_value()))
        }
    }

    #[test]
    fn a_node_that_panics_is_named() {
        let mut model = TypedModel::default();
        let source = model.add_source("x", f32::fact([1])).unwrap();
        let outputs = model.wire_node("the node", Panics, &[source]).unwrap();
        model.select_output_outlets(&outputs).unwrap();
        let whole = TypedSimplePlan::new(model).unwrap();
        let plan = TractPlan(Arc::new(Shared { whole, streamed: OnceLock::new() }));
        let x = Array::from_f32(vec![1], vec![1.0]).unwrap();
        let said = plan.session().unwrap().run(std::slice::from_ref(&x)).unwrap_err().to_string();
        assert!(said.contains("node `the node` (Panics): the engine stopped unexpectedly: out of range"), "{said}");
        let shown = plan.session().unwrap().show(&[x], &mut |_, _| std::ops::ControlFlow::Continue(()));
        assert!(shown.unwrap_err().to_string().contains("node `the node`"));
    }

    /// Two convolutions, each with a kernel of three, over so many values.
    #[test]
    fn windows_over_nothing_are_refused() {
        let constants = "float[2,1,3] a = {1, 1, 1, 1, 1, 1}, float[2,1,3] b = {1, 1, 1, 1, 1, 1}";
        let nodes = "[first] t = Conv (x, a) [second] y = Conv <pads = [1, 1], group = 2> (t, b)";
        let model = super::super::testing::model("float[1,1,n] x", constants, nodes);
        assert!(TractPlan::new(&model, &[vec![1, 1, 3]]).is_ok());
        let said = TractPlan::new(&model, &[vec![1, 1, 2]]).unwrap_err();
        assert!(matches!(&said, EngineError::Empty { node, .. } if node == "first"), "{said}");
        let open = [vec![Length::Fixed(1), Length::Fixed(1), Length::Free(0)]];
        let mut session = TractPlan::of_lengths(&model, &open).unwrap().session().unwrap();
        let ones = |length: usize| Array::from_f32(vec![1, 1, length], vec![1.0; length]).unwrap();
        assert_eq!(session.run(&[ones(4)]).unwrap()[0].shape(), [1, 2, 2]);
        let said = session.run(&[ones(2)]).unwrap_err().to_string();
        assert!(said.contains("node `second") && said.contains("reads nothing, of shape [1, 2, 0]"), "{said}");
    }
}
