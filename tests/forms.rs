//! The forms low-bit models are written in, in onnxruntime: every width, packing, format and treatment of batch-norms
//! is valid, runs on the kernels it should run on, and gives the numbers of the plain form of the same integers.

#![allow(clippy::unwrap_used)]

mod common;

use common::arrays::{Npy, write_npz};
use common::python::{Ran, check_model, python, ran};
use common::{Scratch, args, digits, models, msq, quantize_digits};
use msq_passes::ir::{Model, TensorProto, ValueId, save_model};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Digits quantized with these flags, fast: few samples, no comparison afterwards.
#[track_caller]
fn digits_with(scratch: &Scratch, flags: &str) -> PathBuf {
    let mut more = args!["--calib", digits("calib.npz"), "--samples", "64", "--verify", "0"].to_vec();
    more.extend(flags.split_whitespace().map(OsString::from));
    let name: String = flags.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    quantize_digits(scratch, &format!("out{name}.onnx"), &more)
}

/// The models in onnxruntime on the digits' test set.
#[track_caller]
fn ran_on_digits(models: &[PathBuf]) -> Option<Vec<Ran>> {
    let data = digits("test.npz");
    ran("survey", &models.iter().map(|m| (m.as_path(), data.as_path())).collect::<Vec<_>>())
}

fn logits(ran: &Ran) -> &[f32] {
    &ran.outputs["logits"]
}

/// Number of nodes of an operator after onnxruntime's optimizations, in whatever domain.
fn count(ran: &Ran, op: &str) -> u64 {
    let domains = ran.report["ops"].as_object().unwrap().values();
    domains.filter_map(|ops| ops.get(op)).map(|n| n.as_u64().unwrap()).sum()
}

/// All layers of digits run on integers, nothing is left in float and nothing is unpacked or dequantized any more.
#[track_caller]
fn is_all_integer(ran: &Ran, what: &str) {
    layers_are_integer(ran, what);
    assert_eq!(count(ran, "DequantizeLinear"), 0, "{what}: {}", ran.report);
}

#[track_caller]
fn layers_are_integer(ran: &Ran, what: &str) {
    let report = &ran.report;
    assert_eq!(
        (count(ran, "QLinearConv"), count(ran, "QGemm"), count(ran, "QLinearAdd")),
        (9, 1, 2),
        "{what}: {report}"
    );
    assert_eq!(report["float"], Value::Array(Vec::new()), "{what}: {report}");
    for op in ["Gather", "Cast", "Split", "Conv", "FusedConv"] {
        assert_eq!(count(ran, op), 0, "{what}: {op} in {report}");
    }
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The largest value without its sign.
fn reach(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| v.abs().max(most))
}

/// Signal-to-noise ratio in decibels.
fn decibels(wanted: &[f32], found: &[f32]) -> f64 {
    assert_eq!(wanted.len(), found.len());
    let scale = f64::from(reach(wanted));
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|v| (v / scale).powi(2)).sum::<f64>();
    let signal = power(&mut wanted.iter().map(|&v| f64::from(v)));
    10.0 * (signal / power(&mut wanted.iter().zip(found).map(|(w, f)| f64::from(*w) - f64::from(*f)))).log10()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn every_width_gives_the_numbers_of_plain_int8() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let widths = ["ternary", "2", "3", "4", "5", "6", "7", "8"];
    let pair = |width: &&str| {
        let flags = format!("--weight-bits {width}");
        [digits_with(&scratch, &flags), digits_with(&scratch, &format!("{flags} --packing none --keep-names"))]
    };
    let files: Vec<PathBuf> = widths.iter().flat_map(pair).collect();
    let ran = ran_on_digits(&files).unwrap();
    for (i, width) in widths.iter().enumerate() {
        let (packed, plain) = (&ran[2 * i], &ran[2 * i + 1]);
        is_all_integer(packed, width);
        is_all_integer(plain, width);
        assert_eq!(logits(packed), logits(plain), "{width}");
    }
    // Each step of width is smaller and says something else; 8 bits are not packed.
    for i in 0..7 {
        assert!(size(&files[2 * i]) + 500 < size(&files[2 * i + 2]), "{} is not smaller", widths[i]);
        assert_ne!(logits(&ran[2 * i]), logits(&ran[2 * i + 2]));
    }
    assert_eq!(size(&files[14]), size(&files[15]));
}

