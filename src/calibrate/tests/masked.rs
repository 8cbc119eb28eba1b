//! Positions that a mask leaves out, masks that are added, and channels of every form of layer.

use crate::calibrate::observe::{Observed, Watch, see};
use crate::calibrate::{CalibrateError, ObserverKind};
use crate::data::{Array, ArrayData, Dataset, Sample};
use crate::engine::standard;
use crate::prepare::{annotate, prepare};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::{BatchNorm, Options};
use msq_passes::ir::{Model, import, text};

fn model(graph: &str) -> Model {
    let source = format!("<ir_version: 8, opset_import: [\"\": 17]>\n{graph}");
    let mut model = import(text::parse(&source).unwrap()).unwrap();
    prepare(&mut model, BatchNorm::Fold, &[], &*standard(), None).unwrap();
    annotate(&mut model, &*standard());
    model
}

fn observed(model: &Model, samples: Vec<Sample>, options: &Options) -> Result<(Scheme, Observed), CalibrateError> {
    let scheme = Scheme::new(model, &options.scheme.plan, options).unwrap();
    let watch = Watch { observer: ObserverKind::MinMax, margin: 1.0, outputs: 1, distributions: false };
    let data = Dataset::stored(samples);
    let seen = see(model, &scheme, &data, watch, &Runtime::with_threads(1))?;
    let observed = seen.observed(model, &scheme)?;
    Ok((scheme, observed))
}

/// A layer on tokens, of which padding holds a hundred times as much.
const TOKENS: &str = "g (float[N,T,2] x, int64[N,T] attention_mask) => (float[N,T,2] y)
    <float[2,2] w = {1, 0, 0, 1}> { [fc] y = MatMul(x, w) }";

fn tokens() -> Vec<Sample> {
    let sample = |length: usize| {
        let value = |i: usize| if i / 2 < length { 0.5 + (i % 2) as f32 } else { 100.0 };
        let x = Array::from_f32(vec![1, 4, 2], (0..8).map(value).collect()).unwrap();
        let flags = (0..4).map(|i| i64::from(i < length)).collect();
        Sample { arrays: vec![x, Array::new(vec![1, 4], ArrayData::I64(flags)).unwrap()] }
    };
    (1..=4).map(sample).collect()
}

#[test]
fn padding_is_in_no_range_and_no_mean() {
    let model = model(TOKENS);
    let mut options = Options::default();
    let (_, found) = observed(&model, tokens(), &options).unwrap();
    let x = &found.activations["x"];
    assert!((x.scale * 255.0 - 1.5).abs() < 1e-3, "{}", x.scale * 255.0);
    assert_eq!(found.means["x"], [0.5, 1.5]);
    options.calibrate.masks = false;
    let (_, all) = observed(&model, tokens(), &options).unwrap();
    assert!((all.activations["x"].scale * 255.0 - 100.0).abs() < 0.1);
}

/// A mask that is added stays float, whether it is −10,000, the least float or −∞.
#[test]
fn masks_that_are_added_stay_float() {
    for huge in ["-10000", "-3.4028235e38", "-inf"] {
        let fill = huge.parse::<f32>().unwrap();
        let mut model = model(
            "g (float[N,2,4,4] x) => (float[N,2,4,4] y)
            <float[2,2,1,1] a = {1, 0, 0, 1}, float[2,2,1,1] b = {1, 0, 0, 1}, float[1,1,1,4] mask = {0, 0, 0, 0}> {
              [first] s = Conv(x, a)
              [blot] m = Add(s, mask)
              g = Sigmoid(m)
              z = Mul(s, g)
              [second] y = Conv(z, b)
            }",
        );
        let mask = model.graph.find("mask").unwrap();
        let tensor = model.graph.constant(mask).unwrap().with_f32(&[1, 1, 1, 4], &[0.0, 0.0, 0.0, fill]);
        model.graph.set_initializer(mask, tensor);
        let x = (0..32).map(|i| i as f32 / 16.0 - 1.0).collect();
        let samples = vec![Sample { arrays: vec![Array::from_f32(vec![1, 2, 4, 4], x).unwrap()] }];
        let (scheme, found) = observed(&model, samples, &Options::default()).unwrap();
        let reason = scheme.placement.kept.iter().find(|kept| kept.node == "blot").map(|kept| kept.reason.as_str());
        assert_eq!(reason, Some("it adds a mask, whose constants blow up a range"), "{huge}");
        assert!(found.activations.values().all(|quantizer| quantizer.scale < 0.1), "{huge}: {:?}", found.activations);
    }
}

/// The channels of a transposed convolution lie where those of a convolution do.
#[test]
fn channels_of_transposed_convolutions() {
    let model = model(
        "g (float[1,2,1,3] x) => (float[1,2,1,3] y)
        <float[2,2,1,1] w = {1, 2, 3, 4}> { [up] y = ConvTranspose(x, w) }",
    );
    let x = Array::from_f32(vec![1, 2, 1, 3], vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0]).unwrap();
    let (_, found) = observed(&model, vec![Sample { arrays: vec![x] }], &Options::default()).unwrap();
    assert_eq!(found.means["x"], [2.0, 20.0]);
}
