//! Layers that were fused with a factor, a transposition, a sum or an activation.

use super::activations::Activation;
use super::axes::Lengths;
use super::writer::Writer;
use crate::ir::AttributeProto;
use crate::pass::{Found, Operand};

/// `FusedMatMul`, and `TransposeMatMul`, as it was called before.
pub(super) fn mat_mul(mut writer: Writer) -> Found {
    let node = writer.node;
    let left = operand(&mut writer, 0, ("transA", "transBatchA"), "left")?;
    let right = operand(&mut writer, 1, ("transB", "transBatchB"), "right")?;
    let alpha = node.float_or("alpha", 1.0);
    if alpha == 1.0 {
        writer.result("MatMul", &[left, right], Vec::new(), (0, ""));
        return Ok(Some(writer.done()));
    }
    let product = writer.layer("MatMul", &[left, right], Vec::new(), "product");
    let alpha = writer.own_number("alpha", alpha);
    writer.result("Mul", &[product, alpha], Vec::new(), (0, "scaled"));
    Ok(Some(writer.done()))
}

/// A factor, transposed as the node says: first axis 0 goes behind the other axes of the batch, then the last two change
/// places.
fn operand(writer: &mut Writer, slot: usize, (last, batch): (&str, &str), part: &str) -> Result<Operand, String> {
    let (value, node) = (writer.value(slot)?, writer.node);
    let (last, batch) = (node.int_or(last, 0) != 0, node.int_or(batch, 0) != 0);
    if !last && !batch {
        return Ok(value.into());
    }
    let rank = Lengths::of(writer.graph).rank(value);
    let rank = rank.ok_or_else(|| format!("the rank of `{}` is not known", writer.graph.value(value).name()))?;
    if rank < 2 {
        return Ok(value.into());
    }
    let mut order: Vec<i64> = (0..rank as i64).collect();
    if batch {
        order[..rank - 1].rotate_left(1);
    }
    if last {
        order.swap(rank - 2, rank - 1);
    }
    Ok(writer.op("Transpose", &[value.into()], vec![AttributeProto::ints("perm", &order)], part))
}

pub(super) fn gemm(mut writer: Writer) -> Found {
    let node = writer.node;
    let parameter = |name: &str| node.attribute(name).and_then(|attribute| attribute.f);
    let parameters = ["activation_alpha", "activation_beta", "activation_gamma"].map(parameter);
    let activation = Activation::of(node.string("activation").unwrap_or_default(), parameters)?;
    let inputs = [writer.input(0), writer.input(1), writer.input(2)];
    let layer = writer.layer("Gemm", &inputs, layer_attributes(&writer), "layer");
    activation.write(&mut writer, layer);
    Ok(Some(writer.done()))
}

pub(super) fn conv(mut writer: Writer) -> Found {
    let node = writer.node;
    let activation = match node.string("activation") {
        None | Some("") => None,
        Some(op) => {
            let given = node.attribute("activation_params").map_or(&[][..], |attribute| &attribute.floats);
            Some(Activation::of(op, [0, 1, 2].map(|at| given.get(at).copied()))?)
        }
    };
    let inputs = [writer.input(0), writer.input(1), writer.input(2)];
    let attributes = layer_attributes(&writer);
    let summand = writer.input(3);
    match (activation, summand) {
        (None, Operand::Absent) => writer.result("Conv", &inputs, attributes, (0, "")),
        (None, summand) => {
            let layer = writer.layer("Conv", &inputs, attributes, "layer");
            writer.result("Add", &[layer, summand], Vec::new(), (0, "sum"));
        }
        (Some(activation), summand) => {
            let layer = writer.layer("Conv", &inputs, attributes, "layer");
            let sum = writer.sum(layer, &[summand], "sum");
            activation.write(&mut writer, sum);
        }
    }
    Ok(Some(writer.done()))
}

/// The attributes of the node but those of its activation.
fn layer_attributes(writer: &Writer) -> Vec<AttributeProto> {
    let attributes = writer.node.attributes().iter();
    attributes.filter(|attribute| !attribute.name().starts_with("activation")).cloned().collect()
}
