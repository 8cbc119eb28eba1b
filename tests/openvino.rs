//! Forms that `OpenVINO` refuses or computes otherwise than the file says: files for it avoid them, and what it computes of
//! the others the linter is right about.

use crate::common::arrays::Npy;
use crate::common::models::Network;
use crate::common::python::{Ran, ran};
use crate::common::{args, msq};
use std::path::{Path, PathBuf};

/// Signal-to-noise ratio in decibels, over all outputs.
fn decibels(wanted: &Ran, found: &Ran) -> f64 {
    let pairs = || wanted.outputs.iter().flat_map(|(name, values)| values.iter().zip(&found.outputs[name]));
    let signal: f64 = pairs().map(|(&w, _)| f64::from(w).powi(2)).sum();
    let noise: f64 = pairs().map(|(&w, &f)| (f64::from(w) - f64::from(f)).powi(2)).sum();
    10.0 * (signal / noise).log10()
}

/// What onnxruntime computes of a file, `OpenVINO` computes of it too.
#[track_caller]
fn same_in_both(what: &str, file: &Path, network: &Network) {
    let models = [(file, network.data.as_path())];
    let (Some(wanted), Some(found)) = (ran("survey", &models), ran("openvino", &models)) else { return };
    let close = decibels(&wanted[0], &found[0]);
    assert!(close > 30.0, "{what}: only {close:.1} dB");
}

/// A file for `OpenVINO`, in which its linter finds no error.
#[track_caller]
fn written(network: &Network, flags: &str) -> (PathBuf, String) {
    let (file, run) = network.run(&format!("--profile openvino --placement all --no-repair --json {flags}"));
    let report = run.ok().stdout;
    msq(args!["lint", "--profile", "openvino", file]).ok();
    (file, report)
}

/// Characters of a line of text: a convolution over an image, then a recurrent layer along its columns.
fn recurrent(layer: &str, gates: usize, directions: usize) -> Network {
    let (rows, wide) = (gates * 32, directions * 32);
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]>
         net (float[n,3,8,12] x) => (float[m,12,8] y)
         <float[16,3,3,3] v = {{}}, float[16] a = {{}}, float[24,16,8,1] u = {{}}, float[24] b = {{}},
          float[{directions},{rows},24] wi = {{}}, float[{directions},{rows},32] r = {{}}, float[{wide},8] last = {{}},
          int64[1] height = {{2}}, int64[3] merged = {{12, -1, {wide}}}>
         {{ c = Conv<pads = [1, 1, 1, 1]> (x, v, a) k = Relu (c) d = Conv (k, u, b) e = Relu (d)
            flat = Squeeze (e, height) t = Transpose<perm = [2, 0, 1]> (flat)
            h = {layer} (t, wi, r) s = Transpose<perm = [0, 2, 1, 3]> (h) m = Reshape (s, merged)
            o = MatMul (m, last) y = Transpose<perm = [1, 0, 2]> (o) }}"
    );
    Network::new(&text, Npy::ramp(&[16, 3, 8, 12]))
}

#[test]
fn recurrent_layers_behind_convolutions_with_an_open_batch() {
    for (layer, gates, directions, constant) in [
        ("LSTM<hidden_size = 32>", 4, 1, true),
        ("GRU<hidden_size = 32>", 3, 1, true),
        ("GRU<hidden_size = 32, linear_before_reset = 1, direction = \"bidirectional\">", 3, 2, true),
        ("LSTM<hidden_size = 32, direction = \"bidirectional\">", 4, 2, false),
        ("RNN<hidden_size = 32>", 1, 1, false),
    ] {
        let network = recurrent(layer, gates, directions);
        for flags in ["", "--weight-bits 4"] {
            let (file, report) = written(&network, flags);
            assert_eq!(report.contains("takes weights of this operator as constants alone"), constant, "{layer}");
            same_in_both(&format!("{layer} {flags}"), &file, &network);
        }
    }
}

#[test]
fn averages_that_count_their_padding() {
    for (clamp, float) in [("Identity", true), ("Relu", false)] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             net (float[n,3,8,8] x) => (float[n,10,8,8] y)
             <float[16,3,3,3] v = {{}}, float[10,16,1,1] u = {{}}>
             {{ c = Conv<pads = [1, 1, 1, 1]> (x, v) k = {clamp} (c)
                p = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (k)
                y = Conv (p, u) }}"
        );
        let network = Network::new(&text, Npy::ramp(&[16, 3, 8, 8]));
        let (file, report) = written(&network, "");
        assert_eq!(report.contains("pads integers with 0, whatever their zero point"), float, "{clamp}");
        same_in_both(clamp, &file, &network);
    }
}

#[test]
fn weights_on_the_left_of_a_vector() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[1,64] x) => (float[1,48] y)
        <float[64,32] w = {}, float[48,32] v = {}, int64[1] vector = {32}, int64[2] row = {1, 48}>
        { a = MatMul (x, w) r = Relu (a) s = Reshape (r, vector) p = MatMul (v, s) y = Reshape (p, row) }";
    let network = Network::new(text, Npy::ramp(&[16, 64]));
    let (file, _) = written(&network, "");
    same_in_both("a vector", &file, &network);
}

