//! The written file is as small as the weights allow: one copy of each, integers for those beside the layers, and a word
//! where a file grows.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{check_model, python};
use crate::common::{Scratch, args, digits, models, msq, quantize_digits};
use msq_passes::ir::ModelProto;
use serde_json::Value;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A quantized network and the report of its making.
struct Made {
    /// Holds the files.
    _scratch: Scratch,
    output: PathBuf,
    report: Value,
}

/// Fills and quantizes a network. Inputs of integers are indices below 100, others are spread over −1 to 1.
#[track_caller]
fn made(text: &str, more: &[OsString]) -> Made {
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    of(&proto, more)
}

#[track_caller]
fn of(proto: &ModelProto, more: &[OsString]) -> Made {
    let scratch = Scratch::new();
    let float = models::write(&scratch.path("float.onnx"), proto);
    let specs = msq_onnx::data::InputSpec::of(&msq_onnx::load(&float).unwrap());
    let array = |spec: msq_onnx::data::InputSpec| {
        let mut shape: Vec<usize> = spec.shape.unwrap().into_iter().map(|n| n.unwrap_or(8)).collect();
        shape[0] = 16;
        let values = if spec.name == "i" { indices(&shape) } else { Npy::ramp(&shape) };
        (spec.name.leak() as &str, values)
    };
    let data = scratch.path("data.npz");
    write_npz(&data, &specs.into_iter().map(array).collect::<Vec<_>>());
    let output = scratch.out("out.onnx");
    let command = [args![float, "-o", output, "--calib", data, "--json"], more].concat();
    let report = msq(&command).ok().json();
    if python().is_some() {
        let valid = check_model(args!["check", output]).unwrap();
        assert_eq!(valid["ok"], true, "{valid}");
    }
    Made { _scratch: scratch, output, report }
}

/// Ceilings of what the sample takes, a few bytes above what it took: a pass that adds more than it saves is noticed.
#[test]
fn files_of_the_sample_do_not_grow() {
    for (flags, most) in [
        ("--weight-bits 8 --strip-names", 29_950),
        ("--weight-bits 4 --keep-names", 31_184),
        ("--weight-bits 4", 16_900),
        ("--weight-bits 2 --grid full", 11_100),
        ("--weight-bits 2 --grid trellis", 12_030),
        ("--weight-bits 2 --grid trellis --functions", 12_500),
        ("--weight-bits 1.5", 11_450),
        ("--weight-bits ternary", 9_900),
    ] {
        let scratch = Scratch::new();
        let mut more =
            args!["--calib", digits("calib.npz"), "--samples", "16", "--verify", "0", "--no-repair"].to_vec();
        more.extend("--solver round".split(' ').chain(flags.split(' ')).map(OsString::from));
        let bytes = std::fs::metadata(quantize_digits(&scratch, "out.onnx", &more)).unwrap().len();
        assert!(bytes <= most, "{flags}: {bytes}");
    }
}

/// Single precision is kept where it is asked for, and takes more bytes.
#[test]
fn scales_are_halves_below_eight_bits() {
    let scratch = Scratch::new();
    let bytes = |flags: &str| {
        let mut more =
            args!["--calib", digits("calib.npz"), "--samples", "16", "--verify", "0", "--no-repair"].to_vec();
        more.extend("--solver round".split(' ').chain(flags.split(' ')).map(OsString::from));
        std::fs::read(quantize_digits(&scratch, "out.onnx", &more)).unwrap()
    };
    let four = bytes("--weight-bits 4");
    assert_eq!(four, bytes("--weight-bits 4 --half-scales"));
    assert!(four.len() + 500 < bytes("--weight-bits 4 --full-scales").len());
    assert_eq!(bytes("--weight-bits 8"), bytes("--weight-bits 8 --full-scales"));
}

fn indices(shape: &[usize]) -> Npy {
    let count: usize = shape.iter().product();
    let elements: Vec<u8> = (0..count as i64).flat_map(|at| (at * 37 % 100).to_le_bytes()).collect();
    Npy::new("<i8", shape, &elements)
}

