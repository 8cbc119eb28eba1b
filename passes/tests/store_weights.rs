//! `store-weights` on small graphs: what is written in place of float weights, what is declined and why.
//!
//! `# with LAYER: WORDS` at the head of a fixture names a layer to store. Weights are rounded to synthetic scales, 1/64,
//! 2/64, … along the layer's axis. Words: `one-scale`, `coarse` (scales of 1/8), `bias` (0, 1, …: one per channel),
//! `int32-bias`, and `short-weight`, `short-scales`, `short-bias` for lists that lack an element.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use msq_passes::analysis::{Layer, LayerOp, layers};
use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::{Granularity, LayerBias, QuantizedLayer, StoreWeights, run_pass};
use similar::TextDiff;
use std::path::Path;

fn rounded(model: &Model, layer: &Layer, words: &str) -> QuantizedLayer {
    let has = |word: &str| words.split_whitespace().any(|w| w == word);
    let channels = layer.axis.map_or(1, |axis| layer.shape[axis]);
    let inner: usize = layer.shape.iter().skip(layer.axis.map_or(0, |axis| axis + 1)).product();
    let step = if has("coarse") { 1.0 / 8.0 } else { 1.0 / 64.0 };
    let mut scales: Vec<f32> =
        if has("one-scale") { vec![step] } else { (1..=channels).map(|c| c as f32 * step).collect() };
    let float = model.constant(layer.weight).unwrap().unwrap().to_f32().unwrap();
    let round =
        |(i, w): (usize, &f32)| (w / scales[i / inner.max(1) % scales.len()]).round().clamp(-127.0, 127.0) as i8;
    let mut weight: Vec<i8> = float.iter().enumerate().map(round).collect();
    let groups = if layer.op == LayerOp::ConvTranspose { model.graph.node(layer.node).int_or("group", 1) } else { 1 };
    let biases = channels as i32 * groups as i32 - i32::from(has("short-bias"));
    if has("short-weight") {
        weight.pop();
    }
    if has("short-scales") {
        scales.pop();
    }
    let bias = if has("int32-bias") {
        Some(LayerBias::Int32((0..biases).collect()))
    } else {
        (has("bias") || has("short-bias")).then(|| LayerBias::Float((0..biases).map(|b| b as f32).collect()))
    };
    let granularity = if has("one-scale") { Granularity::Tensor } else { Granularity::Channel };
    QuantizedLayer { weight: weight.into(), granularity, scales, zero_points: Vec::new(), bias }
}

/// Runs the pass twice: the second time it has nothing to do.
fn report(fixture: &str) -> String {
    let mut model = import(text::parse(fixture).unwrap()).unwrap();
    check(&model).unwrap();
    let fields: IndexMap<&str, &str> =
        fixture.lines().filter_map(|line| line.strip_prefix("# with ")?.split_once(": ")).collect();
    let wanted = layers(&model).into_iter().filter_map(|l| Some((fields.get(&*l.name).copied()?, l)));
    let layers = wanted.map(|(words, l)| (l.name.clone(), rounded(&model, &l, words))).collect();
    let show = |model: &Model| text::print(&export(model));
    let before = show(&model);
    let pass = StoreWeights { layers: &layers };
    let outcome = match run_pass(&pass, &mut model, true) {
        Ok(record) => record.outcome,
        Err(error) => return format!("store-weights: error: {error}\n"),
    };
    let after = show(&model);
    assert_eq!(outcome.changed == 0, before == after, "{outcome}, but the text says otherwise");
    let again = run_pass(&pass, &mut model, true).unwrap().outcome;
    assert_eq!(again.changed, 0, "run again, it changes something");
    assert_eq!(after, show(&model), "run again, it changes something");
    let diff = TextDiff::from_lines(&before, &after).unified_diff().context_radius(2).to_string();
    format!("store-weights: {outcome}\n{diff}")
}

#[test]
fn zero_points_are_refused_and_blocks_left_alone() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]> graph (float[1,2] x) => (float[1,2] y)
        <float[2,2] w = {1, 2, 3, 4}> { [fc] y = MatMul (x, w) }";
    let run = |granularity, zero_points| {
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let layer = layers(&model).remove(0);
        let quantized = QuantizedLayer { granularity, zero_points, ..rounded(&model, &layer, "") };
        let pass = StoreWeights { layers: &[(layer.name, quantized)].into() };
        run_pass(&pass, &mut model, true)
    };
    let said = run(Granularity::Channel, vec![1, 2]).unwrap_err().to_string();
    assert!(said.contains("layer `fc`: weights stored beside float layers have no zero points"), "{said}");
    assert_eq!(run(Granularity::Block(1), Vec::new()).unwrap().outcome.changed, 0);
}

#[test]
fn store_weights() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/passes/store-weights");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut fixtures: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    let snapshots: Vec<_> = fixtures.extract_if(.., |p| p.extension().is_some_and(|e| e == "snap")).collect();
    for path in &snapshots {
        assert!(path.with_extension("onnxtxt").exists(), "{} is of no fixture", path.display());
    }
    fixtures.retain(|p| p.extension().is_some_and(|e| e == "onnxtxt"));
    fixtures.sort();
    assert!(!fixtures.is_empty());
    for path in fixtures {
        let case = path.file_stem().unwrap().to_str().unwrap();
        let report = report(&std::fs::read_to_string(&path).unwrap());
        settings.bind(|| insta::assert_snapshot!(case, report));
    }
}
