//! Pass `hoist-invariants`: what a `Loop` or `Scan` carries and its body hands on unchanged is read from the graph around.
//!
//! A state s of a loop starts as v and becomes f(s) with every turn. Where f is the identity, written as none or as
//! `Identity` nodes, s is v in every turn, and v behind the last one, also where there is none:
//!
//! ```text
//! h, u = Loop (n, c, x, v) <                      h = Loop (n, c, x) <
//!   body (i, d, a, s) => (e, b, s) {          →     body (i, d, a) => (e, b) {
//!     e = Identity (d)  b = MatMul (a, s) }           e = Identity (d)  b = MatMul (a, v) }
//! >                                               >   and v for u
//! ```
//!
//! Another output of the body that is s, a stack or the next value of another state, is copied from v by an `Identity`.
//! So is u where it is an output of its graph. Loops in bodies come first: what they hand on may be handed on by the body
//! around them. A loop that is left without outputs is removed.
//!
//! Declined: where a value in the body is called like v, and where a copy would be one of no tensor.

use crate::ir::{GraphProto, Model, NodeProto, TypeValue, all_names, export, normal_domain, rename_free};
use crate::pass::{Outcome, Pass, PassError};
use std::collections::HashSet;

/// The operator set since which the states of a `Scan` have the shapes that its body sees: none is batched.
const SCAN_SINCE: i64 = 9;

/// Replaces states of loops that never change by the values that they start as.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoistInvariants;

impl Pass for HoistInvariants {
    fn name(&self) -> &'static str {
        "hoist-invariants"
    }

    fn about(&self) -> &'static str {
        "what loops carry and never change is read from the graph around"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut hoister =
            Hoister { scans: model.opset("").is_some_and(|opset| opset >= SCAN_SINCE), outcome: Outcome::default() };
        if !model.graph.nodes().any(|(_, node)| node.subgraphs().next().is_some()) {
            return Ok(hoister.outcome);
        }
        let mut message = export(model);
        if let Some(graph) = &mut message.graph {
            hoister.graph(graph);
        }
        if hoister.outcome.changed > 0 {
            model.replace(message)?;
        }
        Ok(hoister.outcome)
    }
}

struct Hoister {
    /// Whether the states of a `Scan` are looked at.
    scans: bool,
    outcome: Outcome,
}

/// Where the states of a loop are: input and output `state` of the node, counted from `input` and from 0, and of the
/// body, counted from `body_input` and `body_output`.
#[derive(Clone, Copy)]
struct States {
    count: usize,
    input: usize,
    body_input: usize,
    body_output: usize,
}

impl States {
    fn of(node: &NodeProto, scans: bool) -> Option<Self> {
        if !normal_domain(node.domain()).is_empty() {
            return None;
        }
        match node.op_type() {
            "Loop" => Some(Self { count: node.input.len().checked_sub(2)?, input: 2, body_input: 2, body_output: 1 }),
            "Scan" if scans => {
                let scanned = node.attribute.iter().find(|attribute| attribute.name() == "num_scan_inputs")?.i?;
                let count = node.input.len().checked_sub(usize::try_from(scanned).ok()?)?;
                Some(Self { count, input: 0, body_input: 0, body_output: 0 })
            }
            _ => None,
        }
    }
}

/// A state that never changes.
struct Invariant {
    /// Its number among the states.
    state: usize,
    /// What it is called in the graph around.
    outer: String,
    /// What it is called in the body: as the input, and behind each `Identity`.
    inner: Vec<String>,
}

impl Hoister {
    fn graph(&mut self, graph: &mut GraphProto) {
        let mut at = 0;
        while at < graph.node.len() {
            graph.node[at].subgraphs_mut().for_each(|body| self.graph(body));
            let node = std::mem::take(&mut graph.node[at]);
            let nodes = self.node(graph, node);
            let next = at + nodes.len();
            graph.node.splice(at..=at, nodes);
            at = next;
        }
    }

