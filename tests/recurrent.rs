//! Recurrent layers that quantize at run time what they read: the engine computes what onnxruntime computes, and what that
//! loses is seen, and repaired.

use crate::common::Scratch;
use crate::common::arrays::{Npy, write_npz};
use crate::common::models;
use crate::common::python::ran;
use msq_onnx::data::{Array, Dataset, Sample};
use msq_onnx::engine::standard;
use msq_onnx::{ActivationBits, BitPlan, LayerPlan, Options, Quantized, Quantizer};
use msq_passes::ir::{Model, check, import};
use std::path::{Path, PathBuf};

/// A constant in text, its elements spread evenly over a range.
fn constant(next: &mut impl FnMut() -> f32, (element, name): (&str, &str), shape: &[usize], range: [f32; 2]) -> String {
    let spread = |value: f32| f32::midpoint(range[0], range[1]) + value * (range[1] - range[0]) / 2.0;
    let count = shape.iter().product();
    let values = std::iter::repeat_with(|| spread(next())).take(count);
    let written =
        values.map(|value| if element == "float" { format!("{value:?}") } else { format!("{}", value.round() as i32) });
    let (shape, values): (Vec<String>, Vec<String>) =
        (shape.iter().map(ToString::to_string).collect(), written.collect());
    format!("{element}[{}] {name} = {{{}}}", shape.join(","), values.join(", "))
}

/// A layer with what its number gives it, and the shape of its input.
fn layer(number: usize) -> (String, [usize; 3]) {
    let mut next = models::random(number as u64 + 1);
    let has = |what: usize| (number / 12) >> what & 1 == 1;
    let (direction, directions) = [("forward", 1), ("reverse", 1), ("bidirectional", 2)][number % 3];
    let (time, batch, inputs, hidden) = (2 + number % 5, 1 + number % 4, 3 + number % 7, 2 + number % 11);
    let columns = 4 * hidden;
    let parameters = if number.is_multiple_of(2) { vec![directions, columns] } else { vec![directions] };
    let (element, values, zero_point) =
        if number % 4 < 2 { ("int8", [-128.0, 127.0], 0.0) } else { ("uint8", [0.0, 255.0], 131.0) };
    let mut constants = vec![
        constant(&mut next, (element, "w"), &[directions, inputs, columns], values),
        constant(&mut next, (element, "r"), &[directions, hidden, columns], values),
        constant(&mut next, ("float", "ws"), &parameters, [0.001, 0.01]),
        constant(&mut next, ("float", "rs"), &parameters, [0.001, 0.01]),
        constant(&mut next, (element, "z"), &parameters, [zero_point; 2]),
    ];
    let state = [directions, batch, hidden];
    let optional = [
        ("float", "b", vec![directions, 2 * columns], [-1.0, 1.0]),
        ("int32", "lengths", vec![batch], [1.0, time as f32]),
        ("float", "h0", state.to_vec(), [-1.0, 1.0]),
        ("float", "c0", state.to_vec(), [-1.0, 1.0]),
        ("float", "p", vec![directions, 3 * hidden], [-1.0, 1.0]),
    ];
    let mut given = Vec::new();
    for (at, (element, name, shape, range)) in optional.into_iter().enumerate() {
        given.push(if has(at) { name } else { "" });
        if has(at) {
            constants.push(constant(&mut next, (element, name), &shape, range));
        }
    }
    let functions = match number % 5 {
        3 => format!(", activations = [{}]", ["\"HardSigmoid\", \"Softsign\", \"Relu\""; 2][..directions].join(", ")),
        4 => ", clip = 0.5".to_owned(),
        _ => String::new(),
    };
    let (steps, y) = if number % 6 == 5 { ("\"\"", "") } else { ("y", "float[a,b,c,d] y, ") };
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>
         g (float[{time},{batch},{inputs}] x) => ({y}float[e,f,g] h, float[i,j,k] l)
         <{}>
         {{ {steps}, h, l = com.microsoft.DynamicQuantizeLSTM <hidden_size = {hidden}, direction = \"{direction}\"{functions}>
              (x, w, r, {}, ws, z, rs, z) }}",
        constants.join(", "),
        given.join(", ")
    );
    (text, [time, batch, inputs])
}

#[test]
fn the_engine_computes_what_onnxruntime_rounds_at_run_time() {
    let scratch = Scratch::new();
    let mut written: Vec<(PathBuf, PathBuf, Vec<Vec<f32>>)> = Vec::new();
    for number in (0..12 * 32).step_by(7) {
        let (text, shape) = layer(number);
        let proto = models::parse(&text);
        let path = models::write(&scratch.path(&format!("{number}.onnx")), &proto);
        let mut next = models::random(100 + number as u64);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| 3.0 * next()).collect();
        let data = scratch.path(&format!("{number}.npz"));
        write_npz(&data, &[("x", Npy::floats(&shape, &values))]);
        let model = import(proto).unwrap();
        let mut session = standard().load(&model, &[shape.to_vec()]).unwrap().session().unwrap();
        let found = session.run(&[Array::from_f32(shape.to_vec(), values).unwrap()]).unwrap();
        written.push((path, data, found.iter().map(|output| output.to_f32().unwrap()).collect()));
    }
    let models: Vec<(&Path, &Path)> = written.iter().map(|(model, data, _)| (&**model, &**data)).collect();
    let Some(ran) = ran("survey", &models) else { return };
    for ((path, _, found), run) in written.iter().zip(ran) {
        let wanted = ["y", "h", "l"].iter().filter_map(|name| run.outputs.get(*name));
        for (found, wanted) in found.iter().zip(wanted) {
            assert_eq!(found.len(), wanted.len(), "{}", path.display());
            let far = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{}: {far}", path.display());
        }
    }
}

