//! Pass `clean-names`: names that are unique, or as short as can be. No value changes.
//!
//! Without `strip` every node gets a name of its own: an empty one becomes the name of the node's first output, by
//! which messages spoke of it already, and a name met before gets a number. Value names stay.
//!
//! With `strip`, for files where names outweigh the weights, graph inputs and outputs keep their names, every other
//! value gets the next of `a, b, …, z, aa, ab, …` in the order in which nodes mention them, and what nobody runs is
//! dropped: names of nodes, documentation and the metadata exporters attach to nodes and values. Sub-graphs follow for
//! the values they read; names of values they define themselves stay, and nothing else takes those.

use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashSet;

/// Makes names unique or short.
#[derive(Clone, Copy, Debug, Default)]
pub struct CleanNames {
    /// Whether to shorten values' names and drop everything else.
    pub strip: bool,
}

impl CleanNames {
    /// The names values will lose and the names they get instead, in the order of the nodes; empty without `strip`.
    pub fn plan(&self, model: &Model) -> IndexMap<String, String> {
        let name = |value| model.graph.value(value).name().to_owned();
        self.renames(&model.graph).into_iter().map(|(value, short)| (name(value), short)).collect()
    }

    fn renames(self, graph: &Graph) -> Vec<(ValueId, String)> {
        if !self.strip {
            return Vec::new();
        }
        let kept: IndexSet<ValueId> = graph.inputs().chain(graph.outputs()).collect();
        let taken: HashSet<&str> = kept.iter().map(|&v| graph.value(v).name()).collect();
        let free = (0..).map(short_name).filter(|n| !taken.contains(n.as_str()) && !graph.is_reserved(n));
        let renamed = mentioned(graph).into_iter().filter(|v| !kept.contains(v));
        renamed.zip(free).filter(|(value, short)| graph.value(*value).name() != short).collect()
    }
}

impl Pass for CleanNames {
    fn name(&self) -> &'static str {
        "clean-names"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if !self.strip {
            outcome.changed = name_nodes(&mut model.graph);
            return Ok(outcome);
        }
        let renames = self.renames(&model.graph);
        outcome.changed = renames.len();
        rename(&mut model.graph, &renames);
        let named: Vec<NodeId> = model.graph.nodes().filter(|(_, n)| !n.name().is_empty()).map(|(id, _)| id).collect();
        outcome.changed += named.len();
        for id in named {
            model.graph.set_node_name(id, None);
        }
        outcome.changed += model.clear_documentation();
        Ok(outcome)
    }
}

/// Every value, in the order in which nodes mention them; those no node mentions come last.
fn mentioned(graph: &Graph) -> IndexSet<ValueId> {
    let of_nodes = graph.nodes().flat_map(|(_, node)| {
        let read = node.inputs().iter().flatten().chain(node.captures());
        read.chain(node.outputs().iter().flatten()).copied().collect::<Vec<_>>()
    });
    of_nodes.chain(graph.values().map(|(id, _)| id)).collect()
}

/// Number `index` of `a, b, …, z, aa, ab, …`.
fn short_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    letters.into_iter().rev().collect()
}

/// Renames values by way of names nobody has: a new name may be the old one of another value.
fn rename(graph: &mut Graph, renames: &[(ValueId, String)]) {
    for (i, &(value, _)) in renames.iter().enumerate() {
        let passing = graph.fresh_name(&format!("renamed_{i}"));
        graph.rename(value, &passing);
    }
    for (value, short) in renames {
        graph.rename(*value, short);
    }
}

/// Gives nodes names of their own and says how many got one.
fn name_nodes(graph: &mut Graph) -> usize {
    let mut seen: HashSet<String> = HashSet::new();
    let own: HashSet<String> = graph.nodes().map(|(_, n)| n.name().to_owned()).collect();
    let mut changes = Vec::new();
    for (id, node) in graph.nodes() {
        if !node.name().is_empty() && seen.insert(node.name().to_owned()) {
            continue;
        }
        let stem = node.label(graph);
        let free = |name: &str| !seen.contains(name) && !own.contains(name);
        let numbered = (1_u64..).map(|i| format!("{stem}_{i}"));
        let name = std::iter::once(stem.to_owned()).chain(numbered).find(|n| free(n));
        if let Some(name) = name {
            seen.insert(name.clone());
            changes.push((id, name));
        }
    }
    let changed = changes.len();
    for (id, name) in changes {
        graph.set_node_name(id, Some(name));
    }
    changed
}
