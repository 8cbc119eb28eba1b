//! Chosen ranges against brute force on the data.

use super::*;
use crate::quant::{GridKind, Sqnr};

fn faked(values: &[f32], grid: GridSpec, range: Range) -> Vec<f32> {
    let mut faked = values.to_vec();
    grid.affine(range).fake_quantize_in_place(&mut faked);
    faked
}

fn measured_error(values: &[f32], grid: GridSpec, range: Range) -> f64 {
    Sqnr::of(values, &faked(values, grid, range)).mean_squared_error()
}

/// 1 − cos², directly by equations (6) and (7).
fn measured_angle(values: &[f32], grid: GridSpec, range: Range) -> f64 {
    let faked = faked(values, grid, range);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = dot(values, values) * dot(&faked, &faked);
    if lengths > 0.0 { 1.0 - dot(values, &faked).powi(2) / lengths } else { f64::INFINITY }
}

fn activation_grids() -> Vec<GridSpec> {
    let kinds = [GridKind::Unsigned, GridKind::Signed, GridKind::Symmetric, GridKind::SymmetricNarrow];
    kinds.into_iter().flat_map(|kind| [2, 4, 6, 8].map(|bits| GridSpec::new(kind, bits).unwrap())).collect()
}

/// Ranges from very narrow to the extremes.
fn candidates(extremes: Range, grid: GridSpec) -> Vec<Range> {
    let places = || (1..=25u8).map(|place| f32::from(place) / 25.0);
    let symmetric = extremes.absolute_maximum();
    if grid.is_symmetric() {
        places().map(|ratio| Range::new(-symmetric * ratio, symmetric * ratio)).collect()
    } else if extremes.min >= 0.0 {
        places().map(|ratio| Range::new(0.0, extremes.max * ratio)).collect()
    } else {
        places()
            .step_by(2)
            .flat_map(|below| places().step_by(2).map(move |above| (below, above)))
            .map(|(below, above)| Range::new(extremes.min * below, extremes.max * above))
            .collect()
    }
}

/// The outlier stretches the bins until few are left for the rest.
fn tolerance(name: &str) -> f64 {
    if name == "outlier" { 0.1 } else { 0.03 }
}

#[test]
fn expectations_agree_with_the_data() {
    for (name, values) in data_sets() {
        let kept = statistics(&values);
        for grid in activation_grids() {
            for ratio in [0.1, 0.4, 0.8, 1.0] {
                let extremes = kept.histogram.range().unwrap();
                let range = Range::new(extremes.min * ratio, extremes.max * ratio);
                let affine = grid.affine(range);
                let error = (expected_squared_error(&kept.histogram, &affine), measured_error(&values, grid, range));
                let cosine = cosine_similarity(&kept.histogram, &affine);
                for (expected, measured) in [error, (1.0 - cosine * cosine, measured_angle(&values, grid, range))] {
                    let relative = (expected - measured).abs() / measured;
                    assert!(relative < tolerance(name), "{name} {grid:?} {ratio}: {expected} against {measured}");
                }
            }
        }
    }
}

#[test]
fn searches_find_the_brute_force_range() {
    type Measure = fn(&[f32], GridSpec, Range) -> f64;
    let searches: [(ObserverKind, Measure); 2] =
        [(ObserverKind::Mse, measured_error), (ObserverKind::Cosine, measured_angle)];
    for (name, values) in data_sets() {
        let kept = statistics(&values);
        let extremes = kept.histogram.range().unwrap();
        for (grid, (kind, measure)) in activation_grids().into_iter().flat_map(|grid| searches.map(|s| (grid, s))) {
            let found = kind.range(&kept, grid);
            let measured = measure(&values, grid, found);
            let ranges = candidates(extremes, grid).into_iter();
            let best = ranges.map(|range| measure(&values, grid, range)).fold(f64::INFINITY, f64::min);
            assert!(measured <= best * 1.03, "{kind} {name} {grid:?}: {found:?} has {measured}, brute force {best}");
            if extremes.min >= 0.0 && !grid.is_symmetric() {
                let affine = grid.affine(found);
                assert_eq!(affine.zero_point, affine.quantized_min);
            }
        }
    }
}

#[test]
fn ranges_follow_the_number_of_bits() {
    let bits = [2, 3, 4, 8];
    for (name, values) in data_sets().into_iter().filter(|(name, _)| ["normal", "laplace", "relu"].contains(name)) {
        let kept = statistics(&values);
        for kind in [ObserverKind::Mse, ObserverKind::Cosine] {
            let width = |bits| {
                let range = kind.range(&kept, GridSpec::activation(bits).unwrap());
                range.max - range.min
            };
            let widths = bits.map(width);
            assert!(widths.is_sorted_by(|narrow, wide| narrow < wide), "{kind} {name}: {widths:?} at {bits:?} bits");
        }
    }
}

