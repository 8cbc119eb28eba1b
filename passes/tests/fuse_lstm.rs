//! `fuse-lstm`: recurrent layers with weights of integers that quantize what they read at run time.

#![allow(clippy::unwrap_used)]

use msq_passes::ir::{Model, check, import, text};
use msq_passes::{EliminateDeadNodes, FuseLstm, Outcome, StoreConstants, StoredTensor, run_pass};

/// Two layers of which one is too small, their weights stored as integers.
fn stored(attributes: &str) -> Model {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[t,n,3] x, int32[n] length) => (float[t,1,n,64] y, float[1,n,8] z)
         <float[1,256,3] w = {{}}, float[1,256,64] r = {{}}, float[1,512] b = {{}}, float[1,32,3] v = {{}}, float[1,32,8] u = {{}}>
         {{ [large] y, h = LSTM <hidden_size = 64{attributes}> (x, w, r, b, length)
            [small] o, z = LSTM <hidden_size = 8> (x, v, u) }}"
    );
    let mut model = import(text::parse(&text).unwrap()).unwrap();
    let weight = |name: &str, channels: usize, inputs: usize| {
        let tensor = StoredTensor {
            tensor: name.to_owned(),
            integers: (0..channels * inputs).map(|q| (q % 255) as u8 as i8).collect(),
            scales: (0..channels).map(|s| 0.5 + s as f32).collect(),
            scale_shape: vec![1, channels, 1],
        };
        (name.to_owned(), tensor)
    };
    let constants = [weight("w", 256, 3), weight("r", 256, 64), weight("v", 32, 3), weight("u", 32, 8)].into();
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

/// The nodes, one per line, and the shapes of the initializers.
fn lines(model: &Model) -> String {
    let graph = &model.graph;
    let name = |value: &Option<msq_passes::ir::ValueId>| value.map_or("", |v| graph.value(v).name()).to_owned();
    let names = |values: &[Option<msq_passes::ir::ValueId>]| values.iter().map(name).collect::<Vec<_>>().join(", ");
    let nodes = graph
        .nodes()
        .map(|(_, node)| format!("{} = {} ({})\n", names(node.outputs()), node.op(), names(node.inputs())));
    let held = graph.initializers().map(|(_, tensor)| {
        format!("{}{:?} {}\n", tensor.element_type().unwrap(), tensor.shape().unwrap(), tensor.name())
    });
    nodes.chain(held).collect()
}

#[test]
fn layers_read_integers() {
    let mut model = stored("");
    let outcome = fused(&mut model);
    let declined: Vec<(&str, &str)> = outcome.declined.iter().map(|d| (&*d.site, &*d.reason)).collect();
    assert_eq!(outcome.changed, 1);
    assert_eq!(declined, [("small", "its hidden size is below 64: it would not be faster")]);
    assert_eq!(model.opset("com.microsoft"), Some(1));
    insta::assert_snapshot!(lines(&model));
    let (_, layer) = model.graph.nodes().find(|(_, node)| node.op() == "DynamicQuantizeLSTM").unwrap();
    let scales = model.graph.constant(layer.input(8).unwrap()).unwrap().to_f32().unwrap();
    assert_eq!((scales.len(), scales[255], layer.int("hidden_size")), (256, 255.5, Some(64)));
}

#[test]
fn what_the_kernel_does_not_know_stays() {
    for (attributes, reason) in
        [(", input_forget = 1", "its gates are coupled"), (", layout = 1", "its batches lie along the first axis")]
    {
        let outcome = fused(&mut stored(attributes));
        assert_eq!((outcome.changed, &*outcome.declined[0].reason), (0, reason));
    }
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[t,n,3] x) => (float[t,1,n,64] y)
         <float[1,256,3] w = {}, float[1,256,64] r = {}> { [large] y = LSTM <hidden_size = 64> (x, w, r) }";
    let outcome = fused(&mut import(text::parse(text).unwrap()).unwrap());
    assert_eq!(outcome.declined[0].reason, "its weights are not all integers with one scale per channel");
}
