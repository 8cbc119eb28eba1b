//! Ranges of few samples, judged on others.

use super::*;
use crate::quant::{GridKind, Sqnr};

fn grid() -> GridSpec {
    GridSpec::new(GridKind::Unsigned, 8).unwrap()
}

fn observed(samples: &[Vec<f32>]) -> Statistics {
    let mut statistics = Statistics::new();
    for sample in samples {
        statistics.observe(sample);
    }
    statistics
}

fn drawn(count: usize, width: usize, seed: u64, value: impl Fn(&mut Stream) -> f64) -> Vec<Vec<f32>> {
    let mut stream = Stream(seed);
    (0..count).map(|_| (0..width).map(|_| value(&mut stream) as f32).collect()).collect()
}

/// Mean decibels on unseen samples, over seeds: of the least squared error, and of the extremes.
fn kept(samples: usize, width: usize, value: fn(&mut Stream) -> f64) -> [f64; 2] {
    let unseen = drawn(4000, width, 99, value).concat();
    let mut mean = [0.0; 2];
    for seed in 1..9 {
        let seen = observed(&drawn(samples, width, seed * 1001, value));
        for (sum, observer) in mean.iter_mut().zip([ObserverKind::Mse, ObserverKind::MinMax]) {
            let mut faked = unseen.clone();
            seen.affine(observer, grid()).fake_quantize_in_place(&mut faked);
            *sum += Sqnr::of(&unseen, &faked).decibels() / 8.0;
        }
    }
    mean
}

#[test]
fn ranges_of_few_samples_hold_for_others() {
    for (name, value) in [
        ("normal", Stream::normal as fn(&mut Stream) -> f64),
        ("rectified", |stream| stream.normal().max(0.0)),
        ("laplace", Stream::laplace),
        ("log-normal", |stream| (0.8 * stream.normal()).exp()),
    ] {
        let [least, extremes] = kept(24, 8, value);
        assert!(least > extremes + 3.0, "{name}: {least} {extremes}");
    }
}

#[test]
fn even_numbers_end_where_they_end() {
    let [least, extremes] = kept(64, 64, |stream| 2.0 * stream.uniform() - 1.0);
    assert!(least > extremes - 0.2, "{least} {extremes}");
}

/// Of very many values one more decides nothing.
#[test]
fn many_values_leave_the_range_as_it_is() {
    let samples = drawn(64, 8192, 5, Stream::normal);
    let many = observed(&samples);
    let one = statistics(&samples.concat());
    let [with, without] = [&many, &one].map(|statistics| ObserverKind::Mse.range(statistics, grid()));
    assert!((with.max / without.max - 1.0).abs() < 0.02 && (with.min / without.min - 1.0).abs() < 0.02);
    let share = |statistics| mse::unseen_share(statistics, &grid().affine(with));
    assert!(share(&many) < 0.03 && share(&one) == 0.0, "{}", share(&many));
    assert!(mse::unseen_share(&observed(&drawn(16, 8, 5, Stream::normal)), &grid().affine(with)) > 0.0);
}

#[test]
fn categories_keep_their_ends() {
    let rows: Vec<Vec<f32>> =
        (0..24).map(|row| (0..8).map(|at| f32::from(u8::from(row % 8 == at))).collect()).collect();
    let range = ObserverKind::Mse.range(&observed(&rows), grid());
    assert_eq!((range.min, range.max), (0.0, 1.0));
}
