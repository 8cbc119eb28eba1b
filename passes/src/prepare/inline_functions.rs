//! Pass `inline-functions`: a call of a function of the model becomes the function's nodes.
//!
//! For f(a, b) = { t = G(a, b); y = H(t) } the call `v = f(x, w)` is `c/t = G(x, w); v = H(c/t)`, where c is the call's
//! name: parameters become the operands, results the values that the call writes, and everything else inside gets a
//! name that nobody has. An attribute that refers to one of the function's takes the value that the call states, else
//! the function's default; without either it is left out. A parameter that the call omits is omitted where it is read.
//! A result that is a parameter, or that the function names twice, is copied by `Identity`. Calls inside functions,
//! sub-graphs and inlined nodes are inlined as well; functions that nothing calls any more go.
//!
//! A function may be written for another operator set of the default domain. Where its operators are defined alike in
//! both, nothing changes; from an older one its nodes are carried over as by `upgrade-opset`.
//!
//! Declined, with the function left as it is: a function that calls itself, calls nested more than 64 deep, more than
//! a million nodes, and nodes that cannot be carried over.

use super::names::Names;
use super::upgrade_opset::upgrade_nodes;
use crate::ir::{
    AttributeProto, FunctionProto, GraphProto, Model, ModelProto, NodeProto, OperatorSetIdProto, export, normal_domain,
};
use crate::ops::schema;
use crate::pass::{Outcome, Pass, PassError};
use std::collections::{HashMap, HashSet};

/// Replaces calls of functions by the functions' nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineFunctions;

/// How deep calls may be nested.
const DEEPEST: usize = 64;
/// How many nodes inlining may make: where each function calls another one twice, they double with every level.
const MOST_NODES: usize = 1_000_000;

impl Pass for InlineFunctions {
    fn name(&self) -> &'static str {
        "inline-functions"
    }

    fn about(&self) -> &'static str {
        "calls of functions of the model become the functions' nodes"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        if !model.has_functions() {
            return Ok(Outcome::default());
        }
        let mut message = export(model);
        let outcome = inline_calls(&mut message);
        if outcome.changed > 0 {
            model.replace(message)?;
        }
        Ok(outcome)
    }
}

/// Inlines the functions of a model message.
pub fn inline_calls(message: &mut ModelProto) -> Outcome {
    let Some(mut graph) = message.graph.take() else { return Outcome::default() };
    let functions = std::mem::take(&mut message.functions);
    let mut inliner = Inliner {
        functions: functions.iter().map(|function| (Key::of_function(function), function)).collect(),
        imports: std::mem::take(&mut message.opset_import),
        names: Names::of(&graph),
        depth: 0,
        nodes: 0,
        outcome: Outcome::default(),
    };
    inliner.graph(&mut graph);
    let called = inliner.called(&graph.node);
    let Inliner { imports, mut outcome, .. } = inliner;
    outcome.changed += functions.len() - called.len();
    message.opset_import = imports;
    message.functions =
        functions.iter().filter(|function| called.contains(&Key::of_function(function))).cloned().collect();
    message.graph = Some(graph);
    outcome
}

/// What identifies a function, and the function that a node calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: String,
    name: String,
    overload: String,
}

impl Key {
    fn of_function(function: &FunctionProto) -> Self {
        Self::new(function.domain(), function.name(), function.overload())
    }

    fn of_call(node: &NodeProto) -> Self {
        Self::new(node.domain(), node.op_type(), node.overload())
    }

    fn new(domain: &str, name: &str, overload: &str) -> Self {
        let domain = normal_domain(domain).to_owned();
        Self { domain, name: name.to_owned(), overload: overload.to_owned() }
    }
}

