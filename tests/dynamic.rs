//! Activations quantized at run time: no calibration data, the operators that onnxruntime fuses, close to float, and
//! understood by our own commands.

use crate::common::arrays::Npy;
use crate::common::models::{Network, operators};
use crate::common::python::{check_model, python, ran};
use crate::common::{args, msq};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Two products read one value; a transposed `Gemm`, and a convolution, which is no product.
const NETWORK: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
network (float[N,4,32] x) => (float[N,4,24] y, float[K,40] z)
<float[32,48] a = {}, float[48] ab = {}, float[32,24] b = {}, float[40,48] c = {}, float[40] cb = {},
 float[4,4,3] k = {}, int64[2] flat = {-1, 48}>
{
  [conv] w = Conv <pads = [1, 1]> (x, k)
  [one] h = MatMul (w, a)
  s = Add (h, ab)
  r = Relu (s)
  [two] y = MatMul (w, b)
  f = Reshape (r, flat)
  [fc] z = Gemm <transB = 1> (f, c, cb)
}"#;

fn network() -> Network {
    let value = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    Network::new(NETWORK, Npy::floats(&[16, 4, 32], &(0..16 * 128).map(value).collect::<Vec<f32>>()))
}

/// The quantized model, made without data.
#[track_caller]
fn quantized(network: &Network, flags: &str) -> PathBuf {
    let (out, run) = network.run(flags);
    assert!(!run.ok().stderr.contains("calibration"));
    out
}

#[test]
fn products_quantize_what_they_read() {
    let network = network();
    let dynamic = quantized(&network, "--act-bits dynamic");
    let found = operators(&dynamic);
    let count = |op: &str| found.iter().filter(|found| *found == op).count();
    // One for the two products that read one value.
    assert_eq!((count("DynamicQuantizeLinear"), count("MatMulInteger")), (2, 3), "{found:?}");
    assert_eq!((count("Conv"), count("QuantizeLinear"), count("Gemm")), (1, 0, 0), "{found:?}");
    let said = msq(args!["compare", &network.float, &dynamic, "--calib", &network.data, "--json"]).ok().stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let sqnr = said["agreement"]["sqnr"].as_f64().unwrap_or_else(|| panic!("{said}"));
    assert!(sqnr > 28.0, "{sqnr}");
    let inspected = msq(args!["inspect", &dynamic, "--json"]).ok().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["plan"]["default"]["activations"], "dynamic", "{inspected}");
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 4, "{inspected}");
    // The flag has two names, and a plan says the same.
    let same = quantized(&network, "--activations dynamic --keep-names");
    let plan = network.scratch.path("plan.json");
    std::fs::write(&plan, r#"{"version": 1, "default": {"weights": 8, "activations": "dynamic"}}"#).unwrap();
    let planned = network.scratch.out("planned.onnx");
    msq(args![&network.float, "-o", &planned, "--keep-names", "--plan", &plan]).ok();
    assert_eq!(std::fs::read(same).unwrap(), std::fs::read(planned).unwrap());
}

/// Weights of few bits are solved by what the layers read in the quantized network, also where that is quantized at run time.
#[test]
fn products_that_quantize_at_run_time_are_solved() {
    let network = network();
    let loss = |solver: &str| {
        let flags = format!("--act-bits dynamic --weight-bits 4 --calib {}{solver}", network.data.display());
        let (out, run) = network.run(&flags);
        let said = run.ok().stderr;
        assert!(!said.contains("rounded to nearest"), "{said}");
        assert!(operators(&out).iter().any(|op| op == "MatMulInteger"));
        let said = msq(args!["compare", &network.float, &out, "--calib", &network.data, "--json"]).ok().json();
        said["agreement"]["sqnr"].as_f64().unwrap_or_else(|| panic!("{said}"))
    };
    let (solved, nearest) = (loss(""), loss(" --solver round"));
    assert!(solved > nearest, "{solved} {nearest}");
}

