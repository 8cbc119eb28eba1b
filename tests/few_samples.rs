//! Few calibration samples of few values: what is stated is what other samples get, and ranges leave room for them.

use crate::common::models::{self, random};
use msq_onnx::calibrate::ObserverKind;
use msq_onnx::data::{Array, Dataset, Sample};
use msq_onnx::engine::standard;
use msq_onnx::report::Quality;
use msq_onnx::{Options, PlacementMode, Quantized, Quantizer};
use msq_passes::ir::{Model, encode_model, export, import};

const INPUTS: usize = 16;
const OUTPUTS: usize = 4;
const UNSEEN: usize = 2000;

fn perceptron() -> Model {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]>
         few (float[N,16] x) => (float[N,4] y)
         <float[16,32] a = {}, float[32,32] b = {}, float[32,4] c = {}>
         { p = MatMul (x, a)  q = Relu (p)  r = MatMul (q, b)  s = Relu (r)  y = MatMul (s, c) }",
    );
    let mut next = random(3);
    for (name, count, reach) in [("a", 512, 0.6), ("b", 1024, 0.4), ("c", 128, 0.4)] {
        models::set(&mut proto, name, std::iter::repeat_with(|| reach * next()).take(count));
    }
    import(proto).unwrap()
}

/// Rows of sums of twelve even numbers, which are nearly normal.
fn rows(count: usize, seed: u64) -> Dataset {
    let mut next = random(seed);
    let sample = |_| {
        let values = (0..INPUTS).map(|_| (0..12).map(|_| next()).sum::<f32>() / 2.0).collect();
        Sample { arrays: vec![Array::from_f32(vec![1, INPUTS], values).unwrap()] }
    };
    Dataset::stored((0..count).map(sample).collect())
}

/// Rows of even numbers between −1 and 1; in some of them the first one is as large as `size`.
fn even_rows(count: usize, size: f32, is_large: impl Fn(usize) -> bool) -> Dataset {
    let mut next = random(7);
    let sample = |at| {
        let mut values: Vec<f32> = (0..INPUTS).map(|_| next()).collect();
        values[0] = if is_large(at) { size } else { values[0] };
        Sample { arrays: vec![Array::from_f32(vec![1, INPUTS], values).unwrap()] }
    };
    Dataset::stored((0..count).map(sample).collect())
}

fn quantized(rows: Dataset, threads: usize, change: impl FnOnce(&mut Options)) -> Quantized {
    let mut options = Options::default();
    options.scheme.placement = PlacementMode::All;
    options.measure.output_kinds = vec!["y=values".parse().unwrap()];
    change(&mut options);
    Quantizer::new(perceptron()).calibration(rows).options(options).threads(threads).run().unwrap()
}

fn outputs(model: &Model, data: &Dataset) -> Vec<f64> {
    let mut session = standard().load(model, &[vec![1, INPUTS]]).unwrap().session().unwrap();
    let mut run = |at| session.run(&data.sample(at).unwrap().arrays).unwrap()[0].to_f32().unwrap();
    (0..data.len()).flat_map(&mut run).map(f64::from).collect()
}

/// Errors relative to the variance of each channel, averaged over channels, in decibels.
fn real(model: &Model, data: &Dataset) -> f64 {
    let (wanted, found) = (outputs(&perceptron(), data), outputs(model, data));
    let rows = data.len() as f64;
    let share = |channel: usize| {
        let of = |values: &[f64]| values.iter().skip(channel).step_by(OUTPUTS).copied().collect::<Vec<f64>>();
        let (wanted, found) = (of(&wanted), of(&found));
        let mean = wanted.iter().sum::<f64>() / rows;
        let noise: f64 = wanted.iter().zip(&found).map(|(a, b)| (a - b).powi(2)).sum();
        noise / wanted.iter().map(|a| (a - mean).powi(2)).sum::<f64>()
    };
    -10.0 * ((0..OUTPUTS).map(share).sum::<f64>() / OUTPUTS as f64).log10()
}

fn stated(quality: &Quality) -> f64 {
    quality.outputs[0].sqnr.unwrap()
}