/// INT4 tensors, functions, codebooks and half scales: the integers of plain int8 each.
#[test]
fn every_packing_gives_the_numbers_of_plain_int8() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let pairs = [
        ("--weight-bits 4 --packing int4", "--weight-bits 4"),
        ("--weight-bits 4 --packing int4 --keep-names", "--weight-bits 4"),
        ("--weight-bits 3 --functions", "--weight-bits 3"),
        ("--weight-bits ternary --functions --keep-names", "--weight-bits ternary"),
        ("--weight-bits 3 --grid codebook", "--weight-bits 3 --grid codebook"),
        ("--weight-bits 5 --grid codebook --keep-names", "--weight-bits 5 --grid codebook"),
        ("--weight-bits 2 --grid narrow", "--weight-bits 2 --grid narrow"),
        ("--weight-bits 4 --half-scales", "--weight-bits 4 --half-scales"),
        ("--weight-bits 3 --format qlinear", "--weight-bits 3 --format qlinear"),
        ("--weight-bits 3 --format integer", "--weight-bits 3 --format integer"),
        ("--weight-bits binary", "--weight-bits binary"),
        ("--weight-bits 4 --grid power-of-two", "--weight-bits 4 --grid power-of-two"),
        ("--weight-bits 3 --grid binary-bases --format qlinear", "--weight-bits 3 --grid binary-bases"),
        ("--weight-bits 4 --grid fixed-point --packing int4", "--weight-bits 4 --grid fixed-point"),
        ("--weight-bits 2 --grid wage --rounding stochastic", "--weight-bits 2 --grid wage --rounding stochastic"),
    ];
    let pair = |(packed, plain): &(&str, &str)| {
        [digits_with(&scratch, packed), digits_with(&scratch, &format!("{plain} --packing none --keep-names"))]
    };
    let files: Vec<PathBuf> = pairs.iter().flat_map(pair).collect();
    let ran = ran_on_digits(&files).unwrap();
    for (i, (packed, plain)) in pairs.iter().enumerate() {
        if !packed.contains("integer") {
            is_all_integer(&ran[2 * i], packed);
        }
        assert_eq!(logits(&ran[2 * i]), logits(&ran[2 * i + 1]), "{packed}");
        assert!(size(&files[2 * i]) + 2000 < size(&files[2 * i + 1]), "{packed} is not smaller than {plain}");
    }
    assert!(msq_onnx::load(&files[4]).unwrap().has_functions());
    let halves = msq_onnx::load(&files[14]).unwrap();
    assert!(halves.graph.initializers().any(|(_, t)| t.element_type() == Some(msq_passes::ir::DataType::Float16)));
}

/// INT2 takes a model of operator set 25; from an older one it is refused with the reason.
#[test]
fn int2_asks_for_its_operator_set() {
    let scratch = Scratch::new();
    let flags = args!["--verify", "0", "--weight-bits", "2", "--packing", "int2", "-q"];
    let out = scratch.out("out.onnx");
    let run = msq(&[args![digits("digits.onnx"), "-o", out].as_slice(), flags].concat());
    assert!(run.error(3).contains("needs opset 25"));
    let mut proto = models::digits_proto();
    proto.ir_version = Some(13);
    proto.opset_import[0].version = Some(25);
    let newer = models::write(&scratch.path("newer.onnx"), &proto);
    msq(&[args![newer, "-o", out].as_slice(), flags].concat()).ok();
    let model = msq_onnx::load(&out).unwrap();
    let int2 = Some(msq_passes::ir::DataType::Int2);
    assert!(model.graph.initializers().any(|(_, t)| t.element_type() == int2));
    if python().is_some() {
        let ran = ran_on_digits(&[out]).unwrap();
        is_all_integer(&ran[0], "int2");
    }
}

/// Files with narrow tensors run in our engine too; functions are refused in one line.
#[test]
fn evaluate_reads_int4_and_refuses_functions() {
    let scratch = Scratch::new();
    let evaluated = |flags: &str| {
        let model = digits_with(&scratch, flags);
        msq(args!["evaluate", model, "--calib", digits("test.npz"), "--json", "--samples", "100"])
    };
    let accuracy = |run: common::Run| run.ok().json()["accuracy"].as_f64().unwrap();
    let int4 = accuracy(evaluated("--weight-bits 4 --packing int4"));
    assert_eq!(int4, accuracy(evaluated("--weight-bits 4 --packing none")));
    assert!(int4 > 0.9, "{int4}");
    let run = evaluated("--weight-bits 4 --functions");
    assert!(run.error(3).contains("the engine does not support functions"));
}

