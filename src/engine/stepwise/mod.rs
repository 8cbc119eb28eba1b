//! Models whose shapes depend on values, run in steps.
//!
//! A back end prepares a model for the shapes of its inputs. How many boxes `NonMaxSuppression` leaves, how long the speech
//! is that a text becomes, which branch an `If` takes, is known only while a sample runs. Such a model is run part by part:
//! all nodes whose shapes follow from what is known ([`shapes`]) are prepared and run as a model of their own ([`part`]);
//! with what they yield, the shapes of more nodes are known. Small values that shapes are computed from are handed on as
//! constants, an `If` becomes the branch that its condition asks for, and a `Loop` is run turn by turn ([`loops`]).
//!
//! Parts and their plans are kept for later samples. Where the back end has no plan for a part, or fails on it, its halves
//! are run one after the other, down to the node to blame. What a sample yields depends on that sample alone.
//!
//! Models whose shapes follow from those of their inputs go to the back end as they are.

mod loops;
mod part;
mod shapes;
#[cfg(test)]
mod tests;

use super::{Backend, EngineError, Facts, Length, Output, Plan, Session, Visit};
use crate::data::Array;
use crate::runtime::lock;
use loops::{Body, BodySession};
use msq_passes::ir::{DataType, Model, NodeId, TensorProto, ValueId};
use msq_passes::{InlineBranches, InlineFunctions, Pass};
use part::{Fed, Part, is_of_a_node};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A back end that also runs models whose shapes depend on values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stepwise<B>(pub(super) B);

impl<B: Backend + Clone + 'static> Backend for Stepwise<B> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn version(&self) -> &str {
        self.0.version()
    }

    fn load(&self, model: &Model, shapes: &[Vec<usize>]) -> Result<Arc<dyn Plan>, EngineError> {
        let Some(model) = in_steps(model)? else { return self.0.load(model, shapes) };
        if let Some((_, reason)) = self.unknown(&model).into_iter().next() {
            return Err(EngineError::Load { reason });
        }
        Ok(Arc::new(Steps {
            backend: Arc::new(self.0.clone()),
            itself: Arc::new(self.clone()),
            root: Arc::new(Variant::new(model)),
            parts: Arc::default(),
        }))
    }

    fn load_any_length(&self, model: &Model, shapes: &[Vec<Length>]) -> Result<Option<Arc<dyn Plan>>, EngineError> {
        if in_steps(model)?.is_some() {
            return Ok(None);
        }
        self.0.load_any_length(model, shapes)
    }

    fn infer(&self, model: &Model) -> Result<Facts, EngineError> {
        self.0.infer(model)
    }

    /// Loops and branches are known where what is in them is.
    fn unknown(&self, model: &Model) -> Vec<(NodeId, String)> {
        let inside = |id: NodeId| match loops::bodies(model, id) {
            Ok(bodies) => {
                bodies.iter().find_map(|body| self.unknown(body).into_iter().next()).map(|(_, reason)| reason)
            }
            Err(error) => Some(error.to_string()),
        };
        let mut unknown = self.0.unknown(model);
        unknown.retain_mut(|(id, reason)| {
            let node = model.graph.node(*id);
            if !node.is("Loop") && !node.is("If") {
                return true;
            }
            let found = inside(*id).map(|inner| format!("{inner}, inside node `{}`", node.label(&model.graph)));
            found.is_some_and(|found| {
                *reason = found;
                true
            })
        });
        unknown
    }
}

/// The model without functions, if its shapes depend on values.
fn in_steps(model: &Model) -> Result<Option<Model>, EngineError> {
    if !model.has_functions() {
        return Ok(shapes::depend_on_values(&model.graph).then(|| model.clone()));
    }
    let mut open = model.clone();
    InlineFunctions.run(&mut open).map_err(EngineError::load)?;
    Ok(Some(open).filter(|open| shapes::depend_on_values(&open.graph)))
}

/// The plan of such a model.
#[derive(Clone, Debug)]
struct Steps {
    /// What runs parts, and what runs the bodies of loops.
    backend: Arc<dyn Backend>,
    itself: Arc<dyn Backend>,
    root: Arc<Variant>,
    /// How many parts and bodies there are by now, of all variants.
    parts: Arc<AtomicUsize>,
}

