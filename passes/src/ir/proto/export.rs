//! From model to file.

use super::messages::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::ir::value::Port;
use crate::ir::{Graph, Model, Node, ValueId};
use prost::Message;

/// The model as a message: equal to the imported message, except for changes made since.
pub fn export(model: &Model) -> ModelProto {
    ModelProto { graph: Some(export_graph(&model.graph)), ..model.proto.clone() }
}

/// The model message as bytes.
pub fn encode_model(proto: &ModelProto) -> Vec<u8> {
    proto.encode_to_vec()
}

/// Any message as bytes.
pub(crate) fn encoded(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Size in bytes of the encoded model message.
pub fn encoded_len(proto: &ModelProto) -> usize {
    proto.encoded_len()
}

fn export_graph(graph: &Graph) -> GraphProto {
    GraphProto {
        node: graph.nodes().map(|(_, node)| export_node(graph, node)).collect(),
        initializer: graph.initializers().map(|(_, t)| t.clone()).collect(),
        sparse_initializer: graph.sparse.clone(),
        input: export_ports(graph, &graph.inputs),
        output: export_ports(graph, &graph.outputs),
        value_info: export_ports(graph, &graph.value_info),
        ..graph.proto.clone()
    }
}

/// The nodes of a function with this graph's body: initializers become `Constant` nodes, since functions have no
/// initializers.
pub fn function_body(graph: &Graph) -> Vec<NodeProto> {
    let constant = |(_, tensor): (ValueId, &TensorProto)| NodeProto {
        op_type: Some("Constant".to_owned()),
        output: vec![tensor.name().to_owned()],
        attribute: vec![AttributeProto::tensor("value", TensorProto { name: None, ..tensor.clone() })],
        ..NodeProto::default()
    };
    let constants = graph.initializers().map(constant);
    constants.chain(graph.nodes().map(|(_, node)| export_node(graph, node))).collect()
}

fn export_node(graph: &Graph, node: &Node) -> NodeProto {
    let names = |values: &[Option<ValueId>]| -> Vec<String> {
        values.iter().map(|v| v.map_or_else(String::new, |v| graph.value(v).name().to_owned())).collect()
    };
    NodeProto { input: names(node.inputs()), output: names(node.outputs()), ..node.proto.clone() }
}

fn export_ports(graph: &Graph, ports: &[Port]) -> Vec<ValueInfoProto> {
    let named = |p: &Port| {
        let name = graph.value(p.value).name();
        // A file may omit the name.
        let name = (p.info.name.is_some() || !name.is_empty()).then(|| name.to_owned());
        ValueInfoProto { name, ..p.info.clone() }
    };
    ports.iter().map(named).collect()
}
