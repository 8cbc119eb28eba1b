//! Weights that a target takes as constants alone.

use super::{Layer, StoredKind, StoredWeight};
use crate::ir::Graph;
use crate::target::{Forms, needs_constants};

/// Why a weight beside the layers has to be a constant, if it has to.
pub fn refuses_stored(forms: &Forms, graph: &Graph, weight: &StoredWeight) -> Option<String> {
    if forms.decoded_weights {
        return None;
    }
    let constants = match weight.kind {
        StoredKind::Recurrent => {
            let readers = graph.value(weight.value).uses().iter().map(|u| graph.node(u.node));
            readers.into_iter().any(needs_constants).then_some("this operator")
        }
        StoredKind::Branch => scans(graph, weight).then_some("bodies of `Scan`"),
        StoredKind::Embedding | StoredKind::Operator => None,
    };
    constants.map(|of| format!("the target takes weights of {of} as constants alone"))
}

/// Why the weight of a layer in float has to be a constant, if it has to.
pub fn refuses_layer(forms: &Forms, graph: &Graph, layer: &Layer) -> Option<&'static str> {
    let vector = || graph.value(layer.input).shape().is_some_and(|shape| shape.len() == 1);
    let refused = !forms.decoded_by_vector && layer.weight_slot == 0 && graph.node(layer.node).is("MatMul");
    (refused && vector()).then_some("the target takes constants alone on the left of a vector")
}

fn scans(graph: &Graph, weight: &StoredWeight) -> bool {
    graph.nodes().any(|(_, node)| node.is("Scan") && node.captures().contains(&weight.value))
}
