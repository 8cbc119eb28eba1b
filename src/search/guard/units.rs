//! What can be repaired: layers in the order of the network, kinds of operators, values, and what each costs in float.
//!
//! A layer that computes in float takes its surroundings along: what reads and writes floats only is not quantized. So a
//! run of neighbouring layers in float is one stretch of float without a quantizer inside.
//!
//! Costs are multiply-accumulates, counted for the shapes of a sample. What is no layer counts [`ELEMENT`] for each element it
//! writes: it reads and writes memory, and quantizers do as well.

use crate::data::Dataset;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{LayerPlan, WeightBits};
use crate::search::SearchError;
use indexmap::{IndexMap, IndexSet};
use msq_passes::FuseLstm;
use msq_passes::analysis::{Layer, Role, StoredWeight};
use msq_passes::ir::{Model, Node, ValueId};
use msq_passes::ops::is_recurrent;
use std::collections::HashMap;

/// Multiply-accumulates that an element of an operator counts for that is no layer.
const ELEMENT: u64 = 8;

/// A layer, or all nodes of an operator.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Name of the layer, or the operator.
    pub name: String,
    /// The nodes.
    pub nodes: Vec<String>,
    /// Its work in multiply-accumulates for one sample.
    pub work: u64,
    /// Its weights; none of an operator.
    pub weights: u64,
}

/// A weight beside the layers.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its name.
    pub name: String,
    /// Its bits, and those of what is multiplied with it.
    pub plan: LayerPlan,
}

impl Stored {
    /// Whether it has fewer than 8 bits.
    pub(super) fn has_few_bits(&self) -> bool {
        self.plan.weights != WeightBits::whole(8)
    }
}

/// A recurrent node.
#[derive(Clone, Debug)]
pub(super) struct Recurrent {
    /// Its name.
    pub name: String,
    /// Its weights, among those beside the layers.
    pub weights: Vec<usize>,
}

/// What can be repaired.
#[derive(Clone, Debug)]
pub(super) struct Units {
    /// Layers on integers in graph order, and behind them those that store integers alone.
    pub layers: Vec<Unit>,
    /// How many of them are on integers; where none is, all of them.
    pub on_integers: usize,
    /// Layers that store integers alone, though their plan lets them compute on such.
    pub stay_float: Vec<String>,
    /// Operators on integers that are no layers.
    pub operators: Vec<Unit>,
    /// Weights beside the layers that are integers, the largest first.
    pub stored: Vec<Stored>,
    /// Recurrent nodes that quantize at run time what they read, in graph order.
    pub recurrent: Vec<Recurrent>,
    /// Values with ranges that follow from data, in graph order.
    pub values: Vec<String>,
    /// Work of the network for one sample.
    pub work: u64,
}

impl Units {
    /// The units of a network that is quantized by a scheme.
    pub(super) fn of(model: &Model, scheme: &Scheme, data: &Dataset, runtime: &Runtime) -> Result<Self, SearchError> {
        let graph = &model.graph;
        let shapes = shapes(model, scheme, data, runtime)?;
        let shape = |value: ValueId| shapes.get(graph.value(value).name()).cloned().unwrap_or_default();
        let work = |layer: &Layer| layer.macs(&shape(layer.output)).unwrap_or(0).max(layer.weights() as u64);
        let unit = |layer: &Layer| Unit {
            name: layer.name.clone(),
            nodes: vec![layer.name.clone()],
            work: work(layer),
            weights: layer.weights() as u64,
        };
        let mut layers = Vec::new();
        let mut operators: IndexMap<String, Unit> = IndexMap::new();
        for (id, node) in graph.nodes() {
            let name = node.label(graph).to_owned();
            match scheme.placement.nodes.get(&id) {
                Some(Role::Layer(layer)) => layers.push(unit(layer)),
                Some(Role::Arithmetic | Role::ResidualSum { .. } | Role::Index) => {
                    let unit = Unit { name: node.op().to_owned(), nodes: Vec::new(), work: 0, weights: 0 };
                    let unit = operators.entry(node.op().to_owned()).or_insert(unit);
                    let elements = node.output(0).map_or(0, |value| shape(value).iter().product::<usize>());
                    unit.work += ELEMENT * elements as u64;
                    unit.nodes.push(name);
                }
                _ => {}
            }
        }
        let on_integers = layers.len();
        layers.extend(scheme.weight_only.iter().map(unit));
        let on_integers = if on_integers == 0 { layers.len() } else { on_integers };
        let stays_float = |layer: &&Layer| scheme.layer_plan(layer).activations.is_static();
        let stay_float = scheme.weight_only.iter().filter(stays_float).map(|layer| layer.name.clone()).collect();
        let free = |&value: &ValueId| graph.constant(value).is_none() && !scheme.is_given(value);
        let values = scheme.placement.roots().filter(free).map(|value| graph.value(value).name().to_owned()).collect();
        let recurrent = scheme.stored.iter().map(|weight| recurrent_work(model, weight, shape));
        let work = layers.iter().chain(operators.values()).map(|unit| unit.work).chain(recurrent).sum();
        let stored = stored_units(scheme);
        let recurrent = recurrent_units(scheme, &stored);
        let operators = operators.into_values().collect();
        Ok(Self { layers, on_integers, stay_float, operators, stored, recurrent, values, work })
    }
}

