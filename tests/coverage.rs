//! Models that the engine runs in part, or not at all: what it runs is quantized as usual, the rest is left float with a
//! reason, its weights stored as integers, and custom operators stay as they are.

#![allow(clippy::unwrap_used)]

mod common;

use common::arrays::{Npy, write_npz};
use common::{Scratch, args, models, msq};
use std::path::{Path, PathBuf};

/// Two convolutions before an operator of a domain of its own, one behind it.
const PARTLY: &str = "<ir_version: 8, opset_import: [\"\": 17, \"acme\": 1]>
    net (float[N,3,8,8] x) => (float[N,4,8,8] y)
    <float[8,3,3,3] a = {}, float[8,8,3,3] b = {}, float[4,8,1,1] c = {}>
    {
        t0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a)  t1 = Relu (t0)
        t2 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t1, b)  t3 = Relu (t2)
        t4 = acme.OPERATOR <gain = 2.0> (t3)
        y = Conv <kernel_shape = [1, 1]> (t4, c)
    }";

/// The operator comes first: nothing but weights can be quantized.
const NOWHERE: &str = "<ir_version: 8, opset_import: [\"\": 17, \"acme\": 1]>
    net (float[N,3,8,8] x) => (float[N,8,8,8] y)
    <float[8,3,3,3] a = {}>
    { t = acme.OPERATOR (x)  y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t, a) }";

fn model(scratch: &Scratch, text: &str, operator: &str) -> (PathBuf, PathBuf) {
    let mut proto = models::parse(&text.replace("OPERATOR", operator));
    models::fill(&mut proto);
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[8, 3, 8, 8]))]);
    (models::write(&scratch.path("float.onnx"), &proto), data)
}

fn operators(path: &Path) -> Vec<String> {
    let model = msq_onnx::load(path).unwrap();
    model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect()
}

/// The name of an operator the engine knows means nothing in another domain.
#[test]
fn what_depends_on_a_custom_operator_stays_float() {
    for operator in ["Magic", "Relu"] {
        let scratch = Scratch::new();
        let (float, data) = model(&scratch, PARTLY, operator);
        let output = scratch.out("out.onnx");
        let page = scratch.out("report.html");
        let more = args!["--json", "--weight-bits", "4", "--report", page];
        let run = msq(&[&args![float, "-o", output, "--calib", data][..], more].concat()).ok();
        assert!(std::fs::read_to_string(page).unwrap().contains("acme."));
        assert!(run.stderr.contains("not observed or compared"), "{}", run.stderr);
        let report = run.json();
        let reason = |entry: &serde_json::Value| entry["reason"].as_str().unwrap().to_owned();
        let kept: Vec<String> = report["kept"].as_array().unwrap().iter().map(reason).collect();
        let expected = format!("the engine does not know `acme.{operator}` of node `t4`");
        assert_eq!(kept, [expected.clone(), expected], "{report}");
        let bits = |name: &str| {
            let layers = report["layers"].as_array().unwrap();
            layers.iter().find(|l| l["name"] == name).unwrap()["activation_bits"].clone()
        };
        assert_eq!((bits("t0"), bits("t2"), bits("y")), (8.into(), 8.into(), serde_json::Value::Null));
        assert!(report["quality"].is_null());
        assert_eq!(operators(&output).iter().filter(|op| *op == operator).count(), 1);
        let written = msq_onnx::load(&output).unwrap();
        let custom = written.graph.nodes().find(|(_, n)| n.domain() == "acme").unwrap().1;
        assert_eq!((custom.op(), custom.float_or("gain", 0.0)), (operator, 2.0));
    }
}

#[test]
fn a_model_that_cannot_be_run_gets_smaller_all_the_same() {
    let scratch = Scratch::new();
    let (float, data) = model(&scratch, NOWHERE, "Magic");
    for more in [["--calib", data.to_str().unwrap()], ["--weight-bits", "4"]] {
        let output = scratch.out("out.onnx");
        let mut all = args![float, "-o", output, "--json", "--keep-names"].to_vec();
        all.extend(more.map(std::ffi::OsString::from));
        let run = msq(&all).ok();
        assert!(run.stderr.contains("only weights are quantized"), "{}", run.stderr);
        let report = run.json();
        assert_eq!(report["layers"][0]["activation_bits"], serde_json::Value::Null, "{report}");
        assert!(!operators(&output).contains(&"QuantizeLinear".to_owned()));
        let written = msq_onnx::load(&output).unwrap();
        let integers =
            |(_, t): (_, &msq_passes::ir::TensorProto)| !t.is_float() && t.to_i64().is_ok_and(|q| q.len() > 50);
        assert!(written.graph.initializers().any(integers), "no integer weights");
    }
}

/// A search measures, and there is nothing to measure.
#[test]
fn a_search_needs_a_model_that_runs() {
    let scratch = Scratch::new();
    let (float, data) = model(&scratch, NOWHERE, "Magic");
    let run = msq(args![float, "-o", scratch.out("out.onnx"), "--calib", data, "--target-bits", "4"]);
    assert!(run.error(3).contains("`acme.Magic`"));
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}
