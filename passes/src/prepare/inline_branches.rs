//! Pass `inline-branches`: an `If` whose condition is constant becomes the branch that it takes.
//!
//! The nodes of the branch come into the graph around, its constants become initializers, and what it defines gets names
//! that nobody has; a node of a name that another has loses it. An `Identity` writes each value of the `If` from what the
//! branch yields for it. Branches in branches are inlined as well where their conditions are constant.
//!
//! Declined: a branch with sparse constants, or that yields another number of values than the node.

use crate::ir::{AttributeProto, Graph, GraphProto, Model, NodeId, NodeProto, TensorProto, ValueId, rename_free};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;
use std::collections::HashSet;

/// Replaces `If` nodes of constant conditions by their branches.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineBranches;

impl Pass for InlineBranches {
    fn name(&self) -> &'static str {
        "inline-branches"
    }

    fn about(&self) -> &'static str {
        "an `If` of a constant condition becomes the branch that it takes"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut declined = HashSet::new();
        while let Some((id, holds)) = decided(model, &declined)? {
            let label = model.graph.node(id).label(&model.graph).to_owned();
            match inline(&mut model.graph, id, holds) {
                Ok(()) => outcome.count(),
                Err(reason) => {
                    declined.insert(id);
                    outcome.decline(&label, reason);
                }
            }
        }
        if outcome.changed > 0 {
            model.graph.sort().map_err(|error| PassError::Input(error.to_string()))?;
        }
        Ok(outcome)
    }
}

/// The first `If` of a constant condition, and whether it holds.
fn decided(model: &Model, declined: &HashSet<NodeId>) -> Result<Option<(NodeId, bool)>, PassError> {
    for (id, node) in model.graph.nodes().filter(|(id, node)| node.is("If") && !declined.contains(id)) {
        let Some(condition) = node.input(0).and_then(|value| model.constant(value)) else { continue };
        if let [holds] = condition?.to_i64()?[..] {
            return Ok(Some((id, holds != 0)));
        }
    }
    Ok(None)
}

fn inline(graph: &mut Graph, id: NodeId, holds: bool) -> Result<(), String> {
    let node = graph.node(id);
    let name = if holds { "then_branch" } else { "else_branch" };
    let branch = node.attribute(name).and_then(|attribute| attribute.g.clone());
    let branch = branch.ok_or_else(|| format!("it has no `{name}`"))?;
    if !branch.sparse_initializer.is_empty() {
        return Err("its branch has sparse constants".to_owned());
    }
    let written = node.outputs().to_vec();
    if branch.output.len() != written.len() {
        return Err(format!("its branch yields {} values, the node {}", branch.output.len(), written.len()));
    }
    graph.remove_node(id);
    let labels = graph.nodes().map(|(_, node)| node.name().to_owned()).collect();
    let GraphProto { node: nodes, initializer, output, .. } = branch;
    let mut inside = Inside { graph, values: IndexMap::new(), labels };
    for tensor in initializer {
        inside.constant(tensor);
    }
    for node in nodes {
        inside.node(node);
    }
    for (value, result) in written.into_iter().zip(&output) {
        let Some(value) = value else { continue };
        let from = inside.value(result.name());
        let copy = NodeProto::of("Identity", inside.graph.value(value).name(), Vec::new());
        inside.graph.add_node(copy, &[from], &[Some(value)]);
    }
    Ok(())
}

/// What a branch defines, in the graph that it comes into.
struct Inside<'a> {
    graph: &'a mut Graph,
    /// By the names in the branch.
    values: IndexMap<String, ValueId>,
    /// Names of the graph's nodes.
    labels: HashSet<String>,
}

impl Inside<'_> {
    /// The value that a name stands for in the branch; none for an empty name.
    fn value(&self, name: &str) -> Option<ValueId> {
        self.values.get(name).copied().or_else(|| self.graph.find(name))
    }

    fn constant(&mut self, tensor: TensorProto) {
        let name = tensor.name().to_owned();
        let value = self.graph.add_initializer(tensor);
        self.values.insert(name, value);
    }

    fn node(&mut self, mut node: NodeProto) {
        if let Some(tensor) = constant_of(&node) {
            return self.constant(tensor);
        }
        for (name, &value) in &self.values {
            let renamed = self.graph.value(value).name().to_owned();
            node.subgraphs_mut().filter(|_| renamed != *name).for_each(|graph| rename_free(graph, name, &renamed));
        }
        let read: Vec<Option<ValueId>> = node.input.iter().map(|name| self.value(name)).collect();
        let mut written = Vec::with_capacity(node.output.len());
        for name in &node.output {
            let value = (!name.is_empty()).then(|| self.graph.add_value(name));
            self.values.extend(value.map(|value| (name.clone(), value)));
            written.push(value);
        }
        // Layers go by name.
        if !node.name().is_empty() && !self.labels.insert(node.name().to_owned()) {
            node.name = None;
        }
        self.graph.add_node(node, &read, &written);
    }
}

/// The tensor of a `Constant` node, under the name of what it writes.
fn constant_of(node: &NodeProto) -> Option<TensorProto> {
    let [output] = &node.output[..] else { return None };
    let is_constant = node.op_type() == "Constant" && node.domain().is_empty();
    let tensor =
        node.attribute.iter().find(|attribute| attribute.name() == "value").and_then(|a: &AttributeProto| a.t.clone());
    tensor.filter(|_| is_constant).map(|tensor| TensorProto { name: Some(output.clone()), ..tensor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    const BRANCHES: &str = "<ir_version: 8, opset_import: [\"\": 17]>
        g (float[2] x) => (float[2] y) <bool yes = {1}, bool no = {0}>
        {
            y = If (no) <
                then_branch = a () => (float[2] p) { p = Neg (x) },
                else_branch = b () => (float[2] q) <float[2] w = {3, 4}> {
                    t = Mul (x, w)
                    q = If (yes) <
                        then_branch = c () => (float[2] r) { r = Add (t, w) },
                        else_branch = d () => (float[2] s) { s = Sub (t, w) }
                    >
                }
            >
        }";

    #[test]
    fn branches_in_branches_are_inlined() {
        let mut model = import(text::parse(BRANCHES).unwrap()).unwrap();
        assert_eq!(InlineBranches.run(&mut model).unwrap().changed, 2);
        let ops: Vec<&str> = model.graph.nodes().map(|(_, node)| node.op()).collect();
        assert_eq!(ops, ["Mul", "Add", "Identity", "Identity"]);
        let [_, add, ..] = &model.graph.nodes().collect::<Vec<_>>()[..] else { panic!() };
        let weight = add.1.input(1).unwrap();
        assert_eq!(model.graph.initializer(weight).unwrap().to_f32().unwrap(), [3.0, 4.0]);
        assert!(crate::ir::check(&model).is_ok());
    }

    #[test]
    fn open_conditions_stay() {
        let text = BRANCHES.replace("(float[2] x)", "(float[2] x, bool no)").replace(", bool no = {0}", "");
        let mut model = import(text::parse(&text).unwrap()).unwrap();
        assert_eq!(InlineBranches.run(&mut model).unwrap().changed, 0);
    }
}
