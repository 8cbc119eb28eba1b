//! Activations of fewer bits than 8.

use super::{count, digits_with, furthest, layers_are_integer, logits, ran_on_digits, reach};
use crate::common::Scratch;
use crate::common::python::python;
use msq_passes::ir::{Model, ValueId, save_model};

/// Fewer bits of activations: the integers fit, and everything is fused all the same.
#[test]
fn low_bit_activations_stay_fused() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    for bits in [2, 4, 7] {
        let file = digits_with(&scratch, &format!("--act-bits {bits} --first-last-bits same"));
        let mut model = msq_onnx::load(&file).unwrap();
        // What layers read has few bits; what sums read keeps 8, though layers read it as well.
        let (layers, sums) = (integers_read(&model, &["Conv", "Gemm"]), integers_read(&model, &["Add"]));
        assert!(layers.iter().all(|value| !sums.contains(value)));
        for &(value, rank) in layers.iter().chain(&sums) {
            let element = msq_passes::ir::DataType::Uint8;
            model.graph.set_type(value, msq_passes::ir::TypeProto::tensor(element, &[None; 4][..rank]));
            model.graph.add_output(value);
        }
        let name = |&(value, _): &(ValueId, usize)| model.graph.value(value).name().to_owned();
        let [layers, sums] = [&layers, &sums].map(|values| values.iter().map(name).collect::<Vec<String>>());
        let tapped = scratch.path("tapped.onnx");
        save_model(&model, &tapped).unwrap();
        let ran = ran_on_digits(&[file, tapped]).unwrap();
        layers_are_integer(&ran[0], "activations");
        // Once for each value that a sum and a layer read.
        assert_eq!(count(&ran[0], "DequantizeLinear"), 2, "{}", ran[0].report);
        let most = |names: &[String]| names.iter().map(|name| reach(&ran[1].outputs[name])).fold(0.0, f32::max);
        assert!(layers.len() >= 8, "{}", layers.len());
        assert_eq!(most(&layers), ((1 << bits) - 1) as f32, "{bits} bits");
        assert!(most(&sums) > 200.0, "{bits} bits");
    }
}

/// The integers behind what operators read first, and behind what sums read second, with the number of their axes.
fn integers_read(model: &Model, ops: &[&str]) -> Vec<(ValueId, usize)> {
    let graph = &model.graph;
    let nodes = graph.nodes().filter(|(_, n)| ops.contains(&n.op()));
    let read = nodes.flat_map(|(_, n)| {
        let operands = if n.is("Add") { 2 } else { 1 };
        (0..operands).map(move |slot| (n.input(slot).unwrap(), if n.is("Gemm") { 2 } else { 4 }))
    });
    let integers = |(value, rank)| (graph.node(graph.value(value).producer().unwrap().0).input(0).unwrap(), rank);
    let mut values: Vec<(ValueId, usize)> = read.map(integers).collect();
    values.sort_by_key(|&(value, _)| graph.value(value).name());
    values.dedup();
    values
}

/// A value read again in fewer bits means the same in every form.
#[test]
fn low_bit_activations_are_the_same_in_every_form() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let with = |format: &str| digits_with(&scratch, &format!("--act-bits 4 --weight-bits 4 --format {format}"));
    let ran = ran_on_digits(&["qdq", "qlinear", "integer"].map(with)).unwrap();
    layers_are_integer(&ran[1], "qlinear");
    assert_eq!(logits(&ran[0]), logits(&ran[1]));
    assert_eq!((count(&ran[2], "ConvInteger"), count(&ran[2], "MatMulInteger")), (9, 1), "{}", ran[2].report);
    let (qdq, integer) = (logits(&ran[0]), logits(&ran[2]));
    assert!(furthest(qdq, integer) < 0.02 * reach(qdq), "{} of {}", furthest(qdq, integer), reach(qdq));
}
