//! `Loop`, turn by turn.
//!
//! The body becomes a model of its own: its inputs are those of the body (the number of the turn, whether it goes on, what is
//! carried from turn to turn) and then what it captures of the graph around. What it yields beside the condition and what is
//! carried is stacked, one element of a new first axis per turn.

use super::shapes::read;
use crate::data::{Array, ArrayData};
use crate::engine::{Backend, EngineError, Output, Session};
use crate::runtime::memory;
use msq_passes::ir::{DataType, Graph, GraphProto, Model, NodeId, TypeProto, ValueId, ValueInfoProto, export, import};
use std::collections::HashMap;

/// A loop of more turns counts as one without an end.
const MOST_TURNS: i64 = 1 << 16;

/// The body of a loop.
#[derive(Debug)]
pub(super) struct Body {
    /// Tells loops of one model from each other.
    pub(super) number: usize,
    model: Model,
    /// What it is fed with of the graph around, behind its own inputs.
    captured: Vec<ValueId>,
    carried: usize,
    label: String,
}

/// A session of a body, and the shapes that it is for.
pub(super) type BodySession = (Vec<Vec<usize>>, Box<dyn Session>);

impl Body {
    /// The body of a node.
    pub(super) fn new(model: &Model, id: NodeId, number: usize) -> Result<Self, EngineError> {
        let node = model.graph.node(id);
        let label = node.label(&model.graph).to_owned();
        let missing = || EngineError::Load { reason: format!("`Loop` of node `{label}` has no body") };
        let body = node.attribute("body").and_then(|attribute| attribute.g.clone()).ok_or_else(missing)?;
        let (own, captured) = as_model(model, id, body)?;
        let carried = node.inputs().len().saturating_sub(2);
        let (inputs, outputs) = (own.graph.inputs().len(), own.graph.outputs().len());
        if inputs != 2 + carried + captured.len() || outputs <= carried || outputs - 1 < node.outputs().len() {
            let reason = format!("`Loop` of node `{label}` and its body differ in what they take and yield");
            return Err(EngineError::Load { reason });
        }
        Ok(Self { number, model: own, captured, carried, label })
    }

    /// Runs all turns from values at hand. Returns what the node writes, and the session of the last turn.
    pub(super) fn run(
        &self,
        model: &Model,
        id: NodeId,
        at_hand: &HashMap<ValueId, Array>,
        known: Option<BodySession>,
        backend: &dyn Backend,
    ) -> Result<(Vec<Array>, Option<BodySession>), EngineError> {
        let node = model.graph.node(id);
        let value = |value: ValueId| at_hand.get(&value).cloned().map_or_else(|| constant(model, value), Ok);
        let number = |slot: usize| -> Result<Option<i64>, EngineError> {
            let Some(input) = node.input(slot) else { return Ok(None) };
            Ok(value(input)?.integers().next())
        };
        let turns = number(0)?.unwrap_or(i64::MAX);
        let mut goes_on = number(1)?.is_none_or(|holds| holds != 0);
        let mut carried = Vec::with_capacity(self.carried);
        for slot in 2..2 + self.carried {
            let missing = || self.error("misses what it carries");
            carried.push(value(node.input(slot).ok_or_else(missing)?)?);
        }
        let captured = self.captured.iter().map(|&input| value(input)).collect::<Result<Vec<_>, _>>()?;
        let mut stacks: Vec<Stack> =
            self.model.graph.outputs().skip(1 + self.carried).map(|_| Stack::default()).collect();
        let mut session = known;
        let mut turn = 0;
        while goes_on && turn < turns {
            if turn == MOST_TURNS {
                return Err(self.error("does not end"));
            }
            let mut fed = vec![scalar(ArrayData::I64(vec![turn]))?, scalar(ArrayData::Bool(vec![goes_on]))?];
            fed.append(&mut carried);
            fed.extend(captured.iter().cloned());
            let mut found = self.turn(&fed, &mut session, backend)?.into_iter();
            let condition = found.next().ok_or_else(|| self.error("has no condition"))?.to_array()?;
            goes_on = condition.integers().next().is_some_and(|holds| holds != 0);
            carried = found.by_ref().take(self.carried).map(|output| output.to_array()).collect::<Result<_, _>>()?;
            for (stack, output) in stacks.iter_mut().zip(found) {
                self.push(stack, output.to_array()?)?;
            }
            turn += 1;
        }
        let declared = self.model.graph.outputs().skip(1 + self.carried);
        let stacked = stacks.into_iter().zip(declared).map(|(stack, output)| {
            stack.array(|| self.none(output)).ok_or_else(|| self.error("yields what cannot be stacked"))
        });
        carried.extend(stacked.collect::<Result<Vec<_>, _>>()?);
        Ok((carried, session))
    }

    /// Runs one turn, in the session of the last one where shapes are the same.
    fn turn(
        &self,
        fed: &[Array],
        session: &mut Option<BodySession>,
        backend: &dyn Backend,
    ) -> Result<Vec<Output>, EngineError> {
        let shapes: Vec<Vec<usize>> = fed.iter().map(|array| array.shape().to_vec()).collect();
        let mut own = match session.take().filter(|(key, _)| *key == shapes) {
            Some((_, own)) => own,
            None => self.load(fed, &shapes, backend)?,
        };
        let found = own.run(fed)?;
        *session = Some((shapes, own));
        Ok(found)
    }

