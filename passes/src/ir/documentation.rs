//! Removal of documentation, which only human readers of the file use.

use super::value::Port;
use super::{FunctionProto, Graph, GraphProto, Model, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

impl Model {
    /// Drops documentation everywhere, metadata of nodes, values and tensors, and node names inside sub-graphs and
    /// functions. Metadata of the model and of graphs stays. Returns the number of entries removed.
    pub fn clear_documentation(&mut self) -> usize {
        let mut gone = clear(&mut self.proto.doc_string);
        gone += self.proto.functions.iter_mut().map(clear_function).sum::<usize>();
        gone + self.graph.clear_documentation()
    }
}

impl Graph {
    fn clear_documentation(&mut self) -> usize {
        let mut gone = clear(&mut self.proto.doc_string);
        gone += self.nodes.iter_mut().flatten().map(|n| clear_node(&mut n.proto)).sum::<usize>();
        gone += self.initializers.values_mut().map(clear_tensor).sum::<usize>();
        let ports = self.inputs.iter_mut().chain(&mut self.outputs).chain(&mut self.value_info);
        gone + ports.map(|Port { info, .. }| clear_value(info)).sum::<usize>()
    }
}

fn clear(text: &mut Option<String>) -> usize {
    usize::from(text.take().is_some_and(|t| !t.is_empty()))
}

fn clear_metadata(entries: &mut Vec<StringStringEntryProto>) -> usize {
    std::mem::take(entries).len()
}

fn clear_function(function: &mut FunctionProto) -> usize {
    let gone = clear(&mut function.doc_string) + clear_metadata(&mut function.metadata_props);
    let values: usize = function.value_info.iter_mut().map(clear_value).sum();
    gone + values + function.node.iter_mut().map(clear_inner_node).sum::<usize>()
}

fn clear_graph(graph: &mut GraphProto) -> usize {
    let mut gone = clear(&mut graph.doc_string);
    gone += graph.node.iter_mut().map(clear_inner_node).sum::<usize>();
    gone += graph.initializer.iter_mut().map(clear_tensor).sum::<usize>();
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    gone + values.map(clear_value).sum::<usize>()
}

fn clear_inner_node(node: &mut NodeProto) -> usize {
    clear(&mut node.name) + clear_node(node)
}

fn clear_node(node: &mut NodeProto) -> usize {
    let mut gone = clear(&mut node.doc_string) + clear_metadata(&mut node.metadata_props);
    for attribute in &mut node.attribute {
        gone += clear(&mut attribute.doc_string);
        gone += attribute.t.iter_mut().chain(&mut attribute.tensors).map(clear_tensor).sum::<usize>();
        gone += attribute.g.iter_mut().chain(&mut attribute.graphs).map(clear_graph).sum::<usize>();
    }
    gone
}

fn clear_tensor(tensor: &mut TensorProto) -> usize {
    clear(&mut tensor.doc_string) + clear_metadata(&mut tensor.metadata_props)
}

fn clear_value(value: &mut ValueInfoProto) -> usize {
    clear(&mut value.doc_string) + clear_metadata(&mut value.metadata_props)
}
