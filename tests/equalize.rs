//! What becomes of weights before and after rounding them: channels between layers are equalized, biases corrected.

use crate::common::arrays::{Npy, write_npz};
use crate::common::{Scratch, args, digits, models, msq, quantize_digits};
use msq_onnx::data::InputSpec;
use msq_onnx::data::{DataOptions, Dataset};
use msq_onnx::engine::standard;
use msq_passes::ir::{self, Model, ModelProto};
use msq_passes::{EqualizeChannels, run_pass};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A block with a depthwise convolution in the middle, as networks for phones have it, and a classifier.
const BLOCK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,3,12,12] image) => (float[N,10] y)
    <float[16,3,3,3] a = {}, float[16] ab = {}, float[16,1,3,3] d = {}, float[16] db = {}, float[24,16,1,1] p = {},
     float[24] pb = {}, float[10,24] g = {}, float[10] gb = {}>
    {
        t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, a, ab)
        u = Relu (t)
        v = Conv <kernel_shape = [3, 3], group = 16> (u, d, db)
        w = LeakyRelu <alpha = 0.1> (v)
        q = Conv (w, p, pb)
        r = Relu (q)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        n = GlobalAveragePool (m)
        f = Flatten (n)
        y = Gemm <transB = 1> (f, g, gb)
    }";

/// Replaces the elements of a tensor.
fn change(model: &mut ModelProto, tensor: &str, element: impl Fn(usize, f32) -> f32) {
    let tensor = models::initializer(model, tensor);
    let shape = tensor.shape().unwrap();
    let values: Vec<f32> = tensor.to_f32().unwrap().into_iter().enumerate().map(|(i, w)| element(i, w)).collect();
    *tensor = tensor.with_f32(&shape, &values);
}

/// Multiplies what belongs to channel `of(i)` by 2 to the power of `exponent(channel)`.
fn scale(model: &mut ModelProto, tensor: &str, of: impl Fn(usize) -> usize, exponent: impl Fn(usize) -> i32) {
    change(model, tensor, |i, w| w * 2.0_f32.powi(exponent(of(i))));
}

/// The block with channels of unlike range, the function the same as with like ones.
fn badly_scaled() -> ModelProto {
    let mut proto = models::parse(BLOCK);
    models::fill(&mut proto);
    let spread = |channel: usize| (channel * 5 % 11) as i32 - 5;
    scale(&mut proto, "a", |i| i / 27, spread);
    scale(&mut proto, "ab", |i| i, spread);
    scale(&mut proto, "d", |i| i / 9, |c| -spread(c) + spread(c + 3));
    scale(&mut proto, "db", |i| i, |c| spread(c + 3));
    scale(&mut proto, "p", |i| i % 16, |c| -spread(c + 3));
    proto
}

/// Samples for the block, each of another brightness in each colour: their means differ.
fn samples(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("samples.npz");
    let plane = |i: usize| (i / 144 * 29 % 23) as f32 / 23.0;
    let values: Vec<f32> = (0..32 * 3 * 144).map(|i| plane(i) * (i * 37 % 101) as f32 / 50.0).collect();
    write_npz(&path, &[("image", Npy::floats(&[32, 3, 12, 12], &values))]);
    path
}

/// Runs the binary on a model; returns its report and where the file is.
#[track_caller]
fn quantized(scratch: &Scratch, model: &Path, data: &Path, flags: &str) -> (serde_json::Value, PathBuf) {
    let out = scratch.out(&format!("out{}.onnx", flags.replace(' ', "")));
    let mut all = args![model, "-o", out, "--calib", data, "--json"].to_vec();
    all.extend(flags.split_whitespace().map(OsString::from));
    (msq(&all).ok().json(), out)
}

fn outputs(model: &Model, data: &Path) -> Vec<Vec<f32>> {
    let data = Dataset::open(data, &InputSpec::of(model), &DataOptions::default()).unwrap();
    let shapes: Vec<Vec<usize>> = data.sample(0).unwrap().arrays.iter().map(|a| a.shape().to_vec()).collect();
    let mut session = standard().load(model, &shapes).unwrap().session().unwrap();
    let mut run = |i| session.run(&data.sample(i).unwrap().arrays).unwrap()[0].to_f32().unwrap();
    (0..data.len()).map(&mut run).collect()
}

