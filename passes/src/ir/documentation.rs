//! Removal of documentation, which only human readers of the file use, and of what exporters note about their own work.

use super::value::Port;
use super::{FunctionProto, Graph, GraphProto, Model, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

/// How the keys begin under which torch's exporters note stack traces, names of classes and the nodes of their own graphs,
/// with paths of the machine they ran on.
const EXPORTERS: [&str; 2] = ["pkg.torch.", "pkg.onnxscript."];

impl Model {
    /// Drops documentation everywhere, metadata of nodes, values and tensors, and node names inside sub-graphs and
    /// functions. Metadata of the model and of graphs stays. Returns the number of entries removed.
    pub fn clear_documentation(&mut self) -> usize {
        self.clear(Cleared::Documentation)
    }

    /// Drops what exporters note about their own work from nodes, values, tensors, graphs and functions: no runtime reads
    /// it, and in small models it takes more bytes than the weights. Returns the number of entries removed.
    pub fn clear_exporter_notes(&mut self) -> usize {
        self.clear(Cleared::ExporterNotes)
    }

    fn clear(&mut self, what: Cleared) -> usize {
        let mut gone = what.text(&mut self.proto.doc_string);
        gone += self.proto.functions.iter_mut().map(|function| what.function(function)).sum::<usize>();
        gone + self.graph.clear(what)
    }
}

impl Graph {
    fn clear(&mut self, what: Cleared) -> usize {
        let mut gone = what.text(&mut self.proto.doc_string) + what.of_graph(&mut self.proto.metadata_props);
        gone += self.nodes.iter_mut().flatten().map(|node| what.node(&mut node.proto)).sum::<usize>();
        gone += self.initializers.values_mut().map(|tensor| what.tensor(tensor)).sum::<usize>();
        let ports = self.inputs.iter_mut().chain(&mut self.outputs).chain(&mut self.value_info);
        gone + ports.map(|Port { info, .. }| what.value(info)).sum::<usize>()
    }
}

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleared {
    /// Documentation, and all metadata but those of the model and of graphs.
    Documentation,
    /// What exporters note about their own work.
    ExporterNotes,
}

impl Cleared {
    fn text(self, text: &mut Option<String>) -> usize {
        usize::from(self == Self::Documentation && text.take().is_some_and(|text| !text.is_empty()))
    }

    fn metadata(self, entries: &mut Vec<StringStringEntryProto>) -> usize {
        let before = entries.len();
        let noted = |entry: &StringStringEntryProto| EXPORTERS.iter().any(|start| entry.key().starts_with(start));
        entries.retain(|entry| self == Self::ExporterNotes && !noted(entry));
        before - entries.len()
    }

    /// Metadata of a graph, which stays with the documentation gone.
    fn of_graph(self, entries: &mut Vec<StringStringEntryProto>) -> usize {
        if self == Self::Documentation { 0 } else { self.metadata(entries) }
    }

    fn function(self, function: &mut FunctionProto) -> usize {
        let gone = self.text(&mut function.doc_string) + self.metadata(&mut function.metadata_props);
        let values: usize = function.value_info.iter_mut().map(|value| self.value(value)).sum();
        gone + values + function.node.iter_mut().map(|node| self.inner_node(node)).sum::<usize>()
    }

    fn graph(self, graph: &mut GraphProto) -> usize {
        let mut gone = self.text(&mut graph.doc_string) + self.of_graph(&mut graph.metadata_props);
        gone += graph.node.iter_mut().map(|node| self.inner_node(node)).sum::<usize>();
        gone += graph.initializer.iter_mut().map(|tensor| self.tensor(tensor)).sum::<usize>();
        let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        gone + values.map(|value| self.value(value)).sum::<usize>()
    }

    fn inner_node(self, node: &mut NodeProto) -> usize {
        self.text(&mut node.name) + self.node(node)
    }

    fn node(self, node: &mut NodeProto) -> usize {
        let mut gone = self.text(&mut node.doc_string) + self.metadata(&mut node.metadata_props);
        for attribute in &mut node.attribute {
            gone += self.text(&mut attribute.doc_string);
            gone +=
                attribute.t.iter_mut().chain(&mut attribute.tensors).map(|tensor| self.tensor(tensor)).sum::<usize>();
            gone += attribute.g.iter_mut().chain(&mut attribute.graphs).map(|graph| self.graph(graph)).sum::<usize>();
        }
        gone
    }

    fn tensor(self, tensor: &mut TensorProto) -> usize {
        self.text(&mut tensor.doc_string) + self.metadata(&mut tensor.metadata_props)
    }

    fn value(self, value: &mut ValueInfoProto) -> usize {
        self.text(&mut value.doc_string) + self.metadata(&mut value.metadata_props)
    }
}