impl Made {
    /// How many times smaller the file is.
    fn ratio(&self) -> f64 {
        self.report["float_bytes"].as_f64().unwrap() / self.report["bytes"].as_f64().unwrap()
    }

    /// Output against its error, in decibels.
    fn sqnr(&self) -> f64 {
        self.report["quality"]["agreement"]["sqnr"].as_f64().unwrap()
    }

    /// Kinds and bits of the weights beside the layers.
    fn stored(&self) -> Vec<(String, Option<u64>)> {
        let weights = self.report["stored"].as_array().unwrap().iter();
        weights.map(|w| (w["kind"].as_str().unwrap().to_owned(), w["weight_bits"].as_u64())).collect()
    }

    #[track_caller]
    fn is_small(&self, ratio: f64) {
        assert!(self.ratio() >= ratio, "{:.2} times smaller: {}", self.ratio(), self.report);
    }

    #[track_caller]
    fn is_clean(&self) {
        // Errors are an exit code.
        msq(args!["lint", self.output]).ok();
    }
}

const EIGHT: Option<u64> = Some(8);

#[test]
fn a_weight_of_many_steps_is_stored_once_at_every_width() {
    let steps = 12;
    let mut nodes = String::new();
    for t in 0..steps {
        let (from, to) = (if t == 0 { "x".to_owned() } else { format!("h{t}") }, t + 1);
        let to = if to == steps { "y".to_owned() } else { format!("h{to}") };
        writeln!(nodes, "g{t} = Gemm <transB = 1> ({from}, w, b) {to} = Tanh (g{t})").unwrap();
    }
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,192] x) => (float[N,192] y)
         <float[192,192] w = {{}}, float[192] b = {{}}> {{ {nodes} }}"
    );
    for (bits, weights, sqnr) in [("8", 192 * 192, 25.0), ("4", 192 * 192 / 2, 8.0), ("2", 192 * 192 / 4, -1.0)] {
        let made = made(&text, args!["--weight-bits", bits, "--no-repair"]);
        let bytes = made.report["bytes"].as_u64().unwrap();
        // Each step has nodes and a bias of its own.
        assert!(bytes < weights + 24_000, "{bits} bits: {bytes} bytes");
        assert!(made.sqnr() > sqnr, "{bits} bits: {} dB", made.sqnr());
        made.is_clean();
    }
}

#[test]
fn equal_weights_of_other_names_and_layouts_are_stored_once() {
    // Exported as copies: each folded to a constant of its own.
    let made = made(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,64] x) => (float[N,64] y)
         <float[64,64] w = {}> {
           w1 = Identity (w) w2 = Transpose (w) w3 = Transpose (w2)
           a = Gemm <transB = 1> (x, w1) b = Relu (a) c = MatMul (b, w2) d = Relu (c) y = Gemm <transB = 1> (d, w3) }",
        &[],
    );
    let layers = made.report["layers"].as_array().unwrap().len();
    let bytes = made.report["bytes"].as_u64().unwrap();
    assert!(layers == 3 && bytes < 64 * 64 + 4_000, "{layers} layers, {bytes} bytes");
    assert!(made.sqnr() > 25.0, "{} dB", made.sqnr());
}

#[test]
fn layers_along_both_axes_of_a_weight_agree_on_one_scale() {
    for (rest, opset) in [
        ("wt = Transpose (w) b = MatMul (r, wt)", 17),
        ("b = Gemm <transB = 1> (r, w)", 17),
        ("b = Gemm <transB = 1> (r, w)", 21),
    ] {
        let made = made(
            &format!(
                "<ir_version: 8, opset_import: [\"\": {opset}]> g (float[N,96] x) => (float[N,96] y)
                 <float[96,160] w = {{}}> {{ a = MatMul (x, w) r = Relu (a) {rest} y = Tanh (b) }}"
            ),
            &[],
        );
        let bytes = made.report["bytes"].as_u64().unwrap();
        assert!(bytes < 96 * 160 + 4_000, "{bytes} bytes: {}", made.report);
        assert!(made.sqnr() > 25.0, "{} dB", made.sqnr());
        made.is_clean();
    }
    let made = made(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,16,8,8] x) => (float[N,16,8,8] y)
         <float[16,16,3,3] w = {}> { a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a)
           y = ConvTranspose <pads = [1, 1, 1, 1]> (r, w) }",
        &[],
    );
    let bytes = made.report["bytes"].as_u64().unwrap();
    assert!(bytes < 16 * 16 * 9 + 3_000 && made.sqnr() > 25.0, "{bytes} bytes, {} dB", made.sqnr());
}

