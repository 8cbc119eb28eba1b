//! Models that the engine runs in part, or not at all: what it runs is quantized as usual, the rest is left float with a
//! reason, its weights stored as integers, and custom operators stay as they are.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::operators;
use crate::common::{Scratch, args, models, msq};
use msq_passes::ir::{ModelProto, StringStringEntryProto};
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

/// What the engine would compute otherwise is left to the runtime.
#[test]
fn an_operator_that_the_engine_does_not_compute_stays_float() {
    for (trains, stays) in [("0", false), ("1", true)] {
        let text = PARTLY
            .replace("acme.OPERATOR <gain = 2.0> (t3)", "Dropout (t3, r, t)")
            .replace("c = {}", &format!("c = {{}}, float r = {{0.5}}, bool t = {{{trains}}}"));
        let scratch = Scratch::new();
        let (float, data) = model(&scratch, &text, "");
        let output = scratch.out("out.onnx");
        let run = msq(args![float, "-o", output, "--calib", data, "--json"]).ok();
        assert_eq!(run.stdout.contains("does not drop at random"), stays, "{}", run.stdout);
    }
}

/// A layer that no solver takes is rounded to nearest, and a note says so.
#[test]
fn a_layer_that_is_not_solved_is_named() {
    let text = PARTLY
        .replace("acme.OPERATOR <gain = 2.0>", "Relu")
        .replace("Conv <kernel_shape = [1, 1]> (t4, c)", "ConvTranspose <kernel_shape = [1, 1]> (t4, c)")
        .replace("float[4,8,1,1] c", "float[8,4,1,1] c");
    let scratch = Scratch::new();
    let (float, data) = model(&scratch, &text, "");
    let output = scratch.out("out.onnx");
    let more = args!["--weight-bits", "4", "--solver", "gram", "--keep-names"];
    let run = msq(&[&args![float, "-o", output, "--calib", data][..], more].concat()).ok();
    let text = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("1 layer is rounded to nearest, because the solver cannot take layers like this"), "{text}");
    assert!(text.contains("transposed convolutions are not supported (`"), "{text}");
    assert!(!run.stderr.contains("nearest"), "{}", run.stderr);
}

