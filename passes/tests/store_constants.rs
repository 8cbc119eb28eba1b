//! `store-constants` on small graphs: what reads the integers, and how.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use msq_passes::ir::{DataType, Model, import, text};
use msq_passes::{StoreConstants, StoredTensor, run_pass};

/// A table `[4, 6]` with one scale along an axis, and the nodes that read it, one per line.
fn stored(scale_shape: [usize; 2], element: DataType, body: &str) -> Vec<String> {
    let declared = format!("({element}[a,b,d] y, {element}[e,f] z) <{element}[4,6] t = {{}}, {element}[4,6] u = {{}}>");
    let text = format!("g (int64[2,3] i, bool c) => {declared} {{ {body} }}");
    written(&text, &scale_shape)
}

/// The nodes of a graph whose constant `t` of 24 values is stored with scales of a shape, one per line.
fn written(graph: &str, scale_shape: &[usize]) -> Vec<String> {
    let text = format!("<ir_version: 8, opset_import: [\"\": 17]> {graph}");
    let mut model = import(text::parse(&text).unwrap()).unwrap();
    let count: usize = scale_shape.iter().product();
    let tensor = StoredTensor {
        tensor: "t".to_owned(),
        integers: (0..24).map(|q| q as i8).collect(),
        scales: (1..=count).map(|s| s as f32).collect(),
        scale_shape: scale_shape.to_vec(),
        at_load: false,
    };
    let constants: IndexMap<String, StoredTensor> = [("t".to_owned(), tensor)].into();
    let pass = StoreConstants { constants: &constants };
    assert_eq!(run_pass(&pass, &mut model, true).unwrap().outcome.changed, 1);
    let held = model.graph.find("t").and_then(|t| model.graph.constant(t)).unwrap();
    assert_eq!(held.element_type(), Some(DataType::Int8));
    model.graph.nodes().map(|(_, node)| line(&model, node)).collect()
}

fn line(model: &Model, node: &msq_passes::ir::Node) -> String {
    let name = |value: &Option<msq_passes::ir::ValueId>| value.map_or("", |v| model.graph.value(v).name()).to_owned();
    let inputs: Vec<String> = node.inputs().iter().map(name).collect();
    let captures: Vec<String> = node.captures().iter().map(|&v| name(&Some(v))).collect();
    format!("{} = {}({})", name(&node.outputs()[0]), node.op(), [inputs, captures].concat().join(", "))
}

#[test]
fn a_lookup_takes_integers_and_scales() {
    let rest = "z = Identity(u)";
    let lines = stored([4, 1], DataType::Float, &format!("y = Gather(t, i) {rest}"));
    assert_eq!(
        lines,
        [
            "y_quantized = Gather(t, i)",
            "z = Identity(u)",
            "y_float = Cast(y_quantized)",
            "y_scale = Gather(t_scale, i)",
            "y = Mul(y_float, y_scale)"
        ]
    );
    let lines = stored([1, 6], DataType::Float, &format!("y = Gather(t, i) {rest}"));
    assert!(lines.contains(&"y = Mul(y_float, t_scale)".to_owned()), "{lines:?}");
    let lines = stored([1, 6], DataType::Float, &format!("y = Gather<axis = -1>(t, i) {rest}"));
    assert!(lines.contains(&"y_scale = Gather(t_scale, i)".to_owned()), "{lines:?}");
}

/// Scales of a table of matrices that lie along another axis as well are looked up by the same indices.
#[test]
fn matrices_have_scales_by_column_or_row() {
    let lines = |scale_shape: [usize; 3], lookup: &str| {
        let graph = format!(
            "g (int64[5] i, int64 one, float[5,1,3] x) => (float[a,b,d] z) <float[2,3,4] t = {{}}> {{ {lookup} z = MatMul(x, y) }}"
        );
        written(&graph, &scale_shape)
    };
    for scale_shape in [[2, 1, 4], [2, 3, 1], [2, 3, 4]] {
        assert_eq!(
            lines(scale_shape, "y = Gather(t, i)"),
            [
                "y_quantized = Gather(t, i)",
                "y_float = Cast(y_quantized)",
                "y_scale = Gather(t_scale, i)",
                "y = Mul(y_float, y_scale)",
                "z = MatMul(x, y)"
            ]
        );
    }
    let gathered = "y_scale = Gather(t_scale, one)".to_owned();
    assert!(lines([1, 3, 4], "y = Gather<axis = -2>(t, one)").contains(&gathered));
    assert!(lines([1, 3, 4], "y = Gather<axis = 0>(t, one)").contains(&"y = Mul(y_float, t_scale)".to_owned()));
    // What is looked up along an axis without scales, behind one with scales, is looked up in floats.
    assert!(lines([2, 1, 4], "y = Gather<axis = 1>(t, one)").contains(&"y = Gather(t_dequantized, one)".to_owned()));
}

