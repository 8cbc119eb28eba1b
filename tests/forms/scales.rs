//! Weights of any magnitude, and batch-norms: what goes into scales.

use super::{count, furthest, reach};
use crate::common::arrays::{Npy, write_npz};
use crate::common::python::ran;
use crate::common::{Scratch, args, models, msq};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A network of two convolutions, the factors of whose channels the test chooses.
const SCALES: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,4,8,8] x) => (float[N,5] y)
    <float[8,4,3,3] a = {}, float[8] b = {}, float[8,8,3,3] c = {}, float[5,8] h = {}, float[5] i = {}>
    {
        t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a, b)  r = Relu (t)
        u = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, c)  s = Relu (u)
        g = GlobalAveragePool (s)  f = Flatten (g)  y = Gemm <transB = 1> (f, h, i)
    }";

/// Multiplies the elements of a tensor by a factor that follows from their index.
fn multiply(proto: &mut msq_passes::ir::ModelProto, tensor: &str, factor: impl Fn(usize) -> f32) {
    let values = &mut models::initializer(proto, tensor).float_data;
    values.iter_mut().enumerate().for_each(|(i, v)| *v *= factor(i));
}

/// A name, and the factors of the first and the second convolution by output channel.
type Factors = (&'static str, fn(usize) -> f32, fn(usize) -> f32);

/// Weights that are zero, huge, tiny, denormal, or all of these: what is written runs and stays near float.
#[test]
fn extreme_weights_run() {
    let scratch = Scratch::new();
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[32, 4, 8, 8]))]);
    let cases: [Factors; 6] = [
        ("a channel of zeros", |c| if c == 3 { 0.0 } else { 1.0 }, |c| if c == 0 { 0.0 } else { 1.0 }),
        ("all zeros", |_| 0.0, |_| 1.0),
        ("huge", |_| 1e30, |_| 1.0),
        ("tiny", |_| 1e-30, |_| 1e-6),
        ("huge, then tiny", |_| 1e30, |_| 1e-30),
        ("a denormal channel", |c| if c == 1 { 1e-40 } else { 1.0 }, |c| if c == 2 { 1e-30 } else { 1.0 }),
    ];
    let mut files = Vec::new();
    for (i, (what, first, second)) in cases.iter().enumerate() {
        let mut proto = models::parse(SCALES);
        models::fill(&mut proto);
        multiply(&mut proto, "a", |at| first(at / 36));
        multiply(&mut proto, "b", first);
        multiply(&mut proto, "c", |at| second(at / 72));
        multiply(&mut proto, "i", |_| 0.0);
        let float = models::write(&scratch.path(&format!("{i}.onnx")), &proto);
        files.push(float.clone());
        let plain = "--weight-bits 4 --packing none --half-scales --keep-names";
        for flags in ["--weight-bits 4", plain, "--weight-bits 4 --full-scales"] {
            let output = scratch.out(&format!("{i}-{}.onnx", files.len()));
            let mut all =
                args![float, "-o", output, "--calib", data, "-q", "--placement", "all", "--no-repair"].to_vec();
            all.extend(flags.split_whitespace().map(OsString::from));
            let run = msq(&all);
            assert_eq!(run.code, Some(0), "{what} {flags}: {}", run.stderr);
            files.push(output);
        }
    }
    let models: Vec<_> = files.iter().map(|f| (f.as_path(), data.as_path())).collect();
    let Some(ran) = ran("survey", &models) else { return };
    for (i, (what, ..)) in cases.iter().enumerate() {
        let y: Vec<&[f32]> = ran[4 * i..4 * i + 4].iter().map(|ran| ran.outputs["y"].as_slice()).collect();
        assert!(y.iter().all(|y| y.iter().all(|v| v.is_finite())), "{what}");
        assert_eq!(y[1], y[2], "{what}: packed differs from plain");
        for found in &y[1..] {
            let close = decibels(y[0], found);
            assert!(reach(y[0]) == 0.0 && reach(found) == 0.0 || close > 12.0, "{what}: {close} dB");
        }
        for ran in &ran[4 * i + 1..4 * i + 4] {
            assert_eq!(count(ran, "QLinearConv"), 2, "{what}: {}", ran.report);
        }
    }
}