impl Plan for Steps {
    fn session(&self) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(StepwiseSession { plan: self.clone(), sessions: HashMap::new(), bodies: HashMap::new() }))
    }
}

/// The model, with some of its branches taken.
#[derive(Debug)]
struct Variant {
    model: Model,
    parts: Mutex<HashMap<Vec<NodeId>, Arc<Part>>>,
    bodies: Mutex<HashMap<NodeId, Arc<Body>>>,
    /// By the `If` and whether its condition holds.
    taken: Mutex<HashMap<(NodeId, bool), Arc<Self>>>,
}

impl Variant {
    fn new(model: Model) -> Self {
        Self { model, parts: Mutex::default(), bodies: Mutex::default(), taken: Mutex::default() }
    }

    /// Some nodes as a model of their own.
    fn part(&self, nodes: &[NodeId], count: &AtomicUsize) -> Result<Arc<Part>, EngineError> {
        known(&self.parts, nodes, || Part::new(&self.model, nodes, count.fetch_add(1, Ordering::Relaxed)))
    }

    /// The body of a loop.
    fn body(&self, node: NodeId, count: &AtomicUsize) -> Result<Arc<Body>, EngineError> {
        known(&self.bodies, &node, || Body::new(&self.model, node, count.fetch_add(1, Ordering::Relaxed)))
    }

    /// The first `If` that waits whose condition is known, and whether it holds.
    fn decided(&self, waiting: &[NodeId], at_hand: &HashMap<ValueId, Array>) -> Option<(NodeId, bool)> {
        let graph = &self.model.graph;
        let condition = |value: ValueId| match at_hand.get(&value) {
            Some(array) => array.integers().next().map(|holds| holds != 0),
            None => Some(graph.constant(value)?.to_i64().ok()?.first()? != &0),
        };
        let branches = waiting.iter().filter(|&&id| graph.node(id).is("If"));
        branches.into_iter().find_map(|&id| Some((id, condition(graph.node(id).input(0)?)?)))
    }

    /// The model with one more branch taken. Handles of nodes and values stay what they are.
    fn taking(&self, node: NodeId, holds: bool) -> Result<Arc<Self>, EngineError> {
        known(&self.taken, &(node, holds), || {
            let mut model = self.model.clone();
            let condition = TensorProto::from_raw("condition", DataType::Bool, &[], vec![u8::from(holds)]);
            let condition = model.graph.add_initializer(condition);
            model.graph.set_input(node, 0, Some(condition));
            let outcome = InlineBranches.run(&mut model).map_err(EngineError::load)?;
            if model.graph.contains_node(node) {
                let reason = outcome.declined.into_iter().map(|declined| declined.reason).next().unwrap_or_default();
                return Err(EngineError::Load { reason });
            }
            Ok(Self::new(model))
        })
    }
}

/// What is kept by a key, made when it is asked for first.
fn known<Q: ?Sized + ToOwned + Eq + Hash, V>(
    kept: &Mutex<HashMap<Q::Owned, Arc<V>>>,
    key: &Q,
    make: impl FnOnce() -> Result<V, EngineError>,
) -> Result<Arc<V>, EngineError>
where
    Q::Owned: Eq + Hash,
{
    let mut kept = lock(kept);
    if let Some(value) = kept.get(key) {
        return Ok(Arc::clone(value));
    }
    let value = Arc::new(make()?);
    kept.insert(key.to_owned(), Arc::clone(&value));
    Ok(value)
}

/// One thread's run of such a model.
#[derive(Debug)]
struct StepwiseSession {
    plan: Steps,
    /// By part: what it was fed with last, and the session for that.
    sessions: HashMap<usize, (Vec<Fed>, Box<dyn Session>)>,
    /// By loop: the session of its body that ran last.
    bodies: HashMap<usize, BodySession>,
}

