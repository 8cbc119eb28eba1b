//! Pass `fold-constants`: a value that is the same for every input becomes an initializer.
//!
//! Which values those are is computed outside this crate, which never runs a model: the pass is handed name and
//! tensor. Typical are the shape chains exporters write around `Reshape`, `Pad` and `Resize`, and weights reached
//! through `Transpose`, `Reshape`, `Cast`, weight normalization or any other chain of nodes. The nodes left without
//! readers go with `eliminate-dead-nodes`.
//!
//! A value may be larger than the constants its own node reads by a few kilobytes. A larger one is folded only where
//! something that depends on inputs reads it and the file does not grow:
//!
//! * the constants that it is computed from are paid back if nothing else reads them; every byte is paid back once,
//!   however many values are computed from it, and a tensor equal to one folded before costs nothing;
//! * a matrix that is another constant transposed, or any constant reshaped, costs nothing: `share-weights` stores the
//!   two once, also where both are quantized;
//! * a weight of a layer or a table of a `Gather` counts a quarter, as it is going to be stored in 8 bits.
//!
//! Declined: graph outputs (a runtime must still be able to fetch them), and values much larger than what they are
//! computed from, such as a `ConstantOfShape`, which would make the file grow.

use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashMap;

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
        let graph = &model.graph;
        let mut budget = Budget::new(graph, &self.constants);
        for (name, tensor) in &self.constants {
            let Some(value) = graph.find(name) else { continue };
            let Some((node, slot)) = graph.value(value).producer() else { continue };
            match refusal(graph, value, node, tensor, &mut budget) {
                None => sites.push((node, slot, value, budget.stored(tensor))),
                Some(reason) => outcome.decline(name.as_str(), reason),
            }
        }
        for (node, slot, value, tensor) in sites {
            let graph = &mut model.graph;
            let unread = graph.add_value(graph.value(value).name().to_owned().as_str());
            graph.set_output(node, slot, unread);
            graph.set_initializer(value, tensor);
            outcome.count();
        }
        Ok(outcome)
    }
}

fn refusal(
    graph: &Graph,
    value: ValueId,
    node: NodeId,
    tensor: &TensorProto,
    budget: &mut Budget,
) -> Option<&'static str> {
    if graph.is_output(value) {
        return Some("it is a graph output");
    }
    if !graph.is_used(value) {
        return Some("nothing reads it");
    }
    let sources = graph.node(node).inputs().iter().flatten();
    let from: usize = sources.filter_map(|&v| graph.initializer(v)).map(size).sum();
    if size(tensor) <= from + ALLOWED_GROWTH {
        return None;
    }
    if !budget.is_read_by_computation(value) {
        return Some("only what is constant too is computed from it");
    }
    (!budget.affords(value, tensor)).then_some("it is much larger than what it is computed from")
}

fn size(tensor: &TensorProto) -> usize {
    tensor.byte_count().unwrap_or(0)
}

/// What folding may cost: bytes of constants that go.
struct Budget<'a> {
    graph: &'a Graph,
    constants: &'a IndexMap<String, TensorProto>,
    /// Bytes of each constant of the graph that are not spent yet.
    left: HashMap<ValueId, usize>,
    /// Tensors folded so far, by element type, shape and bytes.
    folded: HashMap<(Option<i32>, Vec<i64>, bytes::Bytes), TensorProto>,
}

impl<'a> Budget<'a> {
    fn new(graph: &'a Graph, constants: &'a IndexMap<String, TensorProto>) -> Self {
        Self { graph, constants, left: HashMap::new(), folded: HashMap::new() }
    }

    /// The tensor, sharing the bytes of an equal one that was folded before.
    fn stored(&mut self, tensor: &TensorProto) -> TensorProto {
        let Some(raw) = &tensor.raw_data else { return tensor.clone() };
        let key = (tensor.data_type, tensor.dims.clone(), raw.clone());
        self.folded.entry(key).or_insert_with(|| tensor.clone()).clone()
    }

