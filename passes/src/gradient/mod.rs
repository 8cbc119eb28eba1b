//! Pass `differentiate`: writes the gradient of a graph into the graph.
//!
//! For values s (the seeds) and values w (wanted), the pass adds one input for every seed, the vector u that the seed's
//! gradient starts from, and one output for every value wanted:
//!
//! `∂/∂w Σ_s ⟨u_s, s⟩`, the product of the vector u with the Jacobian of s by w.
//!
//! Nodes are visited from the last to the first. Each hands the gradients of its outputs on to those of its inputs that
//! lie between a value wanted and a seed, by the rule of its operator ([`rules`]); a value that several nodes read sums
//! up what they hand to it, and an operand that was broadcast sums over the axes along which it was repeated. What a rule
//! emits are ordinary nodes on the values of the forward pass, so that the result is one model: printed, validated and
//! run like any other. Nodes that no output needs are removed.
//!
//! Gradients by weights are not formed: they are products of the gradient behind a layer and the columns before it.
//!
//! Where the derivative does not exist, a rule takes one of those from the sides: 0 at the bounds of `Relu` and `Clip`.
//! Rounding between `QuantizeLinear` and `DequantizeLinear` is taken for the identity inside the range of the integers
//! and for a constant outside (the straight-through estimator).
//!
//! An operator without a rule stops the walk. Values wanted in front of it are declined with the node and its operator,
//! as are those on which no seed depends; where none is left the pass fails. Rules need the shapes of what they
//! broadcast, cut or join: types have to be inferred before, for inputs of fixed shapes.

mod activations;
mod arithmetic;
mod arrange;
mod functions;
mod layers;
mod normalize;
mod pool;
mod quantizers;
mod reduce;
mod resample;
mod rules;
mod select;
mod site;
mod window;

use crate::ir::{DataType, Graph, Model, NodeId, TensorProto, TypeProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::prepare::EliminateDeadNodes;
use site::Site;
use std::collections::{HashMap, HashSet};

/// The first operator set in which `ReduceSum` and `Squeeze` have their axes as an input, as rules write them.
const OPSET: i64 = 13;

/// Adds gradients to a model.
#[derive(Clone, Debug, Default)]
pub struct Differentiate {
    /// Names of the values to start from. The model gets one input of the same type for each, behind its own inputs, in
    /// this order.
    pub seeds: Vec<String>,
    /// Names of the values whose gradients are wanted. The model gets an output for each that is not declined, behind its
    /// own outputs, in this order; see [`Differentiate::gradient_of`].
    pub wanted: Vec<String>,
}

impl Differentiate {
    /// The name of the gradient of a value in a model that has been differentiated.
    pub fn gradient_of(value: &str) -> String {
        format!("{value}_gradient")
    }

    /// The name of the input from which the gradient of a seed starts.
    pub fn seed_of(value: &str) -> String {
        format!("{value}_seed")
    }

    /// Gives the weight of a layer in so many groups other values, in a graph that has been differentiated or not. The way
    /// back through a convolution may read the weight in another order, from a constant of its own.
    pub fn set_weight(graph: &mut Graph, name: &str, tensor: TensorProto, groups: usize) {
        let own = |graph: &Graph, name: &str| graph.find(name).filter(|&value| graph.constant(value).is_some());
        let turned_name = layers::turned_of(name);
        if let Some(value) = own(graph, &turned_name)
            && let Some(turned) = layers::turned(&tensor, groups)
            && graph.constant(value).is_some_and(|constant| constant.dims == turned.dims)
        {
            graph.set_initializer(value, turned);
        }
        if let Some(value) = own(graph, name) {
            graph.set_initializer(value, tensor);
        }
    }

    /// The operators that have a rule.
    pub fn operators() -> impl Iterator<Item = &'static str> {
        rules::operators()
    }

    fn is_done(&self, graph: &Graph) -> bool {
        let has = |name: String, is: &dyn Fn(ValueId) -> bool| graph.find(&name).is_some_and(is);
        !self.seeds.is_empty()
            && self.seeds.iter().all(|name| has(Self::seed_of(name), &|value| graph.is_input(value)))
            && self.wanted.iter().any(|name| has(Self::gradient_of(name), &|value| graph.is_output(value)))
    }
}

