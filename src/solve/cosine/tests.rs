//! Against naive cosines over every candidate, and what must never happen.

use super::*;
use crate::quant::{Granularity, GridKind, GridSpec};
use crate::solve::round::Round;
use crate::solve::synthetic::{granularity, noise};
use crate::solve::{Grid, Group};
use proptest::prelude::*;

/// What both networks feed: the quantized one with some error.
fn columns(count: usize, size: usize, seed: u64) -> Columns {
    let float: Vec<f32> = noise(count * size, seed).iter().map(|v| v.max(0.0)).collect();
    let error = noise(count * size, seed + 1);
    let quantized = float.iter().zip(error).map(|(x, e)| x + 0.1 * e).collect();
    Columns { size, quantized, float }
}

fn grid(bits: u8) -> Grid<'static> {
    Grid::Uniform(GridSpec::new(GridKind::Symmetric, bits).unwrap())
}

/// What a row computes at each column, in double precision.
fn computed(row: &[f64], columns: &[f32]) -> Vec<f64> {
    columns.chunks(row.len()).map(|x| row.iter().zip(x).map(|(w, &x)| w * f64::from(x)).sum()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&w| f64::from(w)).collect()
}

/// A row rounded to nearest on symmetric integers of so many bits.
fn rounded(row: &[f32], scale: f64, bits: u8) -> Vec<f64> {
    let reach = f64::from(1 << (bits - 1));
    row.iter().map(|&w| scale * (f64::from(w) / scale).round_ties_even().clamp(-reach, reach - 1.0)).collect()
}

/// 100 factors from one half to two.
fn factors() -> impl Iterator<Item = f64> {
    (0..100).map(|i| 0.5 + 1.5 * f64::from(i) / 99.0)
}

/// cos(y, ŷ) over all rows, naively.
fn similarity(weights: &[f32], solution: &Solution, float: &[f32], inputs: &[f32], size: usize) -> f64 {
    let mut outputs = (Vec::new(), Vec::new());
    for (row, weights) in weights.chunks(size).enumerate() {
        let scale = f64::from(solution.scales[row % solution.scales.len()]);
        let integers = &solution.integers[row * size..(row + 1) * size];
        let values: Vec<f64> = integers.iter().map(|&q| scale * f64::from(q)).collect();
        outputs.0.extend(computed(&wide(weights), float));
        outputs.1.extend(computed(&values, inputs));
    }
    cosine(&outputs.0, &outputs.1)
}

#[test]
fn finds_the_best_of_all_candidates() {
    let (size, rows) = (12, 6);
    let seen = columns(60, size, 1);
    let weights = noise(rows * size, 3);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }];
    for bits in [2, 3, 4, 8] {
        let problem = Problem::new(&groups, size, grid(bits));
        let (solution, plain) = (Cosine.solve(&problem).unwrap(), Round::default().solve(&problem).unwrap());
        for (row, weights) in weights.chunks(size).enumerate() {
            let y = computed(&wide(weights), &seen.float);
            let of = |scale: f64| cosine(&y, &computed(&rounded(weights, scale, bits), &seen.quantized));
            let largest = weights.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
            let base = f64::from(largest) / f64::from((1 << (bits - 1)) - 1);
            let best = factors().map(|f| of(f * base)).fold(-1.0, f64::max);
            let found = f64::from(solution.scales[row]);
            assert!(of(found) > best - 1e-7, "{bits} bits, row {row}: {} {best}", of(found));
            let values: Vec<f64> =
                solution.integers[row * size..][..size].iter().map(|&q| found * f64::from(q)).collect();
            assert!((cosine(&y, &computed(&values, &seen.quantized)) - of(found)).abs() < 1e-7);
            let candidate = |scale: f64| (found - scale).abs() < 0.016 * base;
            assert!(factors().any(|f| candidate(f * base)) || candidate(f64::from(plain.scales[row])));
        }
    }
}

#[test]
fn a_shared_scale_is_the_best_for_all_rows() {
    let (size, rows) = (10, 4);
    let seen = [columns(50, size, 5), columns(50, size, 7)];
    let weights = [noise(rows * size, 9), noise(rows * size, 10)];
    let groups: Vec<Group> = weights
        .iter()
        .zip(&seen)
        .map(|(weights, seen)| Group { weights, statistics: Statistics::Columns(seen) })
        .collect();
    let problem = Problem { granularity: Granularity::Tensor, ..Problem::new(&groups, size, grid(3)) };
    let solution = Cosine.solve(&problem).unwrap();
    let of = |scale: f64| {
        let mut outputs = (Vec::new(), Vec::new());
        for (weights, seen) in weights.iter().zip(&seen) {
            for row in weights.chunks(size) {
                outputs.0.extend(computed(&wide(row), &seen.float));
                outputs.1.extend(computed(&rounded(row, scale, 3), &seen.quantized));
            }
        }
        cosine(&outputs.0, &outputs.1)
    };
    let largest = weights.iter().flatten().fold(0.0_f32, |m, w| m.max(w.abs()));
    let best = factors().map(|f| of(f * f64::from(largest) / 3.0)).fold(-1.0, f64::max);
    assert_eq!(solution.scales.len(), 1);
    assert!(of(f64::from(solution.scales[0])) > best - 1e-7);
    let noise = solution.ratio.noise / solution.ratio.signal;
    assert!((noise - (1.0 - of(f64::from(solution.scales[0])).powi(2))).abs() < 1e-6);
}

