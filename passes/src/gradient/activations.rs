//! Activations.

use super::functions::{bell, of};
use super::site::{Handed, Site};
use crate::ir::ValueId;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_GAMMA: f32 = 1.050_701;

fn above(site: &mut Site, x: ValueId, bound: f32) -> ValueId {
    let bound = site.scalar(bound);
    site.op("Greater", &[x, bound])
}

/// dy where x > 0, else dy·slope.
fn two_sided(site: &mut Site, [x, g]: [ValueId; 2], slope: ValueId) -> ValueId {
    let positive = above(site, x, 0.0);
    let below = site.mul(g, slope);
    site.op("Where", &[positive, g, below])
}

/// By y, which the next layer reads anyway.
pub(super) fn relu(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| {
        let positive = above(s, y, 0.0);
        s.masked(positive, g)
    })
}

pub(super) fn leaky_relu(site: &mut Site) -> Handed {
    let alpha = site.node.float_or("alpha", 0.01);
    of(site, |s, [x, _, g]| {
        let slope = s.scalar(alpha);
        two_sided(s, [x, g], slope)
    })
}

pub(super) fn thresholded_relu(site: &mut Site) -> Handed {
    let alpha = site.node.float_or("alpha", 1.0);
    of(site, |s, [x, _, g]| {
        let passes = above(s, x, alpha);
        s.masked(passes, g)
    })
}

/// By the slope as well: dy·x where x < 0.
pub(super) fn prelu(site: &mut Site) -> Handed {
    let (x, slope, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let mut handed = vec![None, None];
    if site.wants(0) {
        handed[0] = Some(two_sided(site, [x, g], slope));
    }
    if site.wants(1) {
        let positive = above(site, x, 0.0);
        let product = site.mul(g, x);
        let zero = site.scalar(0.0);
        let part = site.op("Where", &[positive, zero, product]);
        handed[1] = Some(site.for_input(part, 1)?);
    }
    Ok(handed)
}

/// For x < 0, y = α(eˣ − 1) and y′ = y + α.
pub(super) fn elu(site: &mut Site) -> Handed {
    let alpha = site.node.float_or("alpha", 1.0);
    of(site, |s, [x, y, g]| {
        let slope = s.plus(y, alpha);
        two_sided(s, [x, g], slope)
    })
}

/// For x < 0, y = α(e^(x/α) − 1) and y′ = y/α + 1.
pub(super) fn celu(site: &mut Site) -> Handed {
    let alpha = site.node.float_or("alpha", 1.0);
    of(site, |s, [x, y, g]| {
        let scaled = s.scale(y, 1.0 / alpha);
        let slope = s.plus(scaled, 1.0);
        two_sided(s, [x, g], slope)
    })
}

/// γ·Elu: for x < 0, y′ = y + γα.
pub(super) fn selu(site: &mut Site) -> Handed {
    let (alpha, gamma) = (site.node.float_or("alpha", SELU_ALPHA), site.node.float_or("gamma", SELU_GAMMA));
    of(site, |s, [x, y, g]| {
        let positive = above(s, x, 0.0);
        let (slope, scaled) = (s.plus(y, gamma * alpha), s.scale(g, gamma));
        let below = s.mul(g, slope);
        s.op("Where", &[positive, scaled, below])
    })
}

pub(super) fn softplus(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let slope = s.op("Sigmoid", &[x]);
        s.mul(g, slope)
    })
}

/// dy/(1 + |x|)².
pub(super) fn softsign(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let size = s.op("Abs", &[x]);
        let root = s.plus(size, 1.0);
        let square = s.mul(root, root);
        s.op("Div", &[g, square])
    })
}

/// dy·y(1 − y).
pub(super) fn sigmoid(site: &mut Site) -> Handed {
    of(site, |s, [_, y, g]| {
        let rest = s.from(1.0, y);
        let slope = s.mul(y, rest);
        s.mul(g, slope)
    })
}

/// dy·α where 0 < y < 1.
pub(super) fn hard_sigmoid(site: &mut Site) -> Handed {
    let alpha = site.node.float_or("alpha", 0.2);
    of(site, |s, [_, y, g]| {
        let inside = between(s, y, [0.0, 1.0]);
        let scaled = s.scale(g, alpha);
        s.masked(inside, scaled)
    })
}

fn between(site: &mut Site, x: ValueId, [low, high]: [f32; 2]) -> ValueId {
    let (low, high) = (site.scalar(low), site.scalar(high));
    let (over, under) = (site.op("Greater", &[x, low]), site.op("Less", &[x, high]));
    site.op("And", &[over, under])
}

/// dy·(x/3 + ½) where |x| < 3, dy above, 0 below.
pub(super) fn hard_swish(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let (inside, positive) = (between(s, x, [-3.0, 3.0]), above(s, x, 0.0));
        let third = s.scale(x, 1.0 / 3.0);
        let slope = s.plus(third, 0.5);
        let (middle, outside) = (s.mul(g, slope), s.masked(positive, g));
        s.op("Where", &[inside, middle, outside])
    })
}

/// x·tanh(s) with s = softplus(x): t + x(1 − t²)σ(x).
pub(super) fn mish(site: &mut Site) -> Handed {
    of(site, |s, [x, _, g]| {
        let soft = s.op("Softplus", &[x]);
        let t = s.op("Tanh", &[soft]);
        let sigmoid = s.op("Sigmoid", &[x]);
        let square = s.mul(t, t);
        let rest = s.from(1.0, square);
        let product = s.mul(rest, sigmoid);
        let second = s.mul(x, product);
        let slope = s.op("Add", &[t, second]);
        s.mul(g, slope)
    })
}

/// Φ(x) + x·φ(x), or the derivative of the form with tanh: with u = √(2/π)(x + c·x³) and t = tanh u,
/// ½(1 + t) + ½x(1 − t²)u′.
pub(super) fn gelu(site: &mut Site) -> Handed {
    match site.node.string("approximate").unwrap_or("none") {
        "tanh" => of(site, |s, [x, _, g]| {
            const C: f32 = 0.044_715;
            let root = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
            let square = s.mul(x, x);
            let (third, slope) = (s.scale(square, C * root), s.scale(square, 3.0 * C * root));
            let (factor, u_slope) = (s.plus(third, root), s.plus(slope, root));
            let u = s.mul(x, factor);
            let t = s.op("Tanh", &[u]);
            let t_square = s.mul(t, t);
            let rest = s.from(1.0, t_square);
            let inner = s.mul(rest, u_slope);
            let (first, second) = (s.plus(t, 1.0), s.mul(x, inner));
            let sum = s.op("Add", &[first, second]);
            let half = s.scale(sum, 0.5);
            s.mul(g, half)
        }),
        "none" => of(site, |s, [x, _, g]| {
            let scaled = s.scale(x, FRAC_1_SQRT_2);
            let erf = s.op("Erf", &[scaled]);
            let upper = s.plus(erf, 1.0);
            let half = s.scale(upper, 0.5);
            let bell = bell(s, x, 0.5);
            let density = s.scale(bell, 0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI);
            let second = s.mul(x, density);
            let slope = s.op("Add", &[half, second]);
            s.mul(g, slope)
        }),
        other => Err(format!("there is no rule for its approximation `{other}`")),
    }
}

/// dy inside the bounds.
pub(super) fn clip(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, mut g) = (site.input(0)?, site.gradient()?);
    for (slot, compare) in [(1, "Greater"), (2, "Less")] {
        if let Some(bound) = site.node.input(slot) {
            let inside = site.op(compare, &[x, bound]);
            g = site.masked(inside, g);
        }
    }
    Ok(vec![Some(g)])
}
