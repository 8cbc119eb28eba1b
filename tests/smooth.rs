//! Factors for the channels of what products read: the function stays, less is lost on integers.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::{random, sequences};
use crate::common::python::ran;
use crate::common::{Scratch, models};
use msq_onnx::data::Dataset;
use msq_onnx::engine::standard;
use msq_onnx::{Options, PlacementMode, Quantized, Quantizer};
use msq_passes::ir::{Model, import, save_model};
use msq_passes::{SmoothActivations, run_pass};

const CHANNELS: usize = 16;

/// A block of a transformer, normalized behind its sums: what the products read is in the last sum too. Its middle is read
/// by a product alone.
const BLOCK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    block (float[N,12,16] x) => (float[N,12,16] y)
    <float[16] scale = {}, float[16] offset = {}, float[16,48] a = {}, float[48] ab = {}, float[48] wide = {},
     float[48,16] b = {}, float[16] bb = {}>
    {
        t = Tanh (x)
        s = Mul (t, scale)
        n = Add (s, offset)
        p = MatMul (n, a)
        q = Add (p, ab)
        g = Tanh (q)
        h = Mul (g, wide)
        o = MatMul (h, b)
        m = Add (o, bb)
        y = Add (m, n)
    }";

/// The block; two channels that the first product reads are far larger than the others, and six of those in the middle.
fn block() -> Model {
    let mut proto = models::parse(BLOCK);
    let mut next = random(1);
    for (name, count, reach) in [("a", 768, 0.036), ("ab", 48, 0.3), ("b", 768, 0.35), ("bb", CHANNELS, 1.0)] {
        models::set(&mut proto, name, std::iter::repeat_with(|| reach * next()).take(count));
    }
    models::set(&mut proto, "scale", (0..CHANNELS).map(|at| if at % 9 == 3 { 30.0 } else { 0.8 }));
    models::set(&mut proto, "offset", (0..CHANNELS).map(|at| at as f32 / 40.0 - 0.2));
    models::set(&mut proto, "wide", (0..48).map(|at| if at % 8 == 5 { 25.0 } else { 1.0 }));
    import(proto).unwrap()
}

fn data() -> Dataset {
    sequences(12, CHANNELS)
}

fn quantized(smooth: bool, threads: usize) -> Quantized {
    let mut options = Options::default();
    options.scheme.placement = PlacementMode::All;
    options.calibrate.smooth = smooth;
    options.calibrate.outliers = false;
    Quantizer::new(block()).calibration(data()).options(options).threads(threads).run().unwrap()
}

fn outputs(model: &Model) -> Vec<f32> {
    let data = data();
    let mut session = standard().load(model, &[vec![1, 12, CHANNELS]]).unwrap().session().unwrap();
    let mut run = |at| session.run(&data.sample(at).unwrap().arrays).unwrap()[0].to_f32().unwrap();
    (0..data.len()).flat_map(&mut run).collect()
}

/// Σ (a − b)² over Σ a².
fn error(wanted: &[f32], found: &[f32]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    squares(&mut wanted.iter().zip(found).map(|(a, b)| a - b)) / squares(&mut wanted.iter().copied())
}

/// Factors from a tenth to ten, in front of a product that is added (`n`) and in the constants before it (`h`).
#[test]
fn the_function_stays() {
    let factor = |at: usize| 10.0_f32.powf((at * 7 % 11) as f32 / 5.0 - 1.0);
    let of = |name: &str, count: usize| (name.to_owned(), (0..count).map(factor).collect::<Vec<_>>());
    let mut model = block();
    let factors = [of("n", CHANNELS), of("h", 48)].into_iter().collect();
    let record = run_pass(&SmoothActivations { factors }, &mut model, true).unwrap();
    assert_eq!(record.outcome.changed, 2, "{}", record.outcome);
    let graph = &model.graph;
    let products = graph.nodes().filter(|(_, node)| node.op() == "Mul").count();
    assert!(products == 3 && graph.find("h").is_none() && graph.find("n_smoothed").is_some());
    let lost = error(&outputs(&block()), &outputs(&model));
    assert!(lost < 1e-11, "{lost}");
}

/// By the engine and in onnxruntime much less is lost; the same bytes with any number of threads.
#[test]
fn less_is_lost() {
    let (plain, smooth) = (quantized(false, 2), quantized(true, 2));
    let notes = |made: &Quantized| made.report.notes.iter().filter(|note| note.contains("no-smooth")).count();
    assert_eq!((notes(&plain), notes(&smooth)), (0, 1), "{:?}", smooth.report.notes);
    let sqnr = |made: &Quantized| made.report.quality.as_ref().unwrap().outputs[0].sqnr.unwrap();
    assert!(sqnr(&smooth) > sqnr(&plain) + 4.0, "{} {}", sqnr(&smooth), sqnr(&plain));
    let scratch = Scratch::new();
    let data = scratch.path("data.npz");
    let values: Vec<f32> = self::data().sample(3).unwrap().arrays[0].to_f32();
    write_npz(&data, &[("x", Npy::floats(&[1, 12, CHANNELS], &values))]);
    let bytes = |made: &Quantized, name: &str| {
        made.save(scratch.path(name)).unwrap();
        std::fs::read(scratch.path(name)).unwrap()
    };
    let same = [1, 3].map(|threads| bytes(&quantized(true, threads), "again.onnx"));
    assert_eq!(same[0], bytes(&smooth, "smooth.onnx"));
    assert_eq!(same[0], same[1]);
    bytes(&plain, "plain.onnx");
    save_model(&block(), &scratch.path("float.onnx")).unwrap();
    let files = ["float.onnx", "plain.onnx", "smooth.onnx"].map(|name| scratch.path(name));
    let runs: Vec<_> = files.iter().map(|file| (file.as_path(), data.as_path())).collect();
    let Some(ran) = ran("survey", &runs) else { return };
    let [wanted, plain, smooth] = [0, 1, 2].map(|at| &ran[at].outputs["y"]);
    let (plain, smooth) = (error(wanted, plain), error(wanted, smooth));
    assert!(smooth < 0.4 * plain, "{plain} {smooth}");
}

/// Synthetic inputs do not tell which channels are large.
#[test]
fn synthetic_samples_are_not_looked_at() {
    let mut options = Options::default();
    options.scheme.placement = PlacementMode::All;
    let made = Quantizer::new(block()).options(options).run().unwrap();
    assert!(made.report.synthetic && made.model.graph.find("n_smoothed").is_none());
    assert!(!made.report.notes.iter().any(|note| note.contains("no-smooth")));
}
