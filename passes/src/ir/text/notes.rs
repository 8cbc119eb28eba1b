//! Fields for which the syntax has no place, as lines of comments.
//!
//! Parsing skips comments: a model with notes loses these fields when it goes through text.

use super::spell;
use crate::ir::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TypeProto,
    TypeValue, ValueInfoProto,
};

/// Characters of a documentation string that are shown; exporters put whole stack traces there.
const DOC_LIMIT: usize = 120;

/// Lines about parts of a message.
#[derive(Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    pub(super) fn model(model: &ModelProto) -> Vec<String> {
        let mut notes = Self::default();
        notes.count("training_info", model.training_info.len());
        notes.count("configuration", model.configuration.len());
        if model.graph.is_none() {
            notes.0.push("no graph".to_owned());
        }
        notes.0
    }

    /// Notes about a graph, its inputs and its outputs.
    pub(super) fn graph(graph: &GraphProto) -> Vec<String> {
        let mut notes = Self::default();
        notes.doc("", graph.doc_string.as_deref());
        notes.metadata("", &graph.metadata_props);
        for value in graph.input.iter().chain(&graph.output) {
            notes.0.extend(Self::value(value));
        }
        for annotation in &graph.quantization_annotation {
            let subject = subject(annotation.tensor_name.as_deref(), "quantization_annotation of ");
            notes.metadata(&subject, &annotation.quant_parameter_tensor_names);
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().and_then(|values| values.name.as_deref());
            notes.0.push(format!("{}dims {:?}", subject(name, "sparse_initializer "), sparse.dims));
        }
        notes.0
    }

    pub(super) fn node(node: &NodeProto) -> Vec<String> {
        let mut notes = Self::default();
        notes.doc("", node.doc_string.as_deref());
        notes.metadata("", &node.metadata_props);
        notes.count("device_configurations", node.device_configurations.len());
        notes.attributes(&node.attribute);
        notes.0
    }

    pub(super) fn function(function: &FunctionProto) -> Vec<String> {
        let mut notes = Self::default();
        notes.metadata("", &function.metadata_props);
        notes.attributes(&function.attribute_proto);
        for value in &function.value_info {
            notes.0.extend(Self::value(value));
        }
        notes.0
    }

    pub(super) fn value(value: &ValueInfoProto) -> Vec<String> {
        let mut notes = Self::default();
        let subject = subject(value.name.as_deref(), "");
        notes.doc(&subject, value.doc_string.as_deref());
        notes.metadata(&subject, &value.metadata_props);
        if let Some(type_proto) = &value.r#type {
            notes.denotations(&subject, type_proto);
            if spell::type_text(type_proto).is_none() && type_proto.value.is_some() {
                notes.0.push(format!("{subject}its type cannot be written"));
            }
        }
        notes.0
    }

    pub(super) fn tensor(tensor: &TensorProto) -> Vec<String> {
        let mut notes = Self::default();
        let subject = subject(tensor.name.as_deref(), "");
        notes.doc(&subject, tensor.doc_string.as_deref());
        notes.metadata(&subject, &tensor.metadata_props);
        notes.count(&format!("{subject}segment"), usize::from(tensor.segment.is_some()));
        notes.0
    }

    fn attributes(&mut self, attributes: &[AttributeProto]) {
        for attribute in attributes {
            let subject = subject(attribute.name.as_deref(), "attribute ");
            self.doc(&subject, attribute.doc_string.as_deref());
            for tensor in attribute.tensors.iter().chain(&attribute.t) {
                self.0.extend(Self::tensor(tensor));
            }
        }
    }

    fn doc(&mut self, subject: &str, doc: Option<&str>) {
        let Some(doc) = doc.filter(|doc| !doc.is_empty()) else { return };
        let shown: String = doc.chars().take(DOC_LIMIT).collect();
        let ellipsis = if shown.len() < doc.len() { "..." } else { "" };
        self.0.push(format!("{subject}doc_string {}{ellipsis}", spell::quoted_on_line(shown.as_bytes())));
    }

    fn metadata(&mut self, subject: &str, entries: &[StringStringEntryProto]) {
        let quoted = |text: &Option<String>| spell::quoted_on_line(text.as_deref().unwrap_or_default().as_bytes());
        for entry in entries {
            self.0.push(format!("{subject}metadata {}: {}", quoted(&entry.key), quoted(&entry.value)));
        }
    }

    fn count(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.0.push(format!("{what}: {count}, not written"));
        }
    }

    fn denotations(&mut self, subject: &str, type_proto: &TypeProto) {
        let quoted = |text: &str| spell::quoted_on_line(text.as_bytes());
        if let Some(denotation) = &type_proto.denotation {
            self.0.push(format!("{subject}denotation {}", quoted(denotation)));
        }
        let Some(TypeValue::Tensor(tensor) | TypeValue::SparseTensor(tensor)) = &type_proto.value else { return };
        for (axis, dim) in tensor.shape.iter().flat_map(|shape| shape.dim.iter().enumerate()) {
            if let Some(denotation) = &dim.denotation {
                self.0.push(format!("{subject}axis {axis} denotation {}", quoted(denotation)));
            }
        }
    }
}

fn subject(name: Option<&str>, prefix: &str) -> String {
    format!("{prefix}{}: ", spell::quoted_on_line(name.unwrap_or_default().as_bytes()))
}
