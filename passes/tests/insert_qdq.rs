//! Placement and `insert-qdq` on small graphs: where quantizers go, what is absorbed, what stays float and why.
//!
//! Scales are synthetic (0.5, 0.25, … in graph order, so that a wrong one shows), weights are rounded to one scale of
//! 1/64 a channel. `# with profile: NAME` and `# with bits: N` at the head of a fixture choose the target and the bits
//! of activations; `# with narrower: LAYER N` gives a layer a quantizer of N bits in front of it.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::{
    ActivationGrid, ActivationQuantizer, BiasForm, Granularity, InsertQdq, LayerBias, Profile, QuantizedLayer, run_pass,
};
use similar::TextDiff;
use std::fmt::Write;
use std::path::Path;

fn activations(model: &Model, placement: &Placement, bits: u8) -> IndexMap<String, ActivationQuantizer> {
    let grid = placement.profile.activations;
    let quantizer = |i: usize| ActivationQuantizer {
        scale: 0.5_f32.powi(i as i32 + 1),
        zero_point: if grid == ActivationGrid::Symmetric { 0 } else { i as i32 },
        signed: grid != ActivationGrid::Unsigned,
        bits,
    };
    placement.roots().enumerate().map(|(i, v)| (model.graph.value(v).name().to_owned(), quantizer(i))).collect()
}

/// Scale 1/N and zero point N for N bits.
fn narrower(placement: &Placement, fixture: &str) -> IndexMap<String, ActivationQuantizer> {
    let fields = fixture.lines().filter_map(|line| line.strip_prefix("# with narrower: ")?.split_once(' '));
    let quantizer = |bits: u8| ActivationQuantizer {
        scale: 1.0 / f32::from(bits),
        zero_point: if placement.profile.activations == ActivationGrid::Symmetric { 0 } else { i32::from(bits) },
        signed: placement.profile.activations != ActivationGrid::Unsigned,
        bits,
    };
    fields.map(|(layer, bits)| (layer.to_owned(), quantizer(bits.parse().unwrap()))).collect()
}

fn rounded(model: &Model, placement: &Placement, layer: &Layer) -> QuantizedLayer {
    let weight = model.graph.constant(layer.weight).unwrap().to_f32().unwrap();
    let channels = layer.axis.map_or(1, |axis| layer.shape[axis]);
    let has_bias = layer.bias.is_some() || placement.affine_of(model, layer).is_some();
    QuantizedLayer {
        weight: weight.iter().map(|w| (w * 64.0).round().clamp(-127.0, 127.0) as i8).collect(),
        granularity: Granularity::Channel,
        scales: vec![1.0 / 64.0; channels],
        zero_points: Vec::new(),
        bias: has_bias.then(|| match placement.profile.bias {
            BiasForm::Int32 => LayerBias::Int32((0..channels as i32).collect()),
            BiasForm::Float => LayerBias::Float((0..channels).map(|c| c as f32).collect()),
        }),
    }
}

fn report(fixture: &str) -> String {
    let mut model = import(text::parse(fixture).unwrap()).unwrap();
    check(&model).unwrap();
    let field = |name: &str| fixture.lines().find_map(|line| line.strip_prefix("# with ")?.strip_prefix(name));
    let profile = field("profile: ").map_or(Profile::ORT_CPU, |name| Profile::by_name(name).unwrap());
    let profile = Profile { leaves_slow: profile.leaves_slow && field("placement: ") != Some("all"), ..profile };
    let placement = Placement::new(&model, &profile, |_, _, _| None);
    let activations = activations(&model, &placement, field("bits: ").map_or(8, |bits| bits.parse().unwrap()));
    let narrower = narrower(&placement, fixture);
    let layers = placement.layers().map(|l| (l.name.clone(), rounded(&model, &placement, l))).collect();
    let before = text::print(&export(&model));
    let pass = InsertQdq { placement: &placement, activations: &activations, requantized: &narrower, layers: &layers };
    let outcome = run_pass(&pass, &mut model, true).unwrap().outcome;
    let mut report = format!("insert-qdq: {outcome}\n");
    for kept in &placement.kept {
        writeln!(report, "float {} `{}`: {}", kept.op, kept.node, kept.reason).unwrap();
    }
    let after = text::print(&export(&model));
    report.push_str(&TextDiff::from_lines(&before, &after).unified_diff().context_radius(2).to_string());
    report
}

/// Names of the values that something other than a layer reads, in graph order.
fn read_in_full(text: &str, profile: &Profile) -> Vec<String> {
    let model = import(text::parse(text).unwrap()).unwrap();
    let placement = Placement::new(&model, profile, |_, _, _| None);
    let full = placement.values.keys().filter(|&&value| placement.is_read_in_full(&model.graph, value));
    full.map(|&value| model.graph.value(value).name().to_owned()).collect()
}

#[test]
fn values_read_by_more_than_layers() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z, float[1,4,8,8] e)
        <float[4,4,1,1] w = {}, float[4,4,1,1] v = {}, float[4,4,1,1] u = {}>
        {
          a = Conv (x, w)
          p = MaxPool <kernel_shape = [1, 1]> (a)
          b = Conv (p, v)
          s = Add (b, p)
          y = Conv (s, u)
          z = Exp (s)
          e = Exp (x)
        }";
    // The sum reads a by way of p. A float node reads s, which stands for its integers, and the caller reads y; of the
    // input x the float node reads the floats.
    assert_eq!(read_in_full(text, &Profile::ORT_CPU), ["p", "b", "s", "y"]);
    // Here values are float for the caller and for float nodes, and a sum reads one operand quantized.
    assert_eq!(read_in_full(text, &Profile::TENSORRT), ["p"]);
}

/// A model with one layer, quantized with these scales and zero points.
fn with_scales(granularity: Granularity, scales: Vec<f32>, zero_points: Vec<i8>) -> Result<String, String> {
    let text = "<ir_version: 10, opset_import: [\"\": 21]> graph (float[1,2] x) => (float[1,2] y)
        <float[2,2] w = {1, 2, 3, 4}> { [fc] y = MatMul (x, w) }";
    let mut model = import(text::parse(text).unwrap()).unwrap();
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None);
    let layer = placement.layers().next().unwrap();
    let quantized = QuantizedLayer { granularity, scales, zero_points, ..rounded(&model, &placement, layer) };
    let layers = IndexMap::from([(layer.name.clone(), quantized)]);
    let (activations, narrower) = (activations(&model, &placement, 8), IndexMap::new());
    let pass = InsertQdq { placement: &placement, activations: &activations, requantized: &narrower, layers: &layers };
    run_pass(&pass, &mut model, true).map_err(|error| error.to_string())?;
    Ok(text::print(&export(&model)))
}

#[test]
fn zero_points_of_weights_are_written() {
    let written = with_scales(Granularity::Channel, vec![0.5, 0.25], vec![-3, 7]).unwrap();
    assert!(written.contains("int8[2] w_zero_point = {-3, 7}"), "{written}");
}

#[test]
fn blocks_of_weights_are_declined() {
    let said = with_scales(Granularity::Block(1), vec![0.5; 4], Vec::new()).unwrap_err();
    assert!(said.contains("layer `fc`: weights in blocks of 1 cannot be written as QDQ"), "{said}");
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
