//! Properties of grids and rounding, on all kinds of floats.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const KINDS: [GridKind; 4] = [GridKind::Unsigned, GridKind::Signed, GridKind::Symmetric, GridKind::SymmetricNarrow];

fn grids() -> impl Strategy<Value = GridSpec> {
    (0..4usize, 2..=8u8).prop_map(|(kind, bits)| GridSpec::new(KINDS[kind], bits).unwrap())
}

/// Every float there is, NaN and infinities included.
fn any_float() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

/// Bell-shaped weights, scaled by any power of ten.
fn weights(length: usize) -> impl Strategy<Value = Vec<f32>> {
    (vec((-1.0f32..1.0, -1.0f32..1.0, -1.0f32..1.0), length), -30..30i32).prop_map(|(triples, exponent)| {
        triples.into_iter().map(|(a, b, c)| (a + b + c) * a * 10f32.powi(exponent)).collect()
    })
}

fn mse(grid: GridSpec) -> WeightQuantizer<'static> {
    WeightQuantizer::new(grid, ScaleSearch::MeanSquaredError).unwrap()
}

proptest! {
    #[test]
    fn every_range_gives_a_valid_grid_with_exact_zero(grid in grids(), min in any_float(), max in any_float()) {
        let affine = grid.affine(Range::new(min, max));
        prop_assert!(affine.scale.is_normal() && affine.scale > 0.0);
        prop_assert!((affine.quantized_min..=affine.quantized_max).contains(&affine.zero_point));
        prop_assert_eq!(affine.quantize(0.0), affine.zero_point);
        prop_assert_eq!(affine.quantize(-0.0), affine.zero_point);
        prop_assert_eq!(affine.fake_quantize(-0.0).to_bits(), 0);
        prop_assert!(affine.range().min.is_finite() && affine.range().max.is_finite());
        prop_assert!(!grid.is_symmetric() || affine.zero_point == 0);
    }

    #[test]
    fn any_float_quantizes_into_the_grid(grid in grids(), min in any_float(), max in any_float(), value in any_float()) {
        let affine = grid.affine(Range::new(min, max));
        let quantized = affine.quantize(value);
        prop_assert!((affine.quantized_min..=affine.quantized_max).contains(&quantized));
        prop_assert_eq!(affine.dequantize(quantized).to_bits(), affine.fake_quantize(value).to_bits());
        if value.is_nan() {
            prop_assert_eq!(quantized, affine.zero_point);
        } else {
            // The reference order of QuantizeLinear: round, add, saturate.
            let reference = (f64::from((value / affine.scale).round_ties_even()) + f64::from(affine.zero_point))
                .clamp(f64::from(affine.quantized_min), f64::from(affine.quantized_max));
            prop_assert_eq!(f64::from(quantized), reference);
        }
        // Quantizing what came out of the grid changes nothing.
        prop_assert_eq!(affine.quantize(affine.dequantize(quantized)), quantized);
    }

    #[test]
    fn error_inside_the_range_is_half_a_step(
        grid in grids(), min in -1.0f32..1.0, max in -1.0f32..1.0, at in 0.0f64..1.0, exponent in -45..38i32,
    ) {
        let unit = 10f64.powi(exponent);
        let range = Range::new((f64::from(min) * unit) as f32, (f64::from(max) * unit) as f32).with_zero();
        let affine = grid.affine(range);
        let value = (f64::from(range.min) + at * (f64::from(range.max) - f64::from(range.min))) as f32;
        let error = (f64::from(value) - f64::from(affine.fake_quantize(value))).abs();
        prop_assert!(error <= f64::from(affine.scale) * 0.500_1, "{value} {error} {affine:?}");
    }

    #[test]
    fn ranges_above_zero_have_their_zero_point_at_the_bottom(bits in 2..=8u8, max in any_float()) {
        for kind in [GridKind::Unsigned, GridKind::Signed] {
            let affine = GridSpec::new(kind, bits).unwrap().affine(Range::new(0.0, max.abs()));
            prop_assert_eq!(affine.zero_point, affine.quantized_min);
        }
    }

    #[test]
    fn slices_agree_with_scalars(values in vec(any_float(), 0..40), min in -9f32..0.0, max in 0f32..9.0) {
        let range = Range::new(min, max);
        let affine = GridSpec::ACTIVATION_U8.affine(range);
        let expected: Vec<f32> = values.iter().map(|&value| affine.fake_quantize(value)).collect();
        prop_assert_eq!(affine.dequantize_slice(&affine.quantize_u8(&values)), &expected[..]);
        prop_assert_eq!(affine.dequantize_slice(&affine.quantize_slice(&values)), &expected[..]);
        let signed = GridSpec::ACTIVATION_S8.affine(range);
        let mut faked = values.clone();
        signed.fake_quantize_in_place(&mut faked);
        prop_assert_eq!(signed.dequantize_slice(&signed.quantize_i8(&values)), faked);
    }

    #[test]
    fn searched_scales_are_never_worse(bits in 2..=8u8, full in any::<bool>(), weight in weights(96)) {
        let kind = if full { GridKind::Symmetric } else { GridKind::SymmetricNarrow };
        let grid = GridSpec::new(kind, bits).unwrap();
        let plain = WeightQuantizer::new(grid, ScaleSearch::AbsoluteMaximum).unwrap();
        for axis in [None, Some(0), Some(1)] {
            let searched = mse(grid).quantize(&weight, &[8, 12], axis).unwrap();
            let plain = plain.quantize(&weight, &[8, 12], axis).unwrap();
            let (searched_noise, plain_noise) = (searched.sqnr(&weight).noise, plain.sqnr(&weight).noise);
            prop_assert!(searched_noise <= plain_noise * (1.0 + 1e-12), "{searched_noise} > {plain_noise}");
        }
    }

    #[test]
    fn search_is_near_the_brute_force_optimum(bits in 2..=8u8, weight in weights(64)) {
        let grid = GridSpec::weight(bits).unwrap();
        let found = mse(grid).quantize(&weight, &[64], None).unwrap();
        let absolute_maximum = weight.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        prop_assume!(absolute_maximum > 0.0);
        let noise = |ratio: f32| {
            let scale = absolute_maximum * ratio / grid.quantized_max() as f32;
            let affine = Affine { scale, ..grid.affine(Range::default()) };
            let faked: Vec<f32> = weight.iter().map(|&value| affine.fake_quantize(value)).collect();
            Sqnr::of(&weight, &faked).noise
        };
        let best = (100..=2000).map(|step| noise(step as f32 / 2000.0)).fold(f64::INFINITY, f64::min);
        // A short vector has a jagged error; longer ones come much closer.
        prop_assert!(found.sqnr(&weight).noise <= best * 1.2 + 1e-300, "{} > {best}", found.sqnr(&weight).noise);
    }

    #[test]
    fn channels_are_independent(weight in weights(60), other in weights(60), axis in 0..3usize, changed in 0..3usize) {
        let shape = [3, 5, 4];
        let changed = changed % shape[axis];
        let inner: usize = shape[axis + 1..].iter().product();
        let channel = |index: usize| index / inner % shape[axis];
        let mixed: Vec<f32> =
            (0..60).map(|index| if channel(index) == changed { other[index] } else { weight[index] }).collect();
        let first = mse(GridSpec::WEIGHT_S8).quantize(&weight, &shape, Some(axis)).unwrap();
        let second = mse(GridSpec::WEIGHT_S8).quantize(&mixed, &shape, Some(axis)).unwrap();
        for index in (0..60).filter(|&index| channel(index) != changed) {
            prop_assert_eq!(first.data[index], second.data[index]);
            prop_assert_eq!(first.scales[channel(index)], second.scales[channel(index)]);
        }
        // Each channel alone is a tensor under one scale.
        let alone: Vec<f32> = (0..60).filter(|&index| channel(index) == changed).map(|index| other[index]).collect();
        let alone = mse(GridSpec::WEIGHT_S8).quantize(&alone, &[alone.len()], None).unwrap();
        prop_assert_eq!(alone.scales[0], second.scales[changed]);
    }

    #[test]
    fn finite_weights_never_fail(bits in 2..=8u8, bitwise in vec(any_float(), 24)) {
        let finite = bitwise.iter().all(|value| value.is_finite());
        let result = mse(GridSpec::weight(bits).unwrap()).quantize(&bitwise, &[2, 3, 4], Some(1));
        prop_assert_eq!(result.is_ok(), finite);
        if let Ok(quantized) = result {
            prop_assert!(quantized.scales.iter().all(|scale| scale.is_normal() && *scale > 0.0));
            prop_assert!(quantized.dequantize().iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn bias_never_panics(bias in vec(any_float(), 5), input in any_float(), scales in vec(any_float(), 5)) {
        let quantized = quantize_bias(&bias, input, &scales).unwrap();
        prop_assert_eq!(quantized.data.len(), 5);
        prop_assert!(minimum_weight_scales(&bias, input).iter().all(|scale| scale.is_normal()));
    }

    #[test]
    fn minimum_scales_keep_the_bias_unclipped(bias in vec(-100f32..100.0, 6), input in 1e-5f32..1.0) {
        let weight = [1e-12f32; 12];
        let minimums = minimum_weight_scales(&bias, input);
        let quantized = mse(GridSpec::WEIGHT_S8)
            .with_minimum_scales(&minimums)
            .quantize(&weight, &[6, 2], Some(0))
            .unwrap();
        prop_assert_eq!(quantize_bias(&bias, input, &quantized.scales).unwrap().saturated, 0);
    }

    #[test]
    fn sqnr_merges(values in vec(-9f32..9.0, 2..50), split in 0..50usize) {
        let faked: Vec<f32> = values.iter().map(|value| value * 0.9).collect();
        let split = split.min(values.len());
        let mut merged = Sqnr::of(&values[..split], &faked[..split]);
        merged.merge(&Sqnr::of(&values[split..], &faked[split..]));
        let whole = Sqnr::of(&values, &faked);
        prop_assert_eq!(merged.count, whole.count);
        prop_assert!((merged.noise - whole.noise).abs() <= 1e-12 * whole.noise);
    }
}

#[test]
fn ties_go_to_even() {
    let affine = Affine { scale: 2.0, zero_point: 3, quantized_min: 0, quantized_max: 255 };
    let quantized = affine.quantize_slice(&[-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 1e9, f32::NAN]);
    assert_eq!(quantized, [0, 1, 1, 3, 3, 5, 5, 255, 3]);
}

#[test]
fn degenerate_ranges() {
    let unsigned = GridSpec::ACTIVATION_U8;
    let zero = unsigned.affine(Range::default());
    assert_eq!((zero.scale, zero.zero_point), (1.0 / 255.0, 0));
    let tiny = unsigned.affine(Range::new(0.0, 1e-42));
    assert_eq!((tiny.scale, tiny.zero_point), (f32::MIN_POSITIVE, 0));
    let huge = unsigned.affine(Range::new(f32::NEG_INFINITY, f32::INFINITY));
    assert!(huge.scale.is_finite() && huge.zero_point == 128);
    let unknown = unsigned.affine(Range::new(f32::NAN, f32::NAN));
    assert_eq!(unknown, zero);
    let negative = unsigned.affine(Range::new(-5.1, -1.0));
    assert_eq!(negative.zero_point, 255);
}

#[test]
fn grids_have_the_integers_they_name() {
    let ends = |spec: GridSpec| (spec.quantized_min(), spec.quantized_max());
    assert_eq!(ends(GridSpec::ACTIVATION_U8), (0, 255));
    assert_eq!(ends(GridSpec::ACTIVATION_S8), (-128, 127));
    assert_eq!(ends(GridSpec::WEIGHT_S8), (-127, 127));
    assert_eq!(ends(GridSpec::weight(2).unwrap()), (-1, 1));
    assert_eq!(ends(GridSpec::new(GridKind::Signed, 4).unwrap()), (-8, 7));
    assert_eq!(GridSpec::weight(1), Err(QuantError::UnsupportedBits { bits: 1 }));
    assert_eq!(GridSpec::weight(9), Err(QuantError::UnsupportedBits { bits: 9 }));
    let text = serde_json::to_string(&GridSpec::WEIGHT_S8).unwrap();
    assert_eq!(serde_json::from_str::<GridSpec>(&text).unwrap(), GridSpec::WEIGHT_S8);
    assert!(serde_json::from_str::<GridSpec>(&text.replace('8', "40")).is_err());
}

#[test]
fn zero_channels_keep_a_usual_scale() {
    let weight = [0.0, 0.0, 0.5, -1.0];
    let quantized = mse(GridSpec::WEIGHT_S8).quantize(&weight, &[2, 2], Some(0)).unwrap();
    assert_eq!(quantized.scales[0], ZERO_CHANNEL_SCALE);
    assert_eq!(quantized.data[..2], [0, 0]);
    let empty = mse(GridSpec::WEIGHT_S8).quantize(&[], &[3, 0], Some(0)).unwrap();
    assert_eq!((empty.scales.len(), empty.dequantize().len()), (3, 0));
    let scalar = mse(GridSpec::WEIGHT_S8).quantize(&[0.25], &[], None).unwrap();
    assert_eq!((scalar.data[0], scalar.dequantize()[0]), (127, 0.25));
}

#[test]
fn refusals_name_their_reason() {
    let quantizer = mse(GridSpec::WEIGHT_S8);
    let refusal = |values: &[f32], shape: &[usize], axis| quantizer.quantize(values, shape, axis).unwrap_err();
    assert_eq!(refusal(&[1.0], &[2], None).to_string(), "shape [2] does not hold 1 values");
    assert_eq!(
        refusal(&[1.0], &[usize::MAX, 2], None).to_string(),
        format!("shape [{}, 2] does not hold 1 values", usize::MAX)
    );
    assert_eq!(refusal(&[1.0], &[1], Some(1)).to_string(), "axis 1 does not exist in a tensor of rank 1");
    assert_eq!(refusal(&[f32::NAN], &[1], None), QuantError::NonFiniteWeight { count: 1 });
    let asymmetric = WeightQuantizer::new(GridSpec::ACTIVATION_U8, ScaleSearch::AbsoluteMaximum);
    assert_eq!(asymmetric.unwrap_err(), QuantError::AsymmetricWeightGrid);
    assert!(quantize_bias(&[1.0, 2.0, 3.0], 1.0, &[1.0, 1.0]).is_err());
}

#[test]
fn bias_counts_what_it_clips() {
    let quantized = quantize_bias(&[0.5, 1e9, f32::NAN, -0.25], 0.5, &[0.25]).unwrap();
    assert_eq!(quantized.data, [4, i32::MAX, 0, -2]);
    assert_eq!((quantized.scales, quantized.saturated), (vec![0.125], 2));
}

#[test]
fn threads_do_not_change_the_result() {
    let weight: Vec<f32> =
        (0..600_000u32).map(|index| (index.wrapping_mul(2_654_435_761) as f32 / 1e9 - 2.0).powi(3)).collect();
    let quantize = |threads: usize, axis: Option<usize>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| mse(GridSpec::weight(4).unwrap()).quantize(&weight, &[60, 10_000], axis).unwrap())
    };
    for axis in [None, Some(0), Some(1)] {
        assert_eq!(quantize(1, axis), quantize(3, axis));
    }
}