impl Pass for Differentiate {
    fn name(&self) -> &'static str {
        "differentiate"
    }

    fn about(&self) -> &'static str {
        "gradients of given values become outputs, computed by nodes of the graph"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        let new = model.opset("").is_none_or(|opset| opset >= OPSET);
        let missing = PassError::Requires { pass: "differentiate", earlier: "upgrade-opset" };
        if new { Ok(()) } else { Err(missing) }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        if self.is_done(&model.graph) {
            return Ok(Outcome::default());
        }
        let seeds = found(&model.graph, &self.seeds, "to start from")?;
        let wanted = found(&model.graph, &self.wanted, "to differentiate by")?;
        for &value in &wanted {
            if model.graph.value(value).element_type().is_some_and(|element| !element.is_float()) {
                let name = model_name(&model.graph, value);
                return Err(PassError::Input(format!("value `{name}` has no gradient: its elements are integers")));
            }
        }
        let mut outcome = Outcome::default();
        let mut walk = Walk::new(&model.graph, &wanted);
        for &seed in &seeds {
            let input = add_seed(&mut model.graph, seed)?;
            walk.add(seed, input);
        }
        let mut site = Site::new(&mut model.graph);
        walk.run(&mut site);
        let mut given = 0;
        for &value in &wanted {
            match walk.take(&mut site, value) {
                Ok(gradient) => {
                    add_gradient(site.graph, value, gradient)?;
                    given += 1;
                }
                Err(reason) => outcome.decline(model_name(site.graph, value), reason),
            }
        }
        if let (0, Some(first)) = (given, outcome.declined.first()) {
            return Err(PassError::Input(format!("no gradient of `{}`: {}", first.site, first.reason)));
        }
        EliminateDeadNodes.run(model)?;
        outcome.changed = given;
        Ok(outcome)
    }
}

fn model_name(graph: &Graph, value: ValueId) -> String {
    graph.value(value).name().to_owned()
}

fn found(graph: &Graph, names: &[String], what: &str) -> Result<Vec<ValueId>, PassError> {
    let find =
        |name: &String| graph.find(name).ok_or_else(|| PassError::Input(format!("there is no value `{name}` {what}")));
    names.iter().map(find).collect()
}

/// The input from which the gradient of a value starts.
fn add_seed(graph: &mut Graph, seed: ValueId) -> Result<ValueId, PassError> {
    let name = model_name(graph, seed);
    let ty = graph.value(seed).ty().cloned().filter(|ty| ty.element_type().is_some_and(DataType::is_float));
    let Some(ty) = ty else {
        return Err(PassError::Input(format!("value `{name}`: a gradient starts from floats of a known type only")));
    };
    let input = new_value(graph, &Differentiate::seed_of(&name))?;
    graph.add_input(input, ty);
    Ok(input)
}

/// Makes a gradient an output under the name that its value gives it.
fn add_gradient(graph: &mut Graph, value: ValueId, gradient: ValueId) -> Result<(), PassError> {
    let name = Differentiate::gradient_of(graph.value(value).name());
    let output = if graph.value(gradient).name() == name && !graph.is_output(gradient) {
        gradient
    } else {
        let output = new_value(graph, &name)?;
        let node = crate::ir::NodeProto::of("Identity", &name, Vec::new());
        graph.add_node(node, &[Some(gradient)], &[Some(output)]);
        output
    };
    if let Some(ty) = graph.value(value).ty().cloned() {
        graph.set_type(output, ty);
    }
    graph.add_output(output);
    Ok(())
}

fn new_value(graph: &mut Graph, name: &str) -> Result<ValueId, PassError> {
    if graph.find(name).is_some() || graph.is_reserved(name) {
        return Err(PassError::Input(format!("the model has a value `{name}` already")));
    }
    Ok(graph.add_value(name))
}

/// The walk from the seeds to the values wanted.
struct Walk {
    /// Nodes in graph order.
    nodes: Vec<NodeId>,
    /// Values that depend on a value wanted, those themselves included.
    active: HashSet<ValueId>,
    /// What readers hand to a value.
    parts: HashMap<ValueId, Vec<ValueId>>,
    /// Values whose gradient is not known, with the reason.
    blocked: HashMap<ValueId, String>,
    /// Gradients that carry the name of their value.
    named: HashSet<ValueId>,
}