#[test]
fn onnxruntime_fuses_them() {
    if python().is_none() {
        return;
    }
    let network = network();
    let files = ["--act-bits dynamic", "--act-bits dynamic --weight-bits 4 --solver round"]
        .map(|flags| (quantized(&network, flags), if flags.contains('4') { 10.0 } else { 28.0 }));
    let all = [network.float.clone()].into_iter().chain(files.iter().map(|(file, _)| file.clone()));
    let all: Vec<PathBuf> = all.collect();
    let runs: Vec<(&Path, &Path)> = all.iter().map(|file| (file.as_path(), network.data.as_path())).collect();
    let ran = ran("survey", &runs).unwrap();
    for ((file, least), run) in files.iter().zip(&ran[1..]) {
        for output in ["y", "z"] {
            let (float, found) = (&ran[0].outputs[output], &run.outputs[output]);
            let noise: f64 = float.iter().zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let signal: f64 = float.iter().map(|&v| f64::from(v).powi(2)).sum();
            let decibels = 10.0 * (signal / noise).log10();
            assert!(decibels > *least, "{}: {decibels}", file.display());
        }
        let fused = check_model(args!["fusion", file]).unwrap();
        let ops = &fused["ops"]["com.microsoft"];
        // Of two layers that read one value the quantizer stays outside.
        let found = [&ops["DynamicQuantizeMatMul"], &ops["MatMulIntegerToFloat"]].map(|n| n.as_u64().unwrap_or(0));
        assert_eq!(found, [1, 2], "{fused}");
        assert!(fused["ops"].to_string().find("\"MatMulInteger\"").is_none(), "{fused}");
    }
}

/// Recurrent layers, of which one is too small to be faster and one has no kernel.
const RECURRENT: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
network (float[N,6,24] x) => (float[N,6,2,128] y, float[N,1,16] z, float[N,1,64] v)
<float[2,512,24] w = {}, float[2,512,128] r = {}, float[2,1024] b = {}, float[1,64,24] s = {}, float[1,64,16] t = {},
 float[1,192,24] p = {}, float[1,192,64] q = {}>
{
  steps = Transpose <perm = [1, 0, 2]> (x)
  [large] l = LSTM <hidden_size = 128, direction = "bidirectional"> (steps, w, r, b)
  y = Transpose <perm = [2, 0, 1, 3]> (l)
  [small] o, h = LSTM <hidden_size = 16> (steps, s, t)
  z = Transpose <perm = [1, 0, 2]> (h)
  [gru] g, k = GRU <hidden_size = 64> (steps, p, q)
  v = Transpose <perm = [1, 0, 2]> (k)
}"#;

#[test]
fn recurrent_layers_quantize_what_they_read() {
    let value = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let samples = Npy::floats(&[32, 6, 24], &(0..32 * 6 * 24).map(value).collect::<Vec<f32>>());
    let network = Network::new(RECURRENT, samples);
    let files = ["--act-bits dynamic", "--act-bits dynamic --weight-bits 4 --solver round"]
        .map(|flags| quantized(&network, flags));
    for (file, least) in files.iter().zip([25.0, 8.0]) {
        let found = operators(file);
        let count = |op: &str| found.iter().filter(|found| *found == op).count();
        assert_eq!(["DynamicQuantizeLSTM", "LSTM", "GRU"].map(count), [1, 1, 1], "{found:?}");
        let said = msq(args!["compare", &network.float, file, "--calib", &network.data, "--json"]).ok().json();
        assert!(said["agreement"]["sqnr"].as_f64() > Some(least), "{said}");
    }
    if python().is_none() {
        return;
    }
    let all = [&network.float].into_iter().chain(&files);
    let runs: Vec<(&Path, &Path)> = all.map(|file| (file.as_path(), network.data.as_path())).collect();
    let ran = ran("survey", &runs).unwrap();
    for (run, least) in ran[1..].iter().zip([25.0, 8.0]) {
        for output in ["y", "z", "v"] {
            let (float, found) = (&ran[0].outputs[output], &run.outputs[output]);
            let noise: f64 = float.iter().zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let signal: f64 = float.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!(10.0 * (signal / noise).log10() > least, "{output}");
        }
    }
}

#[test]
fn what_a_target_does_not_run_is_refused() {
    let network = network();
    for profile in ["tensorrt", "openvino", "qnn", "tract"] {
        let out = network.scratch.out("no.onnx");
        let run = msq(args![&network.float, "-o", out, "--act-bits", "dynamic", "--profile", profile]);
        let said = run.error(2);
        assert!(said.contains(&format!("`{profile}` does not quantize activations at run time")), "{said}");
    }
}
