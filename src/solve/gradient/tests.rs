//! Gradients against differences, Adam against its formula, mini-batches.

use super::*;
use crate::kernels::Columns;
use crate::quant::GridSpec;
use crate::solve::{Group, Statistics};

/// Values between −1 and 1, different for each seed.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| (i.wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761) ^ seed) >> 8;
    (0..count as u32).map(|i| mix(i.wrapping_mul(97).wrapping_add(mix(i))) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// L of all rows in units, over all columns.
fn loss(part: &Part, values: &[f32]) -> f64 {
    let count = part.reading.count() as f64;
    let unit = f64::from(part.reading.unit);
    part.errors(values).iter().zip(&part.scales).map(|(e, &s)| e / (count * (f64::from(s) * unit).powi(2))).sum()
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let (size, rows, count) = (7, 18, 40);
    let columns = Columns { size, quantized: values(count * size, 1), float: values(count * size, 2) };
    let (weights, bias) = (values(rows * size, 3), values(rows, 4));
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    let scales: Vec<f32> = values(rows, 5).iter().map(|v| 0.2 + 0.1 * v).collect();
    for (rectified, centered) in [(false, false), (true, false), (false, true), (true, true)] {
        let grid = Grid::Uniform(GridSpec::WEIGHT_S8);
        let problem = Problem { rectified, centered, bias: &bias, ..Problem::new(&groups, size, grid) };
        let readings = Reading::all(&problem);
        for part in Part::all(&problem, &readings, &scales) {
            let mut at: Vec<f32> = part.weights.iter().map(|w| w.round()).collect();
            let mut gradient = vec![0.0; at.len()];
            let mut batches = Batches::new(0);
            assert!(part.gradient(&mut batches, &at, &mut Buffers::default(), &mut gradient));
            for i in 0..at.len() {
                let step = 1e-3;
                let value = at[i];
                let mut moved = |by: f32| {
                    at[i] = value + by;
                    loss(&part, &at)
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                at[i] = value;
                let error = (slope - f64::from(gradient[i])).abs();
                assert!(error < 5e-3 * (1.0 + slope.abs()), "{rectified} {centered} {i}: {slope} {}", gradient[i]);
            }
        }
    }
}

#[test]
fn parts_and_their_rows_are_those_of_the_layer() {
    let (size, rows) = (3, 20);
    let columns = Columns { size, quantized: values(5 * size, 6), float: values(5 * size, 7) };
    let weights = values(2 * rows * size, 8);
    let groups =
        weights.chunks(rows * size).map(|weights| Group { weights, statistics: Statistics::Columns(&columns) });
    let groups: Vec<Group> = groups.collect();
    let problem = Problem::new(&groups, size, Grid::Codebook(2));
    let readings = Reading::all(&problem);
    let parts = Part::all(&problem, &readings, &vec![0.5; 2 * rows]);
    assert_eq!(parts.iter().map(|part| part.first).collect::<Vec<_>>(), [0, 16, 20, 36]);
    let all: Vec<f32> = parts.iter().flat_map(|part| &part.weights).map(|w| w * 0.5).collect();
    assert_eq!(all, weights);
}

#[test]
fn the_first_step_of_adam_is_as_long_as_its_rate() {
    let mut adam = Adam::new(3);
    let mut at = [1.0, 1.0, 1.0];
    adam.update(&mut at, &[1e-3, -50.0, 0.0], 0.1);
    for (value, expected) in at.iter().zip([0.9, 1.1, 1.0]) {
        assert!((value - expected).abs() < 1e-5, "{at:?}");
    }
    // m = 0.9·0.1·g₁ + 0.1·g₂, s = 0.999·0.001·g₁² + 0.001·g₂², both divided by 1 − decay².
    adam.update(&mut at, &[2e-3, 50.0, 0.0], 0.1);
    let mean = (0.9 * 0.1 * 1e-3 + 0.1 * 2e-3) / (1.0 - 0.81);
    let square: f32 = (0.999 * 0.001 * 1e-6 + 0.001 * 4e-6) / (1.0 - 0.998_001);
    assert!((at[0] - (0.9 - 0.1 * mean / square.sqrt())).abs() < 1e-4, "{at:?}");
}

#[test]
fn mini_batches_reach_all_columns() {
    let mut batches = Batches::new(3);
    let (mut batch, mut seen) = (Vec::new(), vec![false; 300]);
    for _ in 0..100 {
        batches.draw(300, &mut batch);
        for &at in &batch {
            seen[at] = true;
        }
    }
    assert!(seen.iter().all(|&seen| seen));
    batches.draw(5, &mut batch);
    assert_eq!(batch, [0, 1, 2, 3, 4]);
    batches.draw(0, &mut batch);
    assert!(batch.is_empty());
}
