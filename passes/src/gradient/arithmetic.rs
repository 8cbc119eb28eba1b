//! Sums, products, powers and extremes, with operands that are broadcast.

use super::site::{Handed, Site};
use crate::ir::{DataType, ValueId};

/// What each operand whose gradient is wanted gets, summed over where it was repeated.
fn each(site: &mut Site, mut part: impl FnMut(&mut Site, usize, ValueId) -> Result<ValueId, String>) -> Handed {
    let g = site.gradient()?;
    let mut handed = Vec::new();
    for slot in 0..site.node.inputs().len() {
        handed.push(if site.wants(slot) {
            let full = part(site, slot, g)?;
            Some(site.for_input(full, slot)?)
        } else {
            None
        });
    }
    Ok(handed)
}

/// `Add` and `Sum`.
pub(super) fn add(site: &mut Site) -> Handed {
    each(site, |_, _, g| Ok(g))
}

pub(super) fn sub(site: &mut Site) -> Handed {
    each(site, |s, slot, g| Ok(if slot == 0 { g } else { s.op("Neg", &[g]) }))
}

pub(super) fn mean(site: &mut Site) -> Handed {
    let count = site.node.inputs().len() as f32;
    each(site, |s, _, g| Ok(s.scale(g, 1.0 / count)))
}

pub(super) fn mul(site: &mut Site) -> Handed {
    each(site, |s, slot, g| {
        let other = s.input(1 - slot)?;
        Ok(s.mul(g, other))
    })
}

/// dy/b for a, −dy·y/b for b.
pub(super) fn div(site: &mut Site) -> Handed {
    each(site, |s, slot, g| {
        let (b, y) = (s.input(1)?, s.output()?);
        let share = s.op("Div", &[g, b]);
        if slot == 0 {
            return Ok(share);
        }
        let product = s.mul(share, y);
        Ok(s.op("Neg", &[product]))
    })
}

/// dy·b·a^(b−1) for a, dy·y·ln a for b.
pub(super) fn pow(site: &mut Site) -> Handed {
    each(site, |s, slot, g| {
        let (a, b) = (s.input(0)?, s.input(1)?);
        if slot == 1 {
            let y = s.output()?;
            let log = s.op("Log", &[a]);
            let slope = s.mul(y, log);
            return Ok(s.mul(g, slope));
        }
        let exponent = s.graph.constant(b).and_then(|b| {
            let whole = || b.to_i64().ok().filter(|b| b.len() == 1).map(|b| b[0] as f32);
            b.scalar_f32().or_else(whole)
        });
        match exponent {
            Some(b) => {
                let root = if b == 2.0 {
                    a
                } else {
                    let less = s.scalar(b - 1.0);
                    s.op("Pow", &[a, less])
                };
                let slope = s.scale(root, b);
                Ok(s.mul(g, slope))
            }
            None if s.graph.value(b).element_type().is_none_or(DataType::is_float) => {
                let less = s.plus(b, -1.0);
                let root = s.op("Pow", &[a, less]);
                let slope = s.mul(b, root);
                Ok(s.mul(g, slope))
            }
            None => Err("its exponent has several integers".to_owned()),
        }
    })
}

/// `Max` and `Min`: to the operand that was taken, in equal shares where several were.
pub(super) fn extreme(site: &mut Site) -> Handed {
    let y = site.output()?;
    let kind = i64::from(site.element().number());
    let mut taken = Vec::new();
    for slot in 0..site.node.inputs().len() {
        let x = site.input(slot)?;
        let equal = site.op("Equal", &[x, y]);
        let to = vec![crate::ir::AttributeProto::int("to", kind)];
        taken.push(site.op_with("Cast", &[equal], to));
    }
    let count = site.sum(taken.clone()).ok_or("it has no operands")?;
    each(site, |s, slot, g| {
        let share = s.op("Div", &[g, count]);
        Ok(s.mul(share, taken[slot]))
    })
}
