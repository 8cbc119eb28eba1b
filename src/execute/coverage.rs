//! What of a model the engine can run.
//!
//! An operator that the engine does not know, and whatever depends on its outputs, cannot be observed. It stays float, with
//! that reason; layers among it store integer weights, rounded to nearest. The rest is quantized as usual.

use super::segment::{Segment, inputs};
use super::stages::{Limit, Stages};
use crate::data::{Array, DataError, Dataset, Sample, ShapeText};
use crate::engine::EngineError;
use crate::runtime::Runtime;
use msq_passes::ir::{DataType, Model, NodeId, ValueId};
use std::collections::{HashMap, HashSet};

/// The nodes that cannot be run, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    unseen: HashMap<NodeId, String>,
    /// The nodes among these that the engine does not know or fails on, in graph order; the others depend on them.
    causes: Vec<NodeId>,
    /// Why nothing can be run.
    nothing: Option<String>,
    /// How many nodes that the engine fails on were found by trying.
    found: usize,
}

/// So many nodes that the engine fails on are looked for.
const MOST_FOUND: usize = 8;

impl Coverage {
    /// All of a model; nothing of one that the memory allowed is too little for, in stages too.
    pub(crate) fn within(model: &Model, memory: Option<u64>) -> Self {
        match Stages::new(&Segment::whole(model), Limit::of(model, memory)) {
            Ok(_) => Self::default(),
            Err(error) => Self::nothing(model, error.to_string()),
        }
    }

    /// Nothing, for this reason.
    pub(crate) fn nothing(model: &Model, reason: String) -> Self {
        Self {
            unseen: model.graph.node_ids().map(|id| (id, reason.clone())).collect(),
            causes: Vec::new(),
            nothing: Some(reason),
            found: 0,
        }
    }

    /// Less than before, where the engine failed on that: what does not depend on operators it does not know, nor on
    /// nodes that it turns out not to run; nothing at all where no such node can be found.
    pub(crate) fn less(&self, model: &Model, data: &Dataset, runtime: &Runtime, error: &EngineError) -> Option<Self> {
        if self.nothing.is_some() || matches!(error, EngineError::Cancelled | EngineError::Empty { .. }) {
            return None;
        }
        tracing::info!(%error, "the engine does not run all of the model");
        let mut less = Self { nothing: None, ..self.clone() };
        let mut causes: Vec<(NodeId, String)> = Vec::new();
        if self.is_whole() {
            causes.extend(runtime.backend().unknown(model));
            causes.extend(texts(model));
        }
        if causes.is_empty() && self.found < MOST_FOUND {
            less.found += 1;
            let fails = self.first_that_fails(model, data, runtime);
            causes.extend(fails.map(|node| (node, reason_at(error, model, node))));
        }
        if causes.is_empty() {
            return Some(Self::nothing(model, reason(error)));
        }
        less.unseen.extend(causes.iter().cloned());
        let is_cause = |id: &NodeId| self.causes.contains(id) || causes.iter().any(|(cause, _)| cause == id);
        less.causes = model.graph.node_ids().filter(is_cause).collect();
        less.spread(model);
        if less.unseen.len() == model.graph.node_ids().len() {
            return Some(Self::nothing(model, less.first_reason().unwrap_or_else(|| reason(error))));
        }
        Some(less)
    }

    /// Why the first node that is to blame cannot be run.
    fn first_reason(&self) -> Option<String> {
        self.causes.first().and_then(|node| self.refusal(*node))
    }

