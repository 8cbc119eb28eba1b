//! What is written for each target: valid, close to float, and run by the target itself where it can be had here.
//! `OpenVINO` and our engine, which is tract, can; the files for `TensorRT` and QNN are run in onnxruntime, which says
//! that they are valid and compute what they should, not that those targets run them fast.

use crate::common::arrays::{Npy, read_npz, write_npz};
use crate::common::python::{Ran, python, ran};
use crate::common::{Scratch, args, digits, models, msq, repository};
use msq_passes::Profile;
use std::path::{Path, PathBuf};

/// Networks of different patterns, from `tests/networks`.
const NETWORKS: [&str; 6] =
    ["additions", "batch_norms", "concatenation", "convolutions", "matrix_products", "one_dimension"];
/// Least signal-to-noise ratio against float in decibels, for 8 and for 4 bits of weights.
const SQNR: [(&str, f64); 2] = [("8", 25.0), ("4", 8.0)];
/// Least ratio of one runtime against another, which rounds ties its own way.
const ALIKE: f64 = 30.0;

/// A float model, its data, and what it was quantized to.
struct Case {
    name: String,
    float: PathBuf,
    data: PathBuf,
    quantized: PathBuf,
    least: f64,
}

/// Digits and the networks for a target, with 8 and 4 bits.
#[track_caller]
fn cases(scratch: &Scratch, profile: &str) -> Vec<Case> {
    let mut floats = vec![("digits", digits("digits.onnx"), digits("test.npz"))];
    for network in NETWORKS {
        let text = std::fs::read_to_string(repository("tests/networks").join(format!("{network}.onnxtxt"))).unwrap();
        let mut proto = models::parse(&text);
        models::fill(&mut proto);
        let float = models::write(&scratch.path(&format!("{network}.onnx")), &proto);
        let data = write_data(scratch, network, &float);
        floats.push((network, float, data));
    }
    let mut cases = Vec::new();
    for (name, float, data) in floats {
        for (bits, least) in SQNR {
            let name = format!("{name}, {profile}, {bits} bits");
            let quantized = scratch.out(&format!("{name}.onnx"));
            let flags = args![
                "--profile",
                profile,
                "--weight-bits",
                bits,
                "--calib",
                data,
                "--samples",
                "64",
                "-q",
                "--placement",
                "all",
                "--no-repair"
            ];
            msq(&[args![float, "-o", quantized].as_slice(), flags].concat()).ok();
            cases.push(Case { name, float: float.clone(), data: data.clone(), quantized, least });
        }
    }
    cases
}

/// 32 samples for every input, open axes of length 16.
fn write_data(scratch: &Scratch, name: &str, model: &Path) -> PathBuf {
    let specs = msq_onnx::data::InputSpec::of(&msq_onnx::load(model).unwrap());
    let array = |spec: &msq_onnx::data::InputSpec| {
        let mut shape: Vec<usize> = spec.shape.as_ref().unwrap().iter().map(|n| n.unwrap_or(16)).collect();
        shape[0] = 32;
        Npy::ramp(&shape)
    };
    let path = scratch.path(&format!("{name}.npz"));
    write_npz(&path, &specs.iter().map(|spec| (spec.name.as_str(), array(spec))).collect::<Vec<_>>());
    path
}

