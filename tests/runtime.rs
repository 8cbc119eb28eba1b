//! What the project writes, in the runtime it writes for.
//!
//! Each test quantizes the digits model in another way and asks onnxruntime: is the file valid, does everything run on
//! integers, is the accuracy what it was, and are the numbers those of our own emulation?

use crate::common::python::{check_model, python};
use crate::common::{Scratch, args, digits, msq, quantize_digits};
use msq_passes::ir::{Model, save_model};
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;

/// Accuracy may fall by this much.
const DROP: f64 = 0.01;
/// The share of values that must agree within a step. A value half-way between two steps may go either way, and one
/// that went the other way moves others downstream.
const WITHIN: f64 = 0.999;
/// Operators that read and write integers only, or stand at the border.
const INTEGER_OPS: [&str; 8] = [
    "Flatten",
    "MaxPool",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearMatMul",
    "QuantizeLinear",
];

#[track_caller]
fn holds_up(more: &[OsString]) {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let model = quantize_digits(&scratch, "out.onnx", more);
    is_valid(&model);
    is_all_integer(&model);
    is_accurate(&model);
    is_what_we_emulate(&scratch, &model);
}

#[track_caller]
fn is_valid(model: &Path) {
    let report = check_model(args!["check", model]).unwrap();
    assert_eq!(report["ok"], true, "{report}");
}

#[track_caller]
fn is_all_integer(model: &Path) {
    let report = check_model(args!["fusion", model]).unwrap();
    let domains = report["ops"].as_object().unwrap_or_else(|| panic!("{report}")).values();
    let ops: Vec<(&String, &Value)> = domains.flat_map(|counts| counts.as_object().unwrap()).collect();
    let strangers: Vec<_> = ops.iter().filter(|(op, _)| !INTEGER_OPS.contains(&op.as_str())).collect();
    assert!(strangers.is_empty(), "not on integers: {strangers:?} of {report}");
    assert_eq!(report["float"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(report["quantized"]["QLinearConv"], 9, "{report}");
    assert_eq!(report["quantized"]["QLinearAdd"], 2, "{report}");
}

#[track_caller]
fn accuracy(model: &Path) -> f64 {
    let data = args!["accuracy", model, digits("test.npz"), "--input", "image", "--label", "label"];
    let report = check_model(data).unwrap();
    report["accuracy"].as_f64().unwrap_or_else(|| panic!("{report}"))
}

#[track_caller]
fn is_accurate(model: &Path) {
    let (float, quantized) = (accuracy(&digits("digits.onnx")), accuracy(model));
    assert!(quantized >= float - DROP, "accuracy fell from {float} to {quantized}");
}

/// Makes every quantized activation an output, which leaves the runtime's fusions as they are, and compares them as the
/// integers they are: a step is one. The float output is held to what one step of the value before it can do.
#[track_caller]
fn is_what_we_emulate(scratch: &Scratch, model: &Path) {
    let tapped = scratch.path("tapped.onnx");
    let loaded = msq_onnx::load(model).unwrap();
    let step = output_step(&loaded);
    save_model(&with_integers(loaded), &tapped).unwrap();
    is_all_integer(&tapped);
    let (ours, theirs) = (scratch.path("ours.npz"), scratch.path("theirs.npz"));
    msq(args!["evaluate", tapped, "--calib", digits("test.npz"), "--save-outputs", ours, "-q"]).ok();
    let run = check_model(args!["run", tapped, digits("test.npz"), theirs]).unwrap();
    assert_eq!(run["ok"], true, "{run}");
    let compare = |step: f64| {
        let report = check_model(args!["compare", ours, theirs, "--step", step.to_string()]).unwrap();
        assert_eq!(report["ok"], true, "{report}");
        report["arrays"].as_object().unwrap().clone()
    };
    let integers = compare(1.0);
    assert!(integers.len() >= 12, "{integers:?}");
    for (name, report) in integers.iter().filter(|(name, _)| *name != "logits") {
        assert!(report["within_step"].as_f64().unwrap() >= WITHIN, "`{name}`: {report}");
    }
    let logits = &compare(step)["logits"];
    assert!(logits["within_step"].as_f64().unwrap() >= WITHIN, "{logits}");
}

fn with_integers(mut model: Model) -> Model {
    let quantizers = model.graph.nodes().filter(|(_, n)| n.is("QuantizeLinear"));
    let values: Vec<_> = quantizers.map(|(_, n)| n.output(0).unwrap()).collect();
    for value in values {
        model.graph.add_output(value);
    }
    model
}

/// How far the float output moves at most when the integers before the last layer move by one: the scale of its input
/// times the sum of a class's weights without their signs, for the class where that is most.
fn output_step(model: &Model) -> f64 {
    let graph = &model.graph;
    let producer = |value| graph.node(graph.value(value).producer().unwrap().0);
    let head = producer(graph.outputs().next().unwrap());
    let [input, weight] = [0, 1].map(|slot| producer(head.input(slot).unwrap()));
    let floats = |value| graph.initializer(value).unwrap().to_f32().unwrap();
    let scale = floats(input.input(1).unwrap())[0];
    let weights = graph.initializer(weight.input(0).unwrap()).unwrap().to_i64().unwrap();
    let scales = floats(weight.input(1).unwrap());
    let rows = weights.chunks_exact(weights.len() / scales.len()).zip(&scales);
    let sums = rows.map(|(row, scale)| row.iter().map(|w| w.abs()).sum::<i64>() as f32 * scale);
    f64::from(scale * sums.fold(0.0, f32::max))
}

#[test]
fn default_observer() {
    holds_up(args!["--calib", digits("calib.npz")]);
}

#[test]
fn made_up_data() {
    holds_up(args![]);
}

#[test]
fn few_samples() {
    holds_up(args!["--calib", digits("calib.npz"), "--samples", "16"]);
}

#[test]
fn min_max() {
    holds_up(args!["--calib", digits("calib.npz"), "--observer", "min-max"]);
}

#[test]
fn moving_average() {
    holds_up(args!["--calib", digits("calib.npz"), "--observer", "moving-average"]);
}

#[test]
fn percentile() {
    holds_up(args!["--calib", digits("calib.npz"), "--observer", "percentile"]);
    holds_up(args!["--calib", digits("calib.npz"), "--observer", "percentile:99.9"]);
}

#[test]
fn entropy() {
    holds_up(args!["--calib", digits("calib.npz"), "--observer", "entropy"]);
}

#[test]
fn stripped_names() {
    holds_up(args!["--calib", digits("calib.npz"), "--strip-names"]);
}

/// A layer left float runs in float, everything else on integers.
#[test]
fn skipped_layers() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let more =
        args!["--calib", digits("calib.npz"), "--skip", "res.conv2.conv", "--skip", "head", "--placement", "all"];
    let model = quantize_digits(&scratch, "out.onnx", more);
    is_valid(&model);
    is_accurate(&model);
    let report = check_model(args!["fusion", model]).unwrap();
    assert_eq!(report["quantized"]["QLinearConv"], 8, "{report}");
    let float: Vec<&str> = report["float"].as_array().unwrap().iter().map(|n| n["op"].as_str().unwrap()).collect();
    assert!(float.iter().all(|op| ["FusedConv", "Conv", "Gemm", "Add"].contains(op)), "{report}");
}