    /// The nodes that replace a node of the graph: itself, unless it has no outputs any more, and copies.
    fn node(&mut self, graph: &mut GraphProto, mut node: NodeProto) -> Vec<NodeProto> {
        let Some(states) = States::of(&node, self.scans) else { return vec![node] };
        let label = label(&node);
        let mut copies = Vec::new();
        let before = self.outcome.changed;
        // From the last to the first, as what is removed moves all behind it.
        for state in (0..states.count).rev() {
            let Some(invariant) = find(&node, states, state) else { continue };
            if let Some(reason) = obstacle(graph, &node, states, &invariant) {
                self.outcome.decline(&label, format!("state {state} stays: {reason}"));
                continue;
            }
            copies.extend(hoist(graph, &mut node, states, &invariant));
            self.outcome.count();
        }
        let writes = node.output.iter().any(|output| !output.is_empty());
        let own = (writes || self.outcome.changed == before).then_some(node);
        own.into_iter().chain(copies).collect()
    }
}

/// The node in messages: its name, or its operator and first output.
fn label(node: &NodeProto) -> String {
    let output = || node.output.iter().find(|name| !name.is_empty()).map_or(node.op_type(), String::as_str);
    if node.name().is_empty() { output().to_owned() } else { node.name().to_owned() }
}

fn body(node: &NodeProto) -> Option<&GraphProto> {
    node.attribute.iter().find(|attribute| attribute.name() == "body")?.g.as_ref()
}

fn body_mut(node: &mut NodeProto) -> Option<&mut GraphProto> {
    node.attribute.iter_mut().find(|attribute| attribute.name() == "body")?.g.as_mut()
}

/// The state, if the body hands it on unchanged.
fn find(node: &NodeProto, states: States, state: usize) -> Option<Invariant> {
    let body = body(node)?;
    let outer = node.input.get(states.input + state).filter(|name| !name.is_empty())?;
    let input = body.input.get(states.body_input + state)?.name();
    let mut name = body.output.get(states.body_output + state)?.name();
    let mut inner = vec![name.to_owned()];
    while name != input {
        let copy = body.node.iter().find(|node| node.output.iter().any(|output| output == name))?;
        name = copy.input.first().filter(|_| is_copy(copy))?;
        inner.push(name.to_owned());
    }
    Some(Invariant { state, outer: outer.clone(), inner })
}

fn is_copy(node: &NodeProto) -> bool {
    node.op_type() == "Identity" && normal_domain(node.domain()).is_empty() && node.output.len() == 1
}