/// The name of an operator the engine knows means nothing in another domain.
#[test]
fn what_depends_on_a_custom_operator_stays_float() {
    for operator in ["Magic", "Relu"] {
        let scratch = Scratch::new();
        let (float, data) = model(&scratch, PARTLY, operator);
        let output = scratch.out("out.onnx");
        let page = scratch.out("report.html");
        let more = args!["--json", "--weight-bits", "4", "--placement", "all", "--report", page];
        let run = msq(&[&args![float, "-o", output, "--calib", data][..], more].concat()).ok();
        assert!(std::fs::read_to_string(page).unwrap().contains("acme."));
        assert!(run.stderr.contains("neither calibrated nor measured"), "{}", run.stderr);
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

/// A state space layer, whose steps the engine's optimizer would rewrite for ever.
const SCANNED: &str = "<ir_version: 9, opset_import: [\"\": 18]>
    net (float[1,24,16] x) => (float[1,24,16] y)
    <float[16,16] a = {}, float[16,4] b = {}, float[16,4] c = {}, float[16,16] d = {}, int64[1] last = {-1},
     int64[1] two = {2}, float[1,16,4] h = {}>
    {
        u = MatMul (x, a) u4 = Unsqueeze (u, last) v = MatMul (x, b) w = MatMul (x, c) v4 = Unsqueeze (v, two)
        p = Mul (u4, v4) q = Sigmoid (p)
        end, ys = Scan <num_scan_inputs = 3, scan_input_axes = [1, 1, 1], scan_output_axes = [1],
            body = body (float[1,16,4] h_in, float[1,16,4] s, float[1,16,4] t, float[1,4] r) => (float[1,16,4] h_out, float[1,16] z)
            <int64[1] ax = {-1}>
            { g = Mul (h_in, s) h_out = Add (g, t) k = Unsqueeze (r, ax) m = MatMul (h_out, k) z = Squeeze (m, ax) }> (h, q, p, w)
        y = MatMul (ys, d)
    }";

/// Rewriting that does not come to an end is ended: what stands before it is quantized.
#[test]
fn a_network_that_is_rewritten_for_ever_comes_to_an_end() {
    let scratch = Scratch::new();
    let mut proto = models::parse(SCANNED);
    models::fill(&mut proto);
    let (float, data) = (models::write(&scratch.path("float.onnx"), &proto), scratch.path("data.npz"));
    write_npz(&data, &[("x", Npy::ramp(&[8, 24, 16]))]);
    let output = scratch.out("out.onnx");
    let run = msq(args![float, "-o", output, "--calib", data, "--json", "--placement", "all"]).ok();
    assert!(run.stderr.contains("the engine fails on `Scan` of node `end`"), "{}", run.stderr);
    assert_eq!(run.json()["layers"].as_array().unwrap().len(), 4, "{}", run.stdout);
}

/// ONNX has no such operator, though some exporters write it.
#[test]
fn an_operator_that_nothing_has_is_named() {
    let scratch = Scratch::new();
    let (float, data) = model(&scratch, &PARTLY.replace("acme.OPERATOR <gain = 2.0>", "Erfc"), "");
    let run = msq(args![float, "-o", scratch.out("out.onnx"), "--calib", data, "--json"]).ok();
    let notes = run.json()["notes"].to_string();
    assert!(notes.contains("ONNX has no operator `Erfc`, which node `t4` asks for"), "{notes}");
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

/// Four layers of 4096 weights each.
const DEEP: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,64] x) => (float[N,64] y)
    <float[64,64] a = {}, float[64,64] b = {}, float[64,64] c = {}, float[64,64] d = {}>
    {
        t0 = MatMul (x, a)  t1 = Relu (t0)
        t2 = MatMul (t1, b)  t3 = Add (t2, t1)
        t4 = MatMul (t3, c)  t5 = Relu (t4)
        y = MatMul (t5, d)
    }";

/// Moves the elements of all initializers to a file.
fn externalize(proto: &mut ModelProto, file: &Path) {
    let mut bytes = Vec::new();
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        let raw: Vec<u8> = tensor.to_f32().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let place = [("location", name), ("offset", bytes.len().to_string()), ("length", raw.len().to_string())];
        tensor.external_data = place.map(|(key, value)| entry(key, value)).to_vec();
        (tensor.data_location, tensor.raw_data) = (Some(1), None);
        tensor.float_data.clear();
        bytes.extend(raw);
    }
    std::fs::write(file, bytes).unwrap();
}

/// With memory for one layer at a time, the engine has one layer at a time, and the file is the same. With memory for
/// none, there are only weights; where it is too little for what is between layers, samples go through in batches.
#[test]
fn large_models_run_in_stages() {
    let scratch = Scratch::new();
    let mut proto = models::parse(DEEP);
    models::fill(&mut proto);
    externalize(&mut proto, &scratch.path("weights.bin"));
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[8, 64]))]);
    for more in [args!["--weight-bits", "8"], args!["--weight-bits", "3"]] {
        let quantize = |memory: &str| {
            // One name, since a model names the file of its external weights.
            let output = scratch.out("out.onnx");
            let page = scratch.out("report.html");
            let own = args![float, "-o", output, "--calib", data, "--json", "--memory", memory, "--report", page];
            let all = [&own[..], more, args!["--placement", "all"]].concat();
            let run = msq(&all).ok();
            (std::fs::read(output).unwrap(), run.json(), run.stderr)
        };
        let (whole, staged, weights) = (quantize("10MB"), quantize("200KB"), quantize("100KB"));
        assert_eq!((whole.2.as_str(), staged.2.as_str()), ("", ""));
        assert!(whole.0 == staged.0, "another file");
        assert_eq!(whole.1["quality"], staged.1["quality"]);
        assert!(!whole.1["quality"].is_null());
        let reason = "up to node `t0`, stages of 8333 bytes are not enough for its weights";
        assert!(weights.2.contains("only weights are quantized") && weights.2.contains(reason), "{}", weights.2);
        assert!(weights.1["quality"].is_null());
    }
    // What stages hand on of 100 samples does not fit: they go through in batches, and all of them count.
    write_npz(&data, &[("x", Npy::ramp(&[100, 64]))]);
    let many = ["10MB", "200KB"].map(|memory| {
        let output = scratch.out("many.onnx");
        let run = msq(args![float, "-o", output, "--calib", data, "--memory", memory, "--json"]).ok();
        assert_eq!(run.stderr, "");
        assert_eq!(run.json()["samples"], 100);
        let files = [output.clone(), output.with_extension("onnx.data")].map(|path| std::fs::read(path).ok());
        assert!(files[0].is_some());
        (files, run.json()["quality"].clone())
    });
    assert!(many[0].0 == many[1].0, "another file of many samples");
    assert_eq!(many[0].1, many[1].1);
}