/// Operators on integers written out are what onnxruntime makes of QDQ; integer products leave one affine in float.
#[test]
fn written_out_forms_agree_with_qdq() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let files: Vec<PathBuf> = ["qdq", "qlinear", "integer"]
        .iter()
        .map(|format| digits_with(&scratch, &format!("--format {format}")))
        .collect();
    let qlinear = msq_onnx::load(&files[1]).unwrap();
    let ops = |model: &Model, op: &str| model.graph.nodes().filter(|(_, n)| n.op() == op).count();
    // One quantizer at the input; the last layer's float output and the moves need no more.
    assert_eq!((ops(&qlinear, "QuantizeLinear"), ops(&qlinear, "DequantizeLinear")), (1, 0));
    assert_eq!((ops(&qlinear, "Conv"), ops(&qlinear, "QLinearConv")), (0, 9));
    let integer = msq_onnx::load(&files[2]).unwrap();
    assert_eq!((ops(&integer, "ConvInteger"), ops(&integer, "MatMulInteger"), ops(&integer, "Conv")), (9, 1, 0));
    let ran = ran_on_digits(&files).unwrap();
    is_all_integer(&ran[1], "qlinear");
    assert_eq!((count(&ran[2], "ConvInteger"), count(&ran[2], "MatMulInteger")), (9, 1), "{}", ran[2].report);
    assert_eq!(logits(&ran[0]), logits(&ran[1]));
    let (qdq, integer) = (logits(&ran[0]), logits(&ran[2]));
    assert!(furthest(qdq, integer) < 0.01 * reach(qdq), "{} of {}", furthest(qdq, integer), reach(qdq));
}

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

/// Weights alone: what onnxruntime computes is the float model with weights integer times scale.
#[test]
fn weight_only_is_the_float_model_with_rounded_weights() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    for flags in
        ["--weight-bits 2", "--weight-bits 4", "--weight-bits 4 --packing int4", "--weight-bits 3 --half-scales"]
    {
        let flags = format!("{flags} --act-bits float");
        let packed = digits_with(&scratch, &flags);
        let plain =
            digits_with(&scratch, &format!("{} --packing none --keep-names", flags.replace("--packing int4", "")));
        let mut model = msq_onnx::load(&plain).unwrap();
        assert_eq!(multiplied_out(&mut model), 10);
        let float = scratch.path("float.onnx");
        save_model(&model, &float).unwrap();
        let ran = ran_on_digits(&[packed, plain, float]).unwrap();
        assert_eq!(logits(&ran[0]), logits(&ran[2]), "{flags}");
        assert_eq!(logits(&ran[1]), logits(&ran[2]), "{flags}");
        for op in ["Gather", "Cast", "Mul", "DequantizeLinear"] {
            assert_eq!(count(&ran[0], op), 0, "{flags}: {op} in {}", ran[0].report);
        }
    }
}

/// Replaces every product of integers and scales by the floats it is; returns how many there were.
fn multiplied_out(model: &mut Model) -> usize {
    let graph = &mut model.graph;
    let products: Vec<_> = graph.nodes().filter(|(_, n)| n.is("Mul")).map(|(id, _)| id).collect();
    for &id in &products {
        let node = graph.node(id).clone();
        let cast = graph.value(node.input(0).unwrap()).producer().unwrap().0;
        let integers = graph.initializer(graph.node(cast).input(0).unwrap()).unwrap();
        let (shape, integers) = (integers.shape().unwrap(), integers.to_i64().unwrap());
        let scales = through_cast(graph, node.input(1).unwrap()).to_f32().unwrap();
        let inner = integers.len() / scales.len();
        let values: Vec<f32> = integers.iter().enumerate().map(|(i, &q)| q as f32 * scales[i / inner]).collect();
        let output = node.output(0).unwrap();
        let name = graph.value(output).name().to_owned();
        graph.remove_node(id);
        graph.set_initializer(output, TensorProto::from_f32(&name, &shape, &values));
    }
    products.len()
}

