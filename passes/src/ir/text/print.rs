//! The printer.

use super::describe::{entries, tensor_data, tensor_type};
use super::notes::Notes;
use super::spell::{self, domain, name, quoted, word};
use crate::ir::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};

/// Columns a level is indented by.
const INDENT: usize = 2;

/// An entry of a list that has one entry a line.
#[derive(Default)]
struct Item {
    /// Comments on lines of their own, above.
    notes: Vec<String>,
    text: String,
    /// A comment behind the entry.
    comment: Option<String>,
}

impl Item {
    fn new(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

/// Prints messages; what it returns is indented by `pad` columns from the second line on.
pub(super) struct Printer {
    /// Tensors with more elements are described instead of written out.
    pub(super) inline_limit: usize,
}

impl Printer {
    pub(super) fn model(&self, model: &ModelProto) -> String {
        let mut out: String = Notes::model(model).iter().map(|note| format!("# {note}\n")).collect();
        let header = model_header(model);
        if !header.is_empty() {
            out += &block("<", &header, ">", 0);
            out.push('\n');
        }
        out += &self.graph(model.graph.as_ref().unwrap_or(&GraphProto::default()), 0, false);
        out.push('\n');
        for function in &model.functions {
            out.push('\n');
            out += &self.function(function);
        }
        out
    }

    /// A graph; the name of a nested one cannot be quoted, hence a comment may tell it.
    pub(super) fn graph(&self, graph: &GraphProto, pad: usize, nested: bool) -> String {
        let full_name = graph.name.as_deref().unwrap_or_default();
        let renamed = spell::unquoted_name(full_name).filter(|_| nested);
        let mut out = format!(
            "{} ({}) => ({})",
            renamed.clone().unwrap_or_else(|| name(full_name)),
            list(&graph.input, value_text),
            list(&graph.output, value_text)
        );
        if renamed.is_some() {
            out += &format!("  # {}", name_comment(full_name));
        }
        let initializers = graph.initializer.iter().filter_map(|tensor| self.initializer(tensor));
        let declarations: Vec<_> = initializers.chain(graph.value_info.iter().map(value_item)).collect();
        let mut notes = Notes::graph(graph);
        notes.extend(graph.initializer.iter().filter(|t| tensor_type(t).is_none()).map(unknown_type));
        push_declarations(&mut out, &declarations, pad, renamed.is_some());
        out += &self.body(&notes, &graph.node, pad);
        out
    }

    /// Notes on lines of their own, then a node with its attributes in name order.
    pub(super) fn node(&self, node: &NodeProto, pad: usize) -> String {
        let mut out = String::new();
        for note in Notes::node(node) {
            out += &format!("# {note}\n{:pad$}", "");
        }
        if let Some(node_name) = &node.name {
            out += &format!("[{}] ", name(node_name));
        }
        out += &list(&node.output, |output| name(output));
        out += if node.output.is_empty() { "= " } else { " = " };
        if let Some(node_domain) = node.domain.as_deref().filter(|domain| !domain.is_empty()) {
            out += &format!("{}.", domain(node_domain));
        }
        out += &word(node.op_type.as_deref().unwrap_or_default());
        if let Some(overload) = node.overload.as_deref().filter(|overload| !overload.is_empty()) {
            out += &format!(":{}", word(overload));
        }
        let inputs = format!(" ({})", list(&node.input, |input| name(input)));
        let attributes = self.attributes(&node.attribute, pad);
        match attributes.iter().any(needs_lines) {
            _ if attributes.is_empty() => out + &inputs,
            false => out + " " + &inline("<", &attributes, ">") + &inputs,
            true => out + &inputs + " " + &block("<", &attributes, ">", pad),
        }
    }

    fn body(&self, notes: &[String], nodes: &[NodeProto], pad: usize) -> String {
        let inner = pad + INDENT;
        let mut out = "{\n".to_owned();
        for note in notes {
            out += &format!("{:inner$}# {note}\n", "");
        }
        for node in nodes {
            out += &format!("{:inner$}{}\n", "", self.node(node, inner));
        }
        out + &format!("{:pad$}}}", "")
    }

    fn initializer(&self, tensor: &TensorProto) -> Option<Item> {
        let (data, comment) = tensor_data(tensor, self.inline_limit);
        let tensor_name = name(tensor.name.as_deref().unwrap_or_default());
        let text = format!("{} {tensor_name} = {data}", tensor_type(tensor)?);
        Some(Item { notes: Notes::tensor(tensor), text, comment })
    }

    fn attributes(&self, attributes: &[AttributeProto], pad: usize) -> Vec<Item> {
        let mut sorted: Vec<_> = attributes.iter().collect();
        sorted.sort_by_key(|attribute| attribute.name.as_deref().unwrap_or_default());
        sorted.into_iter().filter_map(|attribute| self.attribute(attribute, pad + INDENT)).collect()
    }

    /// An attribute, or nothing when it has no value the syntax can state.
    fn attribute(&self, attribute: &AttributeProto, pad: usize) -> Option<Item> {
        let kind = attribute_type(attribute);
        let attribute_name = word(attribute.name.as_deref().unwrap_or_default());
        if let Some(reference) = attribute.ref_attr_name.as_deref().filter(|reference| !reference.is_empty()) {
            let annotation = kind.map_or_else(String::new, |kind| format!(": {}", attribute_type_name(kind)));
            return Some(Item::new(format!("{attribute_name}{annotation} = @{}", word(reference))));
        }
        let kind = kind?;
        let mut item = self.attribute_value(attribute, kind, pad)?;
        // The parsers tell the type of a value by its look, unless it is a list of none or of tensors, graphs, types.
        let guessed = !item.text.starts_with('[') || is_list_of_literals(kind) && item.text != "[]";
        let annotation = if guessed { String::new() } else { format!(": {}", attribute_type_name(kind)) };
        item.text = format!("{attribute_name}{annotation} = {}", item.text);
        Some(item)
    }

    fn attribute_value(&self, attribute: &AttributeProto, kind: AttributeType, pad: usize) -> Option<Item> {
        let literals = |literals: Vec<String>| Item::new(format!("[{}]", literals.join(", ")));
        Some(match kind {
            AttributeType::Float => Item::new(spell::single(attribute.f.unwrap_or_default())),
            AttributeType::Int => Item::new(attribute.i.unwrap_or_default().to_string()),
            AttributeType::String => Item::new(quoted(attribute.s.as_deref().unwrap_or_default())),
            AttributeType::Tensor => self.tensor(attribute.t.as_ref()?)?,
            AttributeType::Graph => Item::new(self.graph(attribute.g.as_ref()?, pad, true)),
            AttributeType::TypeProto => Item::new(spell::type_text(attribute.tp.as_ref()?)?),
            AttributeType::Floats => literals(attribute.floats.iter().map(|&v| spell::single(v)).collect()),
            AttributeType::Ints => literals(attribute.ints.iter().map(ToString::to_string).collect()),
            AttributeType::Strings => literals(attribute.strings.iter().map(|v| quoted(v)).collect()),
            AttributeType::TypeProtos => literals(attribute.type_protos.iter().map(spell::type_text).collect::<Option<_>>()?),
            AttributeType::Tensors => {
                let tensors: Option<Vec<_>> = attribute.tensors.iter().map(|tensor| self.tensor(tensor)).collect();
                Item::new(list_of_items(&tensors?, pad))
            }
            AttributeType::Graphs => {
                let graph = |graph| Item::new(self.graph(graph, pad + INDENT, true));
                Item::new(list_of_items(&attribute.graphs.iter().map(graph).collect::<Vec<_>>(), pad))
            }
            AttributeType::Undefined | AttributeType::SparseTensor | AttributeType::SparseTensors => return None,
        })
    }

    /// A tensor in an attribute; its name cannot be quoted, hence a comment may tell it.
    fn tensor(&self, tensor: &TensorProto) -> Option<Item> {
        let (data, comment) = tensor_data(tensor, self.inline_limit);
        let full_name = tensor.name.as_deref().unwrap_or_default();
        let hidden = spell::unquoted_name(full_name).is_some() && !full_name.is_empty();
        let shown = if hidden || full_name.is_empty() { String::new() } else { format!(" {full_name}") };
        let sign = if data.starts_with('[') { " =" } else { "" };
        let text = format!("{}{shown}{sign} {data}", tensor_type(tensor)?);
        let told = hidden.then(|| name_comment(full_name));
        let comments: Vec<_> = told.into_iter().chain(comment).collect();
        Some(Item { notes: Vec::new(), text, comment: (!comments.is_empty()).then(|| comments.join(" ")) })
    }

    fn function(&self, function: &FunctionProto) -> String {
        let mut out = String::new();
        let header = function_header(function);
        if !header.is_empty() {
            out += &block("<", &header, ">", 0);
            out.push('\n');
        }
        out += &name(function.name.as_deref().unwrap_or_default());
        let mut attributes: Vec<_> = function.attribute.iter().map(|attribute| Item::new(word(attribute))).collect();
        attributes.extend(self.attributes(&function.attribute_proto, 0));
        match attributes.iter().any(needs_lines) {
            _ if attributes.is_empty() => {}
            false => out += &format!(" {}", inline("<", &attributes, ">")),
            true => out += &format!(" {}", block("<", &attributes, ">", 0)),
        }
        let (inputs, outputs) = (list(&function.input, |v| name(v)), list(&function.output, |v| name(v)));
        out += &format!(" ({inputs}) => ({outputs})");
        let values: Vec<_> = function.value_info.iter().map(|value| Item::new(value_text(value))).collect();
        push_declarations(&mut out, &values, 0, false);
        out += &self.body(&Notes::function(function), &function.node, 0);
        out.push('\n');
        out
    }
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

fn name_comment(full_name: &str) -> String {
    format!("name {}", spell::quoted_on_line(full_name.as_bytes()))
}

/// What the type of an attribute is, told by its value when it is not stated.
fn attribute_type(attribute: &AttributeProto) -> Option<AttributeType> {
    let stated = attribute.r#type.and_then(|number| AttributeType::try_from(number).ok());
    let found = [
        (attribute.f.is_some(), AttributeType::Float),
        (attribute.i.is_some(), AttributeType::Int),
        (attribute.s.is_some(), AttributeType::String),
        (attribute.t.is_some(), AttributeType::Tensor),
        (attribute.g.is_some(), AttributeType::Graph),
        (attribute.tp.is_some(), AttributeType::TypeProto),
        (!attribute.floats.is_empty(), AttributeType::Floats),
        (!attribute.ints.is_empty(), AttributeType::Ints),
        (!attribute.strings.is_empty(), AttributeType::Strings),
        (!attribute.tensors.is_empty(), AttributeType::Tensors),
        (!attribute.graphs.is_empty(), AttributeType::Graphs),
        (!attribute.type_protos.is_empty(), AttributeType::TypeProtos),
    ];
    let told = || found.into_iter().find_map(|(present, kind)| present.then_some(kind));
    stated.filter(|&kind| kind != AttributeType::Undefined).or_else(told)
}

/// The types of attributes by the names the syntax gives them.
pub(super) const ATTRIBUTE_TYPES: [(AttributeType, &str); 14] = [
    (AttributeType::Float, "float"),
    (AttributeType::Int, "int"),
    (AttributeType::String, "string"),
    (AttributeType::Tensor, "tensor"),
    (AttributeType::Graph, "graph"),
    (AttributeType::Floats, "floats"),
    (AttributeType::Ints, "ints"),
    (AttributeType::Strings, "strings"),
    (AttributeType::Tensors, "tensors"),
    (AttributeType::Graphs, "graphs"),
    (AttributeType::SparseTensor, "sparse_tensor"),
    (AttributeType::SparseTensors, "sparse_tensors"),
    (AttributeType::TypeProto, "type_proto"),
    (AttributeType::TypeProtos, "type_protos"),
];

fn attribute_type_name(kind: AttributeType) -> &'static str {
    ATTRIBUTE_TYPES.iter().find(|(known, _)| *known == kind).map_or("undefined", |(_, name)| name)
}

fn is_list_of_literals(kind: AttributeType) -> bool {
    matches!(kind, AttributeType::Floats | AttributeType::Ints | AttributeType::Strings)
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn list_of_items(items: &[Item], pad: usize) -> String {
    if items.iter().any(needs_lines) { block("[", items, "]", pad) } else { inline("[", items, "]") }
}

fn needs_lines(item: &Item) -> bool {
    item.comment.is_some() || !item.notes.is_empty() || item.text.contains('\n')
}

fn inline(open: &str, items: &[Item], close: &str) -> String {
    format!("{open}{}{close}", list(items, |item| item.text.clone()))
}

/// One item a line, between brackets of their own.
fn block(open: &str, items: &[Item], close: &str, pad: usize) -> String {
    let inner = pad + INDENT;
    let mut out = format!("{open}\n");
    for (index, item) in items.iter().enumerate() {
        for note in &item.notes {
            out += &format!("{:inner$}# {note}\n", "");
        }
        let comma = if index + 1 < items.len() { "," } else { "" };
        let comment = item.comment.as_ref().map_or_else(String::new, |comment| format!("  # {comment}"));
        out += &format!("{:inner$}{}{comma}{comment}\n", "", item.text);
    }
    out + &format!("{:pad$}{close}", "")
}

/// Declarations behind a signature, and what separates either from the body.
fn push_declarations(out: &mut String, declarations: &[Item], pad: usize, commented: bool) {
    if !declarations.is_empty() {
        *out += &format!("\n{:pad$}{}", "", block("<", declarations, ">", pad));
    }
    *out += &if declarations.is_empty() && !commented { " ".to_owned() } else { format!("\n{:pad$}", "") };
}