    /// Whether a node that computes something else than constants reads the value, or a sub-graph does.
    fn is_read_by_computation(&self, value: ValueId) -> bool {
        let v = self.graph.value(value);
        !v.captures().is_empty() || v.uses().iter().any(|reader| !self.is_constant_node(reader.node))
    }

    /// Whether all that a node computes is constant.
    fn is_constant_node(&self, node: NodeId) -> bool {
        let constant = |v: &ValueId| self.constants.contains_key(self.graph.value(*v).name());
        self.graph.node(node).outputs().iter().flatten().all(constant)
    }

    /// Whether the file does not grow if the value is folded; what pays for it is spent then.
    fn affords(&mut self, value: ValueId, tensor: &TensorProto) -> bool {
        let known =
            |raw: &bytes::Bytes| self.folded.contains_key(&(tensor.data_type, tensor.dims.clone(), raw.clone()));
        if tensor.raw_data.as_ref().is_some_and(known) || self.is_rearranged(value) {
            return true;
        }
        let all_layers = self.graph.value(value).captures().is_empty()
            && self.graph.value(value).uses().iter().all(|reader| is_weight(self.graph.node(reader.node), reader.slot));
        let matrix = tensor.is_float() && tensor.dims.len() >= 2;
        let cost = if all_layers && matrix { size(tensor) / 4 } else { size(tensor) };
        let sources = self.sources(value);
        let mut missing = cost.saturating_sub(ALLOWED_GROWTH);
        let available: usize = sources.iter().map(|source| self.left_of(*source)).sum();
        if available < missing {
            return false;
        }
        for source in sources {
            let spent = missing.min(self.left_of(source));
            missing -= spent;
            if let Some(left) = self.left.get_mut(&source) {
                *left -= spent;
            }
        }
        true
    }

    fn left_of(&mut self, source: ValueId) -> usize {
        let graph = self.graph;
        *self.left.entry(source).or_insert_with(|| graph.initializer(source).map_or(0, size))
    }

    /// The constants of the graph that the value is computed from and that nothing else needs.
    fn sources(&self, value: ValueId) -> Vec<ValueId> {
        let (mut found, mut seen, mut open) = (IndexSet::new(), IndexSet::new(), vec![value]);
        while let Some(value) = open.pop() {
            if !seen.insert(value) {
                continue;
            }
            if self.graph.constant(value).is_some() {
                let needed = self.graph.is_output(value) || self.is_read_by_computation(value);
                found.extend((!needed).then_some(value));
            } else if let Some((node, _)) = self.graph.value(value).producer() {
                open.extend(self.graph.node(node).inputs().iter().flatten());
            }
        }
        found.into_iter().collect()
    }

    /// Whether the value is one constant of the graph reshaped, or transposed as a matrix.
    fn is_rearranged(&self, value: ValueId) -> bool {
        let mut at = value;
        while self.graph.constant(at).is_none() {
            let Some((node, _)) = self.graph.value(at).producer() else { return false };
            let node = self.graph.node(node);
            let Some(input) = node.input(0).filter(|_| node.domain().is_empty()) else { return false };
            let keeps = match node.op() {
                "Transpose" => self.rank(input) == Some(2),
                "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Identity" => true,
                _ => false,
            };
            if !keeps {
                return false;
            }
            at = input;
        }
        true
    }

    fn rank(&self, value: ValueId) -> Option<usize> {
        let stored = self.graph.constant(value).or_else(|| self.constants.get(self.graph.value(value).name()));
        stored.map(|tensor| tensor.dims.len()).or_else(|| Some(self.graph.value(value).shape()?.len()))
    }
}

/// Whether input `slot` of a node is a weight that can be stored as integers.
fn is_weight(node: &Node, slot: usize) -> bool {
    let facts = facts(node.op());
    let layer = facts.float_layer().is_some() && facts.operands.is_some_and(|o| o.weight.contains(&slot));
    let recurrent = facts.has(Trait::Recurrent) && (1..=2).contains(&slot);
    node.domain().is_empty() && (layer || recurrent || (node.op() == "Gather" && slot == 0))
}