/// Signal-to-noise ratio in decibels.
fn decibels(wanted: &[f32], found: &[f32]) -> f64 {
    assert_eq!(wanted.len(), found.len());
    let signal: f64 = wanted.iter().map(|&v| f64::from(v).powi(2)).sum();
    let noise: f64 = wanted.iter().zip(found).map(|(&w, &f)| (f64::from(w) - f64::from(f)).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

/// Every output of the one runtime against the other's.
#[track_caller]
fn alike(what: &str, wanted: &Ran, found: &Ran, least: f64) {
    assert!(!wanted.outputs.is_empty() && wanted.outputs.keys().eq(found.outputs.keys()), "{what}");
    for (name, values) in &wanted.outputs {
        let close = decibels(values, &found.outputs[name]);
        assert!(close > least, "{what}: `{name}` only {close:.1} dB");
    }
}

/// The float and the quantized models in onnxruntime: valid and close. Returns the quantized ones.
#[track_caller]
fn close_to_float(cases: &[Case]) -> Option<Vec<Ran>> {
    let float = cases.iter().map(|case| (case.float.as_path(), case.data.as_path()));
    let quantized = cases.iter().map(|case| (case.quantized.as_path(), case.data.as_path()));
    let mut wanted = ran("survey", &float.chain(quantized).collect::<Vec<_>>())?;
    let found = wanted.split_off(cases.len());
    for ((case, wanted), found) in cases.iter().zip(&wanted).zip(&found) {
        alike(&case.name, wanted, found, case.least);
    }
    Some(found)
}

/// Convolutions of the digits model that onnxruntime runs on integers.
fn convolutions(ran: &Ran) -> u64 {
    ran.report["quantized"]["QLinearConv"].as_u64().unwrap_or_default()
}

#[track_caller]
fn holds_up_in_onnxruntime(profile: &str, fused: bool) {
    let scratch = Scratch::new();
    let cases = cases(&scratch, profile);
    let Some(ran) = close_to_float(&cases) else { return };
    if fused {
        assert_eq!((convolutions(&ran[0]), convolutions(&ran[1])), (9, 9), "{}", ran[0].report);
        assert_eq!(ran[0].report["float"].as_array().unwrap().len(), 0, "{}", ran[0].report);
    }
}

#[test]
fn ort_cpu() {
    holds_up_in_onnxruntime("ort-cpu", true);
}

/// Valid and close; onnxruntime fuses convolutions of signed activations on ARM alone.
#[test]
fn ort_arm() {
    holds_up_in_onnxruntime("ort-arm", cfg!(target_arch = "aarch64"));
}

/// Graph outputs and biases stay float.
#[test]
fn tensorrt() {
    holds_up_in_onnxruntime("tensorrt", false);
}

#[test]
fn qnn() {
    holds_up_in_onnxruntime("qnn", true);
}

/// Operators between layers that NPUs run on integers: enlarged and folded images, slopes, a group normalization, a
/// rotation, a layer normalization; the last layer and where its largest output is.
const NPU: &str = "<ir_version: 9, opset_import: [\"\": 18]>
    npu (float[N,4,8,8] x) => (float[N,64,8] y, int64[N,64,1] index)
    <float[4,4,3,3] w = {}, float[4,1,1] slope = {0.1, 0.3, -0.2, 0.5}, float[4] scales = {1, 1, 2, 2},
     int64[3] groups = {0, 4, -1}, int64[4] image = {0, 16, 8, 8}, float[4] gain = {1, 1.5, 0.5, 2},
     float[4] shift = {0.5, 0, -1, 0.25}, float[8,16,1,1] v = {}, int64[3] rows = {0, 8, 64}, int64[1] from = {0},
     int64[1] half = {4}, int64[1] all = {8}, int64[1] axis = {-1}, float[8] factor = {1, 2, 0.5, 1, 1.5, 1, 0.75, 1},
     float[8] offset = {0.5, -0.5, 1, 0, 0, 0.25, -1, 0}, float[8,8] head = {}, float two = {2}>
    {
      [first] a = Conv <pads = [1,1,1,1]> (x, w)
      p = PRelu (a, slope)
      [enlarge] r = Resize <mode = \"linear\"> (p, , scales)
      d = SpaceToDepth <blocksize = 2> (r)
      g0 = Reshape (d, groups)
      [groups] g1 = InstanceNormalization (g0, gain, shift)
      g = Reshape (g1, image)
      [second] c = Conv (g, v)
      l = Relu (c)
      s = Add (l, c)
      t0 = Reshape (s, rows)
      t = Transpose <perm = [0,2,1]> (t0)
      lower = Slice (t, from, half, axis)
      upper = Slice (t, half, all, axis)
      m = Neg (upper)
      o = Concat <axis = -1> (m, lower)
      q = Pow (t, two)
      u0 = Add (o, q)
      u = Max (u0, t)
      [norm] n = LayerNormalization (u, factor, offset)
      [head] y = MatMul (n, head)
      index = ArgMax <axis = 2> (y)
    }";

#[test]
fn qnn_runs_nothing_between_layers_in_float() {
    let scratch = Scratch::new();
    let mut proto = models::parse(NPU);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("npu.onnx"), &proto);
    let data = write_data(&scratch, "npu", &float);
    let quantized = scratch.out("npu.onnx");
    let flags = args!["--profile", "qnn", "--calib", data, "--no-repair", "--json"];
    let said = msq(&[args![float, "-o", quantized].as_slice(), flags].concat()).ok().json();
    assert_eq!(said["kept"].as_array().unwrap().len(), 0, "{}", said["kept"]);
    let linted = msq(args!["lint", "--profile", "qnn", quantized, "--json"]).json();
    let found = linted["findings"].as_array().unwrap();
    let rules: Vec<&str> = found.iter().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["dynamic-shape"], "{linted}");
    let Some(ran) = ran("survey", &[(&float, &data), (&quantized, &data)]) else { return };
    let close = decibels(&ran[0].outputs["y"], &ran[1].outputs["y"]);
    assert!(close > 25.0, "only {close:.1} dB");
    let (wanted, found) = (&ran[0].outputs["index"], &ran[1].outputs["index"]);
    let same = wanted.iter().zip(found).filter(|(wanted, found)| wanted == found).count();
    assert!(same * 10 > wanted.len() * 9, "{same} of {} indices", wanted.len());
}

