//! Pass `restore-activations`: `HardSwish` and `HardSigmoid` that stay in float, from `Add`, `Clip` and `Mul`.
//!
//! [`RewriteActivations`](crate::RewriteActivations) writes these activations with operators that have integer kernels.
//! Where no quantizer stands between its nodes they compute in float, as four operators instead of one, which onnxruntime
//! takes into the convolution before. With c, h and k constants of one element, and k·h = 1:
//!
//! * (x·clip(x + 3, 0, 6))·⅙ = `HardSwish`(x), from opset 14 on;
//! * (x·clip(x + c, 0, h))·k = x·`HardSigmoid`(x) otherwise;
//! * clip(x + c, 0, h)·k = `HardSigmoid`(x), with α = k and β = k·c.
//!
//! Runtimes that know a hard swish by its four nodes, and not by the last but one of these forms, keep them before opset 14.
//!
//! Results differ by rounding only. Exporters that spell the activations out gain too. Where a value between is read by
//! others, nothing changes.

use crate::ir::{AttributeProto, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError, Rewrite, in_turn};

/// Writes activations in float as one operator.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreActivations {
    /// Whether the runtime knows (x·clip(x + 3, 0, 6))·⅙ for a hard swish, and x·`HardSigmoid`(x) not.
    pub knows_spelled: bool,
}

impl Pass for RestoreActivations {
    fn name(&self) -> &'static str {
        "restore-activations"
    }

    fn about(&self) -> &'static str {
        "activations in float become HardSwish and HardSigmoid again"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let has_swish = model.opset("").is_some_and(|opset| opset >= 14);
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, |model, id| Ok(site(&model.graph, id, has_swish, self.knows_spelled)))
    }
}

/// Constants differ by no more than this part where they were rounded in other ways.
const ROUNDING: f32 = 1e-5;

fn site(graph: &Graph, last: NodeId, has_swish: bool, knows_spelled: bool) -> Option<Rewrite> {
    let (value, factor) = scaled(graph, graph.node(last))?;
    let output = graph.node(last).output(0);
    let name = graph.node(last).label(graph);
    if let Some(gate) = Gate::of(graph, value) {
        let attributes = gate.attributes(factor)?;
        let mut rewrite = gate.taken(Rewrite::of(last));
        rewrite.node(NodeProto::of("HardSigmoid", name, attributes), &[gate.x.into()], output);
        return Some(rewrite);
    }
    let (product, node) = made_by(graph, value, "Mul")?;
    let [a, b] = node.two_inputs()?;
    let gate = [(a, b), (b, a)].into_iter().find_map(|(x, gate)| Gate::of(graph, gate).filter(|gate| gate.x == x))?;
    let attributes = gate.attributes(factor)?;
    let mut rewrite = gate.taken(Rewrite::of(last).and(product).private(value));
    let is_swish = near(gate.shift, 3.0) && near(gate.high, 6.0);
    if is_swish && knows_spelled && !has_swish {
        return None;
    }
    if is_swish && has_swish {
        rewrite.node(NodeProto::of("HardSwish", name, Vec::new()), &[gate.x.into()], output);
    } else {
        let stem = graph.value(gate.clipped).name();
        let sigmoid = rewrite.op("HardSigmoid", &[gate.x.into()], attributes, format!("{stem}_sigmoid"));
        rewrite.node(NodeProto::of("Mul", name, Vec::new()), &[gate.x.into(), sigmoid], output);
    }
    Some(rewrite)
}

/// clip(x + shift, 0, high).
struct Gate {
    x: ValueId,
    shift: f32,
    high: f32,
    sum: (ValueId, NodeId),
    clip: NodeId,
    clipped: ValueId,
}

impl Gate {
    fn of(graph: &Graph, clipped: ValueId) -> Option<Self> {
        let (clip, node) = made_by(graph, clipped, "Clip")?;
        let bound = |slot, name| match node.input(slot) {
            Some(value) => graph.constant(value)?.scalar_f32(),
            None => node.attribute(name)?.f,
        };
        let high = bound(2, "max").filter(|_| bound(1, "min") == Some(0.0))?;
        let shifted = node.input(0)?;
        let (sum, node) = made_by(graph, shifted, "Add")?;
        let (x, shift) = with_constant(graph, node)?;
        Some(Self { x, shift, high, sum: (shifted, sum), clip, clipped })
    }

    /// α and β of the `HardSigmoid` that is this gate times a factor.
    fn attributes(&self, factor: f32) -> Option<Vec<AttributeProto>> {
        let is_one = near(factor * self.high, 1.0);
        is_one.then(|| vec![AttributeProto::float("alpha", factor), AttributeProto::float("beta", factor * self.shift)])
    }

    /// A rewrite that replaces the gate too.
    fn taken(&self, rewrite: Rewrite) -> Rewrite {
        rewrite.and(self.clip).and(self.sum.1).private(self.clipped).private(self.sum.0)
    }
}

/// The value that a product scales, and the number.
fn scaled(graph: &Graph, node: &Node) -> Option<(ValueId, f32)> {
    if node.is("Mul") { with_constant(graph, node) } else { None }
}

/// The operand that is computed, and the number that is the other one.
fn with_constant(graph: &Graph, node: &Node) -> Option<(ValueId, f32)> {
    let [a, b] = node.two_inputs()?;
    let number = |value| graph.constant(value).and_then(TensorProto::scalar_f32);
    match (number(a), number(b)) {
        (None, Some(number)) => Some((a, number)),
        (Some(number), None) => Some((b, number)),
        _ => None,
    }
}

fn made_by<'a>(graph: &'a Graph, value: ValueId, op: &str) -> Option<(NodeId, &'a Node)> {
    let (id, _) = graph.value(value).producer()?;
    Some((id, graph.node(id))).filter(|(_, node)| node.is(op))
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= ROUNDING * b.abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    #[test]
    fn a_hard_swish_may_stay_spelled() {
        let count = |opset: u32, knows_spelled: bool| {
            let spelled = format!(
                "<ir_version: 8, opset_import: [\"\": {opset}]> g (float[1,4] x) => (float[1,4] y)
                 <float three = {{3}}, float low = {{0}}, float six = {{6}}, float sixth = {{0.16666667}}>
                 {{ a = Add (x, three) g = Clip (a, low, six) m = Mul (x, g) y = Mul (m, sixth) }}"
            );
            let mut model = import(text::parse(&spelled).unwrap()).unwrap();
            RestoreActivations { knows_spelled }.run(&mut model).unwrap();
            model.graph.nodes().count()
        };
        assert_eq!([count(13, false), count(13, true), count(14, true)], [2, 4, 1]);
    }
}
