//! Pass `eliminate-identities`: nodes whose output is their input, bit for bit, are bypassed.
//!
//! `Identity`; `Dropout` outside training (its mask unread); `Cast` to the type the value already has; `Transpose`
//! by the identity permutation; `Pad` by zeros; `Concat` of one tensor; `Sum`, `Max`, `Min`, `Mean` of one tensor. A
//! node that produces a graph output hands that name to the node before it. Declined where both ends are names
//! the caller knows (an input passed straight to an output, two outputs of one value), and where a sub-graph reads
//! the value whose name would go.

use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use crate::pass::{Found, Outcome, Pass, PassError, Rewrite, in_turn};

/// Bypasses nodes that change nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct EliminateIdentities;

impl Pass for EliminateIdentities {
    fn name(&self) -> &'static str {
        "eliminate-identities"
    }

    fn about(&self) -> &'static str {
        "nodes whose output is their input are bypassed"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let sites = model.graph.nodes().filter(|(_, n)| is_identity(&model.graph, n)).map(|(id, _)| id).collect();
        in_turn(model, sites, |model, id| bypass(&model.graph, id))
    }
}

fn is_identity(graph: &Graph, node: &Node) -> bool {
    if !node.domain().is_empty() || node.input(0).is_none() || node.output(0).is_none() {
        return false;
    }
    let single = node.inputs().len() == 1;
    match node.op() {
        "Identity" => true,
        "Dropout" => node.output(1).is_none() && node.input(2).is_none_or(|v| is_false(graph, v)),
        "Cast" => keeps_type(graph, node),
        "Transpose" => {
            let perm = node.ints("perm");
            !perm.is_empty() && perm.iter().enumerate().all(|(i, &p)| i as i64 == p)
        }
        "Pad" => pads(graph, node).is_some_and(|pads| pads.iter().all(|&p| p == 0)),
        op => single && facts(op).has(Trait::IdentityOfOne),
    }
}

fn is_false(graph: &Graph, value: ValueId) -> bool {
    graph.constant(value).and_then(|t| t.to_i64().ok()).is_some_and(|v| v == [0])
}

fn keeps_type(graph: &Graph, node: &Node) -> bool {
    let Some(input) = node.input(0) else { return false };
    let from = graph.initializer(input).map_or_else(|| graph.value(input).element_type(), TensorProto::element_type);
    from.is_some_and(|from| node.int("to") == Some(i64::from(from.number())))
}

/// Paddings of a `Pad` node: an attribute up to opset 10, an input since.
fn pads(graph: &Graph, node: &Node) -> Option<Vec<i64>> {
    match node.input(1) {
        Some(value) => graph.constant(value)?.to_i64().ok(),
        None => node.attribute("pads").map(|a| a.ints.clone()),
    }
}

fn bypass(graph: &Graph, id: NodeId) -> Found {
    let node = graph.node(id);
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(None) };
    if !graph.is_output(output) {
        return Ok(Some(Rewrite::of(id).forward(output, input)));
    }
    let Some((producer, slot)) = graph.value(input).producer() else {
        return Err("it passes an input or a constant to a graph output".into());
    };
    let mut rewrite = Rewrite::of(id).keeping(producer).forward(input, output);
    rewrite.set_output(producer, slot, output);
    Ok(Some(rewrite))
}
