//! `--print-passes` and `--dump-after`.

use crate::common::{Scratch, args, digits, msq, quantize_digits};
use msq_passes::ir;
use std::ffi::OsString;
use std::fs;

fn few() -> Vec<OsString> {
    args!["--calib", digits("calib.npz"), "--samples", "8", "--solver", "round", "--verify", "0"].to_vec()
}

#[test]
fn all_passes_are_printed_without_a_model() {
    let run = msq(args!["--print-passes"]).ok();
    assert_eq!(run.stderr, "");
    insta::assert_snapshot!("print-passes", run.stdout);
}

#[test]
fn the_model_is_dumped_after_each_run_of_a_pass() {
    let scratch = Scratch::new();
    let plain = quantize_digits(&scratch, "plain.onnx", &few());
    let wanted = args!["--dump-after", "eliminate-dead-nodes", "--dump-after=insert-qdq", "--dump-after=insert-qdq"];
    let dumped = quantize_digits(&scratch, "out.onnx", &[&few()[..], wanted].concat());
    assert!(fs::read(plain).unwrap() == fs::read(dumped).unwrap(), "dumps change the model");
    let mut outputs = scratch.outputs();
    outputs.retain(|name| name.ends_with(".onnxtxt"));
    let dead = |run: &str| format!("out.onnx.eliminate-dead-nodes{run}.onnxtxt");
    assert_eq!(outputs, [dead(".2"), dead(".3"), dead(".4"), dead(""), "out.onnx.insert-qdq.onnxtxt".to_owned()]);
    let texts: Vec<String> = outputs.iter().map(|name| fs::read_to_string(scratch.out(name)).unwrap()).collect();
    for text in &texts {
        let model = ir::import(ir::text::parse(text).unwrap()).unwrap();
        ir::check(&model).unwrap();
    }
    let quantized: Vec<bool> = texts.iter().map(|text| text.contains("QuantizeLinear")).collect();
    assert_eq!(quantized, [false, true, true, false, true], "{outputs:?}");
}

#[test]
fn a_pass_that_does_not_run_is_said() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    let run = msq(&[args![digits("digits.onnx"), "-o", output, "--dump-after", "lower-integer"], &few()[..]].concat());
    assert!(run.ok().stderr.contains("nothing was dumped after `lower-integer`"));
    assert_eq!(scratch.outputs(), ["out.onnx"]);
}

#[test]
fn a_pass_that_is_none_is_refused_with_those_alike() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    let run = msq(args![digits("digits.onnx"), "-o", output, "--dump-after", "fuse-afine"]);
    let text = run.usage();
    assert!(text.contains("invalid value 'fuse-afine' for '--dump-after <PASS>'"), "{text}");
    assert!(text.contains("similar value exists: 'fuse-affine'"), "{text}");
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn a_dump_overwrites_no_input() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    for file in ["fuse-affine.onnxtxt", "eliminate-dead-nodes.2.onnxtxt"] {
        let input = scratch.path(&format!("out/out.onnx.{file}"));
        fs::copy(digits("digits.onnx"), &input).unwrap();
        let pass = file.split('.').next().unwrap();
        let run = msq(&[args![input, "-o", output, "--dump-after", pass], &few()[..]].concat());
        let line = run.error(1);
        assert!(line.contains(file), "{line}");
        assert!(fs::read(&input).unwrap() == fs::read(digits("digits.onnx")).unwrap(), "the input changed");
        assert!(!output.exists());
        fs::remove_file(input).unwrap();
    }
}