#[test]
fn equalization_saves_weights_with_one_scale_a_tensor() {
    let scratch = Scratch::new();
    let (float, data) = (models::write(&scratch.path("float.onnx"), &badly_scaled()), samples(&scratch));
    // What a repair would free, equalization saves.
    let decibels = |flags: &str| {
        let (report, _) = quantized(&scratch, &float, &data, &format!("--profile tract --no-repair {flags}"));
        report["quality"]["agreement"]["sqnr"].as_f64().unwrap()
    };
    let [without, with, said] = ["--no-equalize", "", "--equalize"].map(decibels);
    assert!(with > without + 10.0, "{without:.1} dB became {with:.1}");
    assert!(with.to_bits() == said.to_bits(), "it is the default where weights have one scale per tensor");
}

#[test]
fn float_outputs_stay_bit_for_bit() {
    let scratch = Scratch::new();
    let (before, data) = (ir::import(badly_scaled()).unwrap(), samples(&scratch));
    let mut after = before.clone();
    let outcome = run_pass(&EqualizeChannels, &mut after, true).unwrap().outcome;
    assert_eq!(outcome.changed, 2, "{outcome}");
    assert_eq!(outputs(&before, &data), outputs(&after, &data));
}

#[test]
fn equalization_is_left_out_where_channels_have_scales() {
    let scratch = Scratch::new();
    let (float, data) = (models::write(&scratch.path("float.onnx"), &badly_scaled()), samples(&scratch));
    let bytes = |flags: &str| std::fs::read(quantized(&scratch, &float, &data, flags).1).unwrap();
    let [default, without, with] = ["", "--no-equalize", "--equalize"].map(bytes);
    assert_eq!(default, without);
    assert_ne!(default, with);
}

/// Batch-norms that stay are in its way.
#[test]
fn equalization_leaves_layers_with_batch_norms_alone() {
    let scratch = Scratch::new();
    let bytes = |name: &str, flags: &str| {
        let mut all = args!["--calib", digits("calib.npz"), "--samples", "16", "--verify", "0"].to_vec();
        all.extend(flags.split_whitespace().map(OsString::from));
        std::fs::read(quantize_digits(&scratch, name, &all)).unwrap()
    };
    let affine = "--profile tract --batch-norm affine";
    assert_eq!(bytes("e.onnx", affine), bytes("f.onnx", &format!("{affine} --no-equalize")));
}

#[test]
fn equalize_and_no_equalize_exclude_each_other() {
    let run = msq(args!["in.onnx", "-o", "out.onnx", "--equalize", "--no-equalize"]);
    assert!(run.usage().contains("cannot be used with"));
}

/// Weights k/64 with a 127 in every channel: integers on the scale 1/64, nothing is lost.
fn exact() -> ModelProto {
    let mut proto = models::parse(BLOCK);
    models::fill(&mut proto);
    for (tensor, size) in [("a", 27), ("d", 9), ("p", 16), ("g", 24)] {
        let integer = |i: usize| if i.is_multiple_of(size) { 127 } else { (i * 37 % 255) as i32 - 127 };
        change(&mut proto, tensor, |i, _| integer(i) as f32 / 64.0);
    }
    proto
}

#[test]
fn correcting_the_bias_of_exact_weights_changes_nothing() {
    let scratch = Scratch::new();
    let data = samples(&scratch);
    let bytes = |model: &Path, flags: &str| {
        std::fs::read(quantized(&scratch, model, &data, &format!("--solver round {flags}")).1).unwrap()
    };
    let exact = models::write(&scratch.path("exact.onnx"), &exact());
    assert_eq!(bytes(&exact, ""), bytes(&exact, "--no-bias-correction"));
    let other = models::write(&scratch.path("other.onnx"), &badly_scaled());
    assert_ne!(bytes(&other, ""), bytes(&other, "--no-bias-correction"));
}

/// For a target that takes float biases they are in the file as they were.
#[test]
fn without_correction_biases_stay_as_they_are() {
    let scratch = Scratch::new();
    let (proto, data) = (badly_scaled(), samples(&scratch));
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let biases = |path: &Path| -> Vec<Vec<f32>> {
        let model = msq_onnx::load(path).unwrap();
        let layers = model.graph.nodes().filter(|(_, n)| n.is("Conv") || n.is("Gemm"));
        let biases = layers.filter_map(|(_, n)| model.graph.initializer(n.input(2)?));
        biases.map(|tensor| tensor.to_f32().unwrap()).collect()
    };
    let wanted = biases(&float);
    assert_eq!(wanted.len(), 4);
    for solver in ["round", "gram"] {
        let flags = format!("--profile tensorrt --weight-bits 4 --packing none --solver {solver}");
        assert_ne!(biases(&quantized(&scratch, &float, &data, &flags).1), wanted, "{solver}");
        let (_, plain) = quantized(&scratch, &float, &data, &format!("{flags} --no-bias-correction"));
        assert_eq!(biases(&plain), wanted, "{solver}");
    }
}
