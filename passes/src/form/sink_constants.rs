//! Pass `sink-constants`: constants that one sub-graph alone reads move into it, and so do the steps that decode them.
//!
//! ```text
//! w = Mul (float, scale)                      y = If <then_branch = { w = Mul (float, scale), p = Conv (x, w) }, …> (c)
//! y = If <then_branch = { p = Conv (x, w) },  …> (c)
//! ```
//!
//! A runtime evaluates nodes of constants when it loads a model, in sub-graphs too. But whether an operand is constant it
//! asks of the graph that reads it: a convolution in a branch whose weight is a constant of the main graph is not brought
//! into onnxruntime's own layout, and takes half as long again. `hoist-constants` has moved weights to the main graph,
//! where other passes find them. No value changes.
//!
//! Not moved: what several graphs read, which would be held in memory once for each; constants in other files; and more
//! than 512 MiB, since a sub-graph has no file for what does not fit into the model's.

use crate::ir::{Graph, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Operators with which the decoding of a weight ends.
const LAST: [&str; 6] = ["Add", "Cast", "Mul", "Reshape", "Sub", "Transpose"];

/// The most bytes of constants that are moved.
const MOST: usize = 512 << 20;

/// Moves constants into the sub-graphs that read them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinkConstants;

impl Pass for SinkConstants {
    fn name(&self) -> &'static str {
        "sink-constants"
    }

    fn about(&self) -> &'static str {
        "float constants that one sub-graph alone reads move into it, decoded there"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut moved = 0;
        // What a moved node reads may be read by nothing else now.
        loop {
            let before = outcome.changed;
            for (value, bytes) in sites(&model.graph) {
                if moved + bytes <= MOST && model.graph.sink(value) {
                    moved += bytes;
                    outcome.count();
                }
            }
            if outcome.changed == before {
                return Ok(outcome);
            }
        }
    }
}

/// Values that nothing but sub-graphs read and that are constant, with the bytes that would move.
fn sites(graph: &Graph) -> Vec<(ValueId, usize)> {
    let captured = graph.values().filter(|(_, value)| value.captures().len() == 1 && value.uses().is_empty());
    let bytes = |tensor: &TensorProto| if tensor.is_external() { None } else { tensor.byte_count() };
    let site = |id: ValueId| match graph.value(id).producer() {
        None => graph.initializer(id).filter(|tensor| tensor.is_float()).and_then(bytes),
        Some((node, _)) => {
            let node = graph.node(node);
            let last = LAST.iter().any(|op| node.is(op));
            (last && node.inputs().iter().flatten().all(|&input| is_constant(graph, input))).then_some(0)
        }
    };
    captured.filter_map(|(id, _)| Some((id, site(id)?))).collect()
}

/// Whether a value is the same for every input: an initializer, or computed from some.
fn is_constant(graph: &Graph, value: ValueId) -> bool {
    let mut next = vec![value];
    while let Some(value) = next.pop() {
        match graph.value(value).producer() {
            Some((id, _)) => {
                let node = graph.node(id);
                if node.inputs().is_empty() || !node.captures().is_empty() {
                    return false;
                }
                next.extend(node.inputs().iter().flatten());
            }
            None if graph.constant(value).is_some() => {}
            None => return false,
        }
    }
    true
}
