//! `store-blocks`, what `pack-weights` makes of it, and `fuse-nbits`: what is written of products whose weight has one scale
//! per block.

#![allow(clippy::unwrap_used)]

use msq_passes::analysis::layers;
use msq_passes::ir::{DataType, Model, check, export, import, text};
use msq_passes::{
    EliminateDeadNodes, FuseNBits, Granularity, LayerBias, PackWeights, Packing, QuantizedLayer, ShareWeights,
    StoreBlocks, StoreConstants, StoredTensor, run_pass,
};

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
    let outcome = run_pass(&FuseNBits { bits, ..FuseNBits::default() }, &mut model, true).unwrap().outcome;
    assert_eq!((outcome.changed, outcome.declined.len()), (2, 0));
    insta::assert_snapshot!(print(&model));
}

/// A table `[32, 64]` in blocks of 32 whose rows are looked up twice, and a product with its transpose.
fn tied(body: &str) -> Model {
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]> tied (int64[n] i, int64[2,1] j) => (float[n,32] y, float[2,1,64] z)
         <float[32,64] t = {{}}, float[64,32] w = {{}}> {{ x = Gather (t, i) z = Gather (t, j) {body} }}"
    );
    let mut model = import(text::parse(&text).unwrap()).unwrap();
    let rows: Vec<i8> = (0..32 * 64).map(|q| (q * q % 16 - 8) as i8).collect();
    let columns = (0..64 * 32).map(|at| rows[at % 32 * 64 + at / 32]).collect::<Vec<i8>>();
    let scales: Vec<f32> = (1..=64).map(|s| s as f32).collect();
    let layer = QuantizedLayer {
        weight: columns.into(),
        granularity: Granularity::Block(32),
        scales: scales.clone(),
        zero_points: Vec::new(),
        bias: None,
    };
    let layers = [("product".to_owned(), layer)].into();
    run_pass(&StoreBlocks { layers: &layers }, &mut model, true).unwrap();
    let table = StoredTensor {
        tensor: "t".to_owned(),
        integers: rows.into(),
        scales,
        scale_shape: vec![32, 2],
        at_load: false,
    };
    let constants = [("t".to_owned(), table)].into();
    run_pass(&StoreConstants { constants: &constants }, &mut model, true).unwrap();
    model
}

/// Element type and shape of the initializers that take more than a few bytes.
fn large(model: &Model) -> Vec<String> {
    let held = model.graph.initializers().filter(|(_, tensor)| tensor.byte_count().unwrap() > 64);
    held.map(|(_, tensor)| format!("{}{:?}", tensor.element_type().unwrap(), tensor.shape().unwrap())).collect()
}

fn operators(model: &Model) -> Vec<&str> {
    model.graph.nodes().map(|(_, node)| node.op()).collect()
}

#[test]
fn lookups_become_those_of_onnxruntime_and_share_words() {
    let mut model = tied("[product] y = MatMul (x, w)");
    let fuse = FuseNBits { bits: [("product".to_owned(), 4)].into(), tables: [("t".to_owned(), 4)].into() };
    let outcome = run_pass(&fuse, &mut model, true).unwrap().outcome;
    assert_eq!((outcome.changed, outcome.declined.len()), (2, 0));
    run_pass(&EliminateDeadNodes, &mut model, true).unwrap();
    run_pass(&ShareWeights, &mut model, true).unwrap();
    check(&model).unwrap();
    let mut found = operators(&model);
    found.sort_unstable();
    assert_eq!(found, ["GatherBlockQuantized", "GatherBlockQuantized", "MatMulNBits", "Reshape"]);
    let (_, lookup) = model.graph.nodes().find(|(_, node)| node.op() == "GatherBlockQuantized").unwrap();
    let attributes = ["bits", "block_size", "gather_axis", "quantize_axis"].map(|name| lookup.int(name));
    assert_eq!((attributes, lookup.domain()), ([Some(4), Some(32), Some(0), Some(1)], "com.microsoft"));
    assert_eq!(large(&model), ["uint8[32, 2, 16]", "float[32, 2]"]);
}

#[test]
fn a_table_that_something_else_reads_stays() {
    let mut model = tied("[product] p = MatMul (x, w) o = Transpose (t) r = MatMul (x, o) y = Add (r, p)");
    let fuse = FuseNBits { tables: [("t".to_owned(), 4)].into(), ..FuseNBits::default() };
    let outcome = run_pass(&fuse, &mut model, true).unwrap().outcome;
    let declined: Vec<(&str, &str)> = outcome.declined.iter().map(|d| (&*d.site, &*d.reason)).collect();
    assert!(declined.contains(&("t", "not all that reads it looks rows up")), "{declined:?}");
    assert!(!operators(&model).contains(&"GatherBlockQuantized"));
}

#[test]
fn dequantizers_and_others_read_the_same_packed_integers() {
    let mut model = tied("[product] y = MatMul (x, w)");
    run_pass(&ShareWeights, &mut model, true).unwrap();
    let packings = [("product".to_owned(), Packing::Int4)].into();
    run_pass(&PackWeights { layers: packings, functions: false }, &mut model, true).unwrap();
    run_pass(&EliminateDeadNodes, &mut model, true).unwrap();
    check(&model).unwrap();
    let element = |op: &str| {
        let (_, node) = model.graph.nodes().find(|(_, node)| node.op() == op).unwrap();
        model.graph.constant(node.input(0).unwrap()).unwrap().element_type().unwrap()
    };
    assert_eq!([element("DequantizeLinear"), element("Cast")], [DataType::Int4; 2]);
    assert!(large(&model).contains(&"int4[64, 32]".to_owned()), "{:?}", large(&model));
    assert!(large(&model).iter().all(|tensor| !tensor.contains("int8")), "{:?}", large(&model));
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
