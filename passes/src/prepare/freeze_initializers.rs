//! Pass `freeze-initializers`: initializers that are graph inputs as well become constants.
//!
//! Since IR version 4 an initializer that is also an input is a default that the caller may override. Exporters have
//! listed every weight among the inputs nevertheless, as version 3 demanded. A weight that may change with every run
//! cannot become integers, and onnxruntime folds nothing into it either. Frozen are, unless all or none are asked for,
//!
//! * weights: what a layer, a recurrent operator, a normalization or a table look-up reads as its parameters, directly
//!   or moved and cast, and float tensors of several elements that are added or multiplied;
//! * all, where every initializer is listed and some are weights: a habit of the exporter.
//!
//! What is left is meant to be fed, such as an initial state or a threshold. Frozen values are no inputs any more; a
//! caller who feeds them gets an error from the runtime. Files of IR version 3 and less are for `lift-constants`.

use crate::ir::{DataType, Graph, GraphProto, Model, Node, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use crate::pass::{Outcome, Pass, PassError};
use std::collections::HashSet;

/// Which initializers that callers may override become constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// Those that are weights, or all where the file lists all.
    #[default]
    Weights,
    /// All.
    All,
    /// None.
    Nothing,
}

/// Makes constants of initializers that callers may override.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreezeInitializers {
    /// Which.
    pub which: Freeze,
}

impl FreezeInitializers {
    /// What the pass would freeze, in file order.
    pub fn plan(&self, model: &Model) -> Vec<ValueId> {
        let graph = &model.graph;
        let mut listed: Vec<ValueId> = graph.initializers().map(|(v, _)| v).filter(|&v| graph.is_input(v)).collect();
        if model.ir_version() <= 3 || self.which == Freeze::Nothing {
            return Vec::new();
        }
        if self.which == Freeze::Weights {
            let weights: HashSet<ValueId> = listed.iter().copied().filter(|&v| is_weight(graph, v)).collect();
            let habit = listed.len() == graph.initializers().len() && !weights.is_empty() && listed.len() > 1;
            listed.retain(|value| habit || weights.contains(value));
        }
        listed
    }
}

impl Pass for FreezeInitializers {
    fn name(&self) -> &'static str {
        "freeze-initializers"
    }

    fn about(&self) -> &'static str {
        "initializers that are inputs as well become constants"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let frozen = self.plan(model);
        let sealed = frozen.into_iter().filter(|&value| model.graph.seal_initializer(value)).count();
        let mut outcome = Outcome { changed: sealed, ..Outcome::default() };
        let graph = &model.graph;
        for (value, _) in graph.initializers().filter(|&(value, _)| graph.is_input(value) && model.ir_version() > 3) {
            outcome.decline(graph.value(value).name(), "a caller may override it");
        }
        Ok(outcome)
    }
}

/// Whether something reads the value as its parameters.
fn is_weight(graph: &Graph, value: ValueId) -> bool {
    let Some(tensor) = graph.initializer(value) else { return false };
    let mut open = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let name = graph.value(value).name();
        let captured = graph.value(value).captures().iter().flat_map(|&node| graph.node(node).subgraphs());
        if captured.into_iter().any(|inner| is_weight_inside(inner, name, tensor)) {
            return true;
        }
        for reader in graph.value(value).uses() {
            let node = graph.node(reader.node);
            if is_parameter(node.op(), reader.slot, tensor) {
                return true;
            }
            open.extend(moved(node, reader.slot));
        }
    }
    false
}

/// What a node writes that only moves or casts the elements it reads.
fn moved(node: &Node, slot: usize) -> Option<ValueId> {
    let moves = facts(node.op()).has(Trait::Rearrangement) && node.domain().is_empty();
    node.output(0).filter(|_| slot == 0 && moves)
}

fn is_weight_inside(graph: &GraphProto, name: &str, tensor: &TensorProto) -> bool {
    graph.node.iter().any(|node| {
        let mut slots = node.input.iter().enumerate().filter(|(_, read)| *read == name);
        slots.any(|(slot, _)| is_parameter(node.op_type(), slot, tensor))
            || node.subgraphs().any(|inner| is_weight_inside(inner, name, tensor))
    })
}

/// Whether an operator takes this input as a parameter that training has set.
fn is_parameter(op: &str, slot: usize, tensor: &TensorProto) -> bool {
    let facts = facts(op);
    if let Some(operands) = facts.operands {
        return operands.weight.contains(&slot) || operands.bias == Some(slot);
    }
    let elements = tensor.element_count().unwrap_or_default();
    match op {
        "BatchNormalization" => (1..=4).contains(&slot),
        "PRelu" => slot > 0,
        "Gather" => slot == 0 && tensor.is_float() && tensor.dims.len() >= 2,
        "Einsum" => tensor.is_float() && tensor.dims.len() >= 2,
        op if op.ends_with("Normalization") => slot > 0,
        _ if facts.has(Trait::Recurrent) => (1..=3).contains(&slot),
        _ if facts.has(Trait::FusedLayer) => slot > 0,
        _ if facts.has(Trait::Arithmetic) => tensor.element_type().is_some_and(DataType::is_float) && elements > 1,
        _ => false,
    }
}
