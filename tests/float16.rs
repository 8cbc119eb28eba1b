//! What stays float in float16: the sizes, the answers of onnxruntime, and what is left in float32.

use crate::common::arrays::Npy;
use crate::common::models::{Network, operators};
use crate::common::python::{python, ran};
use crate::common::{Scratch, args, digits, msq};
use msq_passes::ir::DataType;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The largest difference that rounding to float16 may make, as a share of the largest output.
const ROUNDED: f32 = 4e-3;

fn written(scratch: &Scratch, name: &str, flags: &str) -> (PathBuf, Value) {
    let out = scratch.out(name);
    let mut all =
        args![digits("digits.onnx"), "-o", &out, "--calib", digits("calib.npz"), "--json", "--keep-names"].to_vec();
    all.extend(flags.split_whitespace().map(std::ffi::OsString::from));
    let report = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
    (out, report)
}

/// Types of the inputs and outputs of a file.
fn interface(path: &Path) -> Vec<Option<DataType>> {
    let model = msq_onnx::load(path).unwrap();
    model.graph.inputs().chain(model.graph.outputs()).map(|value| model.graph.value(value).element_type()).collect()
}

fn halves(path: &Path) -> usize {
    let model = msq_onnx::load(path).unwrap();
    model.graph.initializers().filter(|(_, tensor)| tensor.element_type() == Some(DataType::Float16)).count()
}

