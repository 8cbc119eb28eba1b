//! Operators that only arrange elements: the gradient is arranged back.

use super::functions::of;
use super::site::{Handed, Site, axis_at};
use crate::ir::ValueId;

/// `Reshape`, `Flatten`, `Squeeze`, `Unsqueeze`.
pub(super) fn reshape(site: &mut Site) -> Handed {
    let shape = site.shape(site.input(0)?)?;
    of(site, |s, [_, _, g]| s.reshape(g, &shape))
}

pub(super) fn transpose(site: &mut Site) -> Handed {
    let rank = site.shape(site.input(0)?)?.len();
    let mut back: Vec<usize> = (0..rank).rev().collect();
    for (to, &from) in site.node.ints("perm").iter().enumerate() {
        back[axis_at(from, rank)?] = to;
    }
    of(site, |s, [_, _, g]| s.transpose(g, &back))
}

/// Also where the input has axes that the shape leaves at 1.
pub(super) fn expand(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let g = site.gradient()?;
    Ok(vec![Some(site.for_input(g, 0)?)])
}

/// The sum over the copies.
pub(super) fn tile(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (shape, repeats, g) = (site.shape(site.input(0)?)?, site.integers(site.input(1)?)?, site.gradient()?);
    let apart: Vec<usize> = repeats.iter().zip(&shape).flat_map(|(&n, &length)| [n as usize, length]).collect();
    let copies = site.reshape(g, &apart);
    let sum = site.reduce(copies, &(0..shape.len()).map(|axis| 2 * axis).collect::<Vec<usize>>());
    Ok(vec![Some(site.reshape(sum, &shape))])
}

/// A part of a value along one axis.
fn cut(site: &mut Site, value: ValueId, axis: usize, [start, end]: [usize; 2]) -> ValueId {
    let numbers = [start, end, axis].map(|number| site.vector(&[number as i64]));
    site.op("Slice", &[value, numbers[0], numbers[1], numbers[2]])
}

/// Each operand gets its part.
pub(super) fn concat(site: &mut Site) -> Handed {
    let g = site.gradient()?;
    let rank = site.shape(site.output()?)?.len();
    let axis = axis_at(site.node.int_or("axis", 0), rank)?;
    let (mut handed, mut start) = (Vec::new(), 0);
    for slot in 0..site.node.inputs().len() {
        let end = start + site.shape(site.input(slot)?)?[axis];
        let part = site.wants(slot).then(|| cut(site, g, axis, [start, end]));
        handed.push(part);
        start = end;
    }
    Ok(handed)
}

/// The parts one behind the other; zeros where a part has no gradient.
pub(super) fn split(site: &mut Site) -> Handed {
    let rank = site.shape(site.input(0)?)?.len();
    let axis = axis_at(site.node.int_or("axis", 0), rank)?;
    let mut parts = Vec::new();
    for slot in 0..site.node.outputs().len() {
        let part = match (site.given(slot), site.node.output(slot)) {
            (Some(part), _) => part,
            (None, Some(output)) => {
                let shape = site.shape(output)?;
                let zero = site.scalar(0.0);
                site.expand(zero, &shape)
            }
            (None, None) => return Err(format!("its output {slot} is left out")),
        };
        parts.push(part);
    }
    let axis = crate::ir::AttributeProto::int("axis", axis as i64);
    Ok(vec![Some(site.op_with("Concat", &parts, vec![axis]))])
}

/// Zeros around a value, or less of it where a number is negative.
fn padded(site: &mut Site, value: ValueId, front: &[i64], behind: &[i64]) -> ValueId {
    if front.iter().chain(behind).all(|&pad| pad == 0) {
        return value;
    }
    let (pads, zero) = (site.vector(&[front, behind].concat()), site.scalar(0.0));
    site.op("Pad", &[value, pads, zero])
}

/// What was cut away comes back as zeros, also between the elements where some were skipped.
pub(super) fn slice(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, y, mut g) = (site.input(0)?, site.output()?, site.gradient()?);
    let (shape, mut taken) = (site.shape(x)?, site.shape(y)?);
    let starts = site.integers(site.input(1)?)?;
    let axes = match site.node.input(3) {
        Some(axes) => site.integers(axes)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match site.node.input(4) {
        Some(steps) => site.integers(steps)?,
        None => vec![1; starts.len()],
    };
    let mut pads = [vec![0; shape.len()], vec![0; shape.len()]];
    for ((&start, &axis), &step) in starts.iter().zip(&axes).zip(&steps) {
        let axis = axis_at(axis, shape.len())?;
        let (length, stride) = (shape[axis] as i64, step.unsigned_abs() as usize);
        let first = if start < 0 { start.saturating_add(length) } else { start };
        let first = if step < 0 { first.clamp(-1, length - 1) } else { first.clamp(0, length) };
        if taken[axis] == 0 {
            return Err("it takes nothing".to_owned());
        }
        if step < 0 {
            g = turned(site, g, axis);
        }
        let reach = (taken[axis] - 1) * stride;
        if stride > 1 {
            g = spread(site, g, &mut taken, axis, stride);
        }
        let lowest = if step < 0 { first - reach as i64 } else { first };
        pads[0][axis] = lowest;
        pads[1][axis] = length - lowest - reach as i64 - 1;
    }
    Ok(vec![Some(padded(site, g, &pads[0], &pads[1]))])
}

