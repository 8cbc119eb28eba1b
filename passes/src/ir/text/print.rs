//! The printer.

use super::describe::{entries, tensor_data, tensor_type};
use super::layout::{INDENT, Item, attribute_list, block, comment_lines, declarations, list, needs_lines};
use super::notes::Notes;
use super::spell::{self, domain, name, quoted, word};
use crate::ir::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};

/// Prints messages; the returned text is indented by `pad` columns from the second line on.
pub(super) struct Printer {
    /// Tensors with more elements are described instead of written out.
    pub(super) inline_limit: usize,
}

impl Printer {
    pub(super) fn model(&self, model: &ModelProto) -> String {
        let notes = comment_lines(&Notes::model(model), 0);
        let graph = self.graph(model.graph.as_ref().unwrap_or(&GraphProto::default()), 0, false);
        let functions: String = model.functions.iter().map(|function| self.function(function)).collect();
        format!("{notes}{}{graph}\n{functions}", header(&model_header(model)))
    }

    /// A graph. The name of a nested graph cannot be quoted, so a comment may give it.
    pub(super) fn graph(&self, graph: &GraphProto, pad: usize, nested: bool) -> String {
        let full_name = graph.name.as_deref().unwrap_or_default();
        let renamed = spell::unquoted_name(full_name).filter(|_| nested);
        let remark = renamed.as_ref().map_or_else(String::new, |_| format!("  # {}", name_comment(full_name)));
        let initializers = graph.initializer.iter().filter_map(|tensor| self.initializer(tensor));
        let items: Vec<_> = initializers.chain(graph.value_info.iter().map(value_item)).collect();
        let declarations = declarations(&items, pad, renamed.is_some());
        let (inputs, outputs) = (list(&graph.input, value_text), list(&graph.output, value_text));
        let mut notes = Notes::graph(graph);
        notes.extend(graph.initializer.iter().filter(|t| tensor_type(t).is_none()).map(unknown_type));
        let body = self.body(&notes, &graph.node, pad);
        let shown_name = renamed.unwrap_or_else(|| name(full_name));
        format!("{shown_name} ({inputs}) => ({outputs}){remark}{declarations}{body}")
    }

    /// Notes on separate lines, then a node with its attributes in name order.
    pub(super) fn node(&self, node: &NodeProto, pad: usize) -> String {
        let (attributes, unwritable) = self.attributes(&node.attribute, pad);
        let notes = Notes::node(node).into_iter().chain(unwritable);
        let notes = notes.map(|note| format!("# {note}\n{:pad$}", "")).collect::<Vec<_>>().concat();
        let label = node.name.as_ref().map_or_else(String::new, |label| format!("[{}] ", name(label)));
        let outputs = list(&node.output, |output| name(output));
        let equals = if outputs.is_empty() { "= " } else { " = " };
        let operator = operator(node);
        let inputs = format!(" ({})", list(&node.input, |input| name(input)));
        let list = attribute_list(&attributes, pad);
        // A list that takes several lines reads better behind the inputs.
        let operands = if attributes.iter().any(needs_lines) { inputs + &list } else { list + &inputs };
        format!("{notes}{label}{outputs}{equals}{operator}{operands}")
    }

    fn body(&self, notes: &[String], nodes: &[NodeProto], pad: usize) -> String {
        let inner = pad + INDENT;
        let notes = comment_lines(notes, inner);
        let line = |node| format!("{:inner$}{}\n", "", self.node(node, inner));
        let nodes = nodes.iter().map(line).collect::<Vec<_>>().concat();
        format!("{{\n{notes}{nodes}{:pad$}}}", "")
    }

    fn initializer(&self, tensor: &TensorProto) -> Option<Item> {
        let (data, comment) = tensor_data(tensor, self.inline_limit);
        let tensor_name = name(tensor.name.as_deref().unwrap_or_default());
        let text = format!("{} {tensor_name} = {data}", tensor_type(tensor)?);
        Some(Item { notes: Notes::tensor(tensor), text, comment })
    }

