//! How nodes change from opset 14 to 21, where more than a name changed or an attribute became an input.

use super::scope::{Site, node};
use crate::ir::{AttributeProto, DataType, TensorProto};

/// Statistics as outputs used to mean training, for which there is an attribute since opset 14 and other outputs.
pub(super) fn batch_normalization(site: &mut Site<'_>) -> Result<(), String> {
    if site.node.output.iter().skip(1).any(|name| !name.is_empty()) {
        return Err("it writes statistics of its batch, which is training, stated otherwise since opset 14".into());
    }
    site.node.output.truncate(1);
    Ok(())
}

/// Positions were not moved by half a pixel; since opset 16 they are unless stated.
#[allow(clippy::unnecessary_wraps)] // `Change::Rewrite` wants one.
pub(super) fn roi_align(site: &mut Site<'_>) -> Result<(), String> {
    if site.attribute("coordinate_transformation_mode").is_none() {
        site.set_attribute(AttributeProto::string("coordinate_transformation_mode", "output_half_pixel"));
    }
    Ok(())
}

/// That parts are equal is no longer said by saying nothing.
pub(super) fn split(site: &mut Site<'_>) -> Result<(), String> {
    if site.input(1).is_empty() {
        let parts = i64::try_from(site.node.output.len()).map_err(|e| e.to_string())?;
        site.set_attribute(AttributeProto::int("num_outputs", parts));
    }
    Ok(())
}

/// Input and scale are of one type since opset 19; before, the scale is float, and the input float or int32.
pub(super) fn quantize_linear(site: &mut Site<'_>) -> Result<(), String> {
    match site.input_type() {
        Some(DataType::Int32) => {
            Err(format!("`{}` is int32 and its scale float, which opset 19 dropped", site.input(0)))
        }
        _ => Ok(()),
    }
}

/// The axis became an input, and is the last but one unless stated, no longer 1.
#[allow(clippy::unnecessary_wraps)] // `Change::Rewrite` wants one.
pub(super) fn dft(site: &mut Site<'_>) -> Result<(), String> {
    let axis = site.take_attribute("axis").and_then(|a| a.i).unwrap_or(1);
    site.set_constant(2, "axis", TensorProto::from_i64("", &[], &[axis]));
    Ok(())
}

/// The modes lost the number of axes in their names.
#[allow(clippy::unnecessary_wraps)] // `Change::Rewrite` wants one.
pub(super) fn grid_sample(site: &mut Site<'_>) -> Result<(), String> {
    let mode = match site.attribute("mode").and_then(|a| a.s.as_deref()) {
        Some(b"bilinear") => "linear",
        Some(b"bicubic") => "cubic",
        _ => return Ok(()),
    };
    site.set_attribute(AttributeProto::string("mode", mode));
    Ok(())
}

/// Scale and bias are a channel, no longer a group: channel c gets those of group c/(C/G). The statistics are computed
/// in float unless stated, no longer in the type of the input.
pub(super) fn group_normalization(site: &mut Site<'_>) -> Result<(), String> {
    let element = site.float_input_type()?;
    let groups = group_of_channel(site)?;
    if element != DataType::Float {
        site.set_attribute(AttributeProto::element("stash_type", element));
    }
    let groups = site.add_constant("groups", TensorProto::from_i64("", &[groups.len()], &groups));
    for (slot, role) in [(1, "scale"), (2, "bias")] {
        let (by_group, by_channel) = (site.input(slot).to_owned(), site.fresh(role));
        site.before.push(node("Gather", &[&by_group, &groups], &by_channel, Vec::new()));
        site.set_input(slot, by_channel);
    }
    Ok(())
}

/// The group each channel of input 0 belongs to.
fn group_of_channel(site: &Site<'_>) -> Result<Vec<i64>, String> {
    let channels = site.input_shape().and_then(|shape| *shape.get(1)?);
    let channels = channels.ok_or_else(|| format!("the number of channels of `{}` is unknown", site.input(0)))?;
    let groups = site.attribute("num_groups").and_then(|a| a.i).and_then(|g| usize::try_from(g).ok()).unwrap_or(0);
    match channels.checked_rem(groups) {
        Some(0) => Ok((0..channels).map(|channel| (channel * groups / channels) as i64).collect()),
        _ => Err(format!("its {channels} channels do not make {groups} equal groups")),
    }
}
