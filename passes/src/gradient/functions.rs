//! Functions of one number: dx = f′(x)·dy, from x or from y = f(x), whichever costs less.

use super::site::{Handed, Site};
use crate::ir::ValueId;

/// A derivative from x, y and dy.
pub(super) fn of(site: &mut Site, derive: impl FnOnce(&mut Site, [ValueId; 3]) -> ValueId) -> Handed {
    site.only_before(1)?;
    let operands = [site.input(0)?, site.output()?, site.gradient()?];
    Ok(vec![Some(derive(site, operands))])
}

pub(super) fn identity(site: &mut Site) -> Handed {
    of(site, |_, [_, _, g]| g)
}

/// Steps: 0 wherever there is a derivative.
pub(super) fn constant(site: &mut Site) -> Handed {
    site.only_before(1)?;
    Ok(Vec::new())
}

pub(super) fn neg(site: &mut Site) -> Handed {
    of(site, |s, [_, _, g]| s.op("Neg", &[g]))
}

pub(super) fn abs(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let sign = s.op("Sign", &[x]);
        s.mul(g, sign)
    })
}

pub(super) fn exp(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| s.mul(g, y))
}

pub(super) fn log(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| s.op("Div", &[g, x]))
}

pub(super) fn sqrt(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| {
        let half = s.scale(g, 0.5);
        s.op("Div", &[half, y])
    })
}

/// −dy·y².
pub(super) fn reciprocal(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| {
        let square = s.mul(y, y);
        let product = s.mul(g, square);
        s.op("Neg", &[product])
    })
}

pub(super) fn sin(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let cos = s.op("Cos", &[x]);
        s.mul(g, cos)
    })
}

pub(super) fn cos(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let sin = s.op("Sin", &[x]);
        let product = s.mul(g, sin);
        s.op("Neg", &[product])
    })
}

/// dy·(1 − y²).
pub(super) fn tanh(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| {
        let square = s.mul(y, y);
        let slope = s.from(1.0, square);
        s.mul(g, slope)
    })
}

/// dy·2/√π·exp(−x²).
pub(super) fn erf(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let density = bell(s, x, 1.0);
        let scaled = s.scale(density, std::f32::consts::FRAC_2_SQRT_PI);
        s.mul(g, scaled)
    })
}

/// exp(−c·x²).
pub(super) fn bell(site: &mut Site, x: ValueId, c: f32) -> ValueId {
    let square = site.mul(x, x);
    let exponent = site.scale(square, -c);
    site.op("Exp", &[exponent])
}