/// The constant itself, or the half precision it is cast from.
fn through_cast(graph: &msq_passes::ir::Graph, value: ValueId) -> &TensorProto {
    graph.initializer(value).unwrap_or_else(|| {
        let cast = graph.node(graph.value(value).producer().unwrap().0);
        graph.initializer(cast.input(0).unwrap()).unwrap()
    })
}

/// A saved plan, read again, gives the file it was saved with.
#[test]
fn a_plan_makes_the_same_file_again() {
    let scratch = Scratch::new();
    let plan = scratch.path("p.json");
    for flags in
        ["--weight-bits 3", "--weight-bits 4 --packing int4", "--weight-bits 4 --act-bits float --grid codebook"]
    {
        let first = std::fs::read(digits_with(&scratch, &format!("{flags} --save-plan {}", plan.display()))).unwrap();
        let again = std::fs::read(digits_with(&scratch, &format!("--plan {}", plan.display()))).unwrap();
        assert!(first == again, "{flags}");
        assert!(first != std::fs::read(digits_with(&scratch, "--weight-bits 5")).unwrap());
    }
}

/// One layer a kind, in one model. The two in float stand before sums: of a layer whose input and output are both
/// quantized, onnxruntime rounds the float weights by itself.
const MIXED: [&str; 9] = [
    r#"{"weights": "ternary", "activations": 8}"#,
    r#"{"weights": 3, "activations": 4}"#,
    r#"{"weights": "float", "activations": "float"}"#,
    r#"{"weights": 5, "activations": 8}"#,
    r#"{"weights": 8, "activations": 8}"#,
    r#"{"weights": 4, "activations": 8, "packing": "int4"}"#,
    r#"{"weights": 3, "activations": 8, "grid": "codebook"}"#,
    r#"{"weights": 6, "activations": 8}"#,
    r#"{"weights": 2, "activations": "float"}"#,
];

#[test]
fn a_mixed_plan_runs_layer_by_layer() {
    let scratch = Scratch::new();
    let saved = scratch.path("all.json");
    digits_with(&scratch, &format!("--save-plan {}", saved.display()));
    let all: Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    let names: Vec<&String> = all["layers"].as_object().unwrap().keys().collect();
    let kinds: Vec<Value> = MIXED.iter().map(|kind| serde_json::from_str(kind).unwrap()).collect();
    let write = |name: &str, packing: Option<&str>| {
        let entry = |(i, name): (usize, &&String)| {
            let mut kind = kinds[i % kinds.len()].clone();
            if let Some(packing) = packing {
                kind["packing"] = packing.into();
            }
            ((*name).clone(), kind)
        };
        let layers: serde_json::Map<String, Value> = names.iter().enumerate().map(entry).collect();
        scratch.write(name, serde_json::json!({"version": 1, "layers": layers}).to_string())
    };
    let (mixed, plain) = (write("mixed.json", None), write("plain.json", Some("none")));
    let files = [
        digits_with(&scratch, &format!("--plan {}", mixed.display())),
        // Several pools and tables beside each other, with all their names.
        digits_with(&scratch, &format!("--plan {} --keep-names", mixed.display())),
        digits_with(&scratch, &format!("--plan {} --keep-names", plain.display())),
    ];
    let data = digits("test.npz");
    let report = msq(args!["evaluate", files[1], "--calib", data, "--json"]).ok().json();
    assert!(report["accuracy"].as_f64().unwrap() > 0.7, "{report}");
    let Some(ran) = ran_on_digits(&files) else { return };
    assert_eq!(logits(&ran[0]), logits(&ran[2]));
    assert_eq!(logits(&ran[1]), logits(&ran[2]));
    let float = ran[0].report["float"].as_array().unwrap().iter().filter(|n| n["op"] != "Add").count();
    assert_eq!(float, 2, "the float layer and the weight-only layer: {}", ran[0].report);
    assert_eq!(count(&ran[0], "QLinearConv"), 7, "{}", ran[0].report);
}

/// A network of two convolutions, the factors of whose channels the test chooses.
const SCALES: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,4,8,8] x) => (float[N,5] y)
    <float[8,4,3,3] a = {}, float[8] b = {}, float[8,8,3,3] c = {}, float[5,8] h = {}, float[5] i = {}>
    {
        t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a, b)  r = Relu (t)
        u = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, c)  s = Relu (u)
        g = GlobalAveragePool (s)  f = Flatten (g)  y = Gemm <transB = 1> (f, h, i)
    }";

