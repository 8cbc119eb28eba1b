//! `--fix-input`: an input that says which network of a file is meant becomes a constant.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::{Network, operators};
use crate::common::{Scratch, args, msq};
use msq_onnx::load;
use serde_json::json;

const TEXT: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,16] x, int64 rate) => (float[N,4] y)
    <float[16,32] a = {}, float[32,4] b = {}, float[16,8] c = {}, float[8,4] d = {}, int64 high = {16000}>
    {
        is_high = Equal (rate, high)
        y = If (is_high) <
            then_branch = fast () => (float[N,4] p) { [wide] h = MatMul (x, a)  r = Relu (h)  p = MatMul (r, b) },
            else_branch = slow () => (float[N,4] q) { [narrow] g = MatMul (x, c)  s = Relu (g)  q = MatMul (s, d) }
        >
    }";

fn network() -> Network {
    Network::new(TEXT, Npy::ramp(&[40, 16]))
}

#[test]
fn the_branch_that_is_taken_is_quantized() {
    let network = network();
    for (rate, layer) in [("16000", "wide"), ("8000", "narrow")] {
        let (out, run) = network.run(&format!("--fix-input rate={rate} --placement all --json"));
        let report = run.ok().json();
        assert_eq!(report["layers"].as_array().unwrap().len(), 2, "{report}");
        assert_eq!(report["layers"][0]["name"], layer);
        assert!(report["notes"].to_string().contains(&format!("input `rate` is fixed at {rate}")), "{report}");
        assert_eq!(report["options"]["prepare"]["fix-input"], json!([format!("rate={rate}")]));
        assert!(report["quality"]["lost"].as_f64().unwrap() < 0.05, "{report}");
        assert!(!operators(&out).contains(&"If".to_owned()));
        let model = load(&out).unwrap();
        let inputs: Vec<&str> = model.graph.inputs().map(|value| model.graph.value(value).name()).collect();
        assert_eq!(inputs, ["x"]);
    }
}

/// The original is fed what the result was made for, without being told.
#[test]
fn the_original_is_measured_with_the_same_value() {
    let network = network();
    let (out, run) = network.run("--fix-input rate=8000 --placement all");
    run.ok();
    let (float, data) = (&network.float, &network.data);
    for call in [
        args!["evaluate", out, "--reference", float, "--calib", data, "--json"].to_vec(),
        args!["evaluate", float, "--reference", out, "--calib", data, "--json", "--fix-input", "rate=8000"].to_vec(),
        args!["compare", float, out, "--calib", data, "--json"].to_vec(),
    ] {
        let found = msq(&call).ok().json();
        assert_eq!(found["fixed_inputs"], json!(["rate=8000"]), "{found}");
        assert!(found["lost"].as_f64().unwrap() < 0.05, "{found}");
    }
    let said = msq(args!["compare", float, out, "--calib", data]).ok().stdout;
    assert!(said.contains("fixed      `rate` at 8000"), "{said}");
    let other = msq(args!["compare", float, out, "--calib", data, "--fix-input", "rate=16000"]);
    assert!(other.error(3).contains("input `rate` is fixed at 8000 in one and at 16000 in the other"));
    let listed = msq(args!["inspect", float, "--fix-input", "rate=8000"]).ok().stdout;
    assert!(listed.contains("narrow") && !listed.contains("wide"), "{listed}");
}

/// Of two files that differ in their inputs, and say nothing of it, the message names the input and the way out.
#[test]
fn an_input_that_only_one_has_is_named() {
    let (network, scratch) = (network(), Scratch::new());
    let mut proto = msq_passes::ir::export(&load(&network.float).unwrap());
    proto.graph.as_mut().unwrap().input.truncate(1);
    let rate = msq_passes::ir::TensorProto::from_i64("rate", &[], &[8000]);
    proto.graph.as_mut().unwrap().initializer.push(rate);
    let other = crate::common::models::write(&scratch.path("other.onnx"), &proto);
    let call = args!["evaluate", other, "--reference", network.float, "--calib", network.data];
    let run = msq(call);
    assert!(run.error(3).contains("only one has the input `rate`: --fix-input rate=VALUE"), "{}", run.stderr);
    let fixed = [call.as_slice(), args!["--fix-input", "rate=8000"]].concat();
    msq(&fixed).ok();
}

#[test]
fn what_cannot_be_fixed_is_refused() {
    let network = network();
    for (fixed, part) in [
        ("speed=1", "--fix-input speed=1: the model has no input `speed`; it has `x`, `rate`"),
        ("x=1", "open shape [N, 16]"),
        ("rate=1.5", "`1.5` is no value of `int64`"),
        ("rate=1,2", "give one value, not 2"),
    ] {
        let (_, run) = network.run(&format!("--fix-input {fixed}"));
        assert!(run.error(2).contains(part), "{}", run.stderr);
        let run = msq(args!["evaluate", network.float, "--calib", network.data, "--fix-input", fixed]);
        assert!(run.error(2).contains(part), "{}", run.stderr);
    }
    assert_eq!(network.scratch.outputs(), Vec::<String>::new());
}

/// Data made for the original go on to be of use; where they say something else, the run says so.
#[test]
fn an_array_for_a_fixed_input_is_not_used() {
    let network = network();
    let rates = |value: i64| Npy::new("<i8", &[40], &value.to_le_bytes().repeat(40));
    let run = |value: i64| {
        write_npz(&network.data, &[("x", Npy::ramp(&[40, 16])), ("rate", rates(value))]);
        let (out, run) = network.run("--fix-input rate=8000 --placement all");
        let run = run.ok();
        (std::fs::read(out).unwrap(), run.stderr)
    };
    let (same, other) = (run(8000), run(16000));
    assert_eq!(same.0, other.0);
    assert_eq!(same.1, "");
    assert!(other.1.contains("array `rate` of") && other.1.contains("is not used"), "{}", other.1);
}

#[test]
fn the_option_stands_in_a_file_as_well() {
    let network = network();
    let config = network.scratch.write("options.toml", "fix-input = ['rate=8000']\nplacement = 'all'\n");
    let (out, run) = network.run(&format!("--config {}", config.display()));
    run.ok();
    assert!(!operators(&out).contains(&"If".to_owned()));
}