    /// The first node, in graph order, with which the engine fails on the first sample, though it runs all before it.
    fn first_that_fails(&self, model: &Model, data: &Dataset, runtime: &Runtime) -> Option<NodeId> {
        let sample = data.sample(0).ok()?;
        let nodes: Vec<NodeId> = model.graph.node_ids().filter(|id| !self.unseen.contains_key(id)).collect();
        // A large part is run in stages, which cannot be done again and again.
        Limit::of(model, runtime.memory).is_none().then_some(())?;
        let shapes: Vec<Vec<usize>> = sample.arrays.iter().map(|array| array.shape().to_vec()).collect();
        let runs = |count: usize| {
            let part = first_nodes(model, &nodes[..count]);
            let ran = runtime.backend().load(&part, &shapes).and_then(|plan| plan.session()?.run(&sample.arrays));
            ran.is_ok()
        };
        // The first `low` nodes run, the first `high` do not.
        let (mut low, mut high) = (0, nodes.len());
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if runs(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        nodes.get(low).copied()
    }

    /// What depends on what cannot be run cannot be run.
    fn spread(&mut self, model: &Model) {
        let graph = &model.graph;
        for (id, node) in graph.nodes() {
            let sources = node.inputs().iter().flatten().chain(node.captures());
            let blocked = sources.filter_map(|&v| graph.value(v).producer()).find(|(p, _)| self.unseen.contains_key(p));
            if let Some((source, _)) = blocked.filter(|_| !self.unseen.contains_key(&id)) {
                let reason = self.unseen[&source].clone();
                self.unseen.insert(id, reason);
            }
        }
    }

    /// Whether everything can be run.
    pub(crate) fn is_whole(&self) -> bool {
        self.unseen.is_empty()
    }

    /// Why a node cannot be run, if it cannot.
    pub(crate) fn refusal(&self, node: NodeId) -> Option<String> {
        self.unseen.get(&node).cloned()
    }

    /// Whether the value is there when the rest runs.
    pub(crate) fn sees(&self, model: &Model, value: ValueId) -> bool {
        let computed = model.graph.value(value).producer();
        self.nothing.is_none() && computed.is_none_or(|(node, _)| !self.unseen.contains_key(&node))
    }

    /// The part that can be run.
    pub(crate) fn part(&self, model: &Model) -> Model {
        let mut part = model.clone();
        if self.is_whole() {
            return part;
        }
        let mut outputs: Vec<ValueId> = model.graph.outputs().filter(|&v| self.sees(model, v)).collect();
        if outputs.is_empty() {
            let last = model.graph.nodes().rev().find(|(id, _)| !self.unseen.contains_key(id));
            outputs.extend(last.and_then(|(_, node)| node.outputs().iter().copied().flatten().next()));
        }
        part.graph.set_outputs(&outputs);
        part.graph.remove_nodes(&self.unseen.keys().copied().collect());
        part
    }

    /// What a user should know.
    pub(crate) fn note(&self) -> Option<String> {
        if let Some(reason) = &self.nothing {
            return Some(format!("only weights are quantized, and nothing was compared: {reason}"));
        }
        let first = self.first_reason()?;
        let such = match self.causes.len() {
            1 => String::new(),
            causes => format!(" (the first of {causes} such nodes)"),
        };
        let nodes = match self.unseen.len() {
            1 => "1 node was".to_owned(),
            count => format!("{count} nodes were"),
        };
        Some(format!(
            "{first}{such}: from there on {nodes} neither calibrated nor measured, and weights there are rounded without data"
        ))
    }
}

/// The first sample with an input without elements, where the engine runs a model on another sample and fails on that one.
pub(crate) fn refused_empty(model: &Model, data: &Dataset, runtime: &Runtime) -> Option<DataError> {
    Limit::of(model, runtime.memory).is_none().then_some(())?;
    let model = Segment::whole(model).model;
    let runs = |sample: &Sample| {
        let shapes: Vec<Vec<usize>> = sample.arrays.iter().map(|array| array.shape().to_vec()).collect();
        let plan = runtime.backend().load(&model, &shapes);
        plan.and_then(|plan| plan.session()?.run(&sample.arrays)).is_ok()
    };
    let empty = |sample: &Sample| sample.arrays.iter().position(Array::is_empty);
    let (mut full, mut refused) = (None, None);
    for at in 0..data.len() {
        let sample = data.sample(at).ok()?;
        match empty(&sample) {
            Some(input) if refused.is_none() => refused = Some((at, input, sample)),
            None if full.is_none() => full = Some(sample),
            _ => {}
        }
        if full.is_some() && refused.is_some() {
            break;
        }
    }
    let ((at, input, sample), full) = (refused?, full?);
    (runs(&full) && !runs(&sample)).then(|| DataError::EmptySample {
        sample: data.number(at).unwrap_or(at),
        input: inputs(&model).get(input).cloned().unwrap_or_default(),
        shape: ShapeText::of(sample.arrays[input].shape()),
    })
}

/// Why the engine does not run a node that it knows. What the engine says is of its own inner operators, for the log alone.
fn reason_at(error: &EngineError, model: &Model, node: NodeId) -> String {
    if !is_internal(error) {
        return error.to_string();
    }
    let node = model.graph.node(node);
    let domain = if node.domain().is_empty() { String::new() } else { format!("{}.", node.domain()) };
    format!("the engine fails on `{domain}{}` of node `{}`", node.op(), node.label(&model.graph))
}

/// Why the engine does not run a model, where no node is known to be the reason.
fn reason(error: &EngineError) -> String {
    if is_internal(error) {
        "the engine fails on this model, for a reason that `-v` logs".to_owned()
    } else {
        error.to_string()
    }
}

/// Whether an error holds text of the engine rather than of this program.
fn is_internal(error: &EngineError) -> bool {
    matches!(error, EngineError::Load { .. } | EngineError::Run { .. })
}

/// Some nodes of a model, whose results are its outputs where none of them reads those.
fn first_nodes(model: &Model, nodes: &[NodeId]) -> Model {
    let kept: HashSet<NodeId> = nodes.iter().copied().collect();
    let graph = &model.graph;
    let read = |value: ValueId| {
        let value = graph.value(value);
        value.uses().iter().any(|reader| kept.contains(&reader.node))
            || value.captures().iter().any(|n| kept.contains(n))
    };
    let results = nodes.iter().flat_map(|&id| graph.node(id).outputs().iter().flatten().copied());
    let outputs: Vec<ValueId> = results.filter(|&value| !read(value)).collect();
    let mut part = model.clone();
    part.graph.set_outputs(&outputs);
    part.graph.remove_nodes(&graph.node_ids().filter(|id| !kept.contains(id)).collect());
    part
}

/// The nodes that write text, which no array holds.
fn texts(model: &Model) -> impl Iterator<Item = (NodeId, String)> + '_ {
    model.graph.nodes().filter_map(|(id, node)| {
        let mut results = node.outputs().iter().flatten().map(|&value| model.graph.value(value));
        let text = results.find(|value| value.element_type() == Some(DataType::String))?;
        Some((id, format!("`{}` is text, which the engine does not hand out", text.name())))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    const NETWORK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
        g (float[2] x) => (float[2] y) { a = Relu (x)  b = Acosh (a)  c = Neg (b)  [last] y = Sqrt (c) }";

    fn without(model: &Model, outputs: &[&str]) -> Coverage {
        let node = |name: &&str| model.graph.value(model.graph.find(name).unwrap()).producer().unwrap().0;
        let error = EngineError::Run { reason: "Evaluating #3 \"b\": ShapeError".to_owned() };
        let causes: Vec<NodeId> = outputs.iter().map(node).collect();
        let unseen = causes.iter().map(|&id| (id, reason_at(&error, model, id))).collect();
        let mut coverage = Coverage { unseen, causes, nothing: None, found: 0 };
        coverage.spread(model);
        coverage
    }

    /// It names the operator and its node, and says nothing of the engine's inner nodes.
    #[test]
    fn the_note_names_the_first_node() {
        let model = import(text::parse(NETWORK).unwrap()).unwrap();
        assert_eq!(Coverage::default().note(), None);
        assert_eq!(
            without(&model, &["y"]).note().unwrap(),
            "the engine fails on `Sqrt` of node `last`: from there on 1 node was neither calibrated nor measured, and \
             weights there are rounded without data"
        );
        assert_eq!(
            without(&model, &["b", "y"]).note().unwrap(),
            "the engine fails on `Acosh` of node `b` (the first of 2 such nodes): from there on 3 nodes were neither \
             calibrated nor measured, and weights there are rounded without data"
        );
    }

    #[test]
    fn only_reasons_of_this_program_are_shown() {
        let said = EngineError::Memory { reason: "there is no memory for it".to_owned() };
        assert_eq!(reason(&said), "the engine cannot run this model: there is no memory for it");
        let inner = EngineError::Load { reason: "Impossible to unify 0 with 1".to_owned() };
        assert_eq!(reason(&inner), "the engine fails on this model, for a reason that `-v` logs");
    }
}