/// Where only one layer at a time is in the engine, models are measured, compared and searched with the same figures.
#[test]
fn large_models_are_measured_in_stages() {
    let scratch = Scratch::new();
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[11, 64]))]);
    let model = |name: &str, text: &str| {
        let mut proto = models::parse(text);
        models::fill(&mut proto);
        externalize(&mut proto, &scratch.path(&format!("{name}.bin")));
        models::write(&scratch.path(&format!("{name}.onnx")), &proto)
    };
    // With nothing to warn of but what has nothing to do with memory.
    let figures_but = |warning: Option<&str>, command: &[std::ffi::OsString]| {
        let found = ["10GB", "200KB"].map(|memory| {
            let run = msq(&[command, args!["--calib", data, "--json", "--memory", memory]].concat()).ok();
            let is_known = |line: &&str| warning.is_some_and(|warning| line.contains(warning));
            assert_eq!(run.stderr.lines().find(|line| !is_known(line)), None, "{command:?}");
            let mut found = run.json();
            for key in ["arguments", "passes"] {
                found.as_object_mut().unwrap().remove(key);
            }
            found
        });
        let [whole, staged] = found;
        assert_eq!(whole, staged, "{command:?}");
        whole
    };
    let figures = |command: &[std::ffi::OsString]| figures_but(None, command);
    let one = model("one", DEEP);
    // An output that an early stage computes.
    let two = model("two", &DEEP.replace("(float[N,64] y)", "(float[N,64] y, float[N,64] t1)"));
    for (float, outputs) in [(&one, 1), (&two, 2)] {
        let small = scratch.out("small.onnx");
        msq(args![float, "-o", small, "--calib", data, "--verify", "0"]).ok();
        figures(args!["evaluate", float, "--save-outputs", scratch.path("alone.npz")]);
        let found = figures(args!["evaluate", small, "--reference", float]);
        assert!(found["values"].as_array().unwrap().len() > 2, "{found}");
        assert_eq!(found["outputs"].as_array().unwrap().len(), outputs, "{found}");
        let found = figures(args!["compare", float, small]);
        assert!(found["layers"].as_array().unwrap().iter().all(|layer| layer["output_sqnr"].is_number()), "{found}");
        // A stage that has no room for one layer.
        let run = msq(args!["evaluate", float, "--reference", float, "--calib", data, "--memory", "100KB"]);
        assert!(run.error(3).contains("stages of 8333 bytes are not enough"));
    }
    for (method, warning) in [("ilp", None), ("msq", Some("few samples a class"))] {
        let search = args!["search", one, "--target-bits", "5", "--search", method, "--search-samples", "4"];
        let found = figures_but(warning, search);
        assert!(found["reached"].as_bool().unwrap(), "{found}");
    }
}

/// What was counted elsewhere serves a model that the engine runs in part, too, whether it knows the operator or fails on it.
#[test]
fn statistics_of_a_part_make_the_same_file() {
    let fails = PARTLY.replace(
        "t4 = acme.OPERATOR <gain = 2.0> (t3)",
        "s = SplitToSequence <axis = 1> (t3)\n t4 = ConcatFromSequence <axis = 1> (s)",
    );
    for (text, operator) in [(PARTLY, "Strange"), (&*fails, "")] {
        let scratch = Scratch::new();
        let (float, data) = model(&scratch, text, operator);
        let (whole, joined, counted) = (scratch.out("whole.onnx"), scratch.out("joined.onnx"), scratch.path("counts"));
        msq(args![float, "-o", whole, "--calib", data, "-q"]).ok();
        msq(args!["calibrate", float, "-o", counted, "--calib", data, "-q"]).ok();
        msq(args![float, "-o", joined, "--calib", data, "--statistics", counted, "-q"]).ok();
        assert!(std::fs::read(&whole).unwrap() == std::fs::read(&joined).unwrap());
    }
}
