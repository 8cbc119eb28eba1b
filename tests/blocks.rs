//! Weights with one scale per block: what is written is valid, small, and runs in onnxruntime as products with integer
//! weights; both forms compute the same, our engine and the reader of other files know them; what a target does not run is
//! refused.

use crate::common::arrays::Npy;
use crate::common::models::{Network, operators};
use crate::common::python::{check_model, python, ran};
use crate::common::{args, msq};
use msq_passes::ir::DataType;
use std::path::{Path, PathBuf};

/// A transposed `Gemm` whose last block is shorter, products with and without a vector behind them, a convolution that has no
/// blocks.
const NETWORK: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
network (float[N,70] x) => (float[N,33] y)
<float[48,70] a = {}, float[48] ab = {}, float[48,64] b = {}, float[64] bb = {}, float[64,33] c = {},
 float[1,1,3] k = {}, int64[3] rows = {0, 1, 64}, int64[2] flat = {0, 64}>
{
  [fc] h = Gemm <transB = 1> (x, a, ab)
  r = Relu (h)
  [up] u = MatMul (r, b)
  s = Add (u, bb)
  t = Relu (s)
  v = Reshape (t, rows)
  [conv] w = Conv <pads = [1, 1]> (v, k)
  z = Reshape (w, flat)
  [out] y = MatMul (z, c)
}"#;

/// The network with samples of five waves: inputs that go together, as those of real networks do.
fn network() -> Network {
    let random = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let value = |at: u32| {
        let (sample, input) = (at / 70, at % 70);
        let wave = |wave: u32| random(sample * 5 + wave) * ((input * (wave + 1)) as f32 * 0.1 + wave as f32).sin();
        (0..5).map(wave).sum::<f32>() + 0.02 * random(at + 1_000_000)
    };
    Network::new(NETWORK, Npy::floats(&[96, 70], &(0..96 * 70).map(value).collect::<Vec<f32>>()))
}

/// The quantized model, by weights of blocks unless flags say otherwise.
#[track_caller]
fn quantized(network: &Network, flags: &str) -> PathBuf {
    let (out, run) = network.run(&format!("{flags} -q --calib {}", network.data.display()));
    run.ok();
    out
}

/// The decibels of our engine's outputs against float.
#[track_caller]
fn sqnr(network: &Network, model: &Path) -> f64 {
    let said = msq(args!["compare", &network.float, model, "--calib", &network.data, "--json"]).ok().json();
    said["outputs"][0]["sqnr"].as_f64().or(said["agreement"]["sqnr"].as_f64()).unwrap_or_else(|| panic!("{said}"))
}

fn elements(model: &Path) -> Vec<DataType> {
    let model = msq_onnx::load(model).unwrap();
    let nodes = model.graph.nodes().filter(|(_, node)| node.op() == "DequantizeLinear");
    nodes.filter_map(|(_, node)| model.graph.constant(node.input(0)?)?.element_type()).collect()
}

fn decibels(float: &[f32], other: &[f32]) -> f64 {
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let noise = power(&mut float.iter().zip(other).map(|(a, b)| f64::from(a - b)));
    10.0 * (power(&mut float.iter().map(|&v| f64::from(v))) / noise).log10()
}

#[test]
fn products_read_integers_in_blocks() {
    let network = network();
    let four = quantized(&network, "--granularity block:16 --weight-bits 4 --keep-names");
    let found = operators(&four);
    let count = |op: &str| found.iter().filter(|found| *found == op).count();
    assert_eq!((count("DequantizeLinear"), count("MatMul"), count("Gemm"), count("Add")), (3, 3, 0, 2), "{found:?}");
    assert_eq!(elements(&four), [DataType::Int4; 3]);
    let model = msq_onnx::load(&four).unwrap();
    assert_eq!(model.opset(""), Some(21));
    let (_, dequantizer) = model.graph.nodes().find(|(_, node)| node.op() == "DequantizeLinear").unwrap();
    assert_eq!((dequantizer.int("axis"), dequantizer.int("block_size")), (Some(0), Some(16)));
    let scales = model.graph.constant(dequantizer.input(1).unwrap()).unwrap();
    assert_eq!(scales.shape().unwrap(), [5, 48]);
    // Half a byte per weight, four bytes per scale.
    let bytes = std::fs::metadata(&four).unwrap().len() as usize;
    let weights = 48 * 70 + 48 * 64 + 64 * 33;
    assert!(bytes < weights / 2 + 4 * (5 * 48 + 3 * 64 + 4 * 33) + 3000, "{bytes}");
    let eight = quantized(&network, "--granularity block:16 --weight-bits 8");
    assert_eq!(elements(&eight), [DataType::Int8; 3]);
    let [few, many] = [&four, &eight].map(|model| sqnr(&network, model));
    assert!(few > 15.0 && many > few.max(30.0), "{few} {many}");
    let said = msq(args!["inspect", &four]).ok().stdout;
    assert!(said.contains("48×64") && !said.contains("int8"), "{said}");
    let lint = msq(args!["lint", &four]).ok();
    for rule in ["zero-point", "two-bit", "low-bit", "refused", "error"] {
        assert!(!lint.stdout.contains(rule), "{}", lint.stdout);
    }
}