/// Multiply-accumulates of a recurrent weight for one sample: each step of each sequence multiplies with all of it.
fn recurrent_work(model: &Model, weight: &StoredWeight, shape: impl Fn(ValueId) -> Vec<usize>) -> u64 {
    let graph = &model.graph;
    let steps = |node: &Node| match node.output(0).map(&shape).as_deref() {
        Some(&[a, _, b, _]) if node.int_or("layout", 0) == 0 => a * b,
        Some(&[a, b, _, _]) => a * b,
        _ => 1,
    };
    let readers = graph
        .nodes()
        .filter(|(_, node)| is_recurrent(node.domain(), node.op()) && node.inputs().contains(&Some(weight.value)));
    readers.map(|(_, node)| (steps(node) * weight.weights()) as u64).sum()
}

/// Weights beside the layers that are integers, but for those that have the integers of a layer.
fn stored_units(scheme: &Scheme) -> Vec<Stored> {
    let own = |weight: &&StoredWeight| !scheme.twins.contains_key(&weight.name);
    let mut found: Vec<&StoredWeight> = scheme.stored.iter().filter(own).collect();
    found.sort_by_key(|weight| std::cmp::Reverse(weight.weights()));
    let unit = |weight: &StoredWeight| Stored { name: weight.name.clone(), plan: scheme.stored_plan(weight) };
    found.into_iter().map(unit).collect()
}

/// Recurrent nodes that quantize at run time what they read.
fn recurrent_units(scheme: &Scheme, stored: &[Stored]) -> Vec<Recurrent> {
    let nodes: IndexSet<String> = scheme.recurrent_at_run_time().collect();
    let reads = |name: &str, node: &str| {
        // Gates of all units lie along the second axis.
        let is_large = |weight: &StoredWeight| weight.shape.get(1).is_some_and(|&rows| rows >= 4 * FuseLstm::SMALLEST);
        let found = scheme.stored.iter().find(|weight| weight.name == name);
        found.is_some_and(|weight| is_large(weight) && weight.readers.iter().any(|reader| reader == node))
    };
    let unit = |name: String| {
        let weights: Vec<usize> = (0..stored.len()).filter(|&at| reads(&stored[at].name, &name)).collect();
        Recurrent { name, weights }
    };
    nodes.into_iter().map(unit).filter(|node| !node.weights.is_empty()).collect()
}

/// Shapes of what the nodes of the scheme write, for the first sample.
fn shapes(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<HashMap<String, Vec<usize>>, SearchError> {
    let graph = &model.graph;
    let layers = scheme.placement.nodes.keys().chain(scheme.weight_only.iter().map(|layer| &layer.node)).copied();
    let recurrent = graph.nodes().filter(|(_, node)| is_recurrent(node.domain(), node.op())).map(|(id, _)| id);
    let written =
        layers.chain(recurrent).filter_map(|id| graph.node(id).output(0)).filter(|&value| !graph.is_output(value));
    let names: Vec<String> = written.map(|value| graph.value(value).name().to_owned()).collect();
    let segment = Segment::tapped(model, &names)?;
    let stages = Stages::new(&segment, Limit::of(model, runtime.memory))?;
    let look = |ran: Ran| (0..ran.len()).map(|at| ran.shape(at).to_vec()).collect::<Vec<_>>();
    let shapes = stages.once(data, &runtime.silent(), look)?;
    Ok(segment.names.iter().cloned().zip(shapes).collect())
}