/// From the last element of an axis to the first.
fn turned(site: &mut Site, value: ValueId, axis: usize) -> ValueId {
    let numbers = [-1, i64::MIN + 1, axis as i64, -1].map(|number| site.vector(&[number]));
    site.op("Slice", &[value, numbers[0], numbers[1], numbers[2], numbers[3]])
}

/// Zeros between the elements of an axis, `stride` − 1 behind each but the last.
fn spread(site: &mut Site, value: ValueId, shape: &mut [usize], axis: usize, stride: usize) -> ValueId {
    let mut apart = shape.to_vec();
    apart.insert(axis + 1, 1);
    let columns = site.reshape(value, &apart);
    let mut behind = vec![0; apart.len()];
    behind[axis + 1] = stride as i64 - 1;
    let filled = padded(site, columns, &vec![0; apart.len()], &behind);
    let length = (shape[axis] - 1) * stride + 1;
    shape[axis] *= stride;
    let joined = site.reshape(filled, shape);
    shape[axis] = length;
    cut(site, joined, axis, [0, length])
}

/// What was added is cut away.
pub(super) fn pad(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let mode = site.node.string("mode").unwrap_or("constant");
    if mode != "constant" {
        return Err(format!("there is no rule for its mode `{mode}`"));
    }
    let (pads, g) = (site.integers(site.input(1)?)?, site.gradient()?);
    let rank = site.shape(site.input(0)?)?.len();
    let axes = match site.node.input(3) {
        Some(axes) => site.integers(axes)?,
        None => (0..rank as i64).collect(),
    };
    let mut back = [vec![0; rank], vec![0; rank]];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = axis_at(axis, rank)?;
        let (Some(front), Some(behind)) = (pads.get(at), pads.get(at + axes.len())) else {
            return Err("its padding does not have its axes".to_owned());
        };
        (back[0][axis], back[1][axis]) = (-front, -behind);
    }
    let shape = site.shape(site.output()?)?;
    let mut cut_back = g;
    for axis in 0..rank {
        let [front, behind] = [back[0][axis].min(0), back[1][axis].min(0)].map(|n| n.unsigned_abs() as usize);
        if front + behind > 0 {
            cut_back = cut(site, cut_back, axis, [front, shape[axis] - behind]);
        }
    }
    let [front, behind] = back.map(|side| side.into_iter().map(|n| n.max(0)).collect::<Vec<i64>>());
    Ok(vec![Some(padded(site, cut_back, &front, &behind))])
}

/// The axes of blocks: `[N, b, b, C/b², H, W]` or `[N, C/b², b, b, H, W]`, in the order in which depth holds them.
struct Blocks {
    apart: [usize; 6],
    /// The places of the two axes of blocks and of the channels.
    order: [usize; 3],
}

impl Blocks {
    fn of(shape: &[usize], size: usize, channels_first: bool) -> Result<Self, String> {
        let &[images, depth, height, width] = shape else { return Err("it does not read images".to_owned()) };
        let channels = depth / (size * size);
        Ok(if channels_first {
            Self { apart: [images, channels, size, size, height, width], order: [2, 3, 1] }
        } else {
            Self { apart: [images, size, size, channels, height, width], order: [1, 2, 3] }
        })
    }
}

fn block(site: &Site) -> Result<usize, String> {
    usize::try_from(site.node.int_or("blocksize", 0))
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| "it has no block size".to_owned())
}

/// From `[N, C, H·b, W·b]` back to `[N, C·b², H, W]`.
pub(super) fn depth_to_space(site: &mut Site) -> Handed {
    let (shape, size) = (site.shape(site.input(0)?)?, block(site)?);
    let blocks = Blocks::of(&shape, size, site.node.string("mode") == Some("CRD"))?;
    let [down, across, channels] = blocks.order;
    let length = |axis: usize| blocks.apart[axis];
    let apart = [length(0), length(channels), length(4), size, length(5), size];
    // Where each axis of the depth form stands in the image form [N, C, H, b, W, b].
    let mut order = [0, 0, 0, 0, 2, 4];
    (order[channels], order[down], order[across]) = (1, 3, 5);
    of(site, |s, [_, _, g]| {
        let split = s.reshape(g, &apart);
        let moved = s.transpose(split, &order);
        s.reshape(moved, &shape)
    })
}

/// From `[N, C·b², H, W]` back to `[N, C, H·b, W·b]`.
pub(super) fn space_to_depth(site: &mut Site) -> Handed {
    let (shape, size) = (site.shape(site.input(0)?)?, block(site)?);
    let blocks = Blocks::of(&site.shape(site.output()?)?, size, false)?;
    of(site, |s, [_, _, g]| {
        let split = s.reshape(g, &blocks.apart);
        let moved = s.transpose(split, &[0, 3, 4, 1, 5, 2]);
        s.reshape(moved, &shape)
    })
}