#[test]
fn beats_plain_rounding() {
    let (size, rows) = (72, 24);
    let seen = columns(1000, size, 11);
    let weights = noise(rows * size, 13);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }];
    for (bits, least) in [(2, 0.05), (3, 0.1), (4, 0.1), (6, 0.05)] {
        for per_channel in [true, false] {
            let problem = Problem { granularity: granularity(per_channel), ..Problem::new(&groups, size, grid(bits)) };
            let solution = Cosine.solve(&problem).unwrap();
            let gain = solution.ratio.decibels() - solution.plain_ratio.decibels();
            assert!(gain >= if per_channel { least } else { 0.0 }, "{bits} {per_channel}: {gain}");
        }
    }
}

/// A range that reaches 1.6 times as far as the values, at 4 bits.
fn too_wide(seen: &Columns) -> Affine {
    let largest = seen.float.iter().fold(0.0_f32, |m, x| m.max(*x));
    Affine { scale: 1.6 * largest / 15.0, zero_point: 0, quantized_min: 0, quantized_max: 15 }
}

fn through(columns: &Columns, quantizer: Affine) -> Vec<f32> {
    columns.float.iter().map(|&x| quantizer.fake_quantize(x)).collect()
}

#[test]
fn narrows_an_input_range_that_is_too_wide() {
    let (size, rows) = (36, 16);
    let mut seen = columns(600, size, 15);
    let given = too_wide(&seen);
    seen.quantized = through(&seen, given);
    let weights = noise(rows * size, 17);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }];
    let least = vec![1e-3; rows];
    let problem = Problem { input: Some(given), least_scales: &least, ..Problem::new(&groups, size, grid(4)) };
    let fixed = Cosine.solve(&Problem { input: None, ..problem }).unwrap();
    assert_eq!(fixed.input_scale, None);
    let solution = Cosine.solve(&problem).unwrap();
    let scale = solution.input_scale.unwrap();
    assert!(scale < 0.8 * given.scale && scale > 0.49 * given.scale, "{scale} {}", given.scale);
    let inputs = through(&seen, Affine { scale, ..given });
    let [before, after] =
        [(&fixed, &seen.quantized), (&solution, &inputs)].map(|(s, x)| similarity(&weights, s, &seen.float, x, size));
    assert!(1.0 - after < 0.75 * (1.0 - before), "{before} {after}");
    // The bias meets the means with the new quantizer.
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / 600.0;
    for (row, shift) in solution.bias_shift.unwrap().into_iter().enumerate() {
        let here = row * size..(row + 1) * size;
        let scale = f64::from(solution.scales[row]);
        let values: Vec<f64> = solution.integers[here.clone()].iter().map(|&q| scale * f64::from(q)).collect();
        let error = mean(computed(&wide(&weights[here]), &seen.float)) - mean(computed(&values, &inputs));
        assert!((error - shift).abs() < 1e-5, "{error} {shift}");
    }
}

#[test]
fn the_input_scale_is_the_best_of_all_candidates() {
    let (size, rows) = (8, 3);
    let seen = columns(40, size, 19);
    let given = too_wide(&seen);
    let weights = noise(rows * size, 21);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }];
    let problem = Problem { input: Some(given), ..Problem::new(&groups, size, grid(4)) };
    let search = Search::new(&problem);
    let choice = search.weights(Some(given)).unwrap();
    let found = search.input(&choice).unwrap();
    let solution = assemble(&problem, &search, choice);
    let of =
        |scale: f32| similarity(&weights, &solution, &seen.float, &through(&seen, Affine { scale, ..given }), size);
    let best = factors().map(|f| of((f * f64::from(given.scale)) as f32)).fold(-1.0, f64::max);
    assert!(of(found.scale) > best - 1e-7 && of(found.scale) > of(given.scale));
    assert_eq!(Affine { scale: given.scale, ..found }, given);
}

#[test]
fn limits_of_scales_follow_the_input() {
    let (size, rows) = (16, 3);
    let seen = columns(200, size, 23);
    let given = too_wide(&seen);
    let weights = noise(rows * size, 25);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }];
    let least = [0.5, 0.0, 3.0];
    let problem = Problem { input: Some(given), least_scales: &least, ..Problem::new(&groups, size, grid(4)) };
    let solution = Cosine.solve(&problem).unwrap();
    let ratio = given.scale / solution.input_scale.unwrap_or(given.scale);
    assert!(solution.scales.iter().zip(least).all(|(&scale, least)| scale >= 0.9999 * least * ratio));
}

