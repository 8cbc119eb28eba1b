//! What a run says where an option has no effect, where the target will refuse the file, and of outputs that are states.

use crate::common::arrays::{Npy, write_npz};
use crate::common::models::Network;
use crate::common::{args, msq};
use serde_json::Value;
use std::path::Path;

/// Two products of rows, `rows` being the length of the first axis.
fn products(rows: &str) -> Network {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> net (float[{rows},64] x) => (float[{rows},32] y)
         <float[64,64] a = {{}}, float[64,32] b = {{}}> {{ h = MatMul (x, a) r = Relu (h) y = MatMul (r, b) }}"
    );
    Network::new(&text, Npy::ramp(&[8, 64]))
}

/// The notes of a run with data.
#[track_caller]
fn notes(network: &Network, flags: &str) -> String {
    let (_, run) = network.run(&format!("--no-repair --json --calib {} {flags}", network.data.display()));
    run.ok().json()["notes"].to_string()
}

#[test]
fn a_format_without_operators_has_no_effect() {
    let network = products("N");
    for format in ["integer", "qlinear"] {
        let said = notes(&network, &format!("--format {format} --act-bits float"));
        let expected = format!("`--format {format}` has no effect: every layer computes in float");
        assert!(said.contains(&expected) && !said.contains("ConvInteger"), "{said}");
        let said = notes(&network, &format!("--format {format} --placement all"));
        assert!(!said.contains("has no effect"), "{said}");
    }
    assert!(notes(&network, "--format nbits").contains("`--format nbits` has no effect"));
    let blocks = notes(&network, "--format nbits --weight-bits 4 --granularity block:32");
    assert!(!blocks.contains("has no effect"), "{blocks}");
}

/// Where all layers compute in float the summary says why, unless that is what was asked for.
#[test]
fn float_layers_have_reasons() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,64] x) => (float[N,64] y)
        <float[64,64] a = {}, float[64,64] b = {}, float[64,64] c = {}, float[64,64] d = {}>
        { h = MatMul (x, a) r = Relu (h) m = MatMul (r, b) s = Add (m, r) t = MatMul (s, c) u = Relu (t) y = MatMul (u, d) }";
    let network = Network::new(text, Npy::ramp(&[8, 64]));
    let said = |flags: &str| {
        let (_, run) = network.run(&format!("--no-repair --calib {} {flags}", network.data.display()));
        run.ok().stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let slower = said("");
    assert!(slower.contains("0 of 4 layers int8, 4 float with integer weights; stays float:"), "{slower}");
    assert!(slower.contains("would be slower"), "{slower}");
    let asked = said("--act-bits float");
    assert!(asked.contains("runs as float, 4 of 4 layers with integer weights wrote"), "{asked}");
}

/// One sample far from all others is most often a mistake, which only the owner of the data can mend.
#[test]
fn samples_far_from_all_others_are_named() {
    let network = products("N");
    let mut values: Vec<f32> = (0..8 * 64).map(|at| (at % 7) as f32 - 3.0).collect();
    let data = network.scratch.path("far.npz");
    write_npz(&data, &[("x", Npy::floats(&[8, 64], &values))]);
    let said = |path: &Path| {
        let (_, run) = network.run(&format!("--no-repair --json --calib {}", path.display()));
        run.ok().json()["notes"].to_string()
    };
    assert!(!said(&data).contains("leave such samples out"));
    values[3 * 64 + 5] = -1e30;
    write_npz(&data, &[("x", Npy::floats(&[8, 64], &values))]);
    let expected = "input `x` reaches -1e30 in 1 of 8 samples (sample 3) and at most 3.0 in the others";
    let said = said(&data);
    assert!(said.contains(expected), "{said}");
}

/// Without data, what needs none is named where it fits.
#[test]
fn ranges_of_made_up_inputs_are_not_the_only_way() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,64] x) => (float[N,64] y)
        <float[64,64] a = {}, float[64,64] b = {}> { h = MatMul (x, a) r = Relu (h) y = MatMul (r, b) }";
    let network = Network::new(text, Npy::ramp(&[8, 64]));
    let said = |flags: &str| network.run(flags).1.ok().json()["notes"].to_string();
    assert!(said("--json --no-repair --placement all").contains("`--act-bits dynamic`"));
    assert!(!said("--json --no-repair --placement all --act-bits dynamic").contains("made-up inputs;"));
    let data = format!("--json --no-repair --placement all --calib {}", network.data.display());
    assert!(!said(&data).contains("`--act-bits dynamic`"));
}