#[test]
fn matrices_in_blocks_get_their_shape_back() {
    let graph = "g (int64[5] i) => (float[5,3,4] y) <float[2,3,4] t = {}> { y = Gather(t, i) }";
    let lines = written(graph, &[2, 3, 2]);
    assert!(lines.contains(&"y = Reshape(y_product, y_shape)".to_owned()), "{lines:?}");
}

#[test]
fn others_read_the_product() {
    // Scales along an axis before the one that is looked up do not broadcast.
    let lines = stored([4, 1], DataType::Float, "y = Gather<axis = 1>(t, i) z = Identity(u)");
    assert!(lines.contains(&"y = Gather(t_dequantized, i)".to_owned()), "{lines:?}");
    let both = "y = Gather(t, i) z = If<then_branch = p () => (float[4,6] a) { a = Identity(t) },
        else_branch = q () => (float[4,6] b) { b = Relu(t) }>(c)";
    let lines = stored([4, 1], DataType::Float, both);
    assert!(lines.contains(&"z = If(c, t_dequantized)".to_owned()), "{lines:?}");
    assert!(lines.contains(&"y_quantized = Gather(t, i)".to_owned()), "{lines:?}");
}

#[test]
fn rows_in_blocks_get_their_shape_back() {
    let lines = stored([4, 3], DataType::Float, "y = Gather<axis = -2>(t, i) z = Identity(u)");
    assert_eq!(
        lines,
        [
            "y_quantized = Gather(t, i)",
            "z = Identity(u)",
            "y_float = Cast(y_quantized)",
            "y_scale = Gather(t_scale, i)",
            "y_product = Mul(y_float, y_scale)",
            "y = Reshape(y_product, y_shape)"
        ]
    );
    // What is looked up along another axis, or by indices of unknown rank, is looked up in floats.
    let other = "y = Gather<axis = 1>(t, i) z = Identity(t)";
    let unknown = "j = Identity(i) y = Gather(t, j) z = Identity(t)";
    for (body, lookup) in [(other, "y = Gather(t_dequantized_1, i)"), (unknown, "y = Gather(t_dequantized_1, j)")] {
        let lines = stored([4, 3], DataType::Float, body);
        for line in [lookup, "t_dequantized = Mul(t_float, t_scale)", "z = Identity(t_dequantized_1)"] {
            assert!(lines.contains(&line.to_owned()), "{lines:?}");
        }
    }
    let lines = stored([4, 3], DataType::Float16, "y = Gather(t, i) z = Identity(u)");
    assert!(lines.contains(&"y = Cast(y_product_1)".to_owned()), "{lines:?}");
}

#[test]
fn half_precision_stays() {
    let lines = stored([4, 1], DataType::Float16, "y = Gather(t, i) z = Identity(t)");
    assert!(lines.contains(&"y = Cast(y_product)".to_owned()), "{lines:?}");
    assert!(lines.contains(&"z = Identity(t_dequantized_1)".to_owned()), "{lines:?}");
}

#[test]
fn what_does_not_fit_is_an_error() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (int64[2] i) => (float[2,6] y)
        <float[4,6] t = {}> { y = Gather(t, i) }";
    let mut model = import(text::parse(text).unwrap()).unwrap();
    let tensor = StoredTensor {
        tensor: "t".to_owned(),
        integers: (0..23).map(|q| q as i8).collect(),
        scales: vec![1.0],
        scale_shape: vec![1, 1],
        at_load: false,
    };
    let constants: IndexMap<String, StoredTensor> = [("t".to_owned(), tensor)].into();
    let said = run_pass(&StoreConstants { constants: &constants }, &mut model, true).unwrap_err().to_string();
    assert!(said.contains("constant `t`: integers or scales do not fit its shape [4, 6]"), "{said}");
}
