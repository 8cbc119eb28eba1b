//! Properties of the statistics, and observers against brute force on the data.

#![allow(clippy::unwrap_used)]

mod few;
mod masked;
mod ranges;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::quant::{GridSpec, Range};

/// Any float, NaN and infinities included.
fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![3 => any::<u32>().prop_map(f32::from_bits), 1 => Just(0.0f32), 1 => Just(-0.0f32)]
}

/// Parts of data of very different magnitude.
fn parts() -> impl Strategy<Value = Vec<Vec<f32>>> {
    vec(vec(prop_oneof![any_float(), -1f32..1.0, -1e3f32..1e3], 0..40), 1..8)
}

fn histogram(values: &[f32]) -> Histogram {
    let mut histogram = Histogram::new();
    histogram.observe(values);
    histogram
}

fn statistics(values: &[f32]) -> Statistics {
    let mut statistics = Statistics::new();
    statistics.observe(values);
    statistics
}

/// A fixed stream of uniform numbers in [0, 1).
struct Stream(u64);

impl Stream {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    fn laplace(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln() * if self.uniform() < 0.5 { -1.0 } else { 1.0 }
    }
}

/// Named sets of activations as layers make them.
fn data_sets() -> Vec<(&'static str, Vec<f32>)> {
    let mut stream = Stream(7);
    let mut draw = |value: fn(&mut Stream) -> f64| (0..40_000).map(|_| value(&mut stream) as f32).collect::<Vec<_>>();
    let mut outlier = draw(|stream| stream.normal().max(0.0));
    outlier[5] = 90.0;
    vec![
        ("normal", draw(Stream::normal)),
        ("relu", draw(|stream| stream.normal().max(0.0))),
        ("relu6", draw(|stream| (4.0 * stream.normal()).clamp(0.0, 6.0))),
        ("laplace", draw(|stream| 3.0 * stream.laplace())),
        (
            "silu",
            draw(|stream| {
                let x = 3.0 * stream.normal();
                x / (1.0 + (-x).exp())
            }),
        ),
        ("shifted", draw(|stream| stream.normal() + 2.0)),
        ("negative", draw(|stream| -stream.normal().abs())),
        ("outlier", outlier),
    ]
}