/// Products of two activations have no weight, so nothing of them is quantized at run time.
#[test]
fn products_of_activations_are_told_from_layers() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,8,64] x) => (float[N,8,64] y)
         <float[64,64] a = {}, float[64,64] b = {}>
         { q = MatMul (x, a) t = Transpose <perm = [0, 2, 1]> (q) s = MatMul (q, t) p = Softmax (s) c = MatMul (p, q) y = MatMul (c, b) }";
    let (_, run) = Network::new(text, Npy::ramp(&[8, 8, 64])).run("--json --act-bits dynamic");
    let report = run.ok().json();
    let reason = |node: &str| {
        let kept = report["kept"].as_array().unwrap().iter().find(|kept| kept["node"] == node);
        kept.map_or_else(String::new, |kept| kept["reason"].as_str().unwrap().to_owned())
    };
    for node in ["s", "c"] {
        assert!(reason(node).starts_with("both operands are computed"), "{node}: {}", reason(node));
    }
    for node in ["q", "y"] {
        assert!(!reason(node).starts_with("both operands"), "{node}: {}", reason(node));
    }
}

#[test]
fn open_axes_are_named_where_the_target_refuses_them() {
    let refused = |network: &Network, target: &str| notes(network, &format!("--target {target}")).contains("open axes");
    let (open, fixed) = (products("N"), products("1"));
    assert!(refused(&open, "qnn"));
    assert!(!refused(&fixed, "qnn") && !refused(&open, "ort-cpu"));
    for (network, is_open) in [(&open, true), (&fixed, false)] {
        let (file, run) = network.run("--target qnn --no-repair");
        run.ok();
        let linted = msq(args!["lint", "--profile", "qnn", file]).stdout;
        assert_eq!(linted.contains("dynamic-shape"), is_open, "{linted}");
    }
}

#[test]
fn caches_stand_behind_other_outputs() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,16] x) => (float[N,8] present_key, float[N,8] present_value, float[N,4] y)
        <float[16,8] k = {}, float[16,8] v = {}, float[8,4] w = {}>
        { present_key = MatMul (x, k) present_value = MatMul (x, v)
          s = Add (present_key, present_value) r = Relu (s) y = MatMul (r, w) }";
    let network = Network::new(text, Npy::ramp(&[32, 16]));
    let calib = format!("--placement all --no-repair --calib {}", network.data.display());
    let said = network.run(&calib).1.ok().stdout;
    let quality = said.split_once("\nquality").unwrap().1;
    let [own, states] =
        ["`y` read as", "2 states and caches, the worst of them `present_"].map(|part| quality.find(part));
    assert!(own.is_some() && own < states, "{said}");
    let report = network.run(&format!("{calib} --json")).1.ok().json();
    let found = report["quality"]["outputs"].as_array().unwrap();
    let states: Vec<bool> = found.iter().map(|output| output["state"] == Value::Bool(true)).collect();
    assert_eq!(states, [true, true, false]);
}

/// Nothing of such a file is of the default domain.
#[test]
fn models_that_import_another_domain_alone() {
    let text = "<ir_version: 8, opset_import: [\"com.microsoft\": 1]> net (float[N,64] x) => (float[N,32] y)
        <float[64,32] w = {}> { y = com.microsoft.FusedMatMul <alpha = 0.5> (x, w) }";
    let network = Network::new(text, Npy::ramp(&[8, 64]));
    let report = network.run(&format!("--json --calib {}", network.data.display())).1.ok().json();
    assert_eq!(report["layers"].as_array().unwrap().len(), 1, "{report}");
    assert!(report["opset"].as_i64().unwrap() >= 13, "{report}");
    let linted = msq(args!["lint", &network.float]).stdout;
    assert!(!linted.contains("ir-version-too-new"), "{linted}");
    let inspected = msq(args!["inspect", &network.float, "--json"]).ok().json();
    assert!(inspected["opset"].as_i64().unwrap() >= 13, "{inspected}");
}
