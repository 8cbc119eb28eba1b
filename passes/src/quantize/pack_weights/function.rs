//! Unpacking as functions of the model: one per code, in the domain `msq`.

use super::DOMAIN;
use super::code::Code;
use super::unpack::Unpacker;
use crate::ir::{FunctionProto, Graph, Model, NodeProto, OperatorSetIdProto, ValueId, function_body};
use crate::pass::PassError;

/// Calls the function that unpacks the code, adding it to the model if it is missing.
pub(super) fn call(model: &mut Model, words: ValueId, code: Code, low: i32) -> Result<ValueId, PassError> {
    let name = format!("Unpack{}", code.base);
    if !model.is_function(DOMAIN, &name) {
        model.add_function(define(&name, code, low, model.opset("").unwrap_or_default())?);
        model.set_opset(DOMAIN, 1);
    }
    Ok(call_named(&mut model.graph, &name, &[words], "unpacked"))
}

/// The function that unpacks words of a code, the lowest digit being `low`.
fn define(name: &str, code: Code, low: i32, opset: i64) -> Result<FunctionProto, PassError> {
    let mut body = Graph::default();
    let words = body.add_value("packed");
    let output = Unpacker::default().integers(&mut body, words, code, low);
    function_of(name, body, &[words], output, opset)
}

/// A function of the domain `msq` with the nodes of `body`.
pub(super) fn function_of(
    name: &str,
    mut body: Graph,
    inputs: &[ValueId],
    output: ValueId,
    opset: i64,
) -> Result<FunctionProto, PassError> {
    body.sort()?;
    let names = |values: &[ValueId]| values.iter().map(|&v| body.value(v).name().to_owned()).collect();
    Ok(FunctionProto {
        name: Some(name.to_owned()),
        domain: Some(DOMAIN.to_owned()),
        input: names(inputs),
        output: names(&[output]),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        node: function_body(&body),
        ..FunctionProto::default()
    })
}

/// Calls a function of the domain `msq`; returns the value it computes, named after `output`.
pub(super) fn call_named(graph: &mut Graph, name: &str, inputs: &[ValueId], output: &str) -> ValueId {
    let output = graph.add_value(output);
    let node = NodeProto {
        op_type: Some(name.to_owned()),
        domain: Some(DOMAIN.to_owned()),
        name: Some(graph.value(output).name().to_owned()),
        ..NodeProto::default()
    };
    let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
    graph.add_node(node, &inputs, &[Some(output)]);
    output
}
