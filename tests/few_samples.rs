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
