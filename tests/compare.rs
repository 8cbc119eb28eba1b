//! `msq-onnx compare`: the layer at which two models part is found, whatever became of names.

use crate::common::{Scratch, args, digits, models, msq, quantize_digits};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Digits at 8 bits but for one layer of 2, rounded to nearest.
fn with_one_bad_layer(scratch: &Scratch, name: &str, more: &str) -> PathBuf {
    let plan = r#"{"version": 1, "default": {"weights": 8, "activations": 8}, "layers": {"LAYER": {"weights": 2, "activations": 8}}}"#;
    let plan = scratch.write("plan.json", plan.replace("LAYER", "res.conv2.conv"));
    let mut flags =
        args!["--calib", digits("calib.npz"), "--samples", "64", "--verify", "0", "--solver", "round"].to_vec();
    flags.extend(args!["--plan", plan].iter().cloned());
    flags.extend(more.split_whitespace().map(std::ffi::OsString::from));
    quantize_digits(scratch, name, &flags)
}

fn compared(reference: &Path, model: &Path) -> Value {
    let flags = ["--calib", "--samples", "--json"];
    msq(args!["compare", reference, model, flags[0], digits("test.npz"), flags[1], "100", flags[2]]).ok().json()
}

#[test]
fn the_layer_where_the_error_starts_is_found() {
    let scratch = Scratch::new();
    let float = digits("digits.onnx");
    let named = compared(&float, &with_one_bad_layer(&scratch, "named.onnx", "--keep-names"));
    let stripped = compared(&float, &with_one_bad_layer(&scratch, "stripped.onnx", "--full-scales"));
    for found in [&named, &stripped] {
        let start = &found["starts"];
        assert_eq!(
            (start["layer"].as_str(), start["in_weights"].as_bool()),
            (Some("res.conv2.conv"), Some(true)),
            "{found}"
        );
        assert!(start["before"].as_f64().unwrap() > start["after"].as_f64().unwrap() + 10.0, "{start}");
        assert_eq!(found["layers"].as_array().unwrap().len(), 10);
        assert_eq!(found["samples"], 100);
        assert!(found["reference"]["bytes"].as_u64() > found["model"]["bytes"].as_u64());
        assert!(found["model"]["accuracy"].as_f64().unwrap() > 0.5);
    }
    // Names are all that differs.
    assert_eq!(named["layers"].as_array().unwrap().len(), stripped["layers"].as_array().unwrap().len());
    for (a, b) in named["layers"].as_array().unwrap().iter().zip(stripped["layers"].as_array().unwrap()) {
        assert_eq!((&a["name"], &a["input_sqnr"]), (&b["name"], &b["input_sqnr"]));
    }
}

#[test]
fn a_model_equals_itself() {
    let found = compared(&digits("digits.onnx"), &digits("digits.onnx"));
    assert!(found["starts"].is_null(), "{found}");
    assert!(found["layers"].as_array().unwrap().iter().all(|layer| layer["output_sqnr"].is_null()));
    assert_eq!(found["agreement"]["same_argmax"], 1.0);
    let text = msq(args!["compare", digits("digits.onnx"), digits("digits.onnx"), "--calib", digits("test.npz")]).ok();
    assert!(text.stdout.contains("output     equal") && text.stdout.contains("(1.0×)"), "{}", text.stdout);
}

/// Layers on integers have no floats to compare; the outputs have.
#[test]
fn written_out_forms_are_compared_by_their_outputs() {
    let scratch = Scratch::new();
    let flags = args!["--calib", digits("calib.npz"), "--samples", "64", "--verify", "0", "--format", "integer"];
    let found = compared(&digits("digits.onnx"), &quantize_digits(&scratch, "integer.onnx", flags));
    assert_eq!(found["layers"], Value::Array(Vec::new()), "{found}");
    assert!(found["agreement"]["same_argmax"].as_f64().unwrap() > 0.97 && found["starts"].is_null(), "{found}");
}

#[test]
fn what_cannot_be_compared_says_so() {
    let scratch = Scratch::new();
    let other = "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,1,8,8] image) => (float[N,1,8,8] logits) { logits = Relu (image) }";
    let other = models::write(&scratch.path("other.onnx"), &models::parse(other));
    let run = msq(args!["compare", digits("digits.onnx"), other, "--calib", digits("test.npz")]);
    assert!(run.error(3).contains("output 0 has other shapes"));
    assert!(msq(args!["compare", digits("digits.onnx"), digits("digits.onnx")]).error(2).contains("--calib"));
}