impl Walk {
    fn new(graph: &Graph, wanted: &[ValueId]) -> Self {
        let mut active: HashSet<ValueId> = wanted.iter().copied().collect();
        for (_, node) in graph.nodes() {
            let reads = |values: &[ValueId]| values.iter().any(|value| active.contains(value));
            let depends = node.inputs().iter().flatten().any(|value| active.contains(value)) || reads(node.captures());
            if depends {
                let carries = |value: &ValueId| rules::carries(graph, node, *value);
                active.extend(node.outputs().iter().flatten().copied().filter(carries));
            }
        }
        let nodes = graph.node_ids().collect();
        Self { nodes, active, parts: HashMap::new(), blocked: HashMap::new(), named: HashSet::new() }
    }

    fn add(&mut self, value: ValueId, part: ValueId) {
        self.parts.entry(value).or_default().push(part);
        self.named.insert(part);
    }

    fn run(&mut self, site: &mut Site) {
        for id in std::mem::take(&mut self.nodes).into_iter().rev() {
            let node = site.graph.node(id).clone();
            let reads: Vec<ValueId> = node.inputs().iter().flatten().chain(node.captures()).copied().collect();
            if !reads.iter().any(|value| self.active.contains(value)) {
                continue;
            }
            let reached = |value: &&ValueId| self.parts.contains_key(value) || self.blocked.contains_key(value);
            if !node.outputs().iter().flatten().any(|value| reached(&value)) {
                continue;
            }
            let given = node.outputs().iter().map(|value| value.map(|value| self.sum(site, value)).transpose());
            let given: Result<Vec<Option<ValueId>>, String> = given.map(|sum| sum.map(Option::flatten)).collect();
            let wants = node.inputs().iter().map(|value| value.is_some_and(|value| self.active.contains(&value)));
            let wants = wants.collect();
            let label = node.label(site.graph).to_owned();
            let op = node.op().to_owned();
            let inputs = node.inputs().to_vec();
            let handed = given.and_then(|given| {
                let Some(rule) = rules::rule_of(&node) else {
                    return Err(format!("node `{label}`: operator {op} has no gradient rule"));
                };
                site.enter(node, given, wants);
                rule(site).map_err(|reason| format!("node `{label}` ({op}): {reason}"))
            });
            match handed {
                Ok(handed) => {
                    for (value, part) in inputs.into_iter().zip(handed) {
                        if let (Some(value), Some(part)) = (value.filter(|v| self.active.contains(v)), part) {
                            self.parts.entry(value).or_default().push(part);
                        }
                    }
                }
                Err(reason) => {
                    for value in reads.into_iter().filter(|value| self.active.contains(value)) {
                        self.blocked.entry(value).or_insert_with(|| reason.clone());
                    }
                }
            }
        }
    }

    /// The gradient of a value, which no later node of the walk adds to.
    fn sum(&mut self, site: &mut Site, value: ValueId) -> Result<Option<ValueId>, String> {
        if let Some(reason) = self.blocked.get(&value) {
            return Err(reason.clone());
        }
        let Some(parts) = self.parts.get_mut(&value) else { return Ok(None) };
        let sum = site.sum(std::mem::take(parts));
        if let Some(sum) = sum {
            parts.push(sum);
            if self.named.insert(sum) {
                let name = Differentiate::gradient_of(site.graph.value(value).name());
                let name = site.graph.fresh_name(&name);
                site.graph.rename(sum, &name);
                // The old name is free for another value, after which its node is called.
                if let Some((node, _)) = site.graph.value(sum).producer() {
                    site.graph.set_node_name(node, Some(name));
                }
                declare(site.graph, value, sum);
            }
        }
        Ok(sum)
    }

    /// The gradient of a value wanted.
    fn take(&mut self, site: &mut Site, value: ValueId) -> Result<ValueId, String> {
        self.sum(site, value)?.ok_or_else(|| "no seed depends on it".to_owned())
    }
}

/// States the type of a gradient: floats of the shape of its value.
fn declare(graph: &mut Graph, value: ValueId, gradient: ValueId) {
    let element = graph.value(value).element_type().filter(|element| element.is_float());
    if let (Some(element), Some(shape)) = (element, graph.value(value).shape()) {
        graph.set_type(gradient, TypeProto::tensor(element, &shape));
    }
}
