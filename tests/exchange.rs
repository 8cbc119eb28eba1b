//! Encodings from a quantized model to files of other tools and back.

use crate::common::{Scratch, args, digits, msq, quantize_digits};
use msq_onnx::exchange::{Encoding, Encodings, EncodingsFormat, read};
use msq_passes::ir;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const FORMATS: [&str; 5] = ["aimet-0.6.1", "aimet-1.0", "aimet-2", "ort", "tensorrt"];

/// Digits quantized with few samples and more arguments.
#[track_caller]
fn quantized(scratch: &Scratch, name: &str, more: &[OsString]) -> PathBuf {
    let few = args!["--calib", digits("calib.npz"), "--samples", "16", "--verify", "0"];
    quantize_digits(scratch, name, &[&few[..], more].concat())
}

#[track_caller]
fn exported(scratch: &Scratch, model: &Path, format: &str) -> PathBuf {
    let output = scratch.path(&format!("{format}.encodings"));
    msq(args!["export-encodings", model, "-o", output, "--format", format, "-q"]).ok();
    output
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn encodings(model: &Path) -> Encodings {
    let (encodings, left_out) = read(&msq_onnx::load(model).unwrap()).unwrap();
    assert_eq!(left_out, []);
    encodings
}

/// Everything that was calibrated comes from the file the second time: other samples, another observer, and the same
/// model to the byte.
#[test]
fn a_model_and_back() {
    let scratch = Scratch::new();
    let model = quantized(&scratch, "a.onnx", &[]);
    let found = encodings(&model);
    assert_eq!((found.tensors.len(), found.parameters.len()), (25, 10), "{:?}", found.tensors.keys());
    let float = msq_onnx::load(&digits("digits.onnx")).unwrap();
    assert!(found.tensors.keys().all(|name| float.graph.find(name).is_some()), "names of the float model");
    assert_eq!(found.tensors["image"], Encoding { scales: vec![1.0 / 255.0], ..found.tensors["image"].clone() });
    for format in &FORMATS[..4] {
        let file = exported(&scratch, &model, format);
        let other = args!["--encodings", file, "--observer", "min-max"];
        let again = quantized(&scratch, "b.onnx", other);
        assert!(bytes(&again) == bytes(&model), "{format} gives another model");
    }
}

/// Calibration caches hold symmetric activations, which are what this target has.
#[test]
fn a_calibration_cache_and_back() {
    let scratch = Scratch::new();
    let profile = args!["--profile", "tensorrt"];
    let model = quantized(&scratch, "a.onnx", profile);
    let cache = exported(&scratch, &model, "tensorrt");
    let again =
        quantized(&scratch, "b.onnx", &[&profile[..], args!["--encodings", cache, "--observer", "min-max"]].concat());
    assert!(bytes(&again) == bytes(&model), "the cache gives another model");
    // On unsigned grids rectified activations use them whole.
    let unsigned = encodings(&quantized(&scratch, "c.onnx", args!["--encodings", cache]));
    let (given, relu) = (&encodings(&model).tensors["stem.relu_out"], &unsigned.tensors["stem.relu_out"]);
    assert_eq!((relu.signed, relu.zero_points[0]), (false, 0));
    assert!((relu.scales[0] * 255.0 / (given.scales[0] * 127.0) - 1.0).abs() < 1e-6);
    let (given, any) = (&encodings(&model).tensors["down.project.bn_out"], &unsigned.tensors["down.project.bn_out"]);
    assert_eq!((any.signed, any.zero_points[0], any.scales[0]), (false, 128, given.scales[0]));
}

/// Weights of few bits, packed, come back with their bits.
#[test]
fn low_bits_and_back() {
    let scratch = Scratch::new();
    let model = quantized(&scratch, "a.onnx", args!["--weight-bits", "4", "--solver", "round", "--keep-names"]);
    let found = encodings(&model);
    let weight = &found.tensors["res.conv1.weight"];
    assert_eq!((weight.bits, weight.signed, weight.scales.len(), weight.axis), (4, true, 24, Some(0)));
    for format in &FORMATS[..4] {
        let file = exported(&scratch, &model, format);
        let again = quantized(&scratch, "b.onnx", args!["--encodings", file, "--keep-names"]);
        assert!(bytes(&again) == bytes(&model), "{format} gives another model");
    }
}

/// A tensor has one encoding: where a layer reads it with fewer bits than a sum does, those of the sum.
#[test]
fn activations_of_few_bits() {
    let scratch = Scratch::new();
    let model = quantized(&scratch, "a.onnx", args!["--act-bits", "6", "--solver", "round"]);
    let (found, left_out) = read(&msq_onnx::load(&model).unwrap()).unwrap();
    assert_eq!(["image", "res.relu1_out", "stem.relu_out"].map(|name| found.tensors[name].bits), [8, 6, 8]);
    let twice: Vec<&str> = left_out.iter().map(|left| left.tensor.as_str()).collect();
    assert_eq!(twice, ["stem.relu_out", "down.project.bn_out"]);
    let again = quantized(&scratch, "b.onnx", args!["--encodings", exported(&scratch, &model, "aimet-1.0")]);
    assert_eq!(encodings(&again), found);
}

/// A layer that stays float ignores what is said of its weight, and what is not named is calibrated as ever.
#[test]
fn some_tensors_alone() {
    let scratch = Scratch::new();
    let plain = encodings(&quantized(&scratch, "a.onnx", &[]));
    let file = scratch.write(
        "few.json",
        r#"{"res.relu1_out": [{"quant_type": "QUInt8", "scale": 0.5, "zero_point": 0}],
            "inv.add_out": [{"quant_type": "QInt8", "scale": 0.25, "zero_point": -3}],
            "down.expand.relu6_out": [{"quant_type": "QInt8", "rmin": -8, "rmax": 8}],
            "head.weight": [{"quant_type": "QInt8", "scale": 0.125, "zero_point": 0}],
            "res.conv1.bn_out": [{"quant_type": "QInt8", "scale": 0.25, "zero_point": 0}],
            "stem.weight": [{"quant_type": "QInt4", "scale": 0.25, "zero_point": 0}]}"#,
    );
    let output = scratch.out("b.onnx");
    let few = args!["--calib", digits("calib.npz"), "--samples", "16", "--skip", "stem.conv", "--placement", "all"];
    let run = msq(&[args![digits("digits.onnx"), "-o", output, "--encodings", file], &few[..]].concat()).ok();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("`res.conv1.bn_out`, `stem.weight` are not used"), "{}", run.stderr);
    let found = encodings(&output).tensors;
    assert_eq!(found["res.relu1_out"], Encoding { scales: vec![0.5], ..plain.tensors["res.relu1_out"].clone() });
    let sum = &found["inv.add_out"];
    assert_eq!((sum.scales[0], sum.zero_points[0], sum.signed), (0.25, 125, false));
    let clipped = &found["down.expand.relu6_out"];
    assert_eq!((clipped.scales[0], clipped.zero_points[0]), (6.0 / 255.0, 0), "the quantizer is the clip at 6");
    assert_eq!(found["head.weight"].scales, [0.125; 10]);
    assert_eq!(found["gap_out"], plain.tensors["gap_out"]);
    assert!(!found.contains_key("stem.weight"));
}