/// A convolution and batch-norms as they come: a negative factor, a variance next to nothing, a factor of zero.
const NORMS: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,4,16,16] x) => (float[N,5] y)
    <float[6,4,3,3] a = {}, float[6] s = {1, -0.5, 2, 0, 1.5, -1}, float[6] o = {0.1, -0.2, 0.3, 0.4, 0, 0.2},
     float[6] m = {0.2, 0.1, -0.1, 0, 0.3, 0}, float[6] v = {1, 0.5, 2, 1, 0.001, 0.25},
     float[6,6,3,3] c = {}, float[6] d = {}, float[6] t = {-1, 1, 0.5, 2, -0.25, 1}, float[6] p = {0, 0.1, 0.2, 0.1, 0, 0.3},
     float[6] n = {0.1, 0, -0.2, 0, 0.1, 0}, float[6] w = {1, 1, 0.5, 4, 1, 0.1}, float[5,6] h = {}, float[5] i = {}>
    {
        t0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a)
        t1 = BatchNormalization (t0, s, o, m, v)  t2 = Relu (t1)
        t3 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t2, c, d)
        t4 = BatchNormalization (t3, t, p, n, w)  t5 = Relu (t4)
        g0 = GlobalAveragePool (t5)  g1 = Flatten (g0)  y = Gemm <transB = 1> (g1, h, i)
    }";

/// With one scale per channel the factor of a batch-norm is as good in the scale as in the weights: the integers are those
/// of the folded weights, but for ties and channels of factor zero.
#[test]
fn batch_norms_go_into_scales_or_weights() {
    let scratch = Scratch::new();
    let mut proto = models::parse(NORMS);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[32, 4, 16, 16]))]);
    let quantized = |batch_norm: &str, format: &str| {
        let output = scratch.out(&format!("{batch_norm}-{format}.onnx"));
        let own = args![float, "-o", output, "--calib", data, "-q", "--placement", "all", "--no-repair"];
        msq(&[&own[..], args!["--batch-norm", batch_norm, "--format", format]].concat()).ok();
        output
    };
    let formats = ["qdq", "qlinear", "integer"];
    let files: Vec<PathBuf> = formats.iter().flat_map(|f| [quantized("fold", f), quantized("affine", f)]).collect();
    for weight in ["a", "c"] {
        let [folded, kept] = [&files[0], &files[1]].map(|file| integers(file, weight));
        assert_eq!(folded.len(), kept.len());
        let apart = folded.iter().zip(&kept).filter(|(f, k)| f != k).count();
        assert!(apart * 100 <= folded.len(), "`{weight}`: {apart} of {} integers differ", folded.len());
        assert!(folded.iter().zip(&kept).all(|(f, k)| (f - k).abs() <= 1), "`{weight}`");
    }
    let zeros = integers(&files[1], "a");
    assert!(zeros[3 * 36..4 * 36].iter().all(|&q| q == 0), "the channel of factor zero is not zero");
    let mut models: Vec<_> = files.iter().map(|f| (f.as_path(), data.as_path())).collect();
    models.push((&float, &data));
    let Some(ran) = ran("survey", &models) else { return };
    let y: Vec<&[f32]> = ran.iter().map(|ran| ran.outputs["y"].as_slice()).collect();
    for (i, format) in formats.iter().enumerate() {
        let (folded, kept) = (y[2 * i], y[2 * i + 1]);
        assert!(furthest(folded, kept) < 0.02 * reach(folded), "{format}: {}", furthest(folded, kept));
        assert!(decibels(y[6], kept) > 28.0, "{format}: {} dB", decibels(y[6], kept));
        assert_eq!(count(&ran[2 * i + 1], "BatchNormalization"), 0, "{format}");
        let op = if *format == "integer" { "ConvInteger" } else { "QLinearConv" };
        assert_eq!(count(&ran[2 * i + 1], op), 2, "{format}: {}", ran[2 * i + 1].report);
    }
    assert_eq!(y[1], y[3], "qlinear is not qdq");
}

/// The integers of a weight, by the name it had in the float model.
fn integers(file: &Path, weight: &str) -> Vec<i64> {
    let model = msq_onnx::load(file).unwrap();
    let value = model.graph.find(&format!("{weight}_quantized")).unwrap_or_else(|| panic!("no integers of `{weight}`"));
    model.graph.initializer(value).unwrap().to_i64().unwrap()
}

/// Signal-to-noise ratio in decibels.
fn decibels(wanted: &[f32], found: &[f32]) -> f64 {
    assert_eq!(wanted.len(), found.len());
    let scale = f64::from(reach(wanted));
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| (v / scale).powi(2)).sum::<f64>();
    let signal = power(&mut wanted.iter().map(|&v| f64::from(v)));
    10.0 * (signal / power(&mut wanted.iter().zip(found).map(|(w, f)| f64::from(*w) - f64::from(*f)))).log10()
}
