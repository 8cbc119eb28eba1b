//! Small models run by the engine, for the tests of this folder.

use crate::data::Array;
use crate::engine::Backend;
use crate::engine::tract::Tract;
use msq_passes::ir::{self, Model};

/// A model in text with inputs, constants and nodes, whose output is `y`.
pub(super) fn model(inputs: &str, constants: &str, nodes: &str) -> Model {
    let constants = if constants.is_empty() { String::new() } else { format!("<{constants}>") };
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 20, \"com.microsoft\": 1]>\n\
         g ({inputs}) => (float y)\n{constants}\n{{\n{nodes}\n}}"
    );
    let mut proto = ir::text::parse(&text).unwrap();
    // The shape is whatever the node makes of it.
    for output in proto.graph.iter_mut().flat_map(|graph| &mut graph.output) {
        output.r#type = None;
    }
    ir::import(proto).unwrap()
}

/// What such a model computes from float inputs of these shapes.
pub(super) fn run(inputs: &str, constants: &str, nodes: &str, values: &[(&[usize], &[f32])]) -> Vec<f32> {
    let (_, result) = run_shaped(inputs, constants, nodes, values);
    result
}

/// The shape and the elements of what such a model computes.
pub(super) fn run_shaped(
    inputs: &str,
    constants: &str,
    nodes: &str,
    values: &[(&[usize], &[f32])],
) -> (Vec<usize>, Vec<f32>) {
    let model = model(inputs, constants, nodes);
    let arrays: Vec<Array> =
        values.iter().map(|(shape, values)| Array::from_f32(shape.to_vec(), values.to_vec()).unwrap()).collect();
    let shapes: Vec<Vec<usize>> = values.iter().map(|(shape, _)| shape.to_vec()).collect();
    let plan = Tract.load(&model, &shapes).unwrap();
    let outputs = plan.session().unwrap().run(&arrays).unwrap();
    (outputs[0].shape().to_vec(), outputs[0].value().to_f32().unwrap())
}

/// Whether two lists of numbers are the same but for rounding.
#[track_caller]
pub(super) fn assert_close(found: &[f32], expected: &[f32]) {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(close), "{found:?} is not {expected:?}");
}
