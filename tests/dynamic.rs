//! Activations quantized at run time: no calibration data, the operators that onnxruntime fuses, close to float, and
//! understood by our own commands.

#![allow(clippy::unwrap_used)]

mod common;

use common::arrays::{Npy, write_npz};
use common::python::{check_model, python, ran};
use common::{Scratch, args, models, msq};
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

struct Network {
    scratch: Scratch,
    float: PathBuf,
    data: PathBuf,
}

impl Network {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut proto = models::parse(NETWORK);
        models::fill(&mut proto);
        let float = models::write(&scratch.path("float.onnx"), &proto);
        let data = scratch.path("data.npz");
        let values: Vec<f32> =
            (0..16 * 128_u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5).collect();
        write_npz(&data, &[("x", Npy::floats(&[16, 4, 32], &values))]);
        Self { scratch, float, data }
    }

    /// Without data.
    #[track_caller]
    fn quantized(&self, flags: &str) -> PathBuf {
        let out = self.scratch.out(&format!("{}.onnx", flags.replace([' ', ':'], "-")));
        let mut all = args![&self.float, "-o", &out].to_vec();
        all.extend(flags.split_whitespace().map(std::ffi::OsString::from));
        let run = msq(&all).ok();
        assert!(!run.stderr.contains("calibration"), "{}", run.stderr);
        out
    }
}

fn operators(model: &Path) -> Vec<String> {
    let model = msq_onnx::load(model).unwrap();
    model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect()
}

#[test]
fn products_quantize_what_they_read() {
    let network = Network::new();
    let dynamic = network.quantized("--act-bits dynamic");
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
    let same = network.quantized("--activations dynamic --keep-names");
    let plan = network.scratch.path("plan.json");
    std::fs::write(&plan, r#"{"version": 1, "default": {"weights": 8, "activations": "dynamic"}}"#).unwrap();
    let planned = network.scratch.out("planned.onnx");
    msq(args![&network.float, "-o", &planned, "--keep-names", "--plan", &plan]).ok();
    assert_eq!(std::fs::read(same).unwrap(), std::fs::read(planned).unwrap());
}

#[test]
fn onnxruntime_fuses_them() {
    if python().is_none() {
        return;
    }
    let network = Network::new();
    let files = ["--act-bits dynamic", "--act-bits dynamic --weight-bits 4 --solver round"]
        .map(|flags| (network.quantized(flags), if flags.contains('4') { 10.0 } else { 28.0 }));
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

#[test]
fn what_a_target_does_not_run_is_refused() {
    let network = Network::new();
    for profile in ["tensorrt", "openvino", "qnn", "tract"] {
        let out = network.scratch.out("no.onnx");
        let run = msq(args![&network.float, "-o", out, "--act-bits", "dynamic", "--profile", profile]);
        let said = run.error(2);
        assert!(said.contains(&format!("`{profile}` does not quantize activations at run time")), "{said}");
    }
}
