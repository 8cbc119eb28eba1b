//! Quantizers, and changes of type.
//!
//! The integers q of `QuantizeLinear` carry a gradient by q, in floats. With y = s·(q − z), dq = s·dy. With
//! q = clip(round(x/s) + z) and rounding taken for the identity, dx = dq/s where q is inside its range, and 0 where x lies
//! at or beyond the outermost integers (LSQ, arXiv 1902.08153, the derivative by the value).

use super::site::{Handed, Site};
use crate::ir::{AttributeProto, DataType, Graph, TensorProto, ValueId, axis_of};

/// Whether a value holds integers of a quantizer, perhaps arranged anew.
pub(super) fn holds_integers(graph: &Graph, value: ValueId) -> bool {
    let Some((node, _)) = graph.value(value).producer() else { return false };
    let node = graph.node(node);
    match node.op() {
        "QuantizeLinear" => true,
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" | "Slice" | "Concat" => {
            node.input(0).is_some_and(|input| holds_integers(graph, input))
        }
        _ => false,
    }
}

pub(super) fn cast(site: &mut Site) -> Handed {
    let (x, g) = (site.input(0)?, site.gradient()?);
    let element = site.graph.value(x).element_type();
    let element = element.or_else(|| site.graph.initializer(x).and_then(TensorProto::element_type));
    let element = element.ok_or_else(|| format!("the type of `{}` is not known", site.name(x)))?;
    let to = vec![AttributeProto::element("to", element)];
    Ok(vec![Some(site.op_with("Cast", &[g], to))])
}

/// A parameter of one or several channels, in the shape in which it is broadcast to `rank` axes.
fn parameter(site: &mut Site, value: ValueId, rank: usize) -> Result<ValueId, String> {
    let shape = site.shape(value)?;
    if shape.iter().product::<usize>() == 1 {
        return Ok(value);
    }
    if shape.len() != 1 || site.node.int_or("block_size", 0) != 0 {
        return Err("there is no rule for scales of blocks".to_owned());
    }
    let axis = axis_of(site.node.int_or("axis", 1), rank).ok_or("its axis does not exist")?;
    let mut broad = vec![1; rank - axis];
    broad[0] = shape[0];
    Ok(site.reshape(value, &broad))
}

pub(super) fn dequantize(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (q, scale, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let rank = site.shape(q)?.len();
    let scale = parameter(site, scale, rank)?;
    Ok(vec![Some(site.mul(g, scale))])
}

pub(super) fn quantize(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, scale, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let rank = site.shape(x)?.len();
    let scales = site.floats(scale)?;
    let (element, zeros) = match site.node.input(2) {
        Some(zero) => (site.graph.constant(zero).and_then(TensorProto::element_type), site.integers(zero)?),
        None => (Some(DataType::Uint8), vec![0]),
    };
    let [least, most] = match element {
        Some(DataType::Uint8) => [0, 255],
        Some(DataType::Int8) => [-128, 127],
        Some(DataType::Uint16) => [0, 65_535],
        Some(DataType::Int16) => [-32_768, 32_767],
        _ => return Err("there is no rule for the type of its integers".to_owned()),
    };
    let zero = |at: usize| zeros.get(at).or(zeros.first()).copied().unwrap_or(0);
    let bound = |end: i64| scales.iter().enumerate().map(|(at, s)| s * (end - zero(at)) as f32).collect::<Vec<f32>>();
    let shape = site.shape(scale)?;
    let (low, high) = (site.tensor(&shape, &bound(least)), site.tensor(&shape, &bound(most)));
    let (low, high) = (parameter(site, low, rank)?, parameter(site, high, rank)?);
    let scale = parameter(site, scale, rank)?;
    let (over, under) = (site.op("Greater", &[x, low]), site.op("Less", &[x, high]));
    let inside = site.op("And", &[over, under]);
    let share = site.op("Div", &[g, scale]);
    Ok(vec![Some(site.masked(inside, share))])
}
