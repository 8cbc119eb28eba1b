//! Rules about the file: versions, domains, inputs.

use super::Site;
use super::view::View;
use crate::ops::ir_version_of_opset;

pub(super) fn not_quantized(view: &View) -> Vec<Site> {
    let nothing = !view.is_quantized();
    let message = "the model has no quantizers and no integer operators".to_owned();
    nothing.then(|| (view.graph.name().to_owned(), message)).into_iter().collect()
}

pub(super) fn opset(view: &View) -> Vec<Site> {
    let highest = view.profile.highest_opset;
    let opset = view.model.opset("").filter(|&opset| opset > highest);
    let message = |opset| format!("opset {opset} is newer than {highest}, the newest `{}` reads", view.profile.name);
    opset.map(|opset| ("opset_import".to_owned(), message(opset))).into_iter().collect()
}

pub(super) fn ir_version(view: &View) -> Vec<Site> {
    // Operators of other domains alone do not say what they need.
    let Some(opset) = view.model.opset("") else { return Vec::new() };
    let version = view.model.ir_version();
    let needed = ir_version_of_opset(opset);
    let message = format!("IR version {version} is newer than opset {opset} needs, which is {needed}");
    (version > needed).then(|| ("ir_version".to_owned(), message)).into_iter().collect()
}

pub(super) fn functions(view: &View) -> Vec<Site> {
    let calls = view.graph.nodes().filter(|(_, node)| view.model.is_function(node.domain(), node.op()));
    calls.map(|(id, node)| (view.label(id), format!("calls the function {}.{}", node.domain(), node.op()))).collect()
}

pub(super) fn contrib(view: &View) -> Vec<Site> {
    let nodes = view.graph.nodes().filter(|(_, node)| node.domain().starts_with("com.microsoft"));
    nodes.map(|(id, node)| (view.label(id), format!("{} is of domain `{}`", node.op(), node.domain()))).collect()
}

pub(super) fn dynamic_shapes(view: &View) -> Vec<Site> {
    let open = |value| view.graph.value(value).shape().is_none_or(|shape| shape.contains(&None));
    let inputs = view.graph.runtime_inputs().filter(|&value| open(value));
    inputs.map(|value| (view.name(value), "the length of an axis is not stated".to_owned())).collect()
}
