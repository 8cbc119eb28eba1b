//! Operators that move elements, and arithmetic with an operator of its own on integers.

use super::Fusion;
use super::site::{Input, Site, parameters, triple};
use crate::analysis::quantized::Quantized;
use crate::ir::{AttributeProto, DataType, Node, NodeId, TensorProto};
use crate::ops::schema;

impl Fusion<'_> {
    pub(super) fn movement(&self, id: NodeId, node: &Node, operator: &'static str) -> Result<Site, String> {
        let x = self.qdq.activation(node, 0)?;
        let (quantizer, y) = self.qdq.quantizer(node)?;
        let since = schema(operator).and_then(|schema| schema.bytes_since).unwrap_or(1);
        if self.opset() < since {
            return Err(format!("opset {} has no `{operator}` on integers, opset {since} has", self.opset()));
        }
        if !x.same_grid(&y) {
            return Err("its output has other quantization parameters than its input".to_owned());
        }
        let others = node.inputs().iter().skip(1).map(|v| v.map_or(Input::Absent, Input::Value));
        let inputs = std::iter::once(Input::Value(x.integers)).chain(others).collect();
        let attributes = node.attributes().to_vec();
        Ok(Site { node: id, quantizer: Some(quantizer), domain: "", operator, attributes, inputs })
    }

    pub(super) fn padding(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let mut site = self.movement(id, node, "Pad")?;
        if node.string("mode").is_some_and(|mode| mode != "constant") {
            return Ok(site);
        }
        let x = self.qdq.activation(node, 0)?;
        let value = match node.input(2) {
            Some(value) => self.qdq.floats(value)?.values.first().copied().unwrap_or(0.0),
            None => 0.0,
        };
        let [_, zero_point] = parameters(&x);
        site.inputs.resize(site.inputs.len().max(3), Input::Absent);
        site.inputs[2] = if value == 0.0 { zero_point } else { Input::tensor(padding_value(value, &x)) };
        Ok(site)
    }

    pub(super) fn joining(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let parts = (0..node.inputs().len()).map(|slot| self.qdq.activation(node, slot));
        let parts = parts.collect::<Result<Vec<Quantized>, String>>()?;
        let (quantizer, y) = self.qdq.quantizer(node)?;
        let attributes = node.attributes().to_vec();
        if parts.iter().all(|part| part.same_grid(&y)) {
            let inputs = parts.iter().map(|part| Input::Value(part.integers)).collect();
            return Ok(Site {
                node: id,
                quantizer: Some(quantizer),
                domain: "",
                operator: "Concat",
                attributes,
                inputs,
            });
        }
        self.wants("QLinearConcat")?;
        same_elements(parts.iter().chain([&y]))?;
        let inputs = parameters(&y).into_iter().chain(parts.iter().flat_map(triple)).collect();
        let (quantizer, domain) = (Some(quantizer), super::CONTRIB);
        Ok(Site { node: id, quantizer, domain, operator: "QLinearConcat", attributes, inputs })
    }

    pub(super) fn arithmetic(
        &self,
        id: NodeId,
        node: &Node,
        operator: &'static str,
        operands: usize,
        attributes: &[&str],
    ) -> Result<Site, String> {
        let operands = (0..operands).map(|slot| self.qdq.activation(node, slot));
        let operands = operands.collect::<Result<Vec<Quantized>, String>>()?;
        let (quantizer, y) = self.qdq.quantizer(node)?;
        same_elements(operands.iter().chain([&y]))?;
        let attributes = kept(node, operator, attributes)?;
        let inputs = operands.iter().flat_map(triple).chain(parameters(&y)).collect();
        let (quantizer, domain) = (Some(quantizer), super::CONTRIB);
        Ok(Site { node: id, quantizer, domain, operator, attributes, inputs })
    }

    /// Below opset 13 the axis means something else, and another axis is the default.
    pub(super) fn softmax(&self, id: NodeId, node: &Node) -> Result<Site, String> {
        let opset = self.opset();
        let axis = node.int_or("axis", if opset < 13 { 1 } else { -1 });
        let mut site = self.arithmetic(id, node, "QLinearSoftmax", 1, &["axis"])?;
        site.attributes = vec![AttributeProto::int("axis", axis), AttributeProto::int("opset", opset)];
        Ok(site)
    }
}

/// The integer a quantizer makes of the padding.
fn padding_value(value: f32, x: &Quantized) -> TensorProto {
    let integer = (value / x.scales[0]).round_ties_even() as i64;
    let integer = integer.saturating_add(x.zero_points[0]);
    let (name, shape) = ("padding", &[]);
    if x.element == DataType::Int8 {
        return TensorProto::from_i8(name, shape, &[integer.clamp(-128, 127) as i8]);
    }
    TensorProto::from_u8(name, shape, &[integer.clamp(0, 255) as u8])
}

fn same_elements<'a>(mut all: impl Iterator<Item = &'a Quantized>) -> Result<(), String> {
    let first = all.next().map(|quantized| quantized.element);
    if all.all(|quantized| Some(quantized.element) == first) {
        return Ok(());
    }
    Err("its operands and output mix signed and unsigned integers".to_owned())
}

/// The attributes the integer operator knows. Others may only say what is so anyway: dilations of 1.
fn kept(node: &Node, operator: &str, known: &[&str]) -> Result<Vec<AttributeProto>, String> {
    let (kept, others): (Vec<_>, Vec<_>) = node.attributes().iter().partition(|a| known.contains(&a.name()));
    match others.iter().find(|a| a.name() != "dilations" || a.ints.iter().any(|&d| d != 1)) {
        Some(other) => Err(format!("`{operator}` has no attribute `{}`", other.name())),
        None => Ok(kept.into_iter().cloned().collect()),
    }
}
