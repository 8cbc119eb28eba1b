//! Pass `split-slopes`: a `PRelu` in float becomes the larger, or the smaller, of its input and a product.
//!
//! ```text
//! y = PRelu(x, a)  →  y = Max(x, Mul(x, a)),  a ≤ 1
//!                     y = Min(x, Mul(x, a)),  a ≥ 1
//! ```
//!
//! PRelu(x) is x where x ≥ 0, and a·x elsewhere. For a ≤ 1, a·x ≤ x where x ≥ 0, and a·x ≥ x elsewhere, so that the maximum is
//! the same float; for a ≥ 1 so is the minimum. onnxruntime (1.32, x86) branches on every element of a `PRelu`, and takes
//! several times as long for it as for the two nodes (`bench/node_prices.py --parts slopes`).
//!
//! Not changed, with the reason: slopes that are not constant, not finite, or on both sides of 1, and values not known to be
//! float32. Operator sets before 8, whose `Max` takes one shape alone, have no sites.

use crate::analysis::element_types::element_types;
use crate::ir::{DataType, Graph, Model, Node, NodeId, NodeProto};
use crate::pass::{Found, Miss, Outcome, Pass, PassError, Plan, Rewrite};

/// Writes `PRelu` as a product and a maximum.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitSlopes;

impl SplitSlopes {
    /// The first operator set whose `Max` and `Min` take what `Mul` writes.
    const OPSET: i64 = 8;
}

impl Pass for SplitSlopes {
    fn name(&self) -> &'static str {
        "split-slopes"
    }

    fn about(&self) -> &'static str {
        "PRelu in float becomes a product, and the larger or smaller of it and its input"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut plan = Plan::default();
        if model.opset("").is_some_and(|opset| opset >= Self::OPSET) {
            let types = element_types(&model.graph);
            let graph = &model.graph;
            for (id, node) in graph.nodes().filter(|(_, node)| node.is("PRelu")) {
                let float = node.input(0).and_then(|x| types.get(&x)) == Some(&DataType::Float);
                let known = if float { Ok(()) } else { Err(Miss::from("its input is not known to be float32")) };
                plan.add(graph, node.label(graph), known.and_then(|()| split(graph, id, node)))?;
            }
        }
        Ok(plan.apply(&mut model.graph))
    }
}

/// What a `PRelu` becomes.
fn split(graph: &Graph, id: NodeId, node: &Node) -> Found {
    let (Some([x, slope]), Some(output)) = (node.two_inputs(), node.output(0)) else { return Ok(None) };
    let slopes = graph.constant(slope).ok_or("its slopes are not constant")?.to_f32()?;
    if !slopes.iter().all(|slope| slope.is_finite()) {
        return Err("a slope is not finite".into());
    }
    let op = if slopes.iter().all(|&slope| slope <= 1.0) {
        "Max"
    } else if slopes.iter().all(|&slope| slope >= 1.0) {
        "Min"
    } else {
        return Err("some slopes are below 1, others above".into());
    };
    let mut rewrite = Rewrite::of(id);
    let scaled = format!("{}_scaled", graph.value(output).name());
    let scaled = rewrite.op("Mul", &[x.into(), slope.into()], Vec::new(), scaled);
    rewrite.node(NodeProto::of(op, node.label(graph), Vec::new()), &[x.into(), scaled], Some(output));
    Ok(Some(rewrite))
}
