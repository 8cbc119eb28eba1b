//! Weights beside the layers as integers: embedding tables, recurrent weights, weights of sub-graphs.
//!
//! Each index along the axes of scales is a channel, rounded to nearest as `round` does it. A weight that a layer reads as
//! well, transposed or not, has the integers and scales of that layer, so that the file holds them once.

use super::layer::halve;
use super::round::Round;
use super::rounding::Rounded;
use super::{Grid, Group, Problem, SolveError, Solver, Statistics, planned};
use crate::quant::{Granularity, QuantizedWeight, Sqnr};
use crate::scheme::bit_plan::WeightBits;
use crate::scheme::{Scheme, Twin};
use crate::solve::random::seed_of;
use msq_passes::analysis::StoredWeight;
use msq_passes::ir::Model;
use msq_passes::{Integers, QuantizedLayer, StoredTensor};

/// Magnitude from which on a constant is a mask that is added, and no weight.
const MASKS: f32 = 1e4;
/// Least signal-to-noise ratio of integers of 8 bits, in decibels: below it numbers of different size share a scale.
const LEAST: f64 = 25.0;

/// Rounds a weight. Scales are one per channel, in the order of the axes of scales. `None` for one that is better left
/// in float: numbers that are not finite, or too far apart within a channel for 8 bits.
pub(crate) fn round_stored(
    model: &Model,
    scheme: &Scheme,
    weight: &StoredWeight,
) -> Result<Option<Rounded>, SolveError> {
    let Some(tensor) = model.constant(weight.value) else { return Err(missing(weight)) };
    let values = tensor?.to_f32()?;
    if values.iter().any(|value| !value.is_finite() || value.abs() >= MASKS) {
        return Ok(None);
    }
    // Channels along leading axes are stored one after another, and so are blocks along the last axis.
    let leading = weight.block.is_some() || weight.axes.iter().enumerate().all(|(at, &axis)| at == axis);
    let order = (!leading).then(|| channel_order(&weight.shape, &weight.axes));
    let rows: Vec<f32> = match &order {
        Some(order) => order.iter().map(|&at| values[at]).collect(),
        None => values,
    };
    let (plan, channels) = (scheme.stored_plan(weight), weight.scales().max(1));
    let size = rows.len() / channels;
    let list = [rows];
    let levels = planned::levels(plan, &list, size);
    // Columns of a trellis code lie along one axis.
    let along = weight.axes.iter().filter(|&&axis| weight.shape[axis] > 1).count();
    let grid = planned::grid(plan, &levels, if along == 1 { channels } else { 0 })
        .map_err(|error| SolveError::from(error).of(&weight.name))?;
    let coded = matches!(grid, Grid::Trellis(_));
    let groups = [Group { weights: &list[0], statistics: Statistics::Nothing }];
    let problem = Problem { seed: seed_of(scheme.seed, &weight.name), ..Problem::new(&groups, size, grid) };
    let solver = Round { mode: scheme.solve.rounding };
    let solution = solver.solve(&problem).map_err(|error| error.of(&weight.name))?;
    let mut rounded = QuantizedWeight {
        data: solution.integers,
        granularity: Granularity::Channel,
        scales: solution.scales,
        zero_points: solution.zero_points,
        shape: vec![channels, size],
        axis: Some(0),
        grid: grid.spec(),
    };
    if scheme.output.half_scales {
        halve(&mut rounded, (solver.rounds_to_nearest() && !coded).then_some(&*list[0]));
    }
    let weight_sqnr = rounded.sqnr(&list[0]);
    if plan.weights == WeightBits::whole(8) && weight_sqnr.decibels() < LEAST {
        return Ok(None);
    }
    let mut data = rounded.data;
    if let Some(order) = order {
        let rows = std::mem::replace(&mut data, vec![0; order.len()]);
        order.iter().zip(rows).for_each(|(&at, q)| data[at] = q);
    }
    Ok(Some(of(data.into(), rounded.scales, weight_sqnr)))
}

/// The integers of a layer that reads the same weight.
pub(crate) fn of_twin(weight: &StoredWeight, twin: &Twin, layer: &Rounded) -> Rounded {
    let integers = if twin.transposed {
        let (rows, columns) = (weight.shape[0], weight.shape[1]);
        let held: Vec<i8> = layer.layer.weight.iter().collect();
        (0..rows * columns).map(|at| held[at % columns * rows + at / columns]).collect()
    } else {
        layer.layer.weight.clone()
    };
    of(integers, layer.layer.scales.clone(), layer.weight_sqnr)
}

fn of(weight: Integers, scales: Vec<f32>, weight_sqnr: Sqnr) -> Rounded {
    let granularity = Granularity::Channel;
    let layer = QuantizedLayer { weight, granularity, scales, zero_points: Vec::new(), bias: None };
    Rounded {
        layer,
        half_bias: None,
        weight_sqnr,
        output_sqnr: None,
        input_scale: None,
        fell_back: false,
        unsolved: None,
    }
}

/// What the pass writes of a rounded weight.
pub(crate) fn tensor_of(model: &Model, weight: &StoredWeight, rounded: &Rounded) -> StoredTensor {
    let scales = rounded.layer.scales.clone();
    let scale_shape = if scales.len() == 1 { vec![1; weight.shape.len()] } else { weight.scale_shape() };
    let tensor = model.graph.value(weight.value).name().to_owned();
    StoredTensor { tensor, integers: rounded.layer.weight.clone(), scales, scale_shape, at_load: weight.at_load }
}

fn missing(weight: &StoredWeight) -> SolveError {
    SolveError::Pass(msq_passes::PassError::Input(format!("`{}` is no constant", weight.name)))
}

/// Indices into a tensor, one channel after another.
fn channel_order(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let others: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let along = axes.iter().chain(&others).copied();
    along.fold(vec![0], |starts, axis| {
        let steps = |start: &usize| (0..shape[axis]).map(|i| start + i * strides[axis]).collect::<Vec<_>>();
        starts.iter().flat_map(steps).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::channel_order;

    #[test]
    fn channels_lie_along_the_axes() {
        assert_eq!(channel_order(&[2, 3], &[0]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(channel_order(&[2, 3], &[1]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(channel_order(&[2, 2, 2], &[0, 1]), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(channel_order(&[2, 2, 2], &[1]), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(channel_order(&[2, 2], &[]), [0, 1, 2, 3]);
    }
}