#[test]
fn bits_of_a_file_go_before_the_plan() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "bits.json",
        r#"{"version": "2.0.0", "encodings": [
            {"name": "res.relu1_out", "output_dtype": "uint5", "y_scale": 0.125},
            {"name": "res.conv2.weight", "output_dtype": "int4", "y_scale": 0.0625}]}"#,
    );
    let plan = scratch.path("plan.json");
    let output = quantized(&scratch, "a.onnx", args!["--encodings", file, "--save-plan", plan, "--keep-names"]);
    let plan: serde_json::Value = serde_json::from_slice(&bytes(&plan)).unwrap();
    assert_eq!(plan["layers"]["res.conv2.conv"], serde_json::json!({"weights": 4, "activations": 5}));
    assert_eq!(plan["layers"]["res.conv1.conv"], serde_json::json!({"weights": 8, "activations": 8}));
    let found = encodings(&output).tensors;
    assert_eq!((found["res.relu1_out"].bits, found["res.relu1_out"].scales[0]), (5, 0.125));
    assert_eq!((found["res.conv2.weight"].bits, &found["res.conv2.weight"].scales), (4, &vec![0.0625; 24]));
}

#[track_caller]
fn refused(scratch: &Scratch, encodings: &str, more: &[OsString], parts: &[&str]) {
    let file = scratch.write("bad.json", encodings);
    let before = args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")];
    let run = msq(&[&before[..], args!["--samples", "4", "--encodings", file], more].concat());
    let line = run.error(2);
    assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} not in {line}");
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn files_that_do_not_fit() {
    let scratch = Scratch::new();
    let newest = |entry: &str| format!(r#"{{"version": "2.0.0", "encodings": [{entry}]}}"#);
    let one = |name: &str, dtype: &str, scale: &str| {
        newest(&format!(r#"{{"name": "{name}", "output_dtype": "{dtype}", "y_scale": {scale}}}"#))
    };
    refused(&scratch, &one("nobody", "uint8", "1"), &[], &["tensor `nobody`", "the model has no such tensor"]);
    refused(&scratch, &one("image", "uint8", "-1"), &[], &["bad.json`", "tensor `image`", "not a positive"]);
    refused(&scratch, &one("image", "uint12", "1"), &[], &["tensor `image`", "12 bits are not supported, 2 to 8 are"]);
    refused(&scratch, &one("image", "uint8", "[1, 2]"), &[], &["2 scales and 1 zero points"].map(|_| "tensor `image`"));
    let weight = one("head.weight", "int8", "[1, 2]");
    refused(&scratch, &weight, &[], &["tensor `head.weight`", "2 scales, layer `head` has 10 channels"]);
    refused(&scratch, "TRT-8601-EntropyCalibration2\nimage: x", &[], &["line 2"]);
    refused(&scratch, "no file", &[], &["it is no file of encodings"]);
    refused(&scratch, r#"{"version": "9"}"#, &[], &["version 9 are not known"]);
    let file = scratch.write("bad.json", one("image", "uint8", "1"));
    let searched =
        args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--encodings", file, "--target-bits", "4"];
    assert!(msq(searched).usage().contains("--encodings"));
    let missing = msq(args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--encodings", scratch.path("none")]);
    assert!(missing.error(2).contains("none`"));
}

#[test]
fn models_without_encodings() {
    let scratch = Scratch::new();
    let refused = |model: &Path, part: &str| {
        let output = scratch.path("never.json");
        let run = msq(args!["export-encodings", model, "-o", output, "--format", "ort"]);
        assert!(run.error(3).contains(part), "{part:?} not in {}", run.stderr);
        assert!(!output.exists());
    };
    refused(&digits("digits.onnx"), "it has no pair of QuantizeLinear and DequantizeLinear");
    refused(&quantized(&scratch, "qlinear.onnx", args!["--format", "qlinear"]), "it has no pair");
    refused(
        &quantized(&scratch, "short.onnx", args!["--strip-names"]),
        "its inner names were shortened; quantize with --keep-names",
    );
}

/// The names that onnxruntime's quantizer gives to what it inserts, and what no file of encodings can hold.
#[test]
fn models_of_other_tools() {
    let text = r#"<ir_version: 10, opset_import: ["": 21]> g (float[N, 2] x) => (float[N, 2] y) <
        float sx = {0.5}, uint8 zx = {3}, float sy = {0.25}, uint8 zy = {0}, float[2] sw = {0.125, 0.0625},
        int8[2] zw = {0, 0}, int8[2, 2] w_quantized = {1, 2, 3, 4}, int32[2] b_quantized = {1, 2}, float[2] sb = {0.0625, 0.03125},
        float[2] sc = {1, 1}, uint8[2] zc = {0, 0}, float[2, 1] sk = {1, 2}, float half = {0.5}>
    {
        x_QuantizeLinear_Output = QuantizeLinear(x, sx, zx)
        x_DequantizeLinear_Output = DequantizeLinear(x_QuantizeLinear_Output, sx, zx)
        w_DequantizeLinear_Output = DequantizeLinear<axis = 0>(w_quantized, sw, zw)
        b = DequantizeLinear<axis = 0>(b_quantized, sb)
        p = Gemm<transB = 1>(x_DequantizeLinear_Output, w_DequantizeLinear_Output, b)
        q = QuantizeLinear<axis = 1>(p, sc, zc)
        r = DequantizeLinear<axis = 1>(q, sc, zc)
        k = DequantizeLinear<axis = 1, block_size = 1>(w_quantized, sk)
        s = MatMul(r, k)
        y_QuantizeLinear_Input = Mul(s, half)
        y_QuantizeLinear_Output = QuantizeLinear(y_QuantizeLinear_Input, sy, zy)
        y = DequantizeLinear(y_QuantizeLinear_Output, sy, zy)
    }"#;
    let model = ir::import(ir::text::parse(text).unwrap()).unwrap();
    let (found, left_out) = read(&model).unwrap();
    let names: Vec<&str> = found.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, ["x", "w", "y"]);
    assert_eq!(found.parameters.iter().collect::<Vec<_>>(), ["w"]);
    let x = Encoding { scales: vec![0.5], zero_points: vec![3], signed: false, bits: 8, axis: None };
    assert_eq!(found.tensors["x"], x);
    let w = Encoding { scales: vec![0.125, 0.0625], zero_points: vec![0, 0], signed: true, bits: 8, axis: Some(0) };
    assert_eq!(found.tensors["w"], w);
    let reasons: Vec<(&str, &str)> = left_out.iter().map(|l| (l.tensor.as_str(), l.reason.as_str())).collect();
    assert_eq!(reasons, [("p", "an activation with one scale per channel"), ("w", "it is quantized in blocks")]);
}

#[test]
fn export_says_what_it_wrote() {
    let scratch = Scratch::new();
    let model = quantized(&scratch, "a.onnx", &[]);
    let output = scratch.path("a.json");
    let run = msq(args!["export-encodings", model, "-o", output, "--format", "aimet-1.0", "--json"]).ok().json();
    assert_eq!((&run["activations"], &run["parameters"]), (&15.into(), &10.into()));
    let text = msq(args!["export-encodings", model, "-o", output, "--format", "tensorrt"]).ok().stdout;
    assert!(text.contains("15 activations\n"), "{text}");
    assert_eq!(Encodings::load(&output).unwrap().tensors.len(), 15);
    let usage = msq(args!["export-encodings", model, "-o", output, "--format", "tflite"]);
    assert!(usage.usage().contains("none of aimet-0.6.1, aimet-1.0, aimet-2, ort, tensorrt"));
    assert_eq!(EncodingsFormat::ALL.map(|format| format.to_string()), FORMATS);
}
