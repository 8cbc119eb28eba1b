//! Pass `sink-activations`: an activation in front of a `MaxPool` with strides goes behind it.
//!
//! ```text
//! a = LeakyRelu(x);  y = MaxPool(a)   becomes   p = MaxPool(x);  y = LeakyRelu(p)
//! ```
//!
//! For f that nowhere falls, max f(xᵢ) = f(max xᵢ): the largest element stays the largest. `MaxPool` ignores what it pads, so
//! that holds at the edges too. The activation then computes as many elements as the pool leaves, a quarter of them as a
//! rule, and runtimes that pool integers do so on what a layer writes. Equal up to the last place where a runtime
//! approximates f by something that falls by that much.
//!
//! Functions: `LeakyRelu` with a slope that is not negative, `Sigmoid`, `Tanh`. `Relu` and `Clip` stay where they are: layers
//! and quantizers take them in.
//!
//! Declined: activations that others read; pools whose windows may lie in the padding as a whole, where f of the result
//! would not be the result. Not changed: pools without strides, which leave as many elements; pools whose indices are read.

use crate::ir::{Graph, Node, NodeId, NodeProto};
use crate::pass::{Found, Outcome, Pass, PassError, Rewrite, in_turn};

/// Puts activations behind pools.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinkActivations;

impl Pass for SinkActivations {
    fn name(&self) -> &'static str {
        "sink-activations"
    }

    fn about(&self) -> &'static str {
        "activations in front of a MaxPool with strides go behind it"
    }

    fn run(&self, model: &mut crate::ir::Model) -> Result<Outcome, PassError> {
        let mut changed = 0;
        // Behind an activation that went there may be another one before the pool.
        loop {
            let nodes = model.graph.node_ids().collect();
            let outcome = in_turn(model, nodes, |model, id| found(&model.graph, id))?;
            if outcome.changed == 0 {
                return Ok(Outcome { changed, ..outcome });
            }
            changed += outcome.changed;
        }
    }
}

fn found(graph: &Graph, id: NodeId) -> Found {
    let pool = graph.node(id);
    let strides = pool.ints("strides");
    if !pool.is("MaxPool") || pool.output(1).is_some() || !strides.iter().any(|&stride| stride > 1) {
        return Ok(None);
    }
    let (Some(value), Some(output)) = (pool.input(0), pool.output(0)) else { return Ok(None) };
    let Some((activation, _)) = graph.value(value).producer() else { return Ok(None) };
    let function = graph.node(activation);
    let Some(read) = function.input(0).filter(|_| never_falls(function)) else { return Ok(None) };
    if may_pool_padding_alone(pool) {
        return Err("windows of the pool may lie in its padding".into());
    }
    let mut rewrite = Rewrite::of(id).and(activation).private(value);
    let stem = graph.value(output).name();
    let moved = NodeProto::of("MaxPool", pool.label(graph), pool.attributes().to_vec());
    let pooled = rewrite.named_op(moved, &[read.into()], format!("{stem}_pooled"));
    let moved = NodeProto::of(function.op(), function.label(graph), function.attributes().to_vec());
    rewrite.node(moved, &[pooled], Some(output));
    Ok(Some(rewrite))
}

/// Whether a node computes each element by a function that nowhere falls.
fn never_falls(node: &Node) -> bool {
    let rises = node.is("LeakyRelu") && node.float_or("alpha", 0.01) >= 0.0;
    rises || node.is("Sigmoid") || node.is("Tanh")
}

/// Whether a window may hold no element of the input.
fn may_pool_padding_alone(pool: &Node) -> bool {
    let (kernel, pads) = (pool.ints("kernel_shape"), pool.ints("pads"));
    let same = pool.string("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let padded = same || pads.iter().any(|&pad| pad != 0);
    let dilated = pool.ints("dilations").iter().any(|&dilation| dilation != 1);
    // The last window of a length that is rounded up may begin behind the input.
    let rounded_up = pool.int_or("ceil_mode", 0) != 0;
    let jumps = pool.ints("strides").iter().zip(kernel).any(|(stride, length)| stride > length);
    let wide = pads.iter().zip(kernel.iter().cycle()).any(|(pad, length)| pad >= length);
    wide || padded && (dilated || rounded_up) || rounded_up && jumps
}