    /// Adds what a turn yields to what the turns before yielded.
    fn push(&self, stack: &mut Stack, array: Array) -> Result<(), EngineError> {
        if !memory::is_there(stack.bytes_with(&array)) {
            let reason = format!("there is no memory for what `Loop` of node `{}` yields", self.label);
            return Err(EngineError::Memory { reason });
        }
        if !stack.push(array) {
            return Err(self.error("yields other shapes in some turns, which nothing stacks"));
        }
        Ok(())
    }

    /// Has the back end prepare the body for what it is fed with.
    fn load(
        &self,
        fed: &[Array],
        shapes: &[Vec<usize>],
        backend: &dyn Backend,
    ) -> Result<Box<dyn Session>, EngineError> {
        let mut model = self.model.clone();
        let types = fed.iter().map(|array| TypeProto::tensor(array.dtype(), &vec![None; array.shape().len()]));
        let inputs = model.graph.inputs().zip(types).collect();
        model.graph.set_inputs(inputs);
        backend.load(&model, shapes)?.session()
    }

    /// Of no turns: nothing, in the shape that the body declares.
    fn none(&self, output: ValueId) -> Option<Array> {
        let value = self.model.graph.value(output);
        let shape = value.shape().unwrap_or_default().into_iter().map(Option::unwrap_or_default);
        let empty = Array::from_f32([vec![0], shape.collect()].concat(), Vec::new()).ok()?;
        empty.cast(value.element_type().unwrap_or(DataType::Float)).ok()
    }

    fn error(&self, what: &str) -> EngineError {
        EngineError::Run { reason: format!("`Loop` of node `{}` {what}", self.label) }
    }
}

/// A sub-graph of a node as a model, and the values of the graph around that are its inputs behind its own.
fn as_model(model: &Model, id: NodeId, mut body: GraphProto) -> Result<(Model, Vec<ValueId>), EngineError> {
    let graph = &model.graph;
    let mut captured = Vec::new();
    for &value in graph.node(id).captures() {
        if let Some(tensor) = graph.constant(value) {
            body.initializer.push(model.loaded(tensor)?.into_owned());
            continue;
        }
        let info = ValueInfoProto {
            name: Some(graph.value(value).name().to_owned()),
            r#type: graph.value(value).ty().cloned(),
            ..ValueInfoProto::default()
        };
        body.input.push(info);
        captured.push(value);
    }
    let mut message = export(model);
    message.graph = Some(body);
    Ok((import(message).map_err(EngineError::load)?, captured))
}

/// The model of each sub-graph of a node.
pub(super) fn bodies(model: &Model, id: NodeId) -> Result<Vec<Model>, EngineError> {
    let bodies: Vec<_> = model.graph.node(id).subgraphs().cloned().collect();
    bodies.into_iter().map(|body| Ok(as_model(model, id, body)?.0)).collect()
}

/// The loop among waiting nodes that can be run now, the first of them.
pub(super) fn ready(graph: &Graph, waiting: &[NodeId], at_hand: &HashMap<ValueId, Array>) -> Option<NodeId> {
    let is_there = |value| at_hand.contains_key(&value) || graph.constant(value).is_some();
    let loops = waiting.iter().copied().filter(|&id| graph.node(id).is("Loop"));
    loops.into_iter().find(|&id| read(graph.node(id)).all(is_there))
}

/// What all turns yield of one value.
#[derive(Debug, Default)]
struct Stack {
    turns: usize,
    all: Option<Array>,
}

impl Stack {
    /// Bytes that it takes with another turn, at most; vectors grow by doubling.
    fn bytes_with(&self, array: &Array) -> usize {
        const WIDEST: usize = 8;
        array.len().saturating_mul(WIDEST).saturating_mul(2 * (self.turns + 1))
    }

    /// Adds that of a turn; false where it has another shape or type than those before.
    fn push(&mut self, array: Array) -> bool {
        let row = [&[1], array.shape()].concat();
        let Ok(array) = array.reshape(row) else { return false };
        self.turns += 1;
        self.all = match self.all.take() {
            None => Some(array),
            Some(all) if all.shape()[1..] == array.shape()[1..] => all.concat(&array).ok(),
            Some(_) => None,
        };
        self.all.is_some()
    }

    fn array(self, none: impl FnOnce() -> Option<Array>) -> Option<Array> {
        if self.turns == 0 { none() } else { self.all }
    }
}

/// A constant of a model.
pub(super) fn constant(model: &Model, value: ValueId) -> Result<Array, EngineError> {
    let missing = || EngineError::NoSuchValue { name: model.graph.value(value).name().to_owned() };
    let tensor = model.constant(value).ok_or_else(missing)??;
    Array::try_from(&*tensor).map_err(EngineError::run)
}

fn scalar(element: ArrayData) -> Result<Array, EngineError> {
    Array::new(Vec::new(), element).map_err(EngineError::run)
}
