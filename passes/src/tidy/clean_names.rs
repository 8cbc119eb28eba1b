//! Pass `clean-names`: makes names unique, or as short as possible. No value changes.
//!
//! Without `strip` every node gets a unique name: an empty name becomes the name of the node's first output, which
//! messages already used for it, and a repeated name gets a number. Names of values do not change.
//!
//! What exporters of torch note about their own work (stack traces, classes, the nodes of their graphs) is dropped always.
//!
//! With `strip`, for files where names outweigh the weights, graph inputs and outputs keep their names. Every other
//! value gets the next of `a, b, …, z, A, …, Z, aa, ab, …`: the values that nodes and constants mention most often first,
//! ties in the order in which nodes mention them. Fields that no runtime needs are dropped: names of nodes, documentation, the
//! metadata that exporters attach to nodes and values, and declared types of values that ONNX operators write, which
//! every runtime infers. In sub-graphs, references to renamed values follow; values defined in sub-graphs keep their
//! names, which no other value gets.

use crate::ir::{Graph, Model, NodeId, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::{IndexMap, IndexSet};
use std::collections::{HashMap, HashSet};

/// Makes names unique or short.
#[derive(Clone, Copy, Debug, Default)]
pub struct CleanNames {
    /// Whether to shorten the names of values and drop all other names and documentation.
    pub strip: bool,
}

impl CleanNames {
    /// The old names of values with their new names; empty without `strip`.
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

    fn about(&self) -> &'static str {
        "names become unique or, in stripped files, as short as can be"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome { changed: model.clear_exporter_notes(), ..Outcome::default() };
        if !self.strip {
            outcome.changed += name_nodes(&mut model.graph);
            return Ok(outcome);
        }
        let renames = self.renames(&model.graph);
        outcome.changed += renames.len();
        rename(&mut model.graph, &renames);
        let named: Vec<NodeId> = model.graph.nodes().filter(|(_, n)| !n.name().is_empty()).map(|(id, _)| id).collect();
        outcome.changed += named.len();
        for id in named {
            model.graph.set_node_name(id, None);
        }
        outcome.changed += model.clear_documentation();
        outcome.changed += drop_types(model);
        Ok(outcome)
    }
}

/// Drops the declared types of inner values, except for outputs of functions and of operators of other domains, whose
/// types no runtime can infer.
fn drop_types(model: &mut Model) -> usize {
    let inferred = |value: ValueId| {
        let producer = model.graph.value(value).producer().map(|(id, _)| model.graph.node(id));
        producer.is_none_or(|n| n.domain().is_empty() && !model.is_function("", n.op()))
    };
    let values: HashSet<ValueId> = model.graph.values().map(|(v, _)| v).filter(|&v| inferred(v)).collect();
    model.graph.drop_value_info(&values)
}

/// All values: those that the file mentions most often first, ties in the order in which nodes mention them.
fn mentioned(graph: &Graph) -> Vec<ValueId> {
    let of_nodes = graph.nodes().flat_map(|(_, node)| {
        let read = node.inputs().iter().flatten().chain(node.captures());
        read.chain(node.outputs().iter().flatten()).copied().collect::<Vec<_>>()
    });
    let mut mentions: IndexMap<ValueId, usize> = IndexMap::new();
    // A constant carries its name itself.
    let constants = graph.initializers().map(|(id, _)| id);
    for value in of_nodes.chain(constants).chain(graph.values().map(|(id, _)| id)) {
        *mentions.entry(value).or_default() += 1;
    }
    mentions.sort_by(|_, a, _, b| b.cmp(a));
    mentions.into_keys().collect()
}

/// Number `index` of `a, b, …, z, A, …, Z, aa, ab, …`.
fn short_name(index: usize) -> String {
    const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(LETTERS[rest % LETTERS.len()]));
        rest /= LETTERS.len();
    }
    letters.into_iter().rev().collect()
}

/// Renames values by way of unused names, since a new name may be the old name of another value.
fn rename(graph: &mut Graph, renames: &[(ValueId, String)]) {
    for (i, &(value, _)) in renames.iter().enumerate() {
        let passing = graph.fresh_name(&format!("renamed_{i}"));
        graph.rename(value, &passing);
    }
    for (value, short) in renames {
        graph.rename(*value, short);
    }
}

/// Gives nodes unique names and returns the number of new names.
fn name_nodes(graph: &mut Graph) -> usize {
    let mut seen: HashSet<String> = HashSet::new();
    let own: HashSet<String> = graph.nodes().map(|(_, n)| n.name().to_owned()).collect();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut changes = Vec::new();
    for (id, node) in graph.nodes() {
        if !node.name().is_empty() && seen.insert(node.name().to_owned()) {
            continue;
        }
        let stem = node.label(graph);
        // Names never become free: the next search for this stem begins where the last one ended.
        let next = numbers.entry(stem).or_default();
        let mut numbered = (*next..).map(|i| (i, if i == 0 { stem.to_owned() } else { format!("{stem}_{i}") }));
        let name = numbered.find(|(_, name)| !seen.contains(name) && !own.contains(name));
        if let Some((number, name)) = name {
            *next = number + 1;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, export, import};

    /// If every node tried all numbers from the start, this would take minutes.
    #[test]
    fn many_nodes_of_one_name() {
        const NODES: usize = 50_000;
        let node = NodeProto { name: Some("n".to_owned()), ..NodeProto::default() };
        let graph = GraphProto { node: vec![node; NODES], ..GraphProto::default() };
        let proto = ModelProto { ir_version: Some(8), graph: Some(graph), ..ModelProto::default() };
        let mut model = import(proto).unwrap();
        assert_eq!(name_nodes(&mut model.graph), NODES - 1);
        let names: Vec<&str> = model.graph.nodes().map(|(_, node)| node.name()).collect();
        assert_eq!((names[0], names[1], names[NODES - 1]), ("n", "n_1", "n_49999"));
    }

    #[test]
    fn notes_of_exporters_go_and_other_metadata_stays() {
        let entry = |key: &str| StringStringEntryProto { key: Some(key.to_owned()), value: Some("x".to_owned()) };
        let entries = || vec![entry("pkg.torch.onnx.stack_trace"), entry("namespace"), entry("pkg.onnxscript.rule")];
        let node = |graph| NodeProto {
            op_type: Some("If".to_owned()),
            name: Some("n".to_owned()),
            metadata_props: entries(),
            attribute: Vec::from_iter(graph),
            ..NodeProto::default()
        };
        let body = GraphProto { node: vec![node(None)], metadata_props: entries(), ..GraphProto::default() };
        let branch =
            AttributeProto { name: Some("then_branch".to_owned()), g: Some(body), ..AttributeProto::default() };
        let graph = GraphProto { node: vec![node(Some(branch))], metadata_props: entries(), ..GraphProto::default() };
        let proto = ModelProto { ir_version: Some(8), graph: Some(graph), ..ModelProto::default() };
        let mut model = import(proto).unwrap();
        let outcome = CleanNames::default().run(&mut model).unwrap();
        assert_eq!(outcome.changed, 8);
        let graph = export(&model).graph.unwrap();
        let node = &graph.node[0];
        let body = node.attribute[0].g.as_ref().unwrap();
        for left in [&graph.metadata_props, &node.metadata_props, &body.metadata_props, &body.node[0].metadata_props] {
            assert_eq!(left.iter().map(StringStringEntryProto::key).collect::<Vec<_>>(), ["namespace"]);
        }
        assert_eq!(node.name(), "n");
        assert_eq!(body.node[0].name(), "n");
    }
}
