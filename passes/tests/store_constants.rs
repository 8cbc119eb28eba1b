//! `store-constants` on small graphs: what reads the integers, and how.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use msq_passes::ir::{DataType, Model, import, text};
use msq_passes::{StoreConstants, StoredTensor, run_pass};

/// A table `[4, 6]` with one scale along an axis, and the nodes that read it, one per line.
fn stored(scale_shape: [usize; 2], element: DataType, body: &str) -> Vec<String> {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (int64[2,3] i, bool c) => ({element}[a,b,d] y, {element}[e,f] z)
         <{element}[4,6] t = {{}}, {element}[4,6] u = {{}}> {{ {body} }}"
    );
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