#[test]
fn same_bits_on_any_number_of_threads() {
    let (size, rows) = (50, 30);
    let seen = columns(300, size, 27);
    let weights = noise(rows * size, 29);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }; 2];
    for per_channel in [true, false] {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let problem = Problem {
                granularity: granularity(per_channel),
                input: Some(too_wide(&seen)),
                ..Problem::new(&groups, size, grid(3))
            };
            pool.install(|| Cosine.solve(&problem).unwrap())
        };
        assert_eq!(on(1), on(3));
    }
}

#[test]
fn large_layers_see_fewer_columns() {
    let (size, rows) = (1024, 2048);
    let seen = columns(600, size, 31);
    let weights = vec![0.5; rows * size];
    let sample = |rows: usize| {
        let group = Group { weights: &weights[..rows * size], statistics: Statistics::Columns(&seen) };
        sample::Sample::new(&group, size).inputs(None).len() / size
    };
    assert_eq!([sample(1), sample(rows)], [600, 512]);
}

fn sound(solution: &Solution) -> bool {
    let scales = solution.scales.iter().chain(&solution.input_scale);
    solution.ratio.noise <= solution.plain_ratio.noise
        && scales.into_iter().all(|s| s.is_normal() && *s > 0.0)
        && solution.bias_shift.iter().flatten().all(|b| b.is_finite())
}

#[test]
fn degenerate_inputs() {
    let size = 6;
    let (weights, zero) = (noise(2 * size, 33), vec![0.0; 2 * size]);
    let good = columns(50, size, 35);
    let of = |value: f32, count: usize| vec![value; count * size];
    let scaled = |factor: f32| good.float.iter().map(|x| x * factor).collect::<Vec<f32>>();
    let cases = [of(0.0, 0), of(1.0, 1), of(0.0, 7), of(1.0, 7), scaled(1e-30), scaled(1e30), of(f32::NAN, 7)];
    for float in cases {
        for quantized in [float.clone(), vec![0.0; float.len()]] {
            let seen = Columns { size, quantized, float: float.clone() };
            for weights in [&weights, &zero] {
                let groups = [Group { weights, statistics: Statistics::Columns(&seen) }];
                for (per_channel, input) in [(true, None), (false, None), (true, Some(too_wide(&good)))] {
                    for grid in [grid(2), Grid::Codebook(2)] {
                        let problem = Problem {
                            granularity: granularity(per_channel),
                            input,
                            ..Problem::new(&groups, size, grid)
                        };
                        let solution = Cosine.solve(&problem).unwrap();
                        assert!(sound(&solution), "{solution:?} {problem:?}");
                    }
                }
            }
        }
    }
    let unseen = [Group { weights: &weights, statistics: Statistics::Nothing }];
    let solution = Cosine.solve(&Problem::new(&unseen, size, grid(4))).unwrap();
    assert_eq!(solution.bias_shift, None);
    assert_eq!(solution.integers, Round::default().solve(&Problem::new(&unseen, size, grid(4))).unwrap().integers);
    let broken = [Group { weights: &of(f32::NAN, 1), statistics: Statistics::Columns(&good) }];
    assert!(Cosine.solve(&Problem::new(&broken, size, grid(4))).is_err());
    assert!(Cosine.solve(&Problem::new(&[], size, grid(4))).unwrap().integers.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_row_is_worse_than_plain_rounding(
        size in 1_usize..20, rows in 1_usize..5, count in 0_usize..40, bits in 2_u8..=8, seed in 0_u64..1000,
        per_channel: bool, entries in 0_u8..4,
    ) {
        let seen = columns(count, size, seed);
        let weights = noise(rows * size, seed + 2);
        let groups = [Group { weights: &weights, statistics: Statistics::Columns(&seen) }; 2];
        let grid = if entries > 0 { Grid::Codebook(entries) } else { grid(bits) };
        let problem = Problem { granularity: granularity(per_channel), ..Problem::new(&groups, size, grid) };
        let search = Search::new(&problem);
        let choice = search.weights(None).unwrap();
        let pairs = search.units(&choice.sums).into_iter().zip(search.units(&choice.plain_sums));
        for (unit, plain) in pairs {
            prop_assert!(unit.cosine() >= plain.cosine());
        }
        let solution = Cosine.solve(&problem).unwrap();
        prop_assert!(sound(&solution));
        let range = grid.spec().quantized_min()..=grid.spec().quantized_max();
        prop_assert!(solution.integers.iter().all(|&q| range.contains(&i32::from(q))));
        let distinct = solution.integers.iter().collect::<std::collections::BTreeSet<_>>().len();
        prop_assert!(entries == 0 || distinct <= 1 << entries);
    }
}
