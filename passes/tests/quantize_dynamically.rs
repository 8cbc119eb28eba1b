//! `quantize-dynamically`: what is written of products that find the range of their input at run time.

#![allow(clippy::unwrap_used)]

use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::{Granularity, LayerBias, QuantizeDynamically, QuantizedLayer, run_pass};

const NETWORK: &str = "<ir_version: 8, opset_import: [\"\": 17]> network (float[1,3] x) => (float[1,2] y, float[1,2] z)
<float[2,3] a = {1, 2, 3, 4, 5, 6}, float[2] b = {0, 1}, float[3,2] c = {1, 2, 3, 4, 5, 6}>
{ [fc] y = Gemm <transB = 1> (x, a, b) [product] z = MatMul (x, c) }";

fn solved() -> indexmap::IndexMap<String, QuantizedLayer> {
    let layer = |granularity, scales: Vec<f32>, bias: Option<Vec<f32>>| QuantizedLayer {
        weight: vec![-127, 2, 3, 4, 5, 127].into(),
        granularity,
        scales,
        zero_points: Vec::new(),
        bias: bias.map(LayerBias::Float),
    };
    let first = layer(Granularity::Channel, vec![0.5, 1.0], Some(vec![0.25, 1.0]));
    let second = layer(Granularity::Tensor, vec![0.25], None);
    [("fc".to_owned(), first), ("product".to_owned(), second)].into()
}

fn model() -> Model {
    import(text::parse(NETWORK).unwrap()).unwrap()
}

#[test]
fn products_are_written() {
    let mut model = model();
    let outcome = run_pass(&QuantizeDynamically { layers: &solved() }, &mut model, true).unwrap().outcome;
    assert_eq!(outcome.changed, 2);
    check(&model).unwrap();
    insta::assert_snapshot!(text::print(&export(&model)));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let broken = |change: fn(&mut QuantizedLayer)| {
        let mut layers = solved();
        change(&mut layers["fc"]);
        run_pass(&QuantizeDynamically { layers: &layers }, &mut model(), true).unwrap_err().to_string()
    };
    for (said, part) in [
        (broken(|layer| layer.scales.push(1.0)), "layer `fc`: 3 scales where 2 are expected"),
        (broken(|layer| layer.weight = vec![1].into()), "layer `fc`: 1 integers where 6 are expected"),
        (broken(|layer| layer.granularity = Granularity::Block(2)), "no scales per block"),
        (broken(|layer| layer.bias = Some(LayerBias::Int32(vec![1, 2]))), "its bias is int32"),
    ] {
        assert!(said.contains(part), "{said}");
    }
}