/// In `OpenVINO` itself: on integers, and the numbers of onnxruntime.
#[test]
fn openvino() {
    let scratch = Scratch::new();
    let mut cases = cases(&scratch, "openvino");
    let int4 = scratch.out("int4.onnx");
    let flags = args![
        "--profile",
        "openvino",
        "--weight-bits",
        "4",
        "--packing",
        "int4",
        "--samples",
        "64",
        "-q",
        "--placement",
        "all",
        "--no-repair"
    ];
    let (float, data) = (digits("digits.onnx"), digits("test.npz"));
    msq(&[args![float, "-o", int4, "--calib", data].as_slice(), flags].concat()).ok();
    cases.push(Case { name: "digits, int4".to_owned(), float, data, quantized: int4, least: 8.0 });
    let Some(wanted) = close_to_float(&cases) else { return };
    let models: Vec<_> = cases.iter().map(|case| (case.quantized.as_path(), case.data.as_path())).collect();
    let found = ran("openvino", &models).unwrap();
    for ((case, wanted), found) in cases.iter().zip(&wanted).zip(&found) {
        alike(&case.name, wanted, found, ALIKE.min(case.least + 5.0));
        // A model without convolutions has products.
        let layers = &found.report["layers"];
        let layer = if layers["Convolution"].is_object() { "Convolution" } else { "FullyConnected" };
        let precisions: Vec<&String> = layers[layer].as_object().unwrap_or_else(|| panic!("{layers}")).keys().collect();
        assert!(precisions.iter().all(|p| ["i8", "u8"].contains(&p.as_str())), "{}: {layers}", case.name);
    }
    assert_eq!(
        found[0].report["layers"]["Convolution"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(serde_json::Value::as_u64)
            .sum::<u64>(),
        9
    );
}

/// In our engine, which is tract, and in onnxruntime: one scale per tensor, the same numbers.
#[test]
fn tract() {
    let scratch = Scratch::new();
    let cases = cases(&scratch, "tract");
    let own: Vec<Ran> = cases.iter().map(|case| in_our_engine(&scratch, &case.quantized, &case.data)).collect();
    for (case, found) in cases.iter().zip(&own) {
        let wanted = in_our_engine(&scratch, &case.float, &case.data);
        alike(&case.name, &wanted, found, case.least);
    }
    let model = msq_onnx::load(&cases[0].quantized).unwrap();
    let scales = model.graph.nodes().filter(|(_, n)| n.is("DequantizeLinear")).filter_map(|(_, n)| n.input(1));
    assert!(
        scales.filter_map(|s| model.graph.initializer(s)).all(|s| s.element_count() == Ok(1)),
        "one scale per tensor"
    );
    let Some(theirs) = close_to_float(&cases) else { return };
    for ((case, own), theirs) in cases.iter().zip(&own).zip(&theirs) {
        alike(&case.name, theirs, own, ALIKE.min(case.least + 5.0));
    }
}

fn in_our_engine(scratch: &Scratch, model: &Path, data: &Path) -> Ran {
    let outputs = scratch.path("ours.npz");
    msq(args!["evaluate", model, "--calib", data, "--save-outputs", outputs, "-q"]).ok();
    Ran { report: serde_json::Value::Null, outputs: read_npz(&outputs) }
}

#[test]
fn every_profile_is_tested() {
    let names: Vec<&str> = Profile::ALL.iter().map(|profile| profile.name).collect();
    assert_eq!(names, ["ort-cpu", "ort-arm", "tensorrt", "openvino", "qnn", "tract"]);
    // Says on stderr where the runtimes are left out.
    python();
}

/// A convolution that its integer kernel runs slower than float, with a length that is open or not: the samples have it.
#[test]
fn open_lengths_are_judged_by_the_samples() {
    for length in ["8000", "T"] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             net (float[1,1,1,{length}] x) => (float[1,1,1,S] y) <float[1,1,1,256] w = {{}}> {{ [slow] y = Conv (x, w) }}"
        );
        let network = models::Network::new(&text, Npy::ramp(&[4, 1, 1, 8000]));
        let out = network.scratch.out("out.onnx");
        let report = msq(args![network.float, "-o", out, "--calib", network.data, "--json"]).ok().json();
        let kept = report["kept"].to_string();
        assert!(kept.contains("its integer kernel would be slower"), "{length}: {kept}");
    }
}
