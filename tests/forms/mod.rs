//! The forms low-bit models are written in, in onnxruntime: every width, packing, format and treatment of batch-norms
//! is valid, runs on the kernels it should run on, and gives the numbers of the plain form of the same integers.

mod activations;
mod scales;

use crate::common::python::{Ran, check_model, python, ran};
use crate::common::{Scratch, args, digits, models, msq, quantize_digits};
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
        // Below 8 bits scales are halves where names are not kept.
        let halves = if *width == "8" { "" } else { "--half-scales" };
        let flags = format!("--weight-bits {width}");
        [digits_with(&scratch, &flags), digits_with(&scratch, &format!("{flags} {halves} --packing none --keep-names"))]
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
    // But the metadata tell how they would be.
    assert!(size(&files[14]).abs_diff(size(&files[15])) < 32);
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
        let halves =
            if packed.contains("--keep-names") || plain.contains("--half-scales") { "" } else { "--half-scales" };
        [digits_with(&scratch, packed), digits_with(&scratch, &format!("{plain} {halves} --packing none --keep-names"))]
    };
    let files: Vec<PathBuf> = pairs.iter().flat_map(pair).collect();
    let ran = ran_on_digits(&files).unwrap();
    for (i, (packed, plain)) in pairs.iter().enumerate() {
        if !packed.contains("integer") {
            is_all_integer(&ran[2 * i], packed);
        }
        assert_eq!(logits(&ran[2 * i]), logits(&ran[2 * i + 1]), "{packed}");
        assert!(size(&files[2 * i]) < size(&files[2 * i + 1]), "{packed} is not smaller than {plain}");
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

/// Files with narrow tensors or functions run in our engine too.
#[test]
fn evaluate_reads_int4_and_functions() {
    let scratch = Scratch::new();
    let evaluated = |flags: &str| {
        let model = digits_with(&scratch, flags);
        msq(args!["evaluate", model, "--calib", digits("test.npz"), "--json", "--samples", "100"])
    };
    let accuracy = |run: crate::common::Run| run.ok().json()["accuracy"].as_f64().unwrap();
    let int4 = accuracy(evaluated("--weight-bits 4 --packing int4"));
    assert_eq!(int4, accuracy(evaluated("--weight-bits 4 --packing none")));
    assert!(int4 > 0.9, "{int4}");
    assert_eq!(int4, accuracy(evaluated("--weight-bits 4 --functions")));
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

/// Weights alone: what onnxruntime computes is the float model with weights integer times scale.
#[test]
fn weight_only_is_the_float_model_with_rounded_weights() {
    if python().is_none() {
        return;
    }
    let scratch = Scratch::new();
    for flags in [
        "--weight-bits 2 --full-scales",
        "--weight-bits 4 --half-scales",
        "--weight-bits 4 --half-scales --packing int4",
    ] {
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
        digits_with(&scratch, &format!("--placement all --plan {}", mixed.display())),
        // Several pools and tables beside each other, with all their names.
        digits_with(&scratch, &format!("--placement all --plan {} --half-scales --keep-names", mixed.display())),
        digits_with(&scratch, &format!("--placement all --plan {} --half-scales --keep-names", plain.display())),
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
