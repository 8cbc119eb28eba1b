//! `store-blocks`, what `pack-weights` makes of it, and `fuse-nbits`: what is written of products whose weight has one scale
//! per block.

#![allow(clippy::unwrap_used)]

use msq_passes::analysis::layers;
use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::{FuseNBits, Granularity, LayerBias, PackWeights, Packing, QuantizedLayer, StoreBlocks, run_pass};

const NETWORK: &str = "<ir_version: 10, opset_import: [\"\": 21]> network (float[1,3] x) => (float[1,2] y)
<float[2,3] a = {1, 2, 3, 4, 5, 6}, float[2] b = {0, 1}, float[2,2] c = {1, 2, 3, 4}>
{ [fc] h = Gemm <transB = 1> (x, a, b) [product] y = MatMul (h, c) }";

fn model() -> Model {
    import(text::parse(NETWORK).unwrap()).unwrap()
}

fn print(model: &Model) -> String {
    check(model).unwrap();
    text::print(&export(model))
}

/// Two blocks of two along the inputs, the second of one value in the first layer.
fn solved() -> indexmap::IndexMap<String, QuantizedLayer> {
    let layer = |weight: Vec<i8>, scales: Vec<f32>, zero_points: Vec<i8>, bias: Option<Vec<f32>>| QuantizedLayer {
        weight: weight.into(),
        granularity: Granularity::Block(2),
        scales,
        zero_points,
        bias: bias.map(LayerBias::Float),
    };
    let first = layer(vec![-8, 2, 3, 4, 5, 7], vec![0.5, 1.0, 2.0, 4.0], vec![1, 0, -1, 2], Some(vec![0.25, 1.0]));
    let second = layer(vec![1, -2, 3, 4], vec![0.5, 0.25], Vec::new(), None);
    [("fc".to_owned(), first), ("product".to_owned(), second)].into()
}

#[test]
fn products_are_written() {
    let mut model = model();
    let layers = solved();
    let outcome = run_pass(&StoreBlocks { layers: &layers }, &mut model, true).unwrap().outcome;
    assert_eq!(outcome.changed, 2);
    insta::assert_snapshot!(print(&model));
    let packings = ["fc", "product"].map(|name| (name.to_owned(), Packing::Int4)).into();
    run_pass(&PackWeights { layers: packings, functions: false }, &mut model, true).unwrap();
    insta::assert_snapshot!(print(&model));
}

#[test]
fn products_become_those_of_onnxruntime() {
    let mut model = model();
    let layers = solved();
    run_pass(&StoreBlocks { layers: &layers }, &mut model, true).unwrap();
    let bits = ["fc", "product"].map(|name| (name.to_owned(), 4)).into();
    let outcome = run_pass(&FuseNBits { bits }, &mut model, true).unwrap().outcome;
    assert_eq!((outcome.changed, outcome.declined.len()), (2, 0));
    insta::assert_snapshot!(print(&model));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let broken = |change: fn(&mut QuantizedLayer), name: &str| {
        let mut layers = solved();
        change(&mut layers[name]);
        run_pass(&StoreBlocks { layers: &layers }, &mut model(), true).unwrap_err().to_string()
    };
    for (said, part) in [
        (broken(|layer| layer.scales.truncate(3), "fc"), "layer `fc`: 3 scales where 4 are expected"),
        (broken(|layer| layer.zero_points.truncate(3), "fc"), "layer `fc`: 3 zero points where 4 are expected"),
        (broken(|layer| layer.weight = vec![1].into(), "product"), "layer `product`: 1 integers where 4 are expected"),
        (broken(|layer| layer.bias = Some(LayerBias::Int32(vec![1, 2])), "fc"), "its bias is int32"),
    ] {
        assert!(said.contains(part), "{said}");
    }
    let text = NETWORK.replace("transB = 1", "transB = 1, alpha = 2.0");
    let mut scaled = import(text::parse(&text).unwrap()).unwrap();
    assert!(!layers(&scaled)[0].is_matrix_product(&scaled.graph));
    let said = run_pass(&StoreBlocks { layers: &solved() }, &mut scaled, true).unwrap_err().to_string();
    assert!(said.contains("layer `fc`: it is no plain product with a matrix"), "{said}");
}