impl Session for StepwiseSession {
    fn run(&mut self, inputs: &[Array]) -> Result<Vec<Output>, EngineError> {
        let count = self.plan.root.model.graph.outputs().len();
        let mut outputs: Vec<Option<Output>> = (0..count).map(|_| None).collect();
        let mut failed = None;
        self.show(inputs, &mut |at, output| match output.to_array() {
            Ok(array) => {
                outputs[at] = Some(Output::new(array));
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        let missing = || EngineError::Run { reason: "an output was not computed".to_owned() };
        failed.map_or_else(|| outputs.into_iter().collect::<Option<_>>().ok_or_else(missing), Err)
    }

    fn show(&mut self, inputs: &[Array], visit: &mut Visit) -> Result<(), EngineError> {
        let mut variant = Arc::clone(&self.plan.root);
        let graph = &self.plan.root.model.graph;
        let at_hand: HashMap<ValueId, Array> = graph.runtime_inputs().zip(inputs.iter().cloned()).collect();
        let outputs: Vec<ValueId> = graph.outputs().collect();
        let mut run = Run { at_hand, constants: HashSet::new(), outputs, done: HashSet::new(), visit };
        let mut given = run.outputs.clone();
        given.sort_unstable();
        given.dedup();
        for value in given {
            if run.show_given(&variant.model, value)?.is_break() {
                return Ok(());
            }
        }
        loop {
            let mut waiting = run.waiting(&variant);
            while let Some((node, holds)) = variant.decided(&waiting, &run.at_hand) {
                variant = variant.taking(node, holds)?;
                waiting = run.waiting(&variant);
            }
            let graph = &variant.model.graph;
            let Some(&first) = waiting.first() else { return Ok(()) };
            if let Some(node) = loops::ready(graph, &waiting, &run.at_hand) {
                if self.turns(&variant, node, &mut run)?.is_break() {
                    return Ok(());
                }
                run.forget(&variant);
                continue;
            }
            run.constants = shapes::constants(graph, &waiting, &run.at_hand);
            let here = run.at_hand.keys().copied().collect();
            let nodes = shapes::next(graph, &waiting, &here, &run.constants);
            if nodes.is_empty() {
                let label = graph.node(first).label(graph);
                return Err(EngineError::Run { reason: format!("nothing says which shape node `{label}` computes") });
            }
            if self.part(&variant, &nodes, &mut run)?.is_break() {
                return Ok(());
            }
            run.forget(&variant);
        }
    }
}

impl StepwiseSession {
    /// Runs some nodes: at once, or, where that fails, one half after the other.
    fn part(&mut self, variant: &Variant, nodes: &[NodeId], run: &mut Run) -> Result<ControlFlow<()>, EngineError> {
        let part = variant.part(nodes, &self.plan.parts)?;
        if part.outputs.is_empty() {
            run.done.extend(nodes);
            return Ok(ControlFlow::Continue(()));
        }
        let fed = part.fed(&run.at_hand, &run.constants);
        match part.plan(&fed, &run.at_hand, &*self.plan.backend)? {
            Some(plan) => match self.ran(&part, &fed, &*plan, run) {
                Ok(flow) => {
                    run.done.extend(nodes);
                    return Ok(flow);
                }
                Err(error) if is_of_a_node(&error) && nodes.len() > 1 => {
                    tracing::debug!(%error, nodes = nodes.len(), "a part of the model does not run");
                    part.fails(&fed);
                }
                Err(error) => return Err(error),
            },
            None if nodes.len() > 1 => {}
            // Once more, for what the back end says of it.
            None => part.load(&fed, &run.at_hand, &*self.plan.backend).map(drop)?,
        }
        let (front, back) = nodes.split_at(nodes.len() / 2);
        if self.part(variant, front, run)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Of what is known by now, shapes may be computed in the second half.
        run.constants = shapes::constants(&variant.model.graph, &run.waiting(variant), &run.at_hand);
        self.part(variant, back, run)
    }

    /// Runs a loop.
    fn turns(&mut self, variant: &Variant, id: NodeId, run: &mut Run) -> Result<ControlFlow<()>, EngineError> {
        let graph = &variant.model.graph;
        let body = variant.body(id, &self.plan.parts)?;
        let known = self.bodies.remove(&body.number);
        let (found, session) = body.run(&variant.model, id, &run.at_hand, known, &*self.plan.itself)?;
        self.bodies.extend(session.map(|session| (body.number, session)));
        run.done.insert(id);
        for (&value, array) in graph.node(id).outputs().iter().zip(found) {
            let Some(value) = value else { continue };
            if run.show(value, &Output::new(array.clone())).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            run.at_hand.insert(value, array);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Runs a part by its plan.
    fn ran(
        &mut self,
        part: &Part,
        fed: &[Fed],
        plan: &dyn Plan,
        run: &mut Run,
    ) -> Result<ControlFlow<()>, EngineError> {
        let known = self.sessions.remove(&part.number).filter(|(key, _)| key == fed);
        // A plan that has run before runs again: what it yields can be shown while it runs.
        let proven = known.is_some();
        let mut session = known.map_or_else(|| plan.session(), |(_, session)| Ok(session))?;
        let flow = run.collect(part, fed, &mut *session, proven)?;
        self.sessions.insert(part.number, (fed.to_vec(), session));
        Ok(flow)
    }
}

/// A sample on its way.
struct Run<'a, 'v> {
    /// Values that nodes which wait read.
    at_hand: HashMap<ValueId, Array>,
    /// Which of the values at hand shapes are computed from.
    constants: HashSet<ValueId>,
    outputs: Vec<ValueId>,
    done: HashSet<NodeId>,
    visit: &'a mut Visit<'v>,
}

impl Run<'_, '_> {
    fn waiting(&self, variant: &Variant) -> Vec<NodeId> {
        variant.model.graph.node_ids().filter(|id| !self.done.contains(id)).collect()
    }

    /// Shows an output that no node writes: an input or a constant.
    fn show_given(&mut self, model: &Model, value: ValueId) -> Result<ControlFlow<()>, EngineError> {
        if model.graph.value(value).producer().is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let array = self.at_hand.get(&value).cloned().map_or_else(|| loops::constant(model, value), Ok)?;
        Ok(self.show(value, &Output::new(array)))
    }

    fn show(&mut self, value: ValueId, output: &Output) -> ControlFlow<()> {
        let places = self.outputs.iter().enumerate().filter(|(_, other)| **other == value);
        places.map(|(at, _)| at).try_for_each(|at| (self.visit)(at, output))
    }

    /// Runs a part, shows what of it is an output of the model, and keeps what others read. Of a part that may not come to
    /// its end nothing is shown before: its halves are run again.
    fn collect(
        &mut self,
        part: &Part,
        fed: &[Fed],
        session: &mut dyn Session,
        at_once: bool,
    ) -> Result<ControlFlow<()>, EngineError> {
        let arrays = part.inputs.iter().zip(fed).filter(|(_, fed)| matches!(fed, Fed::Shape(_)));
        let inputs: Vec<Array> = arrays.filter_map(|(value, _)| self.at_hand.get(value).cloned()).collect();
        let mut written = Vec::new();
        let mut end = Ok(ControlFlow::Continue(()));
        session.show(&inputs, &mut |at, output| {
            let (value, is_read) = part.outputs[at];
            if is_read || !at_once {
                match output.to_array() {
                    Ok(array) => written.push((value, is_read, array)),
                    Err(error) => end = Err(error),
                }
            }
            if at_once && end.is_ok() && self.show(value, output).is_break() {
                end = Ok(ControlFlow::Break(()));
            }
            if matches!(end, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if end?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        for (value, is_read, array) in written {
            let output = Output::new(array);
            if !at_once && self.show(value, &output).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if is_read {
                self.at_hand.insert(value, output.to_array()?);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Lets go of what no node reads any more.
    fn forget(&mut self, variant: &Variant) {
        let graph = &variant.model.graph;
        let done = &self.done;
        self.at_hand.retain(|&value, _| {
            let value = graph.value(value);
            let mut readers = value.uses().iter().map(|reader| reader.node).chain(value.captures().iter().copied());
            readers.any(|reader| !done.contains(&reader))
        });
    }
}
