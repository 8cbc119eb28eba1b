//! Some nodes of a model, as a model of their own.

use super::shapes::read;
use crate::data::Array;
use crate::engine::{Backend, EngineError, Plan};
use crate::runtime::lock;
use msq_passes::ir::{Graph, Model, NodeId, TensorProto, TypeProto, ValueId};
use msq_passes::{EliminateDeadNodes, Pass};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

/// Plans kept for a part, the one used last first.
const PLANS: usize = 4;
/// Plans kept for a part with [`LARGE`] constants: each plan holds a copy of them.
const PLANS_OF_LARGE: usize = 2;
/// Bytes of constants from which on a part is large.
const LARGE: u64 = 1 << 20;

/// What a part is fed with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fed {
    /// Values of this shape.
    Shape(Vec<usize>),
    /// This, as a constant.
    Constant(Array),
}

/// A plan, or none where the back end has none for it.
type Prepared = Option<Arc<dyn Plan>>;

/// The nodes, and plans for what they were fed with.
#[derive(Debug)]
pub(super) struct Part {
    /// Tells parts of one model from each other.
    pub(super) number: usize,
    model: Model,
    /// The values that are fed, in graph order.
    pub(super) inputs: Vec<ValueId>,
    /// The values that others read, with true, and outputs of the model that none reads.
    pub(super) outputs: Vec<(ValueId, bool)>,
    plans: Mutex<Vec<(Vec<Fed>, Prepared)>>,
    most: usize,
}

impl Part {
    /// Cuts the nodes out of a model.
    pub(super) fn new(model: &Model, nodes: &[NodeId], number: usize) -> Result<Self, EngineError> {
        let graph = &model.graph;
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        let is_inside = |value: ValueId| graph.value(value).producer().is_some_and(|(node, _)| inside.contains(&node));
        let is_constant = |value: ValueId| graph.initializer(value).is_some() && !graph.is_input(value);
        let is_read = |value: ValueId| {
            let value = graph.value(value);
            let readers = value.uses().iter().map(|reader| reader.node).chain(value.captures().iter().copied());
            readers.into_iter().any(|reader| !inside.contains(&reader))
        };
        let written = nodes.iter().flat_map(|&id| graph.node(id).outputs().iter().flatten().copied());
        let written = written.map(|value| (value, is_read(value)));
        let outputs: Vec<_> = written.filter(|&(value, read)| read || graph.is_output(value)).collect();
        let mut part = model.clone();
        part.graph.remove_nodes(&graph.node_ids().filter(|id| !inside.contains(id)).collect());
        part.graph.set_inputs(Vec::new());
        part.graph.set_outputs(&outputs.iter().map(|&(value, _)| value).collect::<Vec<_>>());
        EliminateDeadNodes.run(&mut part).map_err(EngineError::load)?;
        // Of nodes that nothing reads nothing is fed either.
        let mut seen = HashSet::new();
        let all = nodes.iter().filter(|&&id| part.graph.contains_node(id)).flat_map(|&id| read(graph.node(id)));
        let inputs: Vec<ValueId> =
            all.filter(|&value| !is_inside(value) && !is_constant(value) && seen.insert(value)).collect();
        let most = if part.stored_bytes() < LARGE { PLANS } else { PLANS_OF_LARGE };
        Ok(Self { number, model: part, inputs, outputs, plans: Mutex::default(), most })
    }

    /// What it is fed with now.
    pub(super) fn fed(&self, at_hand: &HashMap<ValueId, Array>, constants: &HashSet<ValueId>) -> Vec<Fed> {
        let of = |value: &ValueId| match at_hand.get(value) {
            Some(array) if constants.contains(value) => Fed::Constant(array.clone()),
            Some(array) => Fed::Shape(array.shape().to_vec()),
            None => Fed::Shape(Vec::new()),
        };
        self.inputs.iter().map(of).collect()
    }

    /// The plan for that; `None` if there is none.
    pub(super) fn plan(
        &self,
        fed: &[Fed],
        at_hand: &HashMap<ValueId, Array>,
        backend: &dyn Backend,
    ) -> Result<Prepared, EngineError> {
        let mut plans = lock(&self.plans);
        if let Some(at) = plans.iter().position(|(key, _)| key == fed) {
            plans[..=at].rotate_right(1);
            return Ok(plans[0].1.clone());
        }
        let plan = match self.load(fed, at_hand, backend) {
            Ok(plan) => Some(plan),
            Err(error) if is_of_a_node(&error) => {
                tracing::debug!(%error, "no plan for a part of the model");
                None
            }
            Err(error) => return Err(error),
        };
        plans.insert(0, (fed.to_vec(), plan.clone()));
        plans.truncate(self.most);
        Ok(plan)
    }

    /// Remembers that the plan for that does not run.
    pub(super) fn fails(&self, fed: &[Fed]) {
        let mut plans = lock(&self.plans);
        plans.iter_mut().filter(|(key, _)| key == fed).for_each(|(_, plan)| *plan = None);
    }

    /// Has the back end prepare it.
    pub(super) fn load(
        &self,
        fed: &[Fed],
        at_hand: &HashMap<ValueId, Array>,
        backend: &dyn Backend,
    ) -> Result<Arc<dyn Plan>, EngineError> {
        let mut model = self.model.clone();
        let (mut inputs, mut shapes) = (Vec::new(), Vec::new());
        for (&value, fed) in self.inputs.iter().zip(fed) {
            match fed {
                Fed::Constant(array) => {
                    let tensor = constant(&model.graph, value, array);
                    model.graph.set_initializer(value, tensor);
                }
                Fed::Shape(shape) => {
                    let missing = || EngineError::NoSuchValue { name: self.name(value) };
                    let element = at_hand.get(&value).ok_or_else(missing)?.dtype();
                    inputs.push((value, TypeProto::tensor(element, &vec![None; shape.len()])));
                    shapes.push(shape.clone());
                }
            }
        }
        model.graph.set_inputs(inputs);
        backend.load(&model, &shapes)
    }

    fn name(&self, value: ValueId) -> String {
        self.model.graph.value(value).name().to_owned()
    }
}

/// Whether an error may be that of one node, so that the others run.
pub(super) fn is_of_a_node(error: &EngineError) -> bool {
    matches!(error, EngineError::Load { .. } | EngineError::Run { .. })
}

fn constant(graph: &Graph, value: ValueId, array: &Array) -> TensorProto {
    TensorProto::from_raw(graph.value(value).name(), array.dtype(), array.shape(), array.data().to_bytes())
}