/// A layer with inputs in two units, the first one's and that of all others, and weights of two sizes for them.
fn mixed_units(units: [f32; 2], weights: [f32; 2]) -> Model {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[12,1,16] x) => (float[1,1,128] y)
         <float[16] unit = {}, float[1,512,16] w = {}, float[1,512,128] r = {}>
         { u = Mul (x, unit) s, y, c = LSTM <hidden_size = 128> (u, w, r) }";
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    let of = |pair: [f32; 2], input: usize| pair[usize::from(input > 0)];
    let mut next = models::random(9);
    models::set(&mut proto, "unit", (0..16).map(|input| of(units, input)));
    models::set(&mut proto, "w", (0..512 * 16).map(|at| next() * of(weights, at % 16)));
    import(proto).unwrap()
}

fn quantized(model: &Model, activations: ActivationBits, [repair, smooth]: [bool; 2]) -> Quantized {
    let mut next = models::random(4);
    let sample = |_| {
        let values = (0..12 * 16).map(|_| next()).collect();
        Sample { arrays: vec![Array::from_f32(vec![12, 1, 16], values).unwrap()] }
    };
    let data = Dataset::stored((0..24).map(sample).collect());
    let mut options = Options::default();
    options.scheme.plan = BitPlan::uniform(LayerPlan { activations, ..LayerPlan::default() });
    options.repair.repair = repair;
    options.calibrate.smooth = smooth;
    let made = Quantizer::new(model.clone()).calibration(data).options(options).run().unwrap();
    check(&made.model).unwrap();
    made
}

fn decibels(quantized: &Quantized) -> f64 {
    quantized.report.quality.as_ref().unwrap().outputs[0].worst_sqnr.unwrap()
}

fn count(quantized: &Quantized, op: &str) -> usize {
    quantized.model.graph.nodes().filter(|(_, node)| node.op() == op).count()
}

/// One input is a thousand times as large as the others and hardly counts.
#[test]
fn a_layer_that_loses_what_it_rounds_at_run_time_reads_floats() {
    let model = mixed_units([1000.0, 1.0], [1e-6, 0.7]);
    let left = quantized(&model, ActivationBits::Dynamic, [false; 2]);
    assert_eq!((count(&left, "DynamicQuantizeLSTM"), count(&left, "LSTM")), (1, 0));
    assert!(decibels(&left) < 20.0, "{}", decibels(&left));
    let repaired = quantized(&model, ActivationBits::Dynamic, [true, false]);
    let report = repaired.report.repair.as_ref().unwrap();
    assert_eq!((count(&repaired, "DynamicQuantizeLSTM"), count(&repaired, "LSTM")), (0, 1));
    assert_eq!(report.float_recurrent.len(), 1, "{report:?}");
    assert!(report.reached && report.float_weights.is_empty(), "{report:?}");
    assert!(decibels(&repaired) > 20.0, "{}", decibels(&repaired));
    assert!(repaired.report.stored.iter().all(|weight| weight.weight_bits.is_some()));
}

/// The weights of one input are so large that those of the others are rounded to zero.
#[test]
fn weights_for_which_eight_bits_are_not_enough_are_float() {
    let model = mixed_units([0.01, 100.0], [4.0, 0.01]);
    let bits = ActivationBits::Bits(8);
    let left = quantized(&model, bits, [false; 2]);
    let repaired = quantized(&model, bits, [true, false]);
    let report = repaired.report.repair.as_ref().unwrap();
    assert!(decibels(&left) < 20.0, "{}", decibels(&left));
    assert_eq!(report.float_weights, ["w"], "{report:?}");
    assert!(report.reached && decibels(&repaired) > 20.0, "{report:?}");
}

/// Inputs whose weights make up for their units are multiplied, and nothing is left to repair.
#[test]
fn inputs_in_different_units_are_balanced() {
    for (units, weights) in [([1000.0, 1.0], [1e-6, 0.7]), ([0.01, 100.0], [4.0, 0.01])] {
        let model = mixed_units(units, weights);
        for activations in [ActivationBits::Dynamic, ActivationBits::Bits(8)] {
            let balanced = quantized(&model, activations, [true; 2]);
            assert!(balanced.report.repair.is_none(), "{:?}", balanced.report.repair);
            assert!(balanced.report.notes.iter().any(|note| note.contains("1 recurrent layer")));
            assert!(decibels(&balanced) > 20.0, "{}", decibels(&balanced));
        }
    }
}
