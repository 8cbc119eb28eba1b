//! What single nodes can be: layers with a kernel, work for a quantizer, worth a word in the report.

use super::Absorbed;
use crate::analysis::{Layer, batch_norm_channels};
use crate::ir::{Graph, Node, ValueId};
use crate::ops::{Trait, facts};
use crate::target::{Profile, Support};

/// Why the target cannot run a layer on integers, if it cannot.
pub(super) fn refuse_layer(graph: &Graph, profile: &Profile, node: &Node, layer: &Layer) -> Option<String> {
    if !matches!(profile.support(node.op()), Some(Support::Layer { .. })) {
        return Some(format!("`{}` has no integer kernel for {}", profile.name, node.op()));
    }
    if layer.weight_slot != 1 {
        return Some("its constant operand is on the left".to_owned());
    }
    if layer.axis.is_none() {
        return Some(format!("its weight has shape {:?}", layer.shape));
    }
    if node.op() == "MatMul" && layer.shape.len() != 2 {
        return Some("its weight is not a matrix".to_owned());
    }
    if layer.weights() == 0 {
        return Some("its weight is empty".to_owned());
    }
    if node.int_or("transA", 0) != 0 {
        return Some("it transposes its activation".to_owned());
    }
    if node.float_or("alpha", 1.0) != 1.0 || node.float_or("beta", 1.0) != 1.0 {
        return Some("it scales its product".to_owned());
    }
    refuse_tensors(graph, layer)
}

fn refuse_tensors(graph: &Graph, layer: &Layer) -> Option<String> {
    let weight = graph.constant(layer.weight)?;
    if weight.element_type() != Some(crate::ir::DataType::Float) {
        return Some(format!("its weight is {}", weight.element_type().map_or("unknown", crate::ir::DataType::name)));
    }
    let bias = layer.bias?;
    let Some(tensor) = graph.constant(bias) else { return Some("its bias is not constant".to_owned()) };
    let channels = layer.axis.map_or(0, |axis| layer.shape[axis]);
    (tensor.shape() != Ok(vec![channels])).then(|| "its bias is no vector over the channels".to_owned())
}

/// The activation a node reads and what a quantizer would do in the node's place, if it is a clamp from zero, a
/// product with a positive constant or a batch-norm.
pub(super) fn absorbable(graph: &Graph, node: &Node) -> Option<(ValueId, Absorbed)> {
    let constant = |v: ValueId| graph.constant(v).and_then(crate::ir::TensorProto::scalar_f32);
    let input = node.input(0)?;
    match node.op() {
        "Relu" => Some((input, Absorbed::Clamp { bound: None })),
        "Clip" => {
            let bound = |slot: usize, name: &str, open: f32| match node.input(slot) {
                Some(value) => constant(value),
                None => Some(node.float_or(name, open)),
            };
            let (low, high) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
            let bound = high.is_finite().then_some(high);
            (low == 0.0 && high > 0.0).then_some((input, Absorbed::Clamp { bound }))
        }
        "BatchNormalization" => batch_norm_channels(graph, node).ok().map(|_| (input, Absorbed::Affine)),
        "Mul" => {
            let other = node.input(1)?;
            let (value, factor) = match (constant(input), constant(other)) {
                (None, Some(factor)) => (input, factor),
                (Some(factor), None) => (other, factor),
                _ => return None,
            };
            (factor > 0.0 && factor.is_normal()).then_some((value, Absorbed::Scale(factor)))
        }
        _ => None,
    }
}

/// The activation that a clamp from a number below zero, with no upper bound, reads, and what a quantizer would do in its
/// place.
pub(super) fn floor(graph: &Graph, node: &Node) -> Option<(ValueId, Absorbed)> {
    let low = graph.constant(node.input(1)?)?.scalar_f32().filter(|low| low.is_finite() && *low < 0.0)?;
    (node.is("Clip") && node.input(2).is_none()).then_some((node.input(0)?, Absorbed::Floor(low)))
}

