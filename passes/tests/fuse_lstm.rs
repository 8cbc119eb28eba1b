//! `fuse-lstm`: recurrent layers with weights of integers that quantize what they read at run time.

#![allow(clippy::unwrap_used)]

use msq_passes::ir::{DataType, Model, check, import, text};
use msq_passes::{EliminateDeadNodes, FuseLstm, Outcome, StoreConstants, StoredTensor, run_pass};

/// Two layers of which one is too small, their weights stored as integers.
fn stored(attributes: &str) -> Model {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[t,n,3] x, int32[n] length) => (float[t,1,n,128] y, float[1,n,8] z)
         <float[1,512,3] w = {{}}, float[1,512,128] r = {{}}, float[1,1024] b = {{}}, float[1,32,3] v = {{}}, float[1,32,8] u = {{}}>
         {{ [large] y, h = LSTM <hidden_size = 128{attributes}> (x, w, r, b, length)
            [small] o, z = LSTM <hidden_size = 8> (x, v, u) }}"
    );
    let mut model = import(text::parse(&text).unwrap()).unwrap();
    let weight = |name: &str, channels: usize, inputs: usize| {
        let tensor = StoredTensor {
            tensor: name.to_owned(),
            integers: (0..channels * inputs).map(|q| (q % 255) as u8 as i8).collect(),
            scales: (0..channels).map(|s| 0.5 + s as f32).collect(),
            scale_shape: vec![1, channels, 1],
            at_load: false,
        };
        (name.to_owned(), tensor)
    };
    let constants = [weight("w", 512, 3), weight("r", 512, 128), weight("v", 32, 3), weight("u", 32, 8)].into();
    run_pass(&StoreConstants { constants: &constants }, &mut model, true).unwrap();
    model
}

fn fused(model: &mut Model) -> Outcome {
    let nodes = ["large", "small"].map(str::to_owned).into();
    let outcome = run_pass(&FuseLstm { nodes }, model, true).unwrap().outcome;
    run_pass(&EliminateDeadNodes, model, true).unwrap();
    check(model).unwrap();
    outcome
}

#[test]
fn layers_read_integers() {
    let mut model = stored("");
    let outcome = fused(&mut model);
    let declined: Vec<(&str, &str)> = outcome.declined.iter().map(|d| (&*d.site, &*d.reason)).collect();
    assert_eq!(outcome.changed, 1);
    assert_eq!(declined, [("small", "its hidden size is below 128: it would not be faster")]);
    assert_eq!(model.opset("com.microsoft"), Some(1));
    let graph = &model.graph;
    let (_, layer) = graph.nodes().find(|(_, node)| node.op() == "DynamicQuantizeLSTM").unwrap();
    let names: Vec<&str> = layer.inputs().iter().map(|value| value.map_or("", |v| graph.value(v).name())).collect();
    assert_eq!(names[..8], ["x", "w_transposed", "r_transposed", "b", "length", "", "", ""]);
    assert_eq!((layer.domain(), layer.int("hidden_size"), names.len()), ("com.microsoft", Some(128), 12));
    let held = |slot: usize| graph.constant(layer.input(slot).unwrap()).unwrap();
    for slot in 8..12 {
        let element = if slot % 2 == 0 { DataType::Float } else { DataType::Int8 };
        assert_eq!((held(slot).element_type(), held(slot).shape().unwrap()), (Some(element), vec![1, 512]), "{slot}");
    }
    assert_eq!(held(8).to_f32().unwrap()[511], 511.5);
    assert!(held(9).to_i64().unwrap().iter().all(|&zero_point| zero_point == 0));
    let turned: Vec<_> = graph.nodes().filter(|(_, node)| node.is("Transpose")).map(|(_, node)| node).collect();
    assert_eq!(turned.len(), 2);
    for (node, shape) in turned.iter().zip([[1, 512, 3], [1, 512, 128]]) {
        let tensor = graph.constant(node.input(0).unwrap()).unwrap();
        assert_eq!((tensor.element_type(), tensor.shape().unwrap()), (Some(DataType::Int8), shape.to_vec()));
        assert_eq!(node.ints("perm"), [0, 2, 1]);
    }
}

#[test]
fn what_the_kernel_does_not_know_stays() {
    for (attributes, reason) in
        [(", input_forget = 1", "its gates are coupled"), (", layout = 1", "its batches lie along the first axis")]
    {
        let outcome = fused(&mut stored(attributes));
        assert_eq!((outcome.changed, &*outcome.declined[0].reason), (0, reason));
    }
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[t,n,3] x) => (float[t,1,n,128] y)
         <float[1,512,3] w = {}, float[1,512,128] r = {}> { [large] y = LSTM <hidden_size = 128> (x, w, r) }";
    let outcome = fused(&mut import(text::parse(text).unwrap()).unwrap());
    assert_eq!(outcome.declined[0].reason, "its weights are not all integers with one scale per channel");
}