/// The largest difference between the outputs of two models in onnxruntime, as a share of the largest output.
fn difference(one: &Path, other: &Path, data: &Path) -> Option<f32> {
    let found = ran("survey", &[(one, data), (other, data)])?;
    let [one, other] = &found[..] else { panic!("two models were run") };
    let mut worst = 0.0_f32;
    for (name, values) in &one.outputs {
        let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let apart = values.iter().zip(&other.outputs[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(other.outputs[name].iter().all(|value| value.is_finite()), "{name}");
        worst = worst.max(apart / largest);
    }
    Some(worst)
}

/// Without data, that values fit into float16 was seen on made-up samples only.
#[test]
fn made_up_magnitudes_are_warned_of() {
    let scratch = Scratch::new();
    let said = |flags: &[&str]| {
        let mut all =
            args![digits("digits.onnx"), "-o", scratch.out("half.onnx"), "--json", "--weight-bits", "float"].to_vec();
        all.extend(flags.iter().map(std::ffi::OsString::from));
        let report: Value = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
        report["notes"].to_string().contains("made-up samples only")
    };
    assert!(said(&["--float16", "all"]));
    assert!(!said(&["--float16", "weights"]));
}

#[test]
fn a_float_model_becomes_half_as_large_with_the_same_answers() {
    let scratch = Scratch::new();
    let float = digits("digits.onnx");
    for (name, flags) in [("weights.onnx", "--float16 weights"), ("all.onnx", "--float16 all")] {
        let (out, report) = written(&scratch, name, &format!("{flags} --weight-bits float"));
        let [before, after] = ["float_bytes", "bytes"].map(|key| report[key].as_u64().unwrap());
        assert!(after * 100 < before * 62, "{flags}: {before} → {after}");
        assert!(halves(&out) >= 10, "{flags}: {}", halves(&out));
        assert_eq!(interface(&out), interface(&float), "{flags}");
        let computing = report["float16"]["nodes"].as_u64().unwrap();
        assert_eq!(computing > 20, flags.ends_with("all"), "{flags}: {computing} nodes");
        let lost = report["quality"]["lost"].as_f64().unwrap();
        assert!(lost < 0.01, "{flags}: {lost}");
        if let Some(apart) = difference(&float, &out, &digits("test.npz")) {
            assert!(apart > 0.0 && apart < ROUNDED, "{flags}: {apart}");
        }
    }
}

/// Numbers that float16 does not hold: bfloat16 does.
#[test]
fn bfloat16_has_the_range_of_float() {
    let scratch = Scratch::new();
    let float = digits("digits.onnx");
    let (out, report) = written(&scratch, "brains.onnx", "--float16 bfloat16 --weight-bits float");
    let model = msq_onnx::load(&out).unwrap();
    let brains = model.graph.initializers().filter(|(_, t)| t.element_type() == Some(DataType::Bfloat16)).count();
    assert!(brains >= 10 && halves(&out) == 0, "{brains}");
    assert_eq!(report["float16"]["constants"].as_u64(), Some(brains as u64));
    let [before, after] = ["float_bytes", "bytes"].map(|key| report[key].as_u64().unwrap());
    assert!(after * 100 < before * 62, "{before} → {after}");
    let lost = report["quality"]["lost"].as_f64().unwrap();
    assert!(lost < 0.02, "{lost}");
    // Our engine reads the file as well.
    let said = msq(args!["compare", &float, &out, "--calib", digits("calib.npz"), "--json"]).ok().json();
    assert!(said["agreement"].is_object(), "{said}");
    if let Some(apart) = difference(&float, &out, &digits("test.npz")) {
        assert!(apart > 0.0 && apart < 8.0 * ROUNDED, "{apart}");
    }
}

/// Integers stay what they are, and the runtime finds its patterns.
#[test]
fn beside_integers_only_float_becomes_float16() {
    let scratch = Scratch::new();
    let flags = "--keep-float Gemm --solver round";
    let (plain, _) = written(&scratch, "plain.onnx", flags);
    let (halved, report) = written(&scratch, "halved.onnx", &format!("{flags} --float16 weights"));
    let count = |path: &Path, op: &str| operators(path).iter().filter(|other| *other == op).count();
    for op in ["QuantizeLinear", "DequantizeLinear", "Conv"] {
        assert_eq!(count(&plain, op), count(&halved, op), "{op}");
    }
    assert_eq!(count(&halved, "Cast"), report["float16"]["constants"].as_u64().unwrap() as usize);
    assert_eq!(halves(&plain), 0);
    if let Some(apart) = difference(&plain, &halved, &digits("test.npz")) {
        assert!(apart < 0.02, "{apart}");
    }
}

/// What was float16 is stored so again, where it stays float.
#[test]
fn what_was_float16_does_not_grow() {
    let scratch = Scratch::new();
    let (half, _) = written(&scratch, "half.onnx", "--weight-bits float --float16 weights");
    let out = scratch.out("out.onnx");
    let flags = ["--keep-float", "Gemm", "--solver", "round", "--json"].map(std::ffi::OsString::from);
    let all = [&args![&half, "-o", &out, "--calib", digits("calib.npz")][..], &flags].concat();
    let report: Value = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
    assert!(halves(&out) > 0);
    assert!(report["float16"]["constants"].as_u64().unwrap() > 0, "{report}");
    if let Some(apart) = difference(&half, &out, &digits("test.npz")) {
        assert!(apart < 0.2, "{apart}");
    }
}

/// Whatever else is asked for, the file is valid, runs, and answers as without float16.
#[test]
fn every_form_goes_with_it() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let forms = [
        "--keep-float Gemm",
        "--profile tensorrt",
        "--weight-bits 4 --act-bits float --solver round",
        "--format qlinear --keep-float Gemm",
        "--format integer --keep-float Gemm",
        "--act-bits dynamic",
    ];
    for flags in forms {
        let flags = format!("{flags} --samples 64");
        let (plain, _) = written(&scratch, "plain.onnx", &flags);
        let (halved, report) = written(&scratch, "halved.onnx", &format!("{flags} --float16 all"));
        assert!(report["float16"]["constants"].as_u64().unwrap() > 0, "{flags}");
        let apart = difference(&plain, &halved, &digits("test.npz")).unwrap();
        assert!(apart < 0.05, "{flags}: {apart}");
    }
}

const LARGE: &str = "<ir_version: 8, opset_import: [\"\": 17]>
large (float[1,8] x) => (float[1,8] y)
<float[8,64] w = {}, float[64,8] v = {}, float thousand = {1000.0}, float lowest = {-3.4e38}, float zero = {0.0}>
{
  [a] a = MatMul (x, w)
  [big] big = Mul (a, thousand)
  [square] square = Mul (big, big)
  [root] root = Sqrt (square)
  [small] small = Div (root, thousand)
  [negative] negative = Less (a, zero)
  [masked] masked = Where (negative, lowest, small)
  [p] p = Softmax <axis = 1> (masked)
  [y] y = MatMul (p, v)
}";

#[test]
fn what_overflows_stays_float_and_masks_do_not() {
    let samples: Vec<f32> = (0..32 * 8).map(|i| ((i * 37) % 64) as f32 / 16.0 - 2.0).collect();
    let network = Network::new(LARGE, Npy::floats(&[32, 8], &samples));
    let calib = network.data.to_str().unwrap().to_owned();
    let flags = format!("--weight-bits float --float16 all --json --calib {calib}");
    let out = network.scratch.out("out.onnx");
    let mut all = args![&network.float, "-o", &out].to_vec();
    all.extend(flags.split_whitespace().map(std::ffi::OsString::from));
    let report: Value = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
    let left: Vec<&str> =
        report["float16"]["left"].as_array().unwrap().iter().map(|left| left["name"].as_str().unwrap()).collect();
    assert_eq!(left, ["square", "root"], "{report}");
    let said = report["float16"]["left"][0]["reason"].as_str().unwrap();
    assert!(said.starts_with("Mul: `square` reaches ") && said.ends_with("float16 ends at 65504"), "{said}");
    if let Some(apart) = difference(&network.float, &out, &network.data) {
        assert!(apart < 10.0 * ROUNDED, "{apart}");
    }
}

/// What is said of the result is what onnxruntime computes, rounding included: not the figures of float weights.
#[test]
fn figures_include_the_rounding() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let (_, plain) = written(&scratch, "plain.onnx", "--weight-bits float --float16 weights");
    let (_, all) = written(&scratch, "all.onnx", "--weight-bits float --float16 all");
    let noise = |report: &Value| report["quality"]["outputs"][0]["sqnr"].as_f64();
    let [weights, all] = [noise(&plain), noise(&all)];
    assert!(weights.is_some_and(|sqnr| sqnr > 50.0 && sqnr < 90.0), "{plain}");
    assert!(all < weights, "{all:?} {weights:?}");
}