struct Inliner<'a> {
    functions: HashMap<Key, &'a FunctionProto>,
    /// Operator sets of the model, to which those of inlined functions are added.
    imports: Vec<OperatorSetIdProto>,
    names: Names,
    /// How many calls are being inlined, one inside the other.
    depth: usize,
    /// Nodes made so far.
    nodes: usize,
    outcome: Outcome,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto) {
        for node in std::mem::take(&mut graph.node) {
            self.node(node, &mut graph.node);
        }
    }

    /// Appends what the node becomes.
    fn node(&mut self, mut node: NodeProto, nodes: &mut Vec<NodeProto>) {
        node.subgraphs_mut().for_each(|graph| self.graph(graph));
        let key = Key::of_call(&node);
        let Some(&function) = self.functions.get(&key) else {
            nodes.push(node);
            return;
        };
        if let Some(reason) = self.refusal(&key, function) {
            self.outcome.decline(label(&node), reason);
            nodes.push(node);
            return;
        }
        let body = self.body(function, &node);
        let body = match self.carried_over(function, body) {
            Ok(body) => body,
            Err(reason) => {
                self.outcome.decline(label(&node), reason);
                nodes.push(node);
                return;
            }
        };
        self.outcome.count();
        self.import(function);
        self.nodes += body.len();
        self.depth += 1;
        for inner in body {
            self.node(inner, nodes);
        }
        self.depth -= 1;
    }

    fn refusal(&self, key: &Key, function: &FunctionProto) -> Option<String> {
        if self.called(&function.node).contains(key) {
            return Some("the function calls itself".to_owned());
        }
        if self.depth >= DEEPEST {
            return Some(format!("calls are nested more than {DEEPEST} deep"));
        }
        if self.nodes + function.node.len() > MOST_NODES {
            return Some(format!("there would be more than {MOST_NODES} nodes"));
        }
        None
    }

    /// The nodes in the operator set of the model.
    fn carried_over(&mut self, function: &FunctionProto, body: Vec<NodeProto>) -> Result<Vec<NodeProto>, String> {
        let version = |imports: &[OperatorSetIdProto]| {
            imports.iter().find(|import| normal_domain(import.domain()).is_empty()).map(OperatorSetIdProto::version)
        };
        let (Some(own), Some(of_model)) = (version(&function.opset_import), version(&self.imports)) else {
            return Ok(body);
        };
        let Some(changed) = changed_operator(&body, own, of_model) else { return Ok(body) };
        let differs =
            format!("the function is written for opset {own}, the model for {of_model}, and {changed} differs");
        if own > of_model {
            return Err(differs);
        }
        upgrade_nodes(body, (own, of_model), &mut self.names).map_err(|why| format!("{differs}: {why}"))
    }

    /// Adds the operator sets of a function that the model does not state.
    fn import(&mut self, function: &FunctionProto) {
        for import in &function.opset_import {
            let domain = normal_domain(import.domain());
            if self.imports.iter().all(|stated| normal_domain(stated.domain()) != domain) {
                self.imports.push(import.clone());
            }
        }
    }

    /// The function's nodes in the place of a call.
    fn body(&mut self, function: &FunctionProto, call: &NodeProto) -> Vec<NodeProto> {
        let mut scope = Scope { names: &mut self.names, prefix: label(call), renamed: HashMap::new() };
        for (slot, parameter) in function.input.iter().enumerate() {
            scope.renamed.insert(parameter.clone(), call.input.get(slot).cloned().unwrap_or_default());
        }
        let mut copied = Vec::new();
        for (result, wanted) in function.output.iter().zip(&call.output).filter(|(_, wanted)| !wanted.is_empty()) {
            if scope.renamed.contains_key(result) {
                copied.push((result, wanted));
            } else {
                scope.renamed.insert(result.clone(), wanted.clone());
            }
        }
        let mut body = function.node.clone();
        for node in &mut body {
            scope.rename(node);
            refer(node, call, function);
        }
        for (result, wanted) in copied {
            let input = vec![scope.renamed.get(result).cloned().unwrap_or_default()];
            body.push(NodeProto { input, output: vec![wanted.clone()], ..NodeProto::of("Identity", "", Vec::new()) });
        }
        body
    }

    /// The functions that nodes call, directly or through others.
    fn called(&self, nodes: &[NodeProto]) -> HashSet<Key> {
        let mut called = HashSet::new();
        let mut open: Vec<&NodeProto> = nodes.iter().collect();
        while let Some(node) = open.pop() {
            open.extend(node.subgraphs().flat_map(|graph| &graph.node));
            let key = Key::of_call(node);
            if let Some(&function) = self.functions.get(&key)
                && called.insert(key)
            {
                open.extend(&function.node);
            }
        }
        called
    }
}

/// A call in messages and names: its name, or its first result.
fn label(call: &NodeProto) -> String {
    let names = std::iter::once(call.name()).chain(call.output.iter().map(String::as_str));
    names.into_iter().find(|name| !name.is_empty()).unwrap_or(call.op_type()).to_owned()
}

/// An operator of the default domain among the nodes that two operator sets define differently.
fn changed_operator(nodes: &[NodeProto], one: i64, other: i64) -> Option<&str> {
    nodes.iter().find_map(|node| {
        let schema = schema(node.op_type()).filter(|_| normal_domain(node.domain()).is_empty());
        let since = |opset: i64| schema.map(|schema| schema.versions.iter().rev().find(|&&since| since <= opset));
        if since(one) != since(other) {
            return Some(node.op_type());
        }
        node.subgraphs().find_map(|graph| changed_operator(&graph.node, one, other))
    })
}

/// The names inside one call.
struct Scope<'a> {
    names: &'a mut Names,
    prefix: String,
    renamed: HashMap<String, String>,
}

impl Scope<'_> {
    fn name(&mut self, name: &mut String) {
        if name.is_empty() {
            return;
        }
        if let Some(renamed) = self.renamed.get(name.as_str()) {
            renamed.clone_into(name);
            return;
        }
        let fresh = self.names.fresh(&format!("{}/{name}", self.prefix));
        self.renamed.insert(std::mem::replace(name, fresh.clone()), fresh);
    }

    fn optional(&mut self, name: &mut Option<String>) {
        if let Some(name) = name {
            self.name(name);
        }
    }

    fn rename(&mut self, node: &mut NodeProto) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            self.name(name);
        }
        if !node.name().is_empty() {
            node.name = Some(format!("{}/{}", self.prefix, node.name()));
        }
        for graph in node.subgraphs_mut() {
            let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
            values.for_each(|value| self.optional(&mut value.name));
            graph.initializer.iter_mut().for_each(|tensor| self.optional(&mut tensor.name));
            let sparse = graph.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut());
            sparse.for_each(|tensor| self.optional(&mut tensor.name));
            graph.node.iter_mut().for_each(|node| self.rename(node));
        }
    }
}

/// Gives attributes that refer to one of the function's the value they have in this call.
fn refer(node: &mut NodeProto, call: &NodeProto, function: &FunctionProto) {
    let stated = call.attribute.iter().chain(&function.attribute_proto);
    let value = |name: &str| stated.clone().find(|attribute| attribute.name() == name).cloned();
    node.attribute = std::mem::take(&mut node.attribute)
        .into_iter()
        .filter_map(|mut attribute| {
            if attribute.ref_attr_name().is_empty() {
                let graphs = attribute.g.iter_mut().chain(&mut attribute.graphs);
                graphs.flat_map(|graph| &mut graph.node).for_each(|inner| refer(inner, call, function));
                return Some(attribute);
            }
            Some(AttributeProto { name: attribute.name.clone(), ..value(attribute.ref_attr_name())? })
        })
        .collect();
}
