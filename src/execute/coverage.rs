//! What of a model the engine can run.
//!
//! An operator that the engine does not know, and whatever depends on its outputs, cannot be observed. It stays float, with
//! that reason; layers among it store integer weights, rounded to nearest. The rest is quantized as usual.

use super::segment::Segment;
use super::stages::{Limit, Stages};
use crate::engine::{Backend, EngineError};
use msq_passes::ir::{Model, NodeId, ValueId};
use std::collections::HashMap;

/// The nodes that cannot be run, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    unseen: HashMap<NodeId, String>,
    /// Why nothing can be run.
    nothing: Option<String>,
}

impl Coverage {
    /// All of a model; nothing of one that the memory allowed is too little for, in stages too.
    pub(crate) fn within(model: &Model, memory: Option<u64>) -> Self {
        match Stages::new(&Segment::whole(model), Limit::of(model, memory)) {
            Ok(_) => Self::default(),
            Err(error) => Self::nothing(model, error.to_string()),
        }
    }

    fn nothing(model: &Model, reason: String) -> Self {
        Self { unseen: model.graph.node_ids().map(|id| (id, reason.clone())).collect(), nothing: Some(reason) }
    }

    /// Less than before, where the engine failed on that: what does not depend on operators it does not know; else
    /// nothing at all.
    pub(crate) fn less(&self, model: &Model, backend: &dyn Backend, error: &EngineError) -> Option<Self> {
        if self.nothing.is_some() {
            return None;
        }
        let mut less = Self::default();
        if self.is_whole() {
            less.unseen.extend(backend.unknown(model));
            less.spread(model);
        }
        let none = less.is_whole() || less.unseen.len() == model.graph.node_ids().len();
        Some(if none { Self::nothing(model, error.to_string()) } else { less })
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
            let count = self.unseen.len();
            format!("{count} nodes behind operators that the engine does not know were not observed or compared")
        })
    }
}