/// Multiplies the elements of a tensor by a factor that follows from their index.
fn multiply(proto: &mut msq_passes::ir::ModelProto, tensor: &str, factor: impl Fn(usize) -> f32) {
    let values = &mut models::initializer(proto, tensor).float_data;
    values.iter_mut().enumerate().for_each(|(i, v)| *v *= factor(i));
}

/// A name, and the factors of the first and the second convolution by output channel.
type Factors = (&'static str, fn(usize) -> f32, fn(usize) -> f32);

/// Weights that are zero, huge, tiny, denormal, or all of these: what is written runs and stays near float.
#[test]
fn extreme_weights_run() {
    let scratch = Scratch::new();
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[32, 4, 8, 8]))]);
    let cases: [Factors; 6] = [
        ("a channel of zeros", |c| if c == 3 { 0.0 } else { 1.0 }, |c| if c == 0 { 0.0 } else { 1.0 }),
        ("all zeros", |_| 0.0, |_| 1.0),
        ("huge", |_| 1e30, |_| 1.0),
        ("tiny", |_| 1e-30, |_| 1e-6),
        ("huge, then tiny", |_| 1e30, |_| 1e-30),
        ("a denormal channel", |c| if c == 1 { 1e-40 } else { 1.0 }, |c| if c == 2 { 1e-30 } else { 1.0 }),
    ];
    let mut files = Vec::new();
    for (i, (what, first, second)) in cases.iter().enumerate() {
        let mut proto = models::parse(SCALES);
        models::fill(&mut proto);
        multiply(&mut proto, "a", |at| first(at / 36));
        multiply(&mut proto, "b", first);
        multiply(&mut proto, "c", |at| second(at / 72));
        multiply(&mut proto, "i", |_| 0.0);
        let float = models::write(&scratch.path(&format!("{i}.onnx")), &proto);
        files.push(float.clone());
        for flags in ["--weight-bits 4", "--weight-bits 4 --packing none --keep-names", "--weight-bits 4 --half-scales"]
        {
            let output = scratch.out(&format!("{i}-{}.onnx", files.len()));
            let mut all = args![float, "-o", output, "--calib", data, "-q"].to_vec();
            all.extend(flags.split_whitespace().map(OsString::from));
            let run = msq(&all);
            assert_eq!(run.code, Some(0), "{what} {flags}: {}", run.stderr);
            files.push(output);
        }
    }
    let models: Vec<_> = files.iter().map(|f| (f.as_path(), data.as_path())).collect();
    let Some(ran) = ran("survey", &models) else { return };
    for (i, (what, ..)) in cases.iter().enumerate() {
        let y: Vec<&[f32]> = ran[4 * i..4 * i + 4].iter().map(|ran| ran.outputs["y"].as_slice()).collect();
        assert!(y.iter().all(|y| y.iter().all(|v| v.is_finite())), "{what}");
        assert_eq!(y[1], y[2], "{what}: packed differs from plain");
        for found in &y[1..] {
            let close = decibels(y[0], found);
            assert!(reach(y[0]) == 0.0 && reach(found) == 0.0 || close > 12.0, "{what}: {close} dB");
        }
        for ran in &ran[4 * i + 1..4 * i + 4] {
            assert_eq!(count(ran, "QLinearConv"), 2, "{what}: {}", ran.report);
        }
    }
}

/// A convolution and batch-norms as they come: a negative factor, a variance next to nothing, a factor of zero.
const NORMS: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,4,16,16] x) => (float[N,5] y)
    <float[6,4,3,3] a = {}, float[6] s = {1, -0.5, 2, 0, 1.5, -1}, float[6] o = {0.1, -0.2, 0.3, 0.4, 0, 0.2},
     float[6] m = {0.2, 0.1, -0.1, 0, 0.3, 0}, float[6] v = {1, 0.5, 2, 1, 0.001, 0.25},
     float[6,6,3,3] c = {}, float[6] d = {}, float[6] t = {-1, 1, 0.5, 2, -0.25, 1}, float[6] p = {0, 0.1, 0.2, 0.1, 0, 0.3},
     float[6] n = {0.1, 0, -0.2, 0, 0.1, 0}, float[6] w = {1, 1, 0.5, 4, 1, 0.1}, float[5,6] h = {}, float[5] i = {}>
    {
        t0 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a)
        t1 = BatchNormalization (t0, s, o, m, v)  t2 = Relu (t1)
        t3 = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t2, c, d)
        t4 = BatchNormalization (t3, t, p, n, w)  t5 = Relu (t4)
        g0 = GlobalAveragePool (t5)  g1 = Flatten (g0)  y = Gemm <transB = 1> (g1, h, i)
    }";

