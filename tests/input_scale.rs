//! A solver may give the input of a layer another scale: only where nothing else reads it, and the file, the bias and
//! the layers behind it follow.

use crate::common::{Scratch, models};
use msq_onnx::data::{Array, Dataset, Sample};
use msq_onnx::engine::standard;
use msq_onnx::{
    ActivationBits, BitPlan, EndBits, LayerPlan, Options, PackingForm, PlacementMode, Quantizer, SolverName, WeightBits,
};
use msq_passes::ir::Model;
use msq_passes::{BiasForm, Profile};

/// `x` and `t2` are read by one layer each, the second as it is moved; `t1` by two layers, `t4` is clamped by a bound,
/// `t5` is an output as well.
const NETWORK: &str = r#"
<
  ir_version: 8,
  opset_import: ["": 17]
>
forked (float[N,16] x) => (float[N,6] y1, float[N,6] y2, float[N,12] t5, float[N,6] y3)
<
  float[24,16] aw = {}, float[24] ab = {-1, 2, 2, -1, 2, 2, -1, 2, 2, -1, 2, 2, -1, 2, 2, -1, 2, 2, -1, 2, 2, -1, 2, 2},
  float[24,24] bw = {}, float[24] bb = {},
  float[6,24] cw = {}, float[6] cb = {},
  float[6,24] dw = {}, float[6] db = {},
  float[12,24] ew = {}, float[12] eb = {},
  float[12,12] fw = {}, float[12] fb = {},
  float[6,12] gw = {}, float[6] gb = {},
  float zero = {0}, float six = {6}
>
{
  t0 = Gemm <transB = 1> (x, aw, ab)
  t1 = Relu (t0)
  u0 = Gemm <transB = 1> (t1, bw, bb)
  t2 = Relu (u0)
  t3 = Flatten (t2)
  y1 = Gemm <transB = 1> (t3, cw, cb)
  y2 = Gemm <transB = 1> (t1, dw, db)
  v0 = Gemm <transB = 1> (t1, ew, eb)
  t4 = Clip (v0, zero, six)
  w0 = Gemm <transB = 1> (t4, fw, fb)
  t5 = Relu (w0)
  y3 = Gemm <transB = 1> (t5, gw, gb)
}
"#;

/// The network and inputs with long tails, for which few bits should not reach far.
fn network() -> (Model, Vec<Sample>) {
    let scratch = Scratch::new();
    let mut proto = models::parse(NETWORK);
    models::fill(&mut proto);
    let model = msq_onnx::load(&models::write(&scratch.path("float.onnx"), &proto)).unwrap();
    let mut even = models::random(1);
    let mut next = || even().powi(13) * 4.0;
    let sample = |_| Sample { arrays: vec![Array::from_f32(vec![1, 16], (0..16).map(|_| next()).collect()).unwrap()] };
    (model, (0..200).map(sample).collect())
}

fn cosine() -> SolverName {
    SolverName::new("cosine")
}

fn solved(model: &Model, samples: &[Sample], solver: SolverName, bias: BiasForm) -> Model {
    let plan = LayerPlan {
        weights: WeightBits::whole(4),
        activations: ActivationBits::Bits(4),
        packing: PackingForm::None,
        ..LayerPlan::default()
    };
    let mut options = Options::default();
    options.scheme.plan = BitPlan::uniform(plan);
    options.scheme.first_last_bits = EndBits::Same;
    options.scheme.placement = PlacementMode::All;
    options.repair.repair = false;
    options.verify.verify = 0;
    options.scheme.profile = Profile { bias, ..Profile::ORT_CPU };
    options.calibrate.observer = "min-max".parse().unwrap();
    options.solve.solver = Some(solver);
    options.output.strip_names = Some(false);
    let data = Dataset::stored(samples.to_vec());
    Quantizer::new(model.clone()).calibration(data).options(options).run().unwrap().model
}

fn constant(model: &Model, name: &str) -> Vec<f32> {
    model.graph.constant(model.graph.find(name).unwrap()).unwrap().to_f32().unwrap()
}

/// Mean of each entry of an output.
fn means(model: &Model, samples: &[Sample], output: usize) -> Vec<f64> {
    let shapes = vec![vec![1, 16]];
    let mut session = standard().load(model, &shapes).unwrap().session().unwrap();
    let mut sums = vec![0.0; 6];
    for sample in samples {
        let values = session.run(&sample.arrays).unwrap()[output].to_f32().unwrap();
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(value) / samples.len() as f64);
    }
    sums
}

#[test]
fn only_inputs_of_one_layer_move() {
    let (model, samples) = network();
    let [round, cosine] = [SolverName::ROUND, cosine()].map(|solver| solved(&model, &samples, solver, BiasForm::Int32));
    for (value, moves) in [("x", true), ("t1", false), ("t2", true), ("t4", false), ("t5", false)] {
        let [before, after] = [&round, &cosine].map(|model| constant(model, &format!("{value}_scale"))[0]);
        assert_eq!(before != after, moves, "{value}: {before} {after}");
    }
}

#[test]
fn the_bias_is_counted_in_steps_of_the_new_scale() {
    let (model, samples) = network();
    let [integer, float] = [BiasForm::Int32, BiasForm::Float].map(|bias| solved(&model, &samples, cosine(), bias));
    // The first layer: others see what the biases before them are rounded to.
    for scale in ["x_scale", "aw_scale"] {
        assert_eq!(constant(&integer, scale), constant(&float, scale));
    }
    let steps = constant(&integer, "ab_scale");
    let integers = integer.graph.constant(integer.graph.find("ab_quantized").unwrap()).unwrap().to_i64().unwrap();
    for ((q, step), bias) in integers.into_iter().zip(steps).zip(constant(&float, "ab_rounded")) {
        assert!((q as f32 * step - bias).abs() <= 0.501 * step, "{q} {step} {bias}");
    }
}

/// The bias of `d` makes up for the mean error of `t1` as the network in the file computes it; it was summed over the
/// samples that solvers are shown, so over these the mean of `y2` is exact but for the bias's own steps, of which floats
/// have none.
#[test]
fn later_layers_are_solved_behind_the_new_scale() {
    let (model, samples) = network();
    let cosine = solved(&model, &samples, cosine(), BiasForm::Float);
    // The last one of eight is held out.
    let shown: Vec<Sample> = samples.iter().enumerate().filter(|(at, _)| at % 8 != 7).map(|(_, s)| s.clone()).collect();
    for (float, quantized) in means(&model, &shown, 1).into_iter().zip(means(&cosine, &shown, 1)) {
        assert!((float - quantized).abs() < 1e-4, "{float} {quantized}");
    }
}