/// Why a state has to stay.
fn obstacle(graph: &GraphProto, node: &NodeProto, states: States, found: &Invariant) -> Option<String> {
    let body = body(node)?;
    let Invariant { state, outer, inner } = found;
    let port = states.body_output + state;
    let yielded = |name: &String| body.output.iter().enumerate().any(|(at, o)| at != port && o.name() == name);
    let input = inner.last()?;
    let mut names = HashSet::new();
    all_names(body, &mut names);
    if names.contains(outer) && (outer != input || yielded(outer)) {
        return Some(format!("a value in the body is called `{outer}` too"));
    }
    let written = node.output.get(*state);
    let copied = inner.iter().any(yielded) || written.is_some_and(|name| is_output(graph, name) || hides(graph, outer));
    let declared = body.input.get(states.body_input + state).and_then(|input| input.r#type.as_ref());
    let is_tensor = declared.is_some_and(|ty| matches!(ty.value, Some(TypeValue::Tensor(_))));
    (copied && !is_tensor).then(|| format!("`{outer}` would be copied and is not declared as a tensor"))
}

fn is_output(graph: &GraphProto, name: &str) -> bool {
    graph.output.iter().any(|output| output.name() == name)
}

/// Whether a sub-graph of the graph has a value of its own of this name.
fn hides(graph: &GraphProto, name: &str) -> bool {
    let mut names = HashSet::new();
    graph.node.iter().flat_map(NodeProto::subgraphs).for_each(|body| all_names(body, &mut names));
    names.contains(name)
}

/// Takes a state out of a loop. Returns the node that copies its value behind the loop, if one is needed.
fn hoist(graph: &mut GraphProto, node: &mut NodeProto, states: States, found: &Invariant) -> Option<NodeProto> {
    let Invariant { state, outer, inner } = found;
    node.input.remove(states.input + state);
    let written = (*state < node.output.len()).then(|| node.output.remove(*state));
    let body = body_mut(node)?;
    body.input.remove(states.body_input + state);
    body.output.remove(states.body_output + state);
    for name in inner {
        read_outer(body, name, outer);
    }
    let written = written.filter(|name| !name.is_empty())?;
    if is_output(graph, &written) || hides(graph, outer) {
        return Some(copy(outer, &written));
    }
    rename_free_in(graph, &written, outer);
    None
}

/// Makes a body read an outer value in the place of one of its own that is the same; where the body yields its own, that
/// becomes a copy.
fn read_outer(body: &mut GraphProto, name: &str, outer: &str) {
    body.node.retain(|node| !node.output.iter().any(|output| output == name));
    let yielded: Vec<usize> = (0..body.output.len()).filter(|&at| body.output[at].name() == name).collect();
    rename_free_in(body, name, outer);
    if yielded.is_empty() {
        return;
    }
    body.node.insert(0, copy(outer, name));
}

/// Makes the nodes of a graph, and their sub-graphs, read `to` for `from`. Outputs of the graph stay.
fn rename_free_in(graph: &mut GraphProto, from: &str, to: &str) {
    for node in &mut graph.node {
        node.input.iter_mut().filter(|input| *input == from).for_each(|input| to.clone_into(input));
        node.subgraphs_mut().for_each(|nested| rename_free(nested, from, to));
    }
    if !is_output(graph, from) {
        graph.value_info.retain(|info| info.name() != from);
    }
}

fn copy(from: &str, to: &str) -> NodeProto {
    let named = NodeProto::of("Identity", to, Vec::new());
    NodeProto { input: vec![from.to_owned()], output: vec![to.to_owned()], ..named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    fn ran(text: &str) -> (Model, Outcome) {
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let outcome = HoistInvariants.run(&mut model).unwrap();
        model.graph.sort().unwrap();
        crate::ir::check(&model).unwrap();
        (model, outcome)
    }

    #[test]
    fn what_is_carried_through_nested_loops_is_a_constant_of_the_main_graph() {
        let (model, outcome) = ran("<ir_version: 8, opset_import: [\"\": 17]>
            g (float[2, 2] x) => (float[2, 2] y) <int64 n = {3}, bool c = {1}, float[2, 2] w = {1, 2, 3, 4}>
            { y, u = Loop (n, c, x, w) < body = b (int64 i, bool d, float[2, 2] a, float[2, 2] s) => (bool d, float[2, 2] p, float[2, 2] t) {
                p, t = Loop (n, d, a, s) < body = k (int64 j, bool e, float[2, 2] q, float[2, 2] v) => (bool e, float[2, 2] r, float[2, 2] v) {
                    r = MatMul (q, v) } > } > }");
        assert_eq!(outcome.changed, 2);
        let weight = model.graph.find("w").unwrap();
        let [reader] = model.graph.value(weight).captures()[..] else { panic!() };
        assert!(model.graph.value(weight).uses().is_empty());
        assert_eq!(model.graph.node(reader).inputs().len(), 3);
    }

    #[test]
    fn a_scan_of_operator_set_eight_has_batches_and_stays() {
        let (_, outcome) = ran("<ir_version: 3, opset_import: [\"\": 8]>
            g (float[1, 2] w, float[1, 3, 2] x) => (float[1, 2] u, float[1, 3, 2] y)
            { u, y = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] a) => (float[2] s, float[2] p) { p = Add (a, s) }> (\"\", w, x) }");
        assert_eq!(outcome, Outcome::default());
    }
}