    fn function(&self, function: &FunctionProto) -> String {
        let header = header(&function_header(function));
        let mut attributes: Vec<_> = function.attribute.iter().map(|attribute| Item::new(word(attribute))).collect();
        let (defaults, unwritable) = self.attributes(&function.attribute_proto, 0);
        attributes.extend(defaults);
        let attributes = attribute_list(&attributes, 0);
        let function_name = name(function.name.as_deref().unwrap_or_default());
        let (inputs, outputs) = (list(&function.input, |v| name(v)), list(&function.output, |v| name(v)));
        let values: Vec<_> = function.value_info.iter().map(|value| Item::new(value_text(value))).collect();
        let values = declarations(&values, 0, false);
        let mut notes = Notes::function(function);
        notes.extend(unwritable);
        let body = self.body(&notes, &function.node, 0);
        format!("\n{header}{function_name}{attributes} ({inputs}) => ({outputs}){values}{body}\n")
    }
}

/// Domain, operator and overload.
fn operator(node: &NodeProto) -> String {
    let prefix = node.domain.as_deref().filter(|domain| !domain.is_empty());
    let prefix = prefix.map_or_else(String::new, |prefix| format!("{}.", domain(prefix)));
    let overload = node.overload.as_deref().filter(|overload| !overload.is_empty());
    let overload = overload.map_or_else(String::new, |overload| format!(":{}", word(overload)));
    format!("{prefix}{}{overload}", word(node.op_type.as_deref().unwrap_or_default()))
}

/// The properties of a model or a function.
fn header(properties: &[Item]) -> String {
    if properties.is_empty() { String::new() } else { block("<", properties, ">", 0) + "\n" }
}

fn model_header(model: &ModelProto) -> Vec<Item> {
    let text = |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("{key}: {}", quoted(v.as_bytes())));
    let integer = |key: &str, value: Option<i64>| value.map(|value| format!("{key}: {value}"));
    let metadata = format!("metadata_props: [{}]", entries(&model.metadata_props));
    let lines = [
        integer("ir_version", model.ir_version),
        (!model.opset_import.is_empty()).then(|| opsets(&model.opset_import)),
        text("producer_name", &model.producer_name),
        text("producer_version", &model.producer_version),
        text("domain", &model.domain),
        integer("model_version", model.model_version),
        text("doc_string", &model.doc_string),
        (!model.metadata_props.is_empty()).then_some(metadata),
    ];
    lines.into_iter().flatten().map(Item::new).collect()
}

fn function_header(function: &FunctionProto) -> Vec<Item> {
    let text = |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("{key}: {}", quoted(v.as_bytes())));
    let lines = [
        text("domain", &function.domain),
        text("overload", &function.overload),
        (!function.opset_import.is_empty()).then(|| opsets(&function.opset_import)),
        text("doc_string", &function.doc_string),
    ];
    lines.into_iter().flatten().map(Item::new).collect()
}

fn opsets(opsets: &[OperatorSetIdProto]) -> String {
    let one = |opset: &OperatorSetIdProto| {
        let opset_domain = quoted(opset.domain.as_deref().unwrap_or_default().as_bytes());
        format!("{opset_domain}: {}", opset.version.unwrap_or_default())
    };
    format!("opset_import: [{}]", list(opsets, one))
}

fn value_text(value: &ValueInfoProto) -> String {
    let value_name = name(value.name.as_deref().unwrap_or_default());
    match value.r#type.as_ref().and_then(spell::type_text) {
        Some(value_type) => format!("{value_type} {value_name}"),
        None => value_name,
    }
}

fn value_item(value: &ValueInfoProto) -> Item {
    Item { notes: Notes::value(value), text: value_text(value), comment: None }
}

fn unknown_type(tensor: &TensorProto) -> String {
    let tensor_name = spell::quoted_on_line(tensor.name.as_deref().unwrap_or_default().as_bytes());
    format!("initializer {tensor_name}: unknown element type {}", tensor.data_type.unwrap_or_default())
}

/// A comment with a name that the syntax cannot state in its place.
pub(super) fn name_comment(full_name: &str) -> String {
    format!("name {}", spell::quoted_on_line(full_name.as_bytes()))
}