/// Whether what a layer computes is cut off below zero, behind its batch-norm if it has one, before anything reads it.
pub fn is_rectified(graph: &Graph, layer: &Layer) -> bool {
    let mut value = layer.output;
    while let Some(reader) = graph.only_use(value).map(|reader| graph.node(reader.node)) {
        match absorbable(graph, reader) {
            Some((_, Absorbed::Clamp { .. })) => return true,
            Some((_, Absorbed::Affine)) => {}
            _ => return false,
        }
        let Some(next) = reader.output(0) else { return false };
        value = next;
    }
    false
}

/// Magnitude from which on a constant of a sum is a mask, or a quantity beside which 8 bits leave nothing of the others.
const HUGE: f32 = 1000.0;

/// Why arithmetic with a constant stays in float, if it does: an infinite or a huge one, such as the −1e4 of a mask, would
/// set the range of what it is added to, and no step would be left for that.
pub(super) fn refuse_constant(graph: &Graph, profile: &Profile, node: &Node) -> Option<String> {
    let facts = facts(node.op());
    let selects = facts.has(Trait::Selection) && profile.integers_only;
    if !facts.has(Trait::Arithmetic) && !selects {
        return None;
    }
    let huge = |&value: &ValueId| {
        let values = graph.constant(value)?.to_f32().ok()?;
        values.into_iter().find(|value| value.is_nan() || value.abs() >= HUGE)
    };
    let found = node.inputs().iter().flatten().find_map(huge)?;
    Some(format!("its constant reaches {found}, too far for 8 bits"))
}

/// Whether a movement gives elements that are there, or zeros, so that the integers can be moved in their place.
///
/// Where the target's kernel interpolates linearly, the result is between the elements that are there, and is rounded to
/// their grid. Cubic interpolation reaches beyond them.
pub(super) fn keeps_elements(graph: &Graph, profile: &Profile, node: &Node) -> bool {
    match node.op() {
        "Pad" => pads_with_zero(graph, node),
        // Other modes interpolate, and this transformation writes a value of its own outside of the image.
        "Resize" => {
            let interpolates = profile.kernel(node.op()).is_some_and(|kernel| kernel.interpolates);
            node.string("mode").is_none_or(|mode| mode == "nearest" || (mode == "linear" && interpolates))
                && node.string("coordinate_transformation_mode") != Some("tf_crop_and_resize")
        }
        _ => true,
    }
}

/// Whether a `Pad` adds zeros or values that are there.
fn pads_with_zero(graph: &Graph, node: &Node) -> bool {
    if node.string("mode").is_some_and(|m| m != "constant") {
        return true;
    }
    match node.input(2) {
        Some(value) => graph.constant(value).and_then(crate::ir::TensorProto::scalar_f32) == Some(0.0),
        None => node.float_or("value", 0.0) == 0.0,
    }
}

/// Whether an `AveragePool` takes the zeros that it pads with into its means.
pub(crate) fn counts_padding(node: &Node) -> bool {
    let same = node.string("auto_pad").is_some_and(|mode| mode.starts_with("SAME"));
    let pads = same || node.ints("pads").iter().any(|&n| n != 0);
    node.is("AveragePool") && node.int_or("count_include_pad", 0) != 0 && pads
}

/// Whether an arithmetic operator can read a constant through a quantizer. What a selection fills in is often far
/// outside of the range of what it lets pass, as in a mask: only zero is on every grid. Where a target runs nothing but
/// integers, masks have bounds, and other numbers are as good as in sums.
pub(super) fn reads_constant(profile: &Profile, node: &Node, tensor: &crate::ir::TensorProto) -> bool {
    let zeros = || tensor.to_f32().is_ok_and(|values| values.iter().all(|&v| v == 0.0));
    tensor.is_float() && (!facts(node.op()).has(Trait::Selection) || profile.integers_only || zeros())
}

/// The operands of arithmetic that are quantized like activations.
pub(super) fn operands(node: &Node) -> impl Iterator<Item = ValueId> + '_ {
    let facts = facts(node.op());
    node.inputs().iter().enumerate().filter(|&(slot, _)| facts.is_data(slot)).filter_map(|(_, value)| *value)
}
