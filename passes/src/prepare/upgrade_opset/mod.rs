//! Pass `upgrade-opset`: raises the operator set of the default domain, from 7 at least and to 21 at most.
//!
//! An operator set defines every operator; from one to the next some definitions change. Most changes only admit more
//! types or attributes, and a node means what it meant. The others are attributes that became inputs, by the operator
//! table (`ops`), and operators that were renamed or whose defaults moved, by a list of steps (`steps.rs`). A node goes
//! through all that is between the stated and the wanted set, in sub-graphs as well. Unless another is wanted it is
//! 13, the first set with quantization per channel; 21 is the first with initializers of 4 bits.
//!
//! All or nothing: when one node cannot be carried over, the model stays as it is and the node and the reason are
//! declined. So are a set below 7, where arithmetic broadcasts by attributes, models with functions of their own
//! (each states operator sets that would have to agree), and operators of the default domain that ONNX does not have.
//! Nodes of other domains are not looked at.
//!
//! A file of IR version 3 lists its initializers as inputs; the format version is raised as well, after which they
//! would count as inputs a caller may feed. `lift-constants` ends that, hence it has to run before.

mod scope;
mod since_14;
mod steps;

use super::names::Names;
use crate::analysis::element_types::element_types;
use crate::ir::{AttributeProto, GraphProto, Model, NodeProto, TensorProto, export, import, normal_domain};
use crate::ops::{first_opset, ir_version_of_opset};
use crate::pass::{Outcome, Pass, PassError};
use scope::{Scope, Site};
use std::collections::HashMap;
use steps::step;

/// The lowest operator set that can be raised.
const LOWEST: i64 = 7;
/// The first opset whose quantizers have one scale per channel.
const PER_CHANNEL: i64 = 13;

/// Raises the operator set of the default domain; never lowers it.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeOpset {
    /// The operator set wanted, at most 21.
    pub to: i64,
}

impl Default for UpgradeOpset {
    /// To 13, what quantization needs.
    fn default() -> Self {
        Self::to(PER_CHANNEL)
    }
}

impl Pass for UpgradeOpset {
    fn name(&self) -> &'static str {
        "upgrade-opset"
    }

    fn about(&self) -> &'static str {
        "the operator set of the default domain is raised"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        let listed = model.graph.initializers().any(|(value, _)| model.graph.is_input(value));
        if model.ir_version() <= 3 && listed && self.start(model).is_some() {
            return Err(PassError::Requires { pass: "upgrade-opset", earlier: "lift-constants" });
        }
        Ok(())
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if self.to > Self::HIGHEST {
            let text = format!("opset {} is wanted, {} is the highest there is", self.to, Self::HIGHEST);
            return Err(PassError::Input(text));
        }
        let Some(from) = self.start(model) else { return Ok(outcome) };
        if from < LOWEST {
            outcome.decline("opset", format!("the model states {from}, the lowest that can be raised is {LOWEST}"));
            return Ok(outcome);
        }
        if model.has_functions() {
            outcome.decline("functions", "the model has functions of its own, which state operator sets too");
            return Ok(outcome);
        }
        let mut message = export(model);
        let Some(graph) = &mut message.graph else { return Ok(outcome) };
        let types = element_types(&model.graph);
        let types = types.into_iter().map(|(value, ty)| (model.graph.value(value).name().to_owned(), ty));
        let mut upgrade =
            Upgrade { from, scope: Scope::new(graph, Names::of(graph), types.collect(), self.to), changed: 1 };
        if let Err((node, reason)) = upgrade.graph(graph) {
            outcome.decline(node, reason);
            return Ok(outcome);
        }
        outcome.changed = upgrade.changed;
        model.graph = import(message)?.graph;
        model.set_opset("", self.to);
        model.set_ir_version(model.ir_version().max(ir_version_of_opset(self.to)));
        Ok(outcome)
    }
}

impl UpgradeOpset {
    /// The highest operator set to which a model can be raised.
    pub const HIGHEST: i64 = 21;

    /// Raises to `opset`, which is at most 21.
    #[must_use]
    pub const fn to(opset: i64) -> Self {
        Self { to: opset }
    }

    /// The operator set the model states if it is lower than the one wanted.
    fn start(self, model: &Model) -> Option<i64> {
        let implied = (model.ir_version() < 3).then_some(1);
        model.opset("").or(implied).filter(|&from| from < self.to)
    }
}

/// Carries nodes over from one operator set to a newer one, at most 21; constants that they need then stand in front of
/// them as nodes. New names are added to `names`. Nothing is known of what the nodes read from outside.
pub(super) fn upgrade_nodes(
    nodes: Vec<NodeProto>,
    (from, to): (i64, i64),
    names: &mut Names,
) -> Result<Vec<NodeProto>, String> {
    if from < LOWEST || to > UpgradeOpset::HIGHEST {
        return Err(format!("opset {from} cannot be raised to {to}"));
    }
    let mut graph = GraphProto { node: nodes, ..GraphProto::default() };
    let mut upgrade = Upgrade { from, scope: Scope::new(&graph, names.clone(), HashMap::new(), to), changed: 0 };
    upgrade.graph(&mut graph).map_err(|(node, reason)| format!("`{node}`: {reason}"))?;
    *names = upgrade.scope.into_names();
    let constant = |tensor: TensorProto| NodeProto {
        output: vec![tensor.name().to_owned()],
        ..NodeProto::of("Constant", "", vec![AttributeProto::tensor("value", TensorProto { name: None, ..tensor })])
    };
    Ok(graph.initializer.into_iter().map(constant).chain(graph.node).collect())
}

/// A node that cannot be carried over, and why.
type Refusal = (String, String);

struct Upgrade {
    from: i64,
    scope: Scope,
    changed: usize,
}

impl Upgrade {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), Refusal> {
        let mut nodes = Vec::with_capacity(graph.node.len());
        for mut node in std::mem::take(&mut graph.node) {
            for nested in node.subgraphs_mut() {
                self.graph(nested)?;
            }
            self.node(node, &mut nodes, graph)?;
        }
        graph.node = nodes;
        Ok(())
    }

    /// Appends what the node becomes.
    fn node(&mut self, node: NodeProto, nodes: &mut Vec<NodeProto>, graph: &mut GraphProto) -> Result<(), Refusal> {
        let label = if node.name().is_empty() { node.output.first().cloned() } else { node.name.clone() };
        let label = label.unwrap_or_else(|| node.op_type().to_owned());
        if !normal_domain(node.domain()).is_empty() {
            nodes.push(node);
            return Ok(());
        }
        if first_opset(node.op_type()).is_none() {
            return Err((label, format!("{} is no operator of ONNX", node.op_type())));
        }
        let before = node.clone();
        let mut site = Site::new(node, &mut self.scope);
        for opset in self.from + 1..=site.to() {
            step(&mut site, opset).map_err(|reason| (label.clone(), reason))?;
        }
        self.changed += usize::from(site.node != before);
        graph.initializer.append(&mut site.constants);
        nodes.append(&mut site.before);
        nodes.push(site.node);
        nodes.append(&mut site.after);
        Ok(())
    }
}
