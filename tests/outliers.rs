//! Products that read in float what quantizers clip of a few channels: less is lost on integers.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::{random, sequences};
use crate::common::python::ran;
use crate::common::{Scratch, models};
use msq_onnx::data::Dataset;
use msq_onnx::{Options, PlacementMode, Quantized, Quantizer};
use msq_passes::ir::{Model, import, save_model};

const CHANNELS: usize = 16;

/// The end of a block of a transformer: an activation that one product reads.
const BLOCK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    block (float[N,12,16] x) => (float[N,12,16] y)
    <float[16,48] a = {}, float[48] ab = {}, float[48] wide = {}, float[48,16] b = {}, float[16] bb = {}>
    {
        p = MatMul (x, a)
        q = Add (p, ab)
        g = Tanh (q)
        c = Mul (g, g)
        h = Mul (c, wide)
        o = MatMul (h, b)
        y = Add (o, bb)
    }";

/// The block; three channels that the second product reads are 60 times larger than the others, with smaller weights.
fn block() -> Model {
    let mut proto = models::parse(BLOCK);
    let mut next = random(1);
    for (name, count, reach) in [("a", 768, 0.3), ("ab", 48, 0.3), ("bb", CHANNELS, 1.0)] {
        models::set(&mut proto, name, std::iter::repeat_with(|| reach * next()).take(count));
    }
    let weight = |at: usize| if at / CHANNELS % 16 == 5 { 0.02 } else { 0.35 };
    models::set(&mut proto, "b", (0..768).map(|at| weight(at) * next()));
    models::set(&mut proto, "wide", (0..48).map(|at| if at % 16 == 5 { 60.0 } else { 1.0 }));
    import(proto).unwrap()
}

fn data() -> Dataset {
    sequences(12, CHANNELS)
}

fn quantized(outliers: bool, threads: usize) -> Quantized {
    let mut options = Options::default();
    options.scheme.placement = PlacementMode::All;
    // Factors would do the same here.
    options.calibrate.smooth = false;
    options.calibrate.outliers = outliers;
    options.repair.repair = false;
    Quantizer::new(block()).calibration(data()).options(options).threads(threads).run().unwrap()
}

/// Σ (a − b)² over Σ a².
fn error(wanted: &[f32], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    squares(&mut wanted.iter().zip(found).map(|(a, b)| a - b)) / squares(&mut wanted.iter().copied())
}

/// By the engine and in onnxruntime less is lost; the same bytes with any number of threads; the report says so.
#[test]
fn less_is_lost() {
    let (plain, split) = (quantized(false, 2), quantized(true, 2));
    let notes = |made: &Quantized| made.report.notes.iter().filter(|note| note.contains("no-outliers")).count();
    assert_eq!((notes(&plain), notes(&split)), (0, 1), "{:?}", split.report.notes);
    let clips = |made: &Quantized| made.model.graph.nodes().filter(|(_, node)| node.op() == "Clip").count();
    assert_eq!((clips(&plain), clips(&split)), (0, 1));
    let sqnr = |made: &Quantized| made.report.quality.as_ref().unwrap().outputs[0].sqnr.unwrap();
    assert!(sqnr(&split) > sqnr(&plain) + 3.0, "{} {}", sqnr(&split), sqnr(&plain));
    let scratch = Scratch::new();
    let data = scratch.path("data.npz");
    let values: Vec<f32> = self::data().sample(3).unwrap().arrays[0].to_f32();
    write_npz(&data, &[("x", Npy::floats(&[1, 12, CHANNELS], &values))]);
    let bytes = |made: &Quantized, name: &str| {
        made.save(scratch.path(name)).unwrap();
        std::fs::read(scratch.path(name)).unwrap()
    };
    let same = [1, 3].map(|threads| bytes(&quantized(true, threads), "again.onnx"));
    assert_eq!(same[0], bytes(&split, "split.onnx"));
    assert_eq!(same[0], same[1]);
    bytes(&plain, "plain.onnx");
    save_model(&block(), &scratch.path("float.onnx")).unwrap();
    let files = ["float.onnx", "plain.onnx", "split.onnx"].map(|name| scratch.path(name));
    let runs: Vec<_> = files.iter().map(|file| (file.as_path(), data.as_path())).collect();
    let Some(ran) = ran("survey", &runs) else { return };
    let [wanted, plain, split] = [0, 1, 2].map(|at| &ran[at].outputs["y"]);
    let (plain, split) = (error(wanted, plain), error(wanted, split));
    assert!(split < 0.5 * plain, "{plain} {split}");
}

/// Synthetic inputs do not tell which channels are large.
#[test]
fn synthetic_inputs_split_nothing() {
    let mut options = Options::default();
    options.scheme.placement = PlacementMode::All;
    options.calibrate.smooth = false;
    let made = Quantizer::new(block()).options(options).run().unwrap();
    assert!(made.report.synthetic && !made.report.notes.iter().any(|note| note.contains("no-outliers")));
}