proptest! {
    #[test]
    fn order_and_merge_tree_do_not_matter(parts in parts(), split in 0..8usize, rotation in 0..8usize) {
        let whole = histogram(&parts.concat());
        let merge = |parts: &[Vec<f32>]| parts.iter().map(|part| histogram(part)).fold(Histogram::new(), |mut sum, part| {
            sum.merge(&part);
            sum
        });
        let mut rotated = parts.clone();
        rotated.rotate_left(rotation % parts.len());
        for part in &mut rotated {
            part.reverse();
        }
        prop_assert_eq!(&merge(&parts), &whole);
        prop_assert_eq!(&merge(&rotated), &whole);
        let (first, second) = parts.split_at(split.min(parts.len()));
        let mut tree = merge(second);
        tree.merge(&merge(first));
        prop_assert_eq!(&tree, &whole);
        let mut grown = Histogram::new();
        for part in &rotated {
            grown.observe(part);
        }
        prop_assert_eq!(&grown, &whole);
    }

    #[test]
    fn counts_add_up(parts in parts(), step in 0..7usize) {
        let values = parts.concat();
        let mut histogram = Histogram::new();
        histogram.observe_strided(&values, step);
        let count = |keep: fn(f32) -> bool| values.iter().filter(|value| keep(**value)).count() as u64;
        prop_assert_eq!(histogram.count(), count(f32::is_finite));
        prop_assert_eq!(histogram.nan(), count(f32::is_nan));
        prop_assert_eq!(histogram.infinite(), count(f32::is_infinite));
        let sampled: Vec<f32> = values.iter().step_by(step.max(1)).copied().filter(|value| value.is_finite()).collect();
        prop_assert_eq!(histogram.binned(), sampled.len() as u64);
        prop_assert_eq!(histogram.zeros(), sampled.iter().filter(|value| **value == 0.0).count() as u64);
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let expected = finite().reduce(f32::min).zip(finite().reduce(f32::max)).map(|(min, max)| Range::new(min, max));
        prop_assert_eq!(histogram.range(), expected);
        for bin in histogram.bins() {
            let inside = |value: f32| (bin.lower..=bin.upper).contains(&f64::from(value));
            prop_assert!(bin.lower <= bin.upper);
            prop_assert!(sampled.iter().filter(|value| inside(**value)).count() as u64 >= bin.count);
        }
    }

    #[test]
    fn files_keep_statistics(parts in parts()) {
        let mut kept = Statistics::new();
        for part in &parts {
            kept.observe(part);
        }
        let text = serde_json::to_string(&kept.histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), kept.histogram);
    }

    #[test]
    fn observers_accept_anything(parts in parts(), percent in any::<f64>()) {
        let mut kept = Statistics::new();
        for part in &parts {
            kept.observe(part);
        }
        let kinds = [
            ObserverKind::MinMax, ObserverKind::MovingAverage, ObserverKind::Percentile(percent), ObserverKind::Entropy,
            ObserverKind::Mse, ObserverKind::Cosine,
        ];
        for kind in kinds {
            for grid in [GridSpec::ACTIVATION_U8, GridSpec::ACTIVATION_S8, GridSpec::activation(2).unwrap()] {
                let range = kind.range(&kept, grid);
                prop_assert!(range.min.is_finite() && range.max.is_finite() && range.min <= range.max, "{kind} {range:?}");
                let affine = kept.affine(kind, grid);
                prop_assert!(affine.scale.is_normal());
                prop_assert_eq!(affine.fake_quantize(0.0), 0.0);
            }
        }
    }

    #[test]
    fn percentiles_agree_with_sorting(mut values in vec(-50f32..100.0, 1..3000), percent in 50f64..100.0, zeros in 0..500usize) {
        values.extend(vec![0.0; zeros]);
        let kept = statistics(&values);
        let width = kept.histogram.bin_width();
        values.sort_by(f32::total_cmp);
        let kind = ObserverKind::Percentile(percent);
        let asymmetric = kind.range(&kept, GridSpec::ACTIVATION_U8);
        let tail = (1.0 - percent / 100.0) / 2.0 * values.len() as f64;
        let skipped = (tail.ceil() as usize).saturating_sub(1);
        let expected = [values[skipped], values[values.len() - 1 - skipped]];
        for (found, expected) in [asymmetric.min, asymmetric.max].into_iter().zip(expected) {
            prop_assert!(f64::from((found - expected).abs()) <= width, "{found} {expected} {width}");
        }
        let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        magnitudes.sort_by(f32::total_cmp);
        let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
        let expected = magnitudes[rank.clamp(1, values.len()) - 1];
        let symmetric = kind.range(&kept, GridSpec::ACTIVATION_S8);
        prop_assert!(f64::from((symmetric.max - expected).abs()) <= width);
        prop_assert_eq!(symmetric.min, -symmetric.max);
    }

    #[test]
    fn moving_average_of_stretches_is_that_of_the_whole(
        samples in vec((-9f32..1.0, 1f32..9.0), 1..60), cuts in vec(0..60usize, 3),
    ) {
        let stretch = |samples: &[(f32, f32)]| samples.iter().fold(MovingAverage::default(), |mut average, sample| {
            average.observe(Range::new(sample.0, sample.1));
            average
        });
        let (mut min, mut max) = (f64::from(samples[0].0), f64::from(samples[0].1));
        for sample in &samples[1..] {
            min += AVERAGING_CONSTANT * (f64::from(sample.0) - min);
            max += AVERAGING_CONSTANT * (f64::from(sample.1) - max);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(samples.len())).collect();
        cuts.sort_unstable();
        let bounds = [0, cuts[0], cuts[1], cuts[2], samples.len()];
        let stretches: Vec<MovingAverage> = bounds.windows(2).map(|cut| stretch(&samples[cut[0]..cut[1]])).collect();
        let mut left = MovingAverage::default();
        for later in &stretches {
            left.merge(later);
        }
        let mut right = MovingAverage::default();
        for earlier in stretches.iter().rev() {
            let mut sum = *earlier;
            sum.merge(&right);
            right = sum;
        }
        for average in [stretch(&samples), left, right] {
            prop_assert_eq!(average.samples(), samples.len() as u64);
            let range = average.range().unwrap();
            prop_assert!((f64::from(range.min) - min).abs() < 1e-5 && (f64::from(range.max) - max).abs() < 1e-5);
        }
    }

    #[test]
    fn batches_are_their_samples(samples in vec(vec(any_float(), 12), 1..6), step in 1..5usize) {
        let mut single = Statistics::new();
        for sample in &samples {
            single.observe_strided(sample, step);
        }
        let mut batched = Statistics::new();
        batched.observe_batch(&samples.concat(), samples.len(), step);
        prop_assert_eq!(single, batched);
    }
}

