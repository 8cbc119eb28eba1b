//! Reductions over axes.

use super::site::{Handed, Site};
use crate::ir::{AttributeProto, ValueId};

/// A reduction: x, and y and dy with the reduced axes kept at length 1.
struct Reduced {
    x: ValueId,
    y: ValueId,
    g: ValueId,
    shape: Vec<usize>,
    axes: Vec<usize>,
    /// Elements that each result is made of.
    count: usize,
}

impl Reduced {
    fn of(site: &mut Site) -> Result<Self, String> {
        site.only_before(1)?;
        let (x, y, g) = (site.input(0)?, site.output()?, site.gradient()?);
        let shape = site.shape(x)?;
        let axes = match site.axes(1, shape.len())? {
            Some(axes) if !axes.is_empty() => axes,
            _ if site.node.int_or("noop_with_empty_axes", 0) == 1 => Vec::new(),
            _ => (0..shape.len()).collect(),
        };
        let length = |(axis, &length): (usize, &usize)| if axes.contains(&axis) { 1 } else { length };
        let kept: Vec<usize> = shape.iter().enumerate().map(length).collect();
        let count = axes.iter().map(|&axis| shape[axis]).product();
        if site.node.int_or("keepdims", 1) == 1 {
            return Ok(Self { x, y, g, shape, axes, count });
        }
        Ok(Self { x, y: site.reshape(y, &kept), g: site.reshape(g, &kept), shape, axes, count })
    }
}

fn of(site: &mut Site, derive: impl FnOnce(&mut Site, &Reduced) -> ValueId) -> Handed {
    let reduced = Reduced::of(site)?;
    Ok(vec![Some(derive(site, &reduced))])
}

pub(super) fn sum(site: &mut Site) -> Handed {
    of(site, |s, r| s.spread(r.g, &r.shape, &r.axes, 1.0))
}

pub(super) fn mean(site: &mut Site) -> Handed {
    of(site, |s, r| s.spread(r.g, &r.shape, &r.axes, 1.0 / r.count as f32))
}

/// To the elements that are the largest or smallest, in equal shares.
pub(super) fn extreme(site: &mut Site) -> Handed {
    let to = i64::from(site.element().number());
    of(site, |s, r| {
        let equal = s.op("Equal", &[r.x, r.y]);
        let taken = s.op_with("Cast", &[equal], vec![AttributeProto::int("to", to)]);
        let count = s.reduce(taken, &r.axes);
        let share = s.op("Div", &[r.g, count]);
        s.mul(taken, share)
    })
}

pub(super) fn l1(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let sign = s.op("Sign", &[r.x]);
        s.mul(sign, r.g)
    })
}

/// dy·x/y.
pub(super) fn l2(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let share = s.op("Div", &[r.g, r.y]);
        s.mul(r.x, share)
    })
}

pub(super) fn sum_square(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let twice = s.scale(r.g, 2.0);
        s.mul(r.x, twice)
    })
}

/// dy·y/x, of factors that are not 0.
pub(super) fn prod(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let product = s.mul(r.g, r.y);
        s.op("Div", &[product, r.x])
    })
}

/// y = ln Σx: dy/Σx = dy·e^(−y).
pub(super) fn log_sum(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let sum = s.op("Exp", &[r.y]);
        let share = s.op("Div", &[r.g, sum]);
        s.spread(share, &r.shape, &r.axes, 1.0)
    })
}

/// dy·e^(x − y).
pub(super) fn log_sum_exp(site: &mut Site) -> Handed {
    of(site, |s, r| {
        let difference = s.op("Sub", &[r.x, r.y]);
        let share = s.op("Exp", &[difference]);
        s.mul(share, r.g)
    })
}