/// Outputs of type double run in `OpenVINO`; an input that a quantizer reads once it is cast does not.
#[test]
fn doubles() {
    let text = |input: &str, output: &str| {
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             net ({input}[n,16] x) => ({output}[n,10] y) <float[16,64] a = {{}}, float[64,10] b = {{}}>
             {{ f = Cast<to = 1> (x) t = MatMul (f, a) r = Relu (t) z = MatMul (r, b) y = Cast<to = {}> (z) }}",
            if output == "double" { 11 } else { 1 }
        )
    };
    let network = Network::new(&text("float", "double"), Npy::ramp(&[16, 16]));
    let (file, _) = written(&network, "");
    same_in_both("an output", &file, &network);
    let network = Network::new(&text("double", "float"), Npy::ramp(&[16, 16]));
    let (file, run) = network.run("--profile openvino --placement all --no-repair");
    run.ok();
    let found = msq(args!["lint", "--profile", "openvino", file]).stdout;
    assert!(found.contains("double-value") && found.contains("`x`"), "{found}");
}

/// A hard swish stands between a layer and the quantizer behind it, as one operator or as `OpenVINO` knows it before opset 14.
#[test]
fn activations_stay_within_layers() {
    for (opset, swish) in [(17, vec!["HardSwish"]), (13, vec!["Add", "Clip", "Mul", "Mul"])] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": {opset}]> net (float[n,3,8,8] x) => (float[n,8,8,8] y)
             <float[8,3,3,3] v = {{}}, float[8,8,1,1] u = {{}}, float three = {{3}}, float low = {{0}}, float six = {{6}}, float k = {{6}}>
             {{ c = Conv<pads = [1, 1, 1, 1]> (x, v) a = Add (c, three) g = Clip (a, low, six) m = Mul (c, g) h = Div (m, k)
                y = Conv (h, u) }}"
        );
        let network = Network::new(&text, Npy::ramp(&[16, 3, 8, 8]));
        let (file, _) = written(&network, "");
        let model = msq_onnx::load(&file).unwrap();
        let ops: Vec<&str> = model.graph.nodes().map(|(_, node)| node.op()).collect();
        let between: Vec<&str> = ops.iter().copied().skip_while(|op| *op != "Conv").skip(1).collect();
        let until = between.iter().position(|op| *op == "QuantizeLinear").unwrap();
        // The bias is a sum of its own.
        let found: Vec<&str> = between[..until].iter().copied().filter(|op| swish.contains(op)).collect();
        assert!(found.ends_with(&swish), "{opset}: {ops:?}");
        same_in_both(&format!("a hard swish of opset {opset}"), &file, &network);
    }
}

/// The default profile's file, which is onnxruntime's: the linter says that `OpenVINO` does not take it.
#[test]
fn the_linter_names_what_openvino_does_not_take() {
    let network = recurrent("GRU<hidden_size = 32>", 3, 1);
    let (file, run) = network.run("--placement all --no-repair --keep-names");
    run.ok();
    let found = msq(args!["lint", "--profile", "openvino", file]).stdout;
    for rule in ["decoded-weight", "open-shape-bias"] {
        assert!(found.contains(rule), "{rule}: {found}");
    }
}

/// `OpenVINO` computes a quantizer behind such an operator otherwise than the file says, and one behind what it joins to the
/// operator.
#[test]
fn extremes_along_an_axis_before_a_layer() {
    let squeezed = "s = Squeeze (m, inner)";
    let cases = [
        ("ReduceMax", "n = Relu (c)", squeezed),
        ("ReduceMax", "n = Abs (c)", squeezed),
        ("ReduceMin", "n = Identity (c)", squeezed),
        ("ReduceMin", "n = Softplus (c)", squeezed),
        ("ReduceMax", "n = Abs (c)", "h = Sigmoid (m) s = Squeeze (h, inner)"),
        ("ReduceMin", "n = Abs (c)", "h = Mul (m, half) s = Squeeze (h, inner)"),
        (
            "ReduceMax",
            "n = Abs (c)",
            "l = ReduceMean<axes = [2, 3]> (n) h = Concat<axis = 2> (m, l)
            o = ReduceMean<axes = [2]> (h) s = Squeeze (o, inner)",
        ),
    ];
    for (operator, before, behind) in cases {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             net (float[n,3,8,8] x) => (float[n,10] y)
             <float[16,3,3,3] v = {{}}, float[16,10] u = {{}}, int64[2] inner = {{2, 3}}, float half = {{0.5}}>
             {{ c = Conv<pads = [1, 1, 1, 1]> (x, v) {before}
                m = {operator}<axes = [2, 3]> (n) {behind} y = MatMul (s, u) }}"
        );
        let network = Network::new(&text, Npy::ramp(&[16, 3, 8, 8]));
        let (file, _) = written(&network, "");
        same_in_both(&format!("{operator} behind {before}, before {behind}"), &file, &network);
    }
}
