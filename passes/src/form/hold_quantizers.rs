//! Pass `hold-quantizers`: a quantizer behind a `MaxPool` in float gets a clamp in front of it.
//!
//! ```text
//! q = QuantizeLinear(MaxPool(x), s, z)  →  q = QuantizeLinear(Relu(MaxPool(x)), s, z)     where z is the smallest integer
//!                                      →  q = QuantizeLinear(Clip(MaxPool(x), a, b), s, z)             elsewhere
//! ```
//!
//! with a = s·(low − 1 − z) and b = s·(high + 1 − z), one step beyond the range of the integers from low to high. The quantizer
//! saturates at low and at high, so that the clamp changes nothing.
//!
//! When it loads a file, onnxruntime moves a quantizer in front of pools and of what only moves elements. Where a float layer
//! writes what is pooled, many times as many elements are then quantized, and pooled by a slow kernel for integers that lie
//! channel by channel. A clamp ends that way; later in the same load, onnxruntime drops clamps that a quantizer implies.
//!
//! Not changed: quantizers behind pools that run on integers, and those that something else stands in front of.

use crate::ir::{DataType, Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// What onnxruntime moves a quantizer in front of.
const PASSED: [&str; 6] = ["MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"];

/// Keeps quantizers behind pools.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldQuantizers;

impl Pass for HoldQuantizers {
    fn name(&self) -> &'static str {
        "hold-quantizers"
    }

    fn about(&self) -> &'static str {
        "quantizers behind a MaxPool in float get a clamp in front of them, which keeps them there"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let graph = &mut model.graph;
        let found: Vec<(NodeId, ValueId, Clamp)> = graph
            .nodes()
            .filter(|(_, node)| node.is("QuantizeLinear"))
            .filter_map(|(id, node)| {
                let read = node.input(0).filter(|&read| is_pooled_in_float(graph, read))?;
                Some((id, read, clamp(graph, node)?))
            })
            .collect();
        let mut outcome = Outcome::default();
        for (id, read, clamp) in found {
            let stem = format!("{}_held", graph.value(read).name());
            let held = match clamp {
                Clamp::Zero => graph.add_op("Relu", &[Some(read)], Vec::new(), &stem),
                Clamp::Between(ends) => {
                    let [low, high] = ends.map(|end| {
                        let end = TensorProto::from_f32(&format!("{stem}_end"), &[], &[end]);
                        Some(graph.add_initializer(end))
                    });
                    graph.add_op("Clip", &[Some(read), low, high], Vec::new(), &stem)
                }
            };
            graph.set_input(id, 0, Some(held));
            outcome.count();
        }
        graph.sort()?;
        Ok(outcome)
    }
}

/// A clamp that a quantizer implies.
#[derive(Clone, Copy, Debug)]
enum Clamp {
    /// From zero.
    Zero,
    /// Between two numbers.
    Between([f32; 2]),
}

/// The clamp that a quantizer of 8 bits with one scale implies.
fn clamp(graph: &Graph, quantizer: &Node) -> Option<Clamp> {
    let scale = graph.constant(quantizer.input(1)?)?.scalar_f32()?;
    let zero_point = graph.constant(quantizer.input(2)?)?;
    let (low, high) = match zero_point.element_type()? {
        DataType::Uint8 => (0, 255),
        DataType::Int8 => (-128, 127),
        _ => return None,
    };
    let &[zero] = &zero_point.to_i64().ok()?[..] else { return None };
    let end = |integer: i64| (integer - zero) as f32 * scale;
    Some(if zero == low { Clamp::Zero } else { Clamp::Between([end(low - 1), end(high + 1)]) })
}

/// Whether a `MaxPool` writes a value that nothing else reads, with movements at most behind and in front of it, and no
/// integers are where these begin.
fn is_pooled_in_float(graph: &Graph, mut value: ValueId) -> bool {
    let mut pooled = false;
    while graph.only_use(value).is_some() {
        let Some((producer, _)) = graph.value(value).producer() else { break };
        let node = graph.node(producer);
        if node.is("DequantizeLinear") {
            return false;
        }
        let Some(read) = node.input(0).filter(|_| PASSED.iter().any(|op| node.is(op))) else { break };
        pooled |= node.is("MaxPool");
        value = read;
    }
    pooled
}