#[test]
fn every_observer_serves_few_bits() {
    let kinds = ["min-max", "moving-average", "percentile", "percentile:99", "entropy", "mse", "cosine"];
    let grid_kinds = [GridKind::Unsigned, GridKind::Signed, GridKind::Symmetric];
    let sets = data_sets().into_iter().chain([("constant", vec![2.5; 100]), ("positive", vec![1.0, 2.0, 3.0, 2.0])]);
    for (name, values) in sets {
        let kept = statistics(&values);
        let extremes = kept.histogram.range().unwrap().with_zero();
        for kind in kinds.map(|kind| kind.parse::<ObserverKind>().unwrap()) {
            for grid in grid_kinds.into_iter().flat_map(|kind| [2, 3, 4].map(|bits| GridSpec::new(kind, bits).unwrap()))
            {
                let range = kind.range(&kept, grid);
                assert!(range.min.is_finite() && range.max.is_finite() && range.min <= range.max, "{kind} {name}");
                let affine = grid.affine(range);
                let reached = affine.range();
                assert!(affine.scale.is_normal(), "{kind} {name} {grid:?}: {affine:?}");
                assert!(reached.min <= 0.0 && reached.max >= 0.0 && affine.fake_quantize(0.0) == 0.0, "{kind} {name}");
                // Rounding the zero point moves the ends by half a step, the extra integer of `Symmetric` by one.
                let slack = 1.001 * affine.scale;
                let largest = extremes.absolute_maximum() + slack;
                assert!(reached.absolute_maximum() <= largest, "{kind} {name} {grid:?}: {reached:?} of {extremes:?}");
                let error = measured_error(&values, grid, range);
                let least = measured_error(&values, grid, ObserverKind::Mse.range(&kept, grid));
                assert!(error < 1.01 * measured_error(&values, grid, Range::new(0.0, 1e-30)), "{kind} {name} {grid:?}");
                assert!(least <= error * (1.0 + tolerance(name)) + 1e-9, "{kind} {name} {grid:?}: {error} < {least}");
            }
        }
    }
}

#[test]
fn values_all_alike_keep_their_length() {
    for grid in activation_grids() {
        for values in [vec![5.0; 9], vec![0.0, 3.0, 0.0, 3.0]] {
            let largest = values[1];
            let kept = statistics(&values);
            let range = ObserverKind::Cosine.range(&kept, grid);
            let width = kept.histogram.bin_width() as f32;
            assert!((grid.affine(range).fake_quantize(largest) - largest).abs() <= width, "{grid:?}: {range:?}");
        }
    }
}

#[test]
fn similarity_of_a_few_values() {
    // Exact bins: one value each. 1 and 3 on a grid of step 2 limited to 2: n = 0 or 1 (ties to even), and 1.
    let kept = histogram(&[0.0, 4.0, 3.0]);
    let affine = crate::quant::Affine { scale: 2.0, zero_point: 0, quantized_min: 0, quantized_max: 1 };
    let expected = (4.0 + 3.0) / (25.0_f64 * 2.0).sqrt();
    assert!((cosine_similarity(&kept, &affine) - expected).abs() < 1e-3);
    let nothing = crate::quant::Affine { scale: 100.0, ..affine };
    assert_eq!(cosine_similarity(&kept, &nothing), 0.0);
    assert_eq!(cosine_similarity(&histogram(&[0.0, 0.0]), &affine), 1.0);
}

#[test]
fn entropy_is_sane_on_every_data_set() {
    for (name, values) in data_sets() {
        let kept = statistics(&values);
        let extremes = kept.histogram.range().unwrap();
        for grid in [GridSpec::ACTIVATION_U8, GridSpec::ACTIVATION_S8] {
            let range = ObserverKind::Entropy.range(&kept, grid);
            assert!(range.max <= extremes.absolute_maximum() && range.min >= -extremes.absolute_maximum());
            let power = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64;
            let decibels = 10.0 * (power / measured_error(&values, grid, range)).log10();
            // One value 40 times as large as all others holds most of the error when it is clipped, rightly so.
            assert!(
                decibels > if name == "outlier" { 5.0 } else { 20.0 },
                "{name} {grid:?}: {range:?} has {decibels} dB"
            );
        }
    }
}