#[test]
fn solvers_and_zero_points_lose_less() {
    let network = network();
    let found =
        |flags: &str| sqnr(&network, &quantized(&network, &format!("--granularity block:16 --weight-bits 4 {flags}")));
    let (solved, rounded) = (found(""), found("--solver round"));
    assert!(solved > rounded + 0.5, "{solved} {rounded}");
    let shifted = found("--grid asymmetric --solver round");
    // These weights lie around 0.
    assert!(shifted > rounded - 1.0, "{shifted} {rounded}");
    let channels =
        sqnr(&network, &quantized(&network, "--weight-bits 4 --grid full --act-bits float --solver round --no-repair"));
    assert!(rounded > channels, "{rounded} {channels}");
}

#[test]
fn onnxruntime_runs_what_is_written() {
    if python().is_none() {
        return;
    }
    let network = network();
    let cases = [
        ("--weight-bits 4", 15.0),
        ("--weight-bits 4 --grid asymmetric", 15.0),
        ("--weight-bits 8", 30.0),
        ("--weight-bits 4 --format nbits", 15.0),
        ("--weight-bits 4 --format nbits --grid asymmetric", 15.0),
        ("--weight-bits 2 --format nbits", 3.0),
        ("--weight-bits 8 --format nbits --grid asymmetric", 30.0),
    ];
    let files: Vec<PathBuf> =
        cases.iter().map(|(flags, _)| quantized(&network, &format!("--granularity block:32 {flags}"))).collect();
    let all = [&network.float].into_iter().chain(&files);
    let runs: Vec<(&Path, &Path)> = all.map(|file| (file.as_path(), network.data.as_path())).collect();
    let ran = ran("survey", &runs).unwrap();
    for ((file, (flags, least)), run) in files.iter().zip(cases).zip(&ran[1..]) {
        let found = decibels(&ran[0].outputs["y"], &run.outputs["y"]);
        assert!(found > least, "{flags}: {found}");
        let own = sqnr(&network, file);
        assert!(own > least, "{flags}: {own} in our engine, {found}");
        let fused = check_model(args!["fusion", file]).unwrap();
        // The runtime joins products and sums of matrices before it looks for blocks.
        let least = if flags.contains("nbits") { 3 } else { 1 };
        assert!(fused["ops"]["com.microsoft"]["MatMulNBits"].as_u64() >= Some(least), "{flags}: {fused}");
        assert_eq!(operators(file).iter().any(|op| op == "MatMulNBits"), flags.contains("nbits"), "{flags}");
    }
}

/// A table whose rows are looked up, with rows of whole blocks, one without, and products, one of them with the table.
fn embedded(tied: bool) -> Network {
    let last = if tied { "q = Transpose <perm = [1, 0]> (t) y = MatMul (r, q)" } else { "y = MatMul (r, o)" };
    let own = if tied { "" } else { ", float[64,200] o = {}" };
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]> network (int64[N,5] x) => (float[N,5,200] y)
         <float[200,64] t = {{}}, float[120,40] u = {{}}, float[40,64] b = {{}}, float[64,64] a = {{}}{own}>
         {{ e = Gather (t, x)
            f = Gather (u, x)
            [up] g = MatMul (f, b)
            h = Add (e, g)
            [fc] s = MatMul (h, a)
            r = Relu (s)
            {last} }}"
    );
    let ids: Vec<u8> = (0..64 * 5_u64).flat_map(|i| (i * 2_654_435_761 % 120).to_le_bytes()).collect();
    Network::new(&text, Npy::new("<i8", &[64, 5], &ids))
}

fn count(model: &Path, op: &str) -> usize {
    operators(model).iter().filter(|found| *found == op).count()
}