#[test]
fn a_tied_embedding_is_one_integer_table() {
    for last in ["wt = Transpose (w) y = MatMul (h, wt)", "y = Gemm <transB = 1> (h, w, b)"] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (int64[N] i) => (float[N,500] y)
             <float[500,64] w = {{}}, float[64,64] v = {{}}, float[500] b = {{}}> {{
               e = Gather (w, i) g = MatMul (e, v) h = Relu (g) {last} }}"
        );
        let eight = made(&text, &[]);
        eight.is_small(3.0);
        assert_eq!(eight.stored(), [("embedding".to_owned(), EIGHT)]);
        assert!(eight.sqnr() > 28.0, "{} dB", eight.sqnr());
        eight.is_clean();
        let four = made(&text, args!["--weight-bits", "4"]);
        four.is_small(4.5);
        assert!(four.sqnr() > 10.0, "{} dB", four.sqnr());
    }
}

#[test]
fn tables_are_integers_however_they_are_looked_up() {
    for (table, nodes) in [
        ("float[400,64] t = {}", "e = Gather (t, i)"),
        (
            "float[400,64] t = {}",
            "a = Gather (t, i) j = Mul (i, two) k = Div (j, three) b = Gather (t, k) e = Add (a, b)",
        ),
        ("float[64,400] t = {}", "a = Gather <axis = 1> (t, i) e = Transpose <perm = [1, 0]> (a)"),
        ("float[400,64] t = {}", "j = Unsqueeze (i, last) e = GatherND (t, j)"),
        ("float[64,400] t = {}", "u = Transpose <perm = [1, 0]> (t) e = Gather (u, i)"),
    ] {
        let made = made(
            &format!(
                "<ir_version: 8, opset_import: [\"\": 17]> g (int64[N] i) => (float[N,32] y)
                 <{table}, float[64,32] w = {{}}, int64 two = {{2}}, int64 three = {{3}}, int64[1] last = {{-1}}>
                 {{ {nodes} y = MatMul (e, w) }}"
            ),
            &[],
        );
        made.is_small(3.3);
        assert_eq!(made.stored(), [("embedding".to_owned(), EIGHT)], "{nodes}");
        assert!(made.sqnr() > 30.0, "{nodes}: {} dB", made.sqnr());
        made.is_clean();
    }
}

#[test]
fn a_table_stays_float_where_that_is_asked_for_or_better() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (int64[N] i) => (float[N,32] y)
        <float[400,64] t = {}, float[64,32] w = {}> { [look_up] e = Gather (t, i) y = MatMul (e, w) }";
    for more in [args!["--skip", "look_up"], args!["--skip", "t"], args!["--keep-float", "Gather"]] {
        let made = made(text, more);
        assert_eq!(made.stored(), [("embedding".to_owned(), None)]);
        assert!(made.report["stored"][0]["reason"].as_str().unwrap().starts_with("left float by --"));
    }
    let rotation = "<ir_version: 8, opset_import: [\"\": 17]> g (int64[N] i, float[N,64] x) => (float[N,512] y)
        <float[400,64] t = {}, float[64,512] w = {}> { c = Gather (t, i) e = Mul (x, c) y = MatMul (e, w) }";
    assert_eq!(made(rotation, &[]).stored(), [("embedding".to_owned(), None)]);
    // Where it is most of the model, integers are what is wanted of it.
    let most = rotation.replace("512", "32");
    assert_eq!(made(&most, &[]).stored(), [("embedding".to_owned(), EIGHT)]);
    // A row with numbers of different size.
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    (0..400).for_each(|row| models::set_element(&mut proto, "t", 64 * row, 1e4));
    assert_eq!(of(&proto, &[]).stored(), [("embedding".to_owned(), None)]);
}

