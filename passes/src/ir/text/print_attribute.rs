//! Attributes, as the printer writes them.

use super::describe::{tensor_data, tensor_type};
use super::layout::{INDENT, Item, list_of_items};
use super::print::{Printer, name_comment};
use super::spell::{self, quoted, word};
use crate::ir::{AttributeProto, AttributeType, TensorProto};

impl Printer {
    /// Attributes in name order, and notes on those that cannot be written.
    pub(super) fn attributes(&self, attributes: &[AttributeProto], pad: usize) -> (Vec<Item>, Vec<String>) {
        let mut sorted: Vec<_> = attributes.iter().collect();
        sorted.sort_by_key(|attribute| attribute.name.as_deref().unwrap_or_default());
        let (mut items, mut notes) = (Vec::new(), Vec::new());
        for attribute in sorted {
            match self.attribute(attribute, pad + INDENT) {
                Some(item) => items.push(item),
                None => notes.push(unwritable(attribute)),
            }
        }
        (items, notes)
    }

    /// An attribute, or `None` when it has no value that the syntax can state.
    fn attribute(&self, attribute: &AttributeProto, pad: usize) -> Option<Item> {
        let kind = attribute_type(attribute);
        let attribute_name = word(attribute.name.as_deref().unwrap_or_default());
        if let Some(reference) = attribute.ref_attr_name.as_deref().filter(|reference| !reference.is_empty()) {
            let annotation = kind.map_or_else(String::new, |kind| format!(": {}", attribute_type_name(kind)));
            return Some(Item::new(format!("{attribute_name}{annotation} = @{}", word(reference))));
        }
        let kind = kind?;
        let mut item = self.attribute_value(attribute, kind, pad)?;
        // Parsers infer the type of a value from its spelling, unless it is an empty list or one of tensors, graphs,
        // types.
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
            AttributeType::TypeProtos => {
                literals(attribute.type_protos.iter().map(spell::type_text).collect::<Option<_>>()?)
            }
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

    /// A tensor in an attribute. Its name cannot be quoted, so a comment may give it.
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
}

/// The type of an attribute, inferred from its value when it is not stated.
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

fn unwritable(attribute: &AttributeProto) -> String {
    let attribute_name = spell::quoted_on_line(attribute.name.as_deref().unwrap_or_default().as_bytes());
    let kind = attribute_type(attribute).map_or("undefined", attribute_type_name);
    format!("attribute {attribute_name}: {kind} that cannot be written")
}