#[test]
fn tables_are_stored_in_blocks_of_rows() {
    let network = embedded(false);
    let files = ["4", "4 --format nbits", "8 --format nbits", "2 --format nbits"]
        .map(|flags| quantized(&network, &format!("--granularity block:32 --weight-bits {flags}")));
    let [qdq, nbits, eight, two] = &files;
    assert_eq!(files.each_ref().map(|file| count(file, "GatherBlockQuantized")), [0, 1, 1, 1]);
    let bits = |file: &Path| {
        let model = msq_onnx::load(file).unwrap();
        let (_, node) = model.graph.nodes().find(|(_, node)| node.op() == "GatherBlockQuantized").unwrap();
        [node.int("bits"), node.int("block_size")]
    };
    // Tables have 4 bits at least.
    assert_eq!([nbits, eight, two].map(|file| bits(file)), [4, 8, 4].map(|bits| [Some(bits), Some(32)]));
    // The other table has no whole blocks and one scale per row.
    assert_eq!(count(nbits, "Gather"), 2, "{:?}", operators(nbits));
    let said = msq(args!["compare", qdq, nbits, "--calib", &network.data]).ok().stdout;
    assert!(said.contains("output     equal"), "{said}");
    assert!(sqnr(&network, eight) > sqnr(&network, nbits) + 10.0);
    let out = network.scratch.out("reported.onnx");
    let run = msq(args![
        &network.float,
        "-o",
        out,
        "--calib",
        &network.data,
        "--granularity",
        "block:32",
        "--weight-bits",
        "4",
        "--json"
    ]);
    let said = run.ok().json();
    let stored = said["stored"].as_array().unwrap().iter();
    let stored: Vec<_> = stored.map(|weight| (weight["name"].as_str(), weight["weight_bits"].as_u64())).collect();
    assert_eq!(stored, [(Some("t"), Some(4)), (Some("u"), Some(8))], "{said}");
    assert_eq!(said["plan"]["layers"]["t"]["granularity"], "block:32", "{}", said["plan"]);
    assert_eq!(said["plan"]["layers"]["u"]["weights"], 8, "{}", said["plan"]);
}

/// A table that the last product reads too is stored once.
#[test]
fn tied_tables_are_stored_once() {
    let [tied, own] = [true, false].map(embedded);
    for flags in ["", "--format nbits"] {
        let flags = format!("--granularity block:32 --weight-bits 4 {flags}");
        let [once, twice] = [&tied, &own].map(|network| quantized(network, &flags));
        let [less, more] = [&once, &twice].map(|file| std::fs::metadata(file).unwrap().len());
        assert!(less + 200 * 64 / 2 < more, "{flags}: {less} {more}");
        assert!(sqnr(&tied, &once) > 12.0, "{flags}");
    }
}

#[test]
fn onnxruntime_looks_rows_up_in_blocks() {
    if python().is_none() {
        return;
    }
    for tied in [true, false] {
        let network = embedded(tied);
        let files = ["", "--format nbits"]
            .map(|flags| quantized(&network, &format!("--granularity block:32 --weight-bits 4 {flags}")));
        let runs: Vec<(&Path, &Path)> =
            [&network.float].into_iter().chain(&files).map(|file| (file.as_path(), network.data.as_path())).collect();
        let ran = ran("survey", &runs).unwrap();
        for (file, run) in files.iter().zip(&ran[1..]) {
            let found = decibels(&ran[0].outputs["y"], &run.outputs["y"]);
            let own = sqnr(&network, file);
            assert!(found > 12.0 && (found - own).abs() < 2.0, "{}: {found}, {own} in our engine", file.display());
        }
        let fused = check_model(args!["fusion", &files[1]]).unwrap();
        let ops = &fused["ops"]["com.microsoft"];
        let found = ["GatherBlockQuantized", "MatMulNBits"].map(|op| ops[op].as_u64());
        assert_eq!(found, [Some(1), Some(3)], "{fused}");
    }
}

/// A form of the same function: our engine computes the same of both.
#[test]
fn both_forms_are_the_same_function() {
    let network = network();
    for flags in ["--weight-bits 4", "--weight-bits 4 --grid asymmetric", "--weight-bits 8"] {
        let [plain, fused] = ["qdq", "nbits"]
            .map(|form| quantized(&network, &format!("--granularity block:32 --format {form} {flags}")));
        let said = msq(args!["compare", &plain, &fused, "--calib", &network.data]).ok().stdout;
        assert!(said.contains("output     equal"), "{flags}: {said}");
    }
}

#[test]
fn what_a_target_does_not_run_is_refused() {
    let network = network();
    let refused = |flags: &str| {
        let (_, run) = network.run(&format!("{flags} --calib {}", network.data.display()));
        run.error(2).to_owned()
    };
    for (flags, part) in [
        ("--granularity block:32 --profile tract", "`tract` does not run weights with one scale per block"),
        ("--granularity block:32 --profile qnn", "`qnn` does not run weights with one scale per block"),
        ("--granularity block:48", "`ort-cpu` takes blocks of 16, 32, 64, 128, 256"),
        ("--granularity block:32 --weight-bits 3", "takes weights of 2, 4, 8 bits in blocks"),
        ("--granularity block:32 --weight-bits 4 --profile openvino --format nbits", "MatMulNBits"),
    ] {
        let said = refused(flags);
        assert!(said.contains(part), "{flags}: {said}");
    }
}
