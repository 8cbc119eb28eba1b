//! The engine computes what onnxruntime computes, or says that it does not: the node tests of the Python package `onnx`, and
//! recurrent layers, resizes, pools, transposed convolutions, samples and operators on integers with the attributes that
//! those leave out, and networks whose shapes depend on values.
//!
//! Whatever the engine claims to know is run, once with all inputs and once with all but one as constants, which is how
//! weights, axes and shapes come. To refuse is right, to compute something else is not: a difference is put right, named
//! by `unknown` in `src/engine/tract/differing.rs`, or stands below with its reason.

use crate::common::python::{python, script};
use crate::common::{args, files};
use msq_onnx::data::{Array, ArrayData};
use msq_onnx::engine::standard;
use msq_passes::ir::{self, DataType, TensorProto};
use std::path::Path;

/// Where the engine computes something else, by the beginning of the name, with the reason.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("resize_half_pixel_symmetric_ceil_fraction", "the middle lies on a pixel, and rounding decides"),
    (
        "resize_half_pixel_symmetric_round_prefer_ceil_fraction",
        "the middle lies between two pixels, and rounding decides",
    ),
    ("resize_half_pixel_symmetric_round_prefer_floor_down", "the ends lie between two pixels, and rounding decides"),
    (
        "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
        "hidden scores are another finite number",
    ),
    (
        "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
        "hidden scores are another finite number",
    ),
];

/// Layers that the engine does not run, by the beginning of the name, with the reason.
const REFUSED: [(&str, &str); 0] = [];

/// What became of a model.
#[derive(Debug)]
enum Outcome {
    Right,
    Refused(String),
    Wrong(String),
}

fn array(tensor: &TensorProto) -> Array {
    let shape = tensor.shape().unwrap();
    match tensor.element_type().unwrap() {
        DataType::Double => Array::new(shape, ArrayData::F64(tensor.to_f64().unwrap())).unwrap(),
        DataType::Bool => {
            let flags = tensor.raw_data.as_ref().unwrap().iter().map(|&flag| flag != 0).collect();
            Array::new(shape, ArrayData::Bool(flags)).unwrap()
        }
        DataType::Uint64 => {
            let numbers =
                tensor.raw_data.as_ref().unwrap().as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
            Array::new(shape, ArrayData::U64(numbers.collect())).unwrap()
        }
        element if element.is_float() => {
            Array::from_f32(shape, tensor.to_f32().unwrap()).unwrap().cast(element).unwrap()
        }
        element => Array::new(shape, ArrayData::I64(tensor.to_i64().unwrap())).unwrap().cast(element).unwrap(),
    }
}

/// What is fed or expected, by the beginning of its name.
fn values(tensors: &[TensorProto], stem: &str) -> Vec<Array> {
    tensors.iter().filter(|tensor| tensor.name().starts_with(stem)).map(array).collect()
}

/// Whether two numbers are the same but for rounding; halves have three digits.
fn is_near(a: f32, b: f32, size: f32, is_half: bool) -> bool {
    let share = if is_half { 5e-3 } else { 1e-3 };
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= share * b.abs() + share * 0.1 * size.max(1.0)
}

/// How a result differs, if it does.
fn difference(found: &Array, expected: &Array) -> Option<String> {
    if found.shape() != expected.shape() {
        return Some(format!("shape {:?} is not {:?}", found.shape(), expected.shape()));
    }
    let is_half = expected.dtype() == DataType::Float16;
    let (a, b) = (found.to_f32(), expected.to_f32());
    let size = b.iter().filter(|value| value.is_finite()).fold(0.0_f32, |size, value| size.max(value.abs()));
    let differs = |(a, b): &(&f32, &f32)| !is_near(**a, **b, size, is_half);
    a.iter().zip(&b).find(differs).map(|(a, b)| format!("{a} is not {b}"))
}

fn outcome(path: &Path) -> Outcome {
    let Ok(proto) = ir::decode_model(std::fs::read(path).unwrap().into()) else {
        return Outcome::Refused(String::new());
    };
    let Ok(model) = ir::import(proto) else { return Outcome::Refused("not a model".to_owned()) };
    let stored = ir::decode_model(std::fs::read(path.with_extension("values")).unwrap().into()).unwrap();
    let tensors = stored.graph.unwrap().initializer;
    let (inputs, expected) = (values(&tensors, "input_"), values(&tensors, "output_"));
    let backend = standard();
    if let Some((_, reason)) = backend.unknown(&model).into_iter().next() {
        return Outcome::Refused(reason);
    }
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
    let run = || backend.load(&model, &shapes)?.session()?.run(&inputs);
    let outputs = match run() {
        Ok(outputs) => outputs,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    for (output, expected) in outputs.iter().zip(&expected) {
        let found = match output.to_array() {
            Ok(found) => found,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        if let Some(difference) = difference(&found, expected) {
            return Outcome::Wrong(difference);
        }
    }
    Outcome::Right
}

/// The entry of a list that a name is under.
fn entry(list: &[(&'static str, &str)], name: &str) -> Option<&'static str> {
    list.iter().map(|(stem, _)| *stem).find(|stem| name.starts_with(stem))
}

#[test]
fn the_engine_computes_what_onnxruntime_computes() {
    if python().is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("cases");
    let count = script("conformance.py", args![folder]).unwrap();
    assert!(count["node_tests"].as_u64().unwrap() > 2500 && count["layers"].as_u64().unwrap() > 400, "{count}");
    let (mut right, mut wrong, mut used) = (0, Vec::new(), Vec::new());
    for path in files(&folder, "onnx") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match outcome(&path) {
            Outcome::Right => right += 1,
            Outcome::Refused(reason) if name.starts_with("test_") => {
                assert!(!reason.contains("stopped unexpectedly") || reason.contains("node `"), "{name}: {reason}");
            }
            Outcome::Refused(reason) => match entry(&REFUSED, &name) {
                Some(stem) => used.push(stem),
                None => wrong.push(format!("{name} is refused: {reason}")),
            },
            Outcome::Wrong(difference) => match entry(&EXCEPTIONS, &name) {
                Some(stem) => used.push(stem),
                None => wrong.push(format!("{name}: {difference}")),
            },
        }
    }
    assert!(wrong.is_empty(), "{} of {right} that are right:\n{}", wrong.len(), wrong.join("\n"));
    assert!(right > 1500, "only {right} are right");
    for (stem, reason) in EXCEPTIONS.iter().chain(&REFUSED) {
        assert!(used.contains(stem), "`{stem}` is no exception any more: {reason}");
    }
}
