//! Operators that choose elements.

use super::site::{Handed, Site, axis_at};
use crate::ir::{AttributeProto, TensorProto, ValueId};

/// `Where`: dy for the operand that was chosen, 0 for the other.
pub(super) fn choose(site: &mut Site) -> Handed {
    let (condition, g, zero) = (site.input(0)?, site.gradient()?, site.scalar(0.0));
    let mut handed = vec![None; 3];
    for slot in [1, 2] {
        if site.wants(slot) {
            let operands = if slot == 1 { [condition, g, zero] } else { [condition, zero, g] };
            let part = site.op("Where", &operands);
            handed[slot] = Some(site.for_input(part, slot)?);
        }
    }
    Ok(handed)
}

/// By the data: each element sums what was made of it, the product of dy with the transposed matrix of the choice.
pub(super) fn gather(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (data, indices, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (shape, chosen) = (site.shape(data)?, site.shape(indices)?);
    let axis = axis_at(site.node.int_or("axis", 0), shape.len())?;
    let count: usize = chosen.iter().product();
    let matrix = match site.integers(indices) {
        Ok(known) => constant(site, &known, shape[axis])?,
        Err(_) => computed(site, indices, count, shape[axis]),
    };
    let mut flat = shape.clone();
    flat[axis] = count;
    let g = site.reshape(g, &flat);
    Ok(vec![Some(site.along(g, &flat, axis, (matrix, shape[axis])))])
}

fn constant(site: &mut Site, indices: &[i64], length: usize) -> Result<ValueId, String> {
    let mut matrix = vec![0.0; length * indices.len()];
    for (at, &index) in indices.iter().enumerate() {
        matrix[axis_at(index, length)? * indices.len() + at] = 1.0;
    }
    Ok(site.tensor(&[length, indices.len()], &matrix))
}

fn computed(site: &mut Site, indices: ValueId, count: usize, length: usize) -> ValueId {
    let to = |site: &mut Site, value, kind: i64| site.op_with("Cast", &[value], vec![AttributeProto::int("to", kind)]);
    let wide = to(site, indices, 7);
    let row = site.reshape(wide, &[1, count]);
    let (zero, whole) = (site.vector(&[0]), site.vector(&[length as i64]));
    let negative = site.op("Less", &[row, zero]);
    let moved = site.op("Add", &[row, whole]);
    let index = site.op("Where", &[negative, moved, row]);
    let numbers: Vec<i64> = (0..length as i64).collect();
    let numbers = site.constant(TensorProto::from_i64("", &[length, 1], &numbers));
    let equal = site.op("Equal", &[index, numbers]);
    let kind = i64::from(site.element().number());
    to(site, equal, kind)
}
