//! Placement and `insert-qdq` on small graphs: where quantizers go, what is absorbed, what stays float and why.
//!
//! Scales are made up (0.5, 0.25, … in graph order, so that a wrong one shows), weights are rounded to one scale of
//! 1/64 a channel.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::{ActivationQuantizer, InsertQdq, Profile, QuantizedLayer, run_pass};
use similar::TextDiff;
use std::fmt::Write;
use std::path::Path;

fn activations(model: &Model, placement: &Placement) -> IndexMap<String, ActivationQuantizer> {
    let quantizer =
        |i: usize| ActivationQuantizer { scale: 0.5_f32.powi(i as i32 + 1), zero_point: i as i32, signed: false };
    placement.roots().enumerate().map(|(i, v)| (model.graph.value(v).name().to_owned(), quantizer(i))).collect()
}

fn rounded(model: &Model, layer: &Layer) -> QuantizedLayer {
    let weight = model.graph.constant(layer.weight).unwrap().to_f32().unwrap();
    let channels = layer.axis.map_or(1, |axis| layer.shape[axis]);
    QuantizedLayer {
        weight: weight.iter().map(|w| (w * 64.0).round().clamp(-127.0, 127.0) as i8).collect(),
        scales: vec![1.0 / 64.0; channels],
        bias: layer.bias.map(|_| (0..channels as i32).collect()),
    }
}

fn report(fixture: &str) -> String {
    let mut model = import(text::parse(fixture).unwrap()).unwrap();
    check(&model).unwrap();
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _| None);
    let activations = activations(&model, &placement);
    let layers = placement.layers().map(|l| (l.name.clone(), rounded(&model, l))).collect();
    let before = text::print(&export(&model));
    let pass = InsertQdq { placement: &placement, activations: &activations, layers: &layers };
    let outcome = run_pass(&pass, &mut model, true).unwrap().outcome;
    let mut report = format!("insert-qdq: {outcome}\n");
    for kept in &placement.kept {
        writeln!(report, "float {} `{}`: {}", kept.op, kept.node, kept.reason).unwrap();
    }
    let after = text::print(&export(&model));
    report.push_str(&TextDiff::from_lines(&before, &after).unified_diff().context_radius(2).to_string());
    report
}

#[test]
fn insert_qdq() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/passes/insert-qdq");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut fixtures: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    fixtures.retain(|p| p.extension().is_some_and(|e| e == "onnxtxt"));
    fixtures.sort();
    assert!(!fixtures.is_empty());
    for path in fixtures {
        let case = path.file_stem().unwrap().to_str().unwrap();
        let report = report(&std::fs::read_to_string(&path).unwrap());
        settings.bind(|| insta::assert_snapshot!(case, report));
    }
}
