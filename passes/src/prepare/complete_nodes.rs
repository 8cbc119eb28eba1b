//! Pass `complete-nodes`: what a file may leave out or write in several ways is written in one.
//!
//! * `ConstantOfShape` without a value fills with the float 0: it gets that value. An engine that must guess the type
//!   gets everything behind it wrong.
//! * A `Pad` that does not pad with a constant reads no value: one that it is given nevertheless is left out. The engine
//!   would take its mode for `constant`.
//! * Operands and results left out at the end of a list are taken off: `Conv(x, w, "")` is `Conv(x, w)`.
//! * The default domain is spelled as the empty name: `ai.onnx` is the same. Of two operator sets that a model states
//!   for it the first counts, as it does for onnxruntime.
//!
//! Sub-graphs and functions are gone through as well.

use crate::ir::{AttributeProto, GraphProto, Model, NodeProto, OperatorSetIdProto, TensorProto, export, normal_domain};
use crate::pass::{Outcome, Pass, PassError};

/// Writes out what files leave implicit.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompleteNodes;

impl Pass for CompleteNodes {
    fn name(&self) -> &'static str {
        "complete-nodes"
    }

    fn about(&self) -> &'static str {
        "defaults of types, omitted operands and the default domain are written in one way"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut message = export(model);
        let mut changed = imports(&mut message.opset_import);
        changed += message.graph.as_mut().map_or(0, graph);
        for function in &mut message.functions {
            changed += imports(&mut function.opset_import);
            changed += function.node.iter_mut().map(node).sum::<usize>();
        }
        if changed > 0 {
            model.replace(message)?;
        }
        Ok(Outcome { changed, ..Outcome::default() })
    }
}

fn imports(imports: &mut Vec<OperatorSetIdProto>) -> usize {
    let respelled = imports.iter_mut().filter(|import| import.domain() == "ai.onnx");
    let changed = respelled.map(|import| import.domain = Some(String::new())).count();
    let before = imports.len();
    let mut stated = false;
    imports.retain(|import| !import.domain().is_empty() || !std::mem::replace(&mut stated, true));
    changed + before - imports.len()
}

fn graph(graph: &mut GraphProto) -> usize {
    graph.node.iter_mut().map(node).sum()
}

fn node(node: &mut NodeProto) -> usize {
    let mut changed: usize = node.subgraphs_mut().map(graph).sum();
    changed += without_value(node);
    changed += without_trailing(&mut node.input) + without_trailing(&mut node.output);
    if node.domain() == "ai.onnx" {
        node.domain = None;
        changed += 1;
    }
    let fills = node.op_type() == "ConstantOfShape" && normal_domain(node.domain()).is_empty();
    if fills && node.attribute.iter().all(|attribute| attribute.name() != "value") {
        node.attribute.push(AttributeProto::tensor("value", TensorProto::from_f32("", &[1], &[0.0])));
        changed += 1;
    }
    changed
}

/// Leaves out the value of a `Pad` that does not read it.
fn without_value(node: &mut NodeProto) -> usize {
    let mode = node.attribute.iter().find(|attribute| attribute.name() == "mode");
    let constant = mode.is_none_or(|mode| matches!(mode.s.as_deref(), None | Some(b"" | b"constant")));
    let pads = node.op_type() == "Pad" && normal_domain(node.domain()).is_empty() && !constant;
    let value = node.input.get_mut(2).filter(|value| pads && !value.is_empty());
    value.map_or(0, |value| {
        value.clear();
        1
    })
}

/// Takes empty names off the end; the first stays, since a node has a result.
fn without_trailing(names: &mut Vec<String>) -> usize {
    let wanted = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    let changed = usize::from(wanted > 0 && wanted < names.len());
    if changed > 0 {
        names.truncate(wanted);
    }
    changed
}
