//! Softmax and normalizations.

use super::site::{Handed, Site, axis_at};
use crate::ir::ValueId;

/// The sum over one axis.
fn over(site: &mut Site, value: ValueId) -> Result<(ValueId, usize), String> {
    let rank = site.shape(site.input(0)?)?.len();
    let axis = axis_at(site.node.int_or("axis", -1), rank)?;
    Ok((site.reduce(value, &[axis]), axis))
}

/// y·(dy − Σ y·dy).
pub(super) fn softmax(site: &mut Site) -> Handed {
    let (y, g) = (site.output()?, site.gradient()?);
    let product = site.mul(y, g);
    let (sum, _) = over(site, product)?;
    let centred = site.op("Sub", &[g, sum]);
    Ok(vec![Some(site.mul(y, centred))])
}

/// dy − eʸ·Σ dy.
pub(super) fn log_softmax(site: &mut Site) -> Handed {
    let (y, g) = (site.output()?, site.gradient()?);
    let (sum, _) = over(site, g)?;
    let probabilities = site.op("Exp", &[y]);
    let shared = site.mul(probabilities, sum);
    Ok(vec![Some(site.op("Sub", &[g, shared]))])
}

/// γ/√(σ² + ε) of each channel.
pub(super) fn batch(site: &mut Site) -> Handed {
    site.only_before(1)?;
    if site.node.int_or("training_mode", 0) != 0 {
        return Err("it trains".to_owned());
    }
    let (x, scale, variance, g) = (site.input(0)?, site.input(1)?, site.input(4)?, site.gradient()?);
    let rank = site.shape(x)?.len();
    let epsilon = site.node.float_or("epsilon", 1e-5);
    let shifted = site.plus(variance, epsilon);
    let deviation = site.op("Sqrt", &[shifted]);
    let factor = site.op("Div", &[scale, deviation]);
    let mut shape = vec![1; rank.saturating_sub(1)];
    if let Some(first) = shape.first_mut() {
        *first = site.shape(scale)?.iter().product();
    }
    let factor = site.reshape(factor, &shape);
    Ok(vec![Some(site.mul(g, factor))])
}

/// For x̂ = (x − μ)/σ over some axes and g = dx̂: (g − mean g − x̂·mean(g·x̂))/σ.
fn centred(site: &mut Site, x: ValueId, g: ValueId, axes: &[usize], epsilon: f32) -> Result<ValueId, String> {
    let shape = site.shape(x)?;
    let count: usize = axes.iter().map(|&axis| shape[axis]).product();
    let mean = |site: &mut Site, value: ValueId| {
        let sum = site.reduce(value, axes);
        site.scale(sum, 1.0 / count as f32)
    };
    let middle = mean(site, x);
    let difference = site.op("Sub", &[x, middle]);
    let square = site.mul(difference, difference);
    let variance = mean(site, square);
    let shifted = site.plus(variance, epsilon);
    let deviation = site.op("Sqrt", &[shifted]);
    let unit = site.op("Div", &[difference, deviation]);
    let product = site.mul(g, unit);
    let (first, second) = (mean(site, g), mean(site, product));
    let along = site.mul(unit, second);
    let rest = site.op("Sub", &[g, first]);
    let rest = site.op("Sub", &[rest, along]);
    Ok(site.op("Div", &[rest, deviation]))
}

pub(super) fn layer(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, scale, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let rank = site.shape(x)?.len();
    let axis = axis_at(site.node.int_or("axis", -1), rank)?;
    let epsilon = site.node.float_or("epsilon", 1e-5);
    let scaled = site.mul(g, scale);
    Ok(vec![Some(centred(site, x, scaled, &(axis..rank).collect::<Vec<usize>>(), epsilon)?)])
}

pub(super) fn instance(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, scale, g) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let shape = site.shape(x)?;
    let mut channels = vec![1; shape.len() - 1];
    channels[0] = shape[1];
    let scale = site.reshape(scale, &channels);
    let epsilon = site.node.float_or("epsilon", 1e-5);
    let scaled = site.mul(g, scale);
    Ok(vec![Some(centred(site, x, scaled, &(2..shape.len()).collect::<Vec<usize>>(), epsilon)?)])
}
