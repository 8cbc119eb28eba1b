//! Stages against whole runs.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::BatchNorm;
use crate::data::{Array, InputSpec};
use crate::engine::standard;
use crate::execute::segment::Place;
use crate::prepare::{annotate, prepare};
use crate::runtime::Runtime;
use msq_passes::ir::{import, text};

/// Sums around layers, an output in the middle, a second input read late, and one weight read twice.
const BRANCHES: &str = "(float[N,6] x, float[N,6] late) => (float[N,6] y, float[N,6] early)
    <float[6,6] a = {}, float[6,6] b = {}, float[6,6] c = {}>
    {
        t0 = MatMul (x, a)
        early = Relu (t0)
        t1 = MatMul (early, b)
        t2 = Add (t1, x)
        t3 = Relu (t2)
        t4 = MatMul (t3, a)
        t5 = Add (t4, late)
        t6 = MatMul (t5, c)
        y = Relu (t6)
    }";

/// A shape is computed in front and used behind; it cannot be handed on.
const SHAPES: &str = "(float[N,2,3] x) => (float[N,6] y)
    <float[3,3] a = {}, float[6,6] b = {}, int64[1] zero = {0}, int64[1] six = {6}>
    {
        s = Shape (x)
        n = Gather (s, zero)
        flat = Concat <axis = 0> (n, six)
        t0 = MatMul (x, a)
        t1 = Relu (t0)
        t2 = Reshape (t1, flat)
        y = MatMul (t2, b)
    }";

fn model(network: &str) -> Model {
    let mut proto = text::parse(&format!("<ir_version: 8, opset_import: [\"\": 17]> g {network}")).unwrap();
    let mut state = 7_u64;
    for tensor in proto.graph.as_mut().unwrap().initializer.iter_mut().filter(|tensor| tensor.is_float()) {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        };
        tensor.float_data = (0..tensor.element_count().unwrap()).map(|_| next()).collect();
    }
    let mut model = import(proto).unwrap();
    prepare(&mut model, BatchNorm::Fold, &[], &*standard(), None).unwrap();
    annotate(&mut model, &*standard());
    model
}

fn samples(model: &Model, count: usize) -> Dataset {
    let sample = |at: usize| {
        let array = |spec: crate::data::InputSpec| {
            let shape: Vec<usize> = spec.shape.unwrap().iter().map(|n| n.unwrap_or(1)).collect();
            let values = (0..shape.iter().product()).map(|i: usize| ((i * 7 + at * 3) % 11) as f32 - 5.0).collect();
            Array::from_f32(shape, values).unwrap()
        };
        Sample { arrays: InputSpec::of(model).into_iter().map(array).collect() }
    };
    Dataset::stored((0..count).map(sample).collect())
}

/// What each stage hands on, and the outputs of all samples.
fn staged(model: &Model, most: Option<u64>) -> (Vec<Vec<String>>, Vec<Sample>) {
    let whole = Segment::whole(model);
    let stages = Stages::new(&whole, most.map(|most| Limit { most, asked: true })).unwrap();
    let (mut outputs, keep) = (Vec::new(), |kept: &mut Vec<Sample>, _, ran: Ran| -> Result<(), ExecuteError> {
        kept.push(ran.sample(ran.len())?);
        Ok(())
    });
    let merge = |kept: Vec<Sample>| {
        outputs.extend(kept);
        Ok(())
    };
    stages.fold(&samples(model, 5), &Runtime::with_threads(2), Vec::new, keep, merge).unwrap();
    (stages.handed.iter().cloned().chain([whole.names.clone()]).collect(), outputs)
}

#[test]
fn stages_compute_what_the_whole_does() {
    let model = model(BRANCHES);
    let (whole, expected) = staged(&model, None);
    assert_eq!(whole, [["y", "early"]]);
    // Room for one matrix; the first is needed again in the third stage.
    let (handed, found) = staged(&model, Some(36 * 4));
    let mut narrow = handed.clone();
    for names in &mut narrow {
        names.sort();
    }
    assert_eq!(
        narrow,
        [vec!["early", "late", "x"], vec!["early", "late", "t3"], vec!["early", "t5"], vec!["early", "y"]]
    );
    assert_eq!(found, expected);
    // For two: the first two layers and the last two.
    let (handed, found) = staged(&model, Some(2 * 36 * 4));
    assert_eq!(handed.len(), 2);
    assert_eq!(found, expected);
}

#[test]
fn shapes_are_not_handed_on() {
    let model = model(SHAPES);
    let (whole, expected) = staged(&model, None);
    let (handed, found) = staged(&model, Some(160));
    assert_eq!((whole.len(), handed), (1, vec![vec!["t2".to_owned()], vec!["y".to_owned()]]));
    assert_eq!(found, expected);
}

#[test]
fn a_weight_larger_than_a_stage_is_an_error() {
    let (model, limit) = (model(SHAPES), |asked| Some(Limit { most: 100, asked }));
    // Unless nobody asked for small stages.
    assert_eq!(Stages::new(&Segment::whole(&model), limit(false)).unwrap().len(), 1);
    let refused = Stages::new(&Segment::whole(&model), limit(true)).unwrap_err().to_string();
    assert!(refused.contains("node `y`") && refused.contains("100 bytes"), "{refused}");
}

#[test]
fn as_many_samples_as_there_is_room_for() {
    let inputs = [Array::from_f32(vec![10, 10], vec![0.0; 100]).unwrap()];
    let ran = Ran { inputs: &inputs, outputs: &[], places: &[Place::Input(0)] };
    let fitting = |memory| fitting(ran, 1, memory);
    assert_eq!((fitting(Some(12 * 4000)), fitting(Some(1)), fitting(None)), (10, 1, 671_088));
}
