//! Functions of what a layer writes that the runtime computes within the layer, element by element: an activation that is
//! written with several nodes, such as x·clip(x + 3, 0, 6)/6. Quantizers between these nodes would keep it from that.

use crate::analysis::Layer;
use crate::ir::{Graph, Node, NodeId, ValueId};
use crate::ops::{Trait, facts};
use crate::target::Profile;
use std::collections::{HashMap, HashSet};

/// What nodes make of one layer's output and of constants alone.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The layer's output by the values.
    sources: HashMap<ValueId, ValueId>,
    written: HashSet<ValueId>,
}

impl Joined {
    /// The values of a graph; none for targets that do not compute them within layers.
    pub(super) fn of(graph: &Graph, layers: &HashMap<NodeId, Layer>, profile: &Profile) -> Self {
        let mut joined = Self::default();
        if !profile.joins_activations {
            return joined;
        }
        joined.written.extend(layers.values().map(|layer| layer.output));
        for (id, node) in graph.nodes() {
            let written = layers.get(&id).map(|layer| layer.output);
            if let Some(output) = written.or_else(|| node.output(0).filter(|output| joined.written.contains(output))) {
                joined.sources.insert(output, output);
            } else if let (Some(source), Some(output)) = (joined.source(graph, node), node.output(0)) {
                joined.sources.insert(output, source);
            }
        }
        joined
    }

    /// Whether a node computes such a value.
    pub(super) fn has(&self, node: &Node) -> bool {
        let is_function = |value| self.sources.contains_key(&value) && !self.written.contains(&value);
        node.output(0).is_some_and(is_function)
    }

    /// The layer's output that all activations of an elementwise node come from.
    fn source(&self, graph: &Graph, node: &Node) -> Option<ValueId> {
        let facts = facts(node.op());
        if !node.domain().is_empty() || !(facts.has(Trait::Unary) || facts.has(Trait::Binary)) {
            return None;
        }
        let mut source = None;
        for value in node.inputs().iter().flatten().copied() {
            if let Some(constant) = graph.constant(value) {
                // One number, or one for each channel.
                let shape = constant.shape().ok()?;
                if shape.iter().filter(|&&length| length != 1).count() > 1 {
                    return None;
                }
                continue;
            }
            let own = *self.sources.get(&value)?;
            if source.is_some_and(|source| source != own) {
                return None;
            }
            source = Some(own);
        }
        source
    }
}
