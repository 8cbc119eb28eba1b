//! What an operator set between 7 and 21 changes about a node.
//!
//! Attributes that became inputs of the same name are in the operator table. [`STEPS`] lists what else changed so that
//! a node must change too; a step does all that its operator set asks for, such attributes among it. Operators in
//! neither changed by admitting more types, negative axes or attributes and inputs without which they mean what they
//! meant.

use super::scope::{Site, node};
use super::since_14;
use crate::ir::{AttributeProto, NodeProto, TensorProto};
use crate::ops::schema;

/// What one operator set changed about one operator.
struct Step {
    /// The operator set.
    opset: i64,
    /// The operator, as it is called before.
    op: &'static str,
    /// What changed.
    change: Change,
}

enum Change {
    /// The operator has another name.
    Name(&'static str),
    /// A node means something that can no longer be said.
    Gone(&'static str),
    /// Anything else. Says why a node cannot be carried over.
    Rewrite(fn(&mut Site<'_>) -> Result<(), String>),
}

/// In ascending order.
const STEPS: &[Step] = &[
    Step { opset: 9, op: "BatchNormalization", change: Change::Rewrite(batch_normalization) },
    Step { opset: 9, op: "Scan", change: Change::Gone("Scan has a batch axis before opset 9 and none since") },
    Step { opset: 10, op: "Dropout", change: Change::Rewrite(dropout_mask) },
    Step { opset: 10, op: "Upsample", change: Change::Rewrite(upsample) },
    Step { opset: 11, op: "Clip", change: Change::Rewrite(clip) },
    Step { opset: 11, op: "Pad", change: Change::Rewrite(pad) },
    Step { opset: 11, op: "Resize", change: Change::Rewrite(resize) },
    Step { opset: 11, op: "Scatter", change: Change::Name("ScatterElements") },
    Step { opset: 12, op: "Dropout", change: Change::Rewrite(dropout) },
    Step { opset: 13, op: "Hardmax", change: Change::Rewrite(softmax) },
    Step { opset: 13, op: "LogSoftmax", change: Change::Rewrite(softmax) },
    Step { opset: 13, op: "Softmax", change: Change::Rewrite(softmax) },
    Step { opset: 14, op: "BatchNormalization", change: Change::Rewrite(since_14::batch_normalization) },
    Step { opset: 16, op: "RoiAlign", change: Change::Rewrite(since_14::roi_align) },
    Step { opset: 18, op: "Split", change: Change::Rewrite(since_14::split) },
    Step { opset: 19, op: "QuantizeLinear", change: Change::Rewrite(since_14::quantize_linear) },
    Step { opset: 20, op: "DFT", change: Change::Rewrite(since_14::dft) },
    Step { opset: 20, op: "GridSample", change: Change::Rewrite(since_14::grid_sample) },
    Step { opset: 21, op: "GroupNormalization", change: Change::Rewrite(since_14::group_normalization) },
];

/// Carries a node over to `opset` from the one before it, or says why it cannot be.
pub(super) fn step(site: &mut Site<'_>, opset: i64) -> Result<(), String> {
    let op = site.node.op_type().to_owned();
    if let Some(step) = STEPS.iter().find(|step| step.opset == opset && step.op == op) {
        return step.apply(site);
    }
    for (attribute, slot) in schema(&op).into_iter().flat_map(|schema| schema.moved_in(opset)) {
        site.attribute_to_input(attribute, slot);
    }
    Ok(())
}

impl Step {
    fn apply(&self, site: &mut Site<'_>) -> Result<(), String> {
        match self.change {
            Change::Name(name) => site.node.op_type = Some(name.to_owned()),
            Change::Gone(reason) => return Err(reason.to_owned()),
            Change::Rewrite(rewrite) => return rewrite(site),
        }
        Ok(())
    }
}

/// Statistics of every single activation went; what is left is statistics a channel.
fn batch_normalization(site: &mut Site<'_>) -> Result<(), String> {
    match site.take_attribute("spatial").and_then(|a| a.i) {
        None | Some(1) => Ok(()),
        Some(_) => Err("its statistics are not per channel (`spatial` is 0), which opset 9 dropped".into()),
    }
}

/// The mask became boolean in opset 10; what it holds outside training is defined since opset 12.
fn dropout_mask(site: &mut Site<'_>) -> Result<(), String> {
    if site.drop_outputs(1) {
        Ok(())
    } else {
        Err("its mask is read, which means something else since opset 12".into())
    }
}

/// The ratio became an input. Outside training it means nothing, but it stays.
fn dropout(site: &mut Site<'_>) -> Result<(), String> {
    dropout_mask(site)?;
    site.attribute_to_input("ratio", 1);
    Ok(())
}

fn clip(site: &mut Site<'_>) -> Result<(), String> {
    for (slot, bound) in [(1, "min"), (2, "max")] {
        if let Some(value) = site.take_attribute(bound).and_then(|a| a.f) {
            let value = site.scalar_like_input(value)?;
            site.set_constant(slot, bound, value);
        }
    }
    Ok(())
}

fn pad(site: &mut Site<'_>) -> Result<(), String> {
    site.attribute_to_input("pads", 1);
    let value = site.take_attribute("value").and_then(|a| a.f).unwrap_or(0.0);
    if value != 0.0 {
        let value = site.scalar_like_input(value)?;
        site.set_constant(2, "value", value);
    }
    Ok(())
}

#[allow(clippy::unnecessary_wraps)] // `Change::Rewrite` wants one.
fn upsample(site: &mut Site<'_>) -> Result<(), String> {
    site.node.op_type = Some("Resize".to_owned());
    site.enlarges = true;
    Ok(())
}

/// Output position i reads input position i/scale, which opset 11 can say.
fn resize(site: &mut Site<'_>) -> Result<(), String> {
    let linear = site.attribute("mode").and_then(|a| a.s.as_deref()).is_some_and(|mode| mode == b"linear");
    if !linear {
        let rounding = rounding(site)?;
        site.set_attribute(AttributeProto::string("nearest_mode", rounding));
    }
    site.set_attribute(AttributeProto::string("coordinate_transformation_mode", "asymmetric"));
    let scales = site.input(1).to_owned();
    site.set_input(2, scales);
    if site.to() >= 13 {
        site.set_input(1, String::new());
    } else {
        site.set_constant(1, "roi", TensorProto::from_f32("", &[0], &[]));
    }
    Ok(())
}

/// How a position between two is rounded: down when enlarging. For shrinking, opset 10 does not say; onnxruntime rounds
/// up.
fn rounding(site: &Site<'_>) -> Result<&'static str, String> {
    if site.enlarges {
        return Ok("floor");
    }
    let scales = site.constant(1).ok_or("its scales are not constant")?.to_f32().map_err(|e| e.to_string())?;
    match (scales.iter().all(|&s| s >= 1.0), scales.iter().all(|&s| s <= 1.0)) {
        (true, _) => Ok("floor"),
        (_, true) => Ok("ceil"),
        _ => Err("it enlarges one axis and shrinks another".into()),
    }
}

/// Before opset 13 the axes from `axis` on count as one, and `axis` is 1 unless stated; since then it is one axis, the
/// last unless stated. Where at most one of the axes from `axis` on is longer than 1 they agree; else the value is
/// made a matrix and given its shape back.
fn softmax(site: &mut Site<'_>) -> Result<(), String> {
    let axis = site.take_attribute("axis").and_then(|a| a.i).unwrap_or(1);
    let axis_alone = if axis == -1 { Some(-1) } else { site.input_shape().and_then(|shape| only_axis(shape, axis)) };
    if let Some(alone) = axis_alone {
        site.set_attribute(AttributeProto::int("axis", alone));
        return Ok(());
    }
    let (shape, matrix, flat) = (site.fresh("shape"), site.fresh("matrix"), site.fresh("flat"));
    // A node that bears its output's name keeps it: names of nodes are unique, and engines ask for that.
    let own = site.node.output.first().is_some_and(|output| output == site.node.name()).then(|| site.fresh("reshaped"));
    let input = site.input(0).to_owned();
    let Some(output) = site.node.output.first_mut() else { return Err("it writes nothing".into()) };
    let output = std::mem::replace(output, flat.clone());
    site.set_attribute(AttributeProto::int("axis", 1));
    site.set_input(0, matrix.clone());
    site.before.push(node("Shape", &[&input], &shape, Vec::new()));
    site.before.push(node("Flatten", &[&input], &matrix, vec![AttributeProto::int("axis", axis)]));
    let reshape = node("Reshape", &[&flat, &shape], &output, Vec::new());
    site.after.push(NodeProto { name: own.or(reshape.name), ..reshape });
    Ok(())
}

/// The one axis from `axis` on that may be longer than 1; nothing if there are several.
fn only_axis(shape: &[Option<usize>], axis: i64) -> Option<i64> {
    let rank = shape.len() as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    let merged = shape.get(usize::try_from(axis).ok()?..)?;
    let mut longer = merged.iter().enumerate().filter(|&(_, &n)| n != Some(1)).map(|(i, _)| axis + i as i64);
    match (longer.next(), longer.next()) {
        (Some(only), None) => Some(only),
        (None, _) if !merged.is_empty() => Some(axis),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_order_and_at_sets_that_define_their_operator_anew() {
        assert!(STEPS.is_sorted_by_key(|step| (step.opset, step.op)));
        for Step { opset, op, .. } in STEPS {
            assert!(schema(op).is_some_and(|schema| schema.versions.contains(opset)), "{op} in {opset}");
        }
    }

    #[test]
    fn a_default_that_moved_has_a_step() {
        let operators = ["GridSample", "Hardmax", "LogSoftmax", "Softmax"].map(|op| schema(op).unwrap());
        for operator in operators {
            let moved = operator.defaults.windows(2).find(|pair| pair[0].0 == pair[1].0).unwrap();
            let (_, since, _) = moved[1];
            assert!(STEPS.iter().any(|step| step.op == operator.name && step.opset == since), "{}", operator.name);
        }
    }
}