/// With a scale a channel the factor of a batch-norm is as good in the scale as in the weights: the integers are those
/// of the folded weights, but for ties and channels of factor zero.
#[test]
fn batch_norms_go_into_scales_or_weights() {
    let scratch = Scratch::new();
    let mut proto = models::parse(NORMS);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = scratch.path("data.npz");
    write_npz(&data, &[("x", Npy::ramp(&[32, 4, 16, 16]))]);
    let quantized = |batch_norm: &str, format: &str| {
        let output = scratch.out(&format!("{batch_norm}-{format}.onnx"));
        msq(args![float, "-o", output, "--calib", data, "-q", "--batch-norm", batch_norm, "--format", format]).ok();
        output
    };
    let formats = ["qdq", "qlinear", "integer"];
    let files: Vec<PathBuf> = formats.iter().flat_map(|f| [quantized("fold", f), quantized("affine", f)]).collect();
    for weight in ["a", "c"] {
        let [folded, kept] = [&files[0], &files[1]].map(|file| integers(file, weight));
        assert_eq!(folded.len(), kept.len());
        let apart = folded.iter().zip(&kept).filter(|(f, k)| f != k).count();
        assert!(apart * 100 <= folded.len(), "`{weight}`: {apart} of {} integers differ", folded.len());
        assert!(folded.iter().zip(&kept).all(|(f, k)| (f - k).abs() <= 1), "`{weight}`");
    }
    let zeros = integers(&files[1], "a");
    assert!(zeros[3 * 36..4 * 36].iter().all(|&q| q == 0), "the channel of factor zero is not zero");
    let mut models: Vec<_> = files.iter().map(|f| (f.as_path(), data.as_path())).collect();
    models.push((&float, &data));
    let Some(ran) = ran("survey", &models) else { return };
    let y: Vec<&[f32]> = ran.iter().map(|ran| ran.outputs["y"].as_slice()).collect();
    for (i, format) in formats.iter().enumerate() {
        let (folded, kept) = (y[2 * i], y[2 * i + 1]);
        assert!(furthest(folded, kept) < 0.02 * reach(folded), "{format}: {}", furthest(folded, kept));
        assert!(decibels(y[6], kept) > 28.0, "{format}: {} dB", decibels(y[6], kept));
        assert_eq!(count(&ran[2 * i + 1], "BatchNormalization"), 0, "{format}");
        let op = if *format == "integer" { "ConvInteger" } else { "QLinearConv" };
        assert_eq!(count(&ran[2 * i + 1], op), 2, "{format}: {}", ran[2 * i + 1].report);
    }
    assert_eq!(y[1], y[3], "qlinear is not qdq");
}

/// The integers of a weight, by the name it had in the float model.
fn integers(file: &Path, weight: &str) -> Vec<i64> {
    let model = msq_onnx::load(file).unwrap();
    let value = model.graph.find(&format!("{weight}_quantized")).unwrap_or_else(|| panic!("no integers of `{weight}`"));
    model.graph.initializer(value).unwrap().to_i64().unwrap()
}

/// `check_model.py` reports a model that does not run: the checks above can fail.
#[test]
fn a_survey_names_what_does_not_run() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    let mut proto = models::digits_proto();
    models::graph(&mut proto).node[0].op_type = Some("NoSuch".to_owned());
    let broken = models::write(&scratch.path("broken.onnx"), &proto);
    let out = scratch.path("out.npz");
    let report = check_model(args!["survey", broken, digits("test.npz"), out]).unwrap();
    assert_eq!(report["ok"], false, "{report}");
    assert!(report["results"][0]["error"].as_str().unwrap().contains("NoSuch"), "{report}");
}