#[test]
fn recurrent_weights_are_integers() {
    for (op, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let rows = gates * 64;
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[12,1,48] x) => (float[12,2,1,64] y)
             <float[2,{rows},48] w = {{}}, float[2,{rows},64] r = {{}}> {{
               y = {op} <hidden_size = 64, direction = \"bidirectional\"> (x, w, r) }}"
        );
        let made = made(&text, &[]);
        made.is_small(3.2);
        assert_eq!(made.stored(), [("recurrent".to_owned(), EIGHT), ("recurrent".to_owned(), EIGHT)]);
        assert!(made.sqnr() > 30.0, "{op}: {} dB", made.sqnr());
    }
}

#[test]
fn weights_of_branches_are_integers_and_shared_with_the_main_graph() {
    let made = made(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,64] x) => (float[1,64] y)
         <float[64,64] w = {}, float zero = {0}> {
           a = MatMul (x, w) r = Relu (a) m = ReduceMean <keepdims = 0> (x) c = Greater (m, zero)
           u = If <then_branch = t () => (float[1,64] p) { p = MatMul (x, w) },
                   else_branch = e () => (float[1,64] q) { k = Relu (x) q = MatMul (k, w) }> (c)
           y = Add (u, r) }",
        &[],
    );
    let bytes = made.report["bytes"].as_u64().unwrap();
    assert!(bytes < 64 * 64 + 4_000, "{bytes} bytes: {}", made.report);
    assert_eq!(made.stored(), [("branch".to_owned(), EIGHT)]);
}

#[test]
fn computed_weights_are_folded_and_counted() {
    let head = "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,32,8,8] x) => (float[N,32,8,8] y)";
    let body = "r = Relu (x) y = Conv <pads = [1, 1, 1, 1]> (r, w)";
    for (constants, nodes) in [
        (
            "float[32,32,3,3] v = {}, float[32,1,1,1] s = {}",
            "n = ReduceL2 <axes = [1, 2, 3]> (v) d = Div (v, n) w = Mul (d, s)",
        ),
        (
            "float[3,3,32,32] v = {}, int64[3] a = {9, 32, 32}, int64[4] b = {3, 3, 32, 32}",
            "p = Reshape (v, a) q = Reshape (p, b) w = Transpose <perm = [3, 2, 0, 1]> (q)",
        ),
        ("float[16,32,3,3] v = {}, float[16,32,3,3] s = {}", "w = Concat <axis = 0> (v, s)"),
    ] {
        let made = made(&format!("{head} <{constants}> {{ {nodes} {body} }}"), &[]);
        made.is_small(3.3);
        assert_eq!(made.report["layers"].as_array().unwrap().len(), 1, "{nodes}");
    }
    // The file would grow: the layer stays as it is, and is counted.
    let grown = "<float[32,1,3,3] v = {}, int64[4] a = {32, 32, 3, 3}, float[32,32,1,1] u = {}>";
    let nodes = "w = Expand (v, a) r = Conv (x, u) y = Conv <pads = [1, 1, 1, 1]> (r, w)";
    let made = made(&format!("{head} {grown} {{ {nodes} }}"), &[]);
    assert_eq!(made.report["float_layers"].as_array().unwrap().len(), 1, "{}", made.report);
}

#[test]
fn a_file_that_grows_says_why() {
    let made = made(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,4] x) => (float[N,4] y)
         <float[4,4] w = {}, float[4] b = {}> { y = Gemm (x, w, b) }",
        &[],
    );
    assert!(made.ratio() < 1.0);
    let notes = made.report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|n| n.as_str().unwrap().contains("larger than the float model")), "{notes:?}");
}

#[test]
fn channels_that_died_have_normal_scales() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[8,3,3,3] w = {}, float[8] b = {}, float[4,8,1,1] v = {}> {
          a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (a) y = Conv (r, v) }";
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    (27..54).for_each(|at| models::set_element(&mut proto, "w", at, 1e-38 * (at as f32 - 40.0)));
    models::set_element(&mut proto, "b", 1, 6e-38);
    of(&proto, &[]).is_clean();
}
