//! Tables of matrices, as the experts of a mixture: scales lie where products do not sum, fewer bits are those that are asked
//! for, and onnxruntime computes what our engine computes.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::{self, Network};
use crate::common::python::{python, ran};
use crate::common::{Scratch, args, msq};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Weights of the experts, and of each of the two tables of them.
const EXPERTS: usize = 2 * TABLE;
const TABLE: usize = 4 * 64 * 96;

/// Each token has an expert of its own, which a remainder chooses: rounding changes no choice.
fn network() -> Network {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]> network (int64[N] x) => (float[N,40] y)
        <float[60,64] t = {}, float[4,64,96] up = {}, float[4,96,64] down = {}, float[64,40] w = {},
         int64 four = {4}, int64[1] one = {1}>
        { k = Mod (x, four)  e = Gather (t, x)  h = Unsqueeze (e, one)
          u = Gather (up, k)  a = MatMul (h, u)  r = Relu (a)
          d = Gather (down, k)  b = MatMul (r, d)  z = Squeeze (b, one)  y = MatMul (z, w) }"#;
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    // One value of each expert is several times as large as all others.
    for expert in 0..4 {
        models::set_element(&mut proto, "up", expert * 64 * 96, 0.2);
        models::set_element(&mut proto, "down", expert * 64 * 96, 0.2);
    }
    let scratch = Scratch::new();
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = scratch.path("data.npz");
    let ids: Vec<u8> = (0..64_u64).flat_map(|i| (i * 2_654_435_761 % 60).to_le_bytes()).collect();
    write_npz(&data, &[("x", Npy::new("<i8", &[64], &ids))]);
    Network { scratch, float, data }
}

/// The file that flags make, and its report.
#[track_caller]
fn quantized(network: &Network, flags: &str) -> (PathBuf, Value) {
    let (out, run) = network.run(&format!("{flags} --json --no-repair --calib {}", network.data.display()));
    (out, run.ok().json())
}

/// Shapes of the floats of a model with more than two axes.
fn scales(model: &Path) -> Vec<Vec<usize>> {
    let model = msq_onnx::load(model).unwrap();
    let floats = model.graph.initializers().filter(|(_, tensor)| tensor.is_float() && tensor.dims.len() > 2);
    floats.map(|(_, tensor)| tensor.shape().unwrap()).collect()
}

/// Bits of a stored weight, and its decibels.
fn stored(report: &Value, name: &str) -> (u64, f64) {
    let all = report["stored"].as_array().unwrap();
    let own = all.iter().find(|weight| weight["name"] == name).unwrap();
    (own["weight_bits"].as_u64().unwrap(), own["weight_sqnr"].as_f64().unwrap())
}

#[test]
fn scales_lie_along_what_products_do_not_sum() {
    let network = network();
    for placement in ["faster", "all"] {
        let (file, report) = quantized(&network, &format!("--placement {placement} --keep-names"));
        assert_eq!(scales(&file), [[4, 1, 96], [4, 1, 64]], "{placement}");
        for table in ["up", "down"] {
            let (bits, decibels) = stored(&report, table);
            // With one scale per expert these are 33 dB.
            assert!(bits == 8 && decibels > 42.0, "{placement}: {table}: {bits} bits, {decibels} dB");
        }
        let bytes = report["bytes"].as_u64().unwrap() as usize;
        assert!(bytes < EXPERTS + 60 * 64 + 64 * 40 + 4 * (60 + 40 + 4 * (96 + 64)) + 3500, "{placement}: {bytes}");
    }
}

#[test]
fn few_bits_are_those_of_layers() {
    let network = network();
    for (flags, per_scale) in [("--weight-bits 4", None), ("--weight-bits 4 --granularity block:32", Some(32))] {
        let (_, report) = quantized(&network, flags);
        assert_eq!(
            ["t", "up", "down"].map(|name| stored(&report, name).0),
            [if per_scale.is_some() { 4 } else { 8 }, 4, 4]
        );
        let table = report["stored"].as_array().unwrap().iter().find(|weight| weight["name"] == "up").unwrap();
        // Scales count where each block has one.
        let bytes = TABLE / 2 + per_scale.map_or(0, |block| 4 * TABLE / block);
        assert_eq!(table["bytes"].as_u64(), Some(bytes as u64), "{flags}");
        let most = EXPERTS / 2 + per_scale.map_or(0, |block| 4 * EXPERTS / block) + 60 * 64 + 64 * 40 + 9000;
        let bytes = report["bytes"].as_u64().unwrap() as usize;
        assert!(bytes < most, "{flags}: {bytes} of {most}");
        let noted = report["notes"].to_string().contains("embedding tables have 8 bits, not 4: `t`;");
        assert_eq!(noted, per_scale.is_none(), "{flags}: {}", report["notes"]);
    }
    let (_, report) = quantized(&network, "--weight-bits 2");
    // No solver makes up for the errors of two bits.
    assert_eq!(["t", "up", "down"].map(|name| stored(&report, name).0), [8, 4, 4]);
}

/// The average of bits is one over all weights, most of which no layer has.
#[test]
fn the_average_of_bits_counts_tables() {
    let network = network();
    let run =
        |flags: &str| network.run(&format!("{flags} --no-repair --calib {}", network.data.display())).1.ok().stdout;
    let bits = 4.0 + 4.0 * (60.0 * 64.0) / (EXPERTS + 60 * 64 + 64 * 40) as f64;
    let said = run("--weight-bits 4");
    assert!(said.contains(&format!("weights {bits:.2} on disk on average")), "{bits} {said}");
    assert!(!run("--weight-bits 8").contains("on disk on average"));
}

#[test]
fn onnxruntime_looks_matrices_up() {
    if python().is_none() {
        return;
    }
    let network = network();
    let cases = [
        ("--placement faster", 33.0),
        ("--placement all", 33.0),
        ("--placement all --weight-bits 4 --act-bits float", 12.0),
        ("--placement faster --weight-bits 4 --granularity block:32", 12.0),
        ("--placement all --weight-bits 4 --granularity block:32", 12.0),
        ("--placement all --weight-bits 8 --granularity block:32 --format nbits", 33.0),
    ];
    let files = cases.map(|(flags, _)| quantized(&network, flags).0);
    let all = [&network.float].into_iter().chain(&files);
    let runs: Vec<(&Path, &Path)> = all.map(|file| (file.as_path(), network.data.as_path())).collect();
    let ran = ran("survey", &runs).unwrap();
    for ((file, (flags, least)), run) in files.iter().zip(cases).zip(&ran[1..]) {
        let found = decibels(&ran[0].outputs["y"], &run.outputs["y"]);
        let said = msq(args!["compare", &network.float, file, "--calib", &network.data, "--json"]).ok().json();
        let own = said["outputs"][0]["sqnr"].as_f64().or(said["agreement"]["sqnr"].as_f64()).unwrap();
        assert!(found > least && (found - own).abs() < 2.0, "{flags}: {found}, {own} in our engine");
    }
}

fn decibels(float: &[f32], other: &[f32]) -> f64 {
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let noise = power(&mut float.iter().zip(other).map(|(a, b)| f64::from(a - b)));
    10.0 * (power(&mut float.iter().map(|&v| f64::from(v))) / noise).log10()
}