#[test]
fn what_is_stated_is_what_other_samples_get() {
    let unseen = rows(UNSEEN, 1000);
    let mut mean = [0.0; 3];
    for seed in 1..5 {
        let by_default = quantized(rows(24, seed), 2, |_| {});
        let quality = by_default.report.quality.as_ref().unwrap();
        // Where ranges leave room for all that is to be expected, other samples need not be asked.
        assert!(!quality.cross_validated || (quality.held_out && quality.samples == 24), "{quality:?}");
        let (stated, kept) = (stated(quality), real(&by_default.model, &unseen));
        assert!(stated < kept + 4.0, "{stated} {kept}");
        let clipping = quantized(rows(24, seed), 2, |options| options.calibrate.observer = ObserverKind::MinMax);
        let of_clipping = real(&clipping.model, &unseen);
        mean.iter_mut().zip([stated, kept, of_clipping]).for_each(|(sum, figure)| *sum += figure / 4.0);
    }
    let [stated, kept, of_clipping] = mean;
    assert!(stated < kept + 1.0, "{stated} {kept}");
    assert!(kept > of_clipping + 3.0, "{kept} {of_clipping}");
}

#[test]
fn threads_change_nothing() {
    let bytes = |threads| {
        let made = quantized(rows(24, 1), threads, |_| {});
        let stated = stated(made.report.quality.as_ref().unwrap());
        (encode_model(&export(&made.model)), stated.to_bits())
    };
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn without_a_comparison_there_is_none() {
    let made = quantized(rows(24, 1), 2, |options| options.verify.verify = 0);
    assert!(made.report.quality.is_none());
}

/// A sample of the second part has a value that no other sample has: only there ranges from the others lose it.
#[test]
fn a_loss_that_only_one_part_shows_is_repaired() {
    let run = |threads: usize, repair: bool| {
        quantized(even_rows(40, 3.0, |at| at == 1), threads, |options| {
            options.calibrate.observer = ObserverKind::MinMax;
            options.repair.repair = repair;
        })
    };
    let left = run(2, false).report.quality.unwrap();
    assert!(left.cross_validated && !left.chosen_by && left.lost > 0.01, "{left:?}");
    let (one, made) = (run(1, true), run(3, true));
    let (repair, quality) = (made.report.repair.as_ref().unwrap(), made.report.quality.as_ref().unwrap());
    assert!(repair.samples == 40 && (repair.before.lost / left.lost - 1.0).abs() < 0.1, "{repair:?}");
    assert!(repair.reached && !repair.float_layers.is_empty(), "{repair:?}");
    // All samples have chosen what is repaired: what is stated of them says so.
    assert!(quality.cross_validated && quality.chosen_by && quality.samples == 40, "{quality:?}");
    assert!(quality.lost < 0.3 * left.lost, "{quality:?}");
    let bytes = |made: &Quantized| encode_model(&export(&made.model));
    assert_eq!(bytes(&one), bytes(&made));
    assert_eq!(one.report.quality.unwrap().lost.to_bits(), quality.lost.to_bits());
}

#[test]
fn many_samples_are_divided_into_those_that_choose_and_others() {
    let min_max = |options: &mut Options| options.calibrate.observer = ObserverKind::MinMax;
    let made = quantized(even_rows(96, 8.0, |at| at == 1), 2, min_max);
    let (repair, quality) = (made.report.repair.as_ref().unwrap(), made.report.quality.as_ref().unwrap());
    assert!(repair.before.lost > 0.01 && repair.reached && !repair.float_layers.is_empty(), "{repair:?}");
    assert!(quality.cross_validated && !quality.chosen_by, "{quality:?}");
    assert_eq!((repair.samples, quality.samples), (72, 24), "{repair:?} {quality:?}");
}

/// Rows that differ in one factor only.
fn one_factor(count: usize, seed: u64) -> Dataset {
    let mut next = random(11);
    let weights: Vec<f32> = (0..INPUTS).map(|_| next()).collect();
    let rows = rows(count, seed);
    let sample = |at| {
        let factor = rows.sample(at).unwrap().arrays[0].to_f32()[0];
        let values = weights.iter().map(|weight| weight * factor).collect();
        Sample { arrays: vec![Array::from_f32(vec![1, INPUTS], values).unwrap()] }
    };
    Dataset::stored((0..count).map(sample).collect())
}

/// Ranges that end at the largest values lose least on the samples that they are from, and more on others.
#[test]
fn ranges_are_not_chosen_by_the_samples_that_they_are_from() {
    let unseen = one_factor(UNSEEN / 2, 1000);
    for seed in 1..3 {
        let run = |repair: bool| {
            let made = quantized(one_factor(20, seed), 2, |options| options.repair.repair = repair);
            let real = real(&made.model, &unseen);
            (made.report, real)
        };
        let ((_, left), (report, real)) = (run(false), run(true));
        assert!(report.repair.is_some());
        assert!(real > left - 1.0, "{left} → {real} dB: {:?}", report.repair);
        let stated = stated(report.quality.as_ref().unwrap());
        assert!(stated < real + 6.0, "{stated} {real}: {:?}", report.repair);
    }
}