#[test]
fn large_and_small_slices_are_counted_alike() {
    let mut stream = Stream(3);
    let values: Vec<f32> =
        (0..100_003).map(|_| stream.normal().max(-0.5) as f32).map(|x| if x < 0.0 { 0.0 } else { x - 0.2 }).collect();
    let mut small = Histogram::new();
    values.chunks(997).for_each(|part| small.observe(part));
    assert_eq!(small, histogram(&values));
    let mut poisoned = values.clone();
    poisoned.push(f32::NAN);
    let mut expected = histogram(&values);
    expected.observe(&[f32::NAN]);
    assert_eq!(histogram(&poisoned), expected);
    let mut strided = Histogram::new();
    strided.observe_strided(&values, 3);
    let sampled: Vec<f32> = values.iter().copied().step_by(3).collect();
    assert_eq!(strided.positive().iter().sum::<u64>(), histogram(&sampled).positive().iter().sum::<u64>());
    let zeros = histogram(&vec![0.0; 50_000]);
    assert_eq!((zeros.zeros(), zeros.binned(), zeros.positive().len()), (50_000, 50_000, 0));
}

#[test]
fn clipped_activations_keep_their_limit() {
    let (_, values) = data_sets().swap_remove(2);
    let kept = statistics(&values);
    for kind in [ObserverKind::MinMax, ObserverKind::Mse, ObserverKind::Percentile(99.999)] {
        let range = kind.range(&kept, GridSpec::ACTIVATION_U8);
        assert!((range.max - 6.0).abs() < 0.03, "{kind}: {range:?}");
        assert_eq!(range.min, 0.0);
    }
}

#[test]
fn observers_drop_an_outlier() {
    let (_, values) = data_sets().pop().unwrap();
    let kept = statistics(&values);
    let range = |kind: ObserverKind, grid| kind.range(&kept, grid).max;
    assert_eq!(range(ObserverKind::MinMax, GridSpec::ACTIVATION_U8), 90.0);
    let coarse = GridSpec::activation(4).unwrap();
    for kind in [ObserverKind::Percentile(99.99), ObserverKind::Entropy, ObserverKind::Mse] {
        assert!(range(kind, coarse) < 20.0, "{kind}: {}", range(kind, coarse));
    }
}

#[test]
fn one_tiny_value_is_its_own_range() {
    let tiny = statistics(&[4e-45]);
    let range = ObserverKind::Percentile(50.0).range(&tiny, GridSpec::ACTIVATION_U8);
    assert_eq!(range, Range::new(4e-45, 4e-45));
}

#[test]
fn nothing_seen_gives_a_usable_grid() {
    let empty = statistics(&[f32::NAN, f32::INFINITY]);
    for name in ["min-max", "moving-average", "percentile", "entropy", "mse", "cosine"] {
        let kind: ObserverKind = name.parse().unwrap();
        assert_eq!(kind.range(&empty, GridSpec::ACTIVATION_U8), Range::default());
        assert_eq!(kind.to_string(), name);
    }
}

#[test]
fn names_of_observers() {
    assert_eq!("percentile:99.9".parse(), Ok(ObserverKind::Percentile(99.9)));
    assert_eq!(ObserverKind::Percentile(99.9).to_string(), "percentile:99.9");
    assert_eq!(serde_json::to_string(&ObserverKind::MinMax).unwrap(), "\"min-max\"");
    assert_eq!(serde_json::from_str::<ObserverKind>("\"mse\"").unwrap(), ObserverKind::Mse);
    for wrong in ["", "max", "percentile:", "percentile:30", "percentile:NaN", "percentile:101"] {
        let error = wrong.parse::<ObserverKind>().unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{wrong}` is no observer")));
    }
}

#[test]
fn damaged_files_are_refused() {
    let text = serde_json::to_string(&histogram(&[1.0, -2.0])).unwrap();
    let shorter = text.replacen("0,", "", 1);
    assert!(serde_json::from_str::<Histogram>(&shorter).is_err());
    assert!(serde_json::from_str::<Histogram>(&text.replace("\"exponent\":-9", "\"exponent\":900")).is_err());
}

#[test]
fn widening_moves_both_ends() {
    assert_eq!(widen(Range::new(-1.0, 3.0), 1.5), Range::new(-1.5, 4.5));
    assert_eq!(widen(Range::new(0.0, f32::MAX), 2.0), Range::new(0.0, f32::MAX));
    for factor in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
        assert_eq!(widen(Range::new(-1.0, 3.0), factor), Range::new(-1.0, 3.0));
    }
}
