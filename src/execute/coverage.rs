//! What of a model the engine can run.
//!
//! An operator that the engine does not know, and whatever depends on its outputs, cannot be observed. It stays float, with
//! that reason; layers among it store integer weights, rounded to nearest. The rest is quantized as usual.

use super::segment::Segment;
use super::stages::{Limit, Stages};
use crate::data::Dataset;
use crate::engine::EngineError;
use crate::runtime::Runtime;
use msq_passes::ir::{DataType, Model, NodeId, ValueId};
use std::collections::{HashMap, HashSet};

/// The nodes that cannot be run, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    unseen: HashMap<NodeId, String>,
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
            nothing: Some(reason),
            found: 0,
        }
    }

    /// Less than before, where the engine failed on that: what does not depend on operators it does not know, nor on
    /// nodes that it turns out not to run; nothing at all where no such node can be found.
    pub(crate) fn less(&self, model: &Model, data: &Dataset, runtime: &Runtime, error: &EngineError) -> Option<Self> {
        if self.nothing.is_some() || matches!(error, EngineError::Cancelled) {
            return None;
        }
        let mut less = Self { unseen: self.unseen.clone(), nothing: None, found: self.found };
        if self.is_whole() {
            less.unseen.extend(runtime.backend().unknown(model));
            less.unseen.extend(texts(model));
        }
        if less.unseen.len() == self.unseen.len() && self.found < MOST_FOUND {
            less.found += 1;
            let fails = self.first_that_fails(model, data, runtime);
            less.unseen.extend(fails.map(|node| (node, error.to_string())));
        }
        let stuck = less.unseen.len() == self.unseen.len();
        less.spread(model);
        let none = stuck || less.unseen.len() == model.graph.node_ids().len();
        Some(if none { Self::nothing(model, error.to_string()) } else { less })
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
        (!self.is_whole()).then(|| {
            let behind = "behind operators that the engine does not know";
            match self.unseen.len() {
                1 => format!("1 node {behind} was not observed or compared"),
                count => format!("{count} nodes {behind} were not observed or compared"),
            }
        })
    }
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
