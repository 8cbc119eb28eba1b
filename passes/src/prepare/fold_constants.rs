//! Pass `fold-constants`: a value that is the same for every input becomes an initializer.
//!
//! Which values those are is computed outside this crate, which never runs a model: the pass is handed name and
//! tensor. Typical are the shape chains exporters write around `Reshape`, `Pad` and `Resize`, and weights reached
//! through `Transpose`, `Reshape`, `Cast` or `Identity` of a constant. The nodes left without readers go with
//! `eliminate-dead-nodes`.
//!
//! Declined: graph outputs (a runtime must still be able to fetch them), and values much larger than what they are
//! computed from, such as a `ConstantOfShape`, which would make the file grow.

use crate::ir::{Model, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;

/// A constant may be this many bytes larger than the constants it is computed from.
const ALLOWED_GROWTH: usize = 4096;

/// Replaces constant values by initializers.
#[derive(Clone, Debug, Default)]
pub struct FoldConstants {
    /// Tensors of values that do not depend on the model's inputs, by value name.
    pub constants: IndexMap<String, TensorProto>,
}

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn about(&self) -> &'static str {
        "values that are the same for every input become initializers"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut sites = Vec::new();
        for (name, tensor) in &self.constants {
            let Some(value) = model.graph.find(name) else { continue };
            let Some((node, slot)) = model.graph.value(value).producer() else { continue };
            match refusal(model, value, node, tensor) {
                None => sites.push((node, slot, value, tensor)),
                Some(reason) => outcome.decline(name.as_str(), reason),
            }
        }
        for (node, slot, value, tensor) in sites {
            let graph = &mut model.graph;
            let unread = graph.add_value(graph.value(value).name().to_owned().as_str());
            graph.set_output(node, slot, unread);
            graph.set_initializer(value, tensor.clone());
            outcome.count();
        }
        Ok(outcome)
    }
}

fn refusal(model: &Model, value: ValueId, node: NodeId, tensor: &TensorProto) -> Option<&'static str> {
    if model.graph.is_output(value) {
        return Some("it is a graph output");
    }
    if !model.graph.is_used(value) {
        return Some("nothing reads it");
    }
    let size = |t: &TensorProto| t.byte_count().unwrap_or(0);
    let sources = model.graph.node(node).inputs().iter().flatten();
    let from: usize = sources.filter_map(|&v| model.graph.initializer(v)).map(size).sum();
    (size(tensor) > from + ALLOWED_GROWTH).then_some("it is much larger than what it is computed from")
}
