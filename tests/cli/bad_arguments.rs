//! Calls that cannot be served: flags, patterns, paths.

use super::refused_with;
use crate::common::arrays::{Npy, write_npz};
use crate::common::{Scratch, args, digits, msq};
use std::ffi::OsString;

#[track_caller]
fn usage(args: &[OsString], parts: &[&str]) {
    let run = msq(args);
    let text = run.usage();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn wrong_flags() {
    let scratch = Scratch::new();
    let (model, output) = (digits("digits.onnx"), scratch.out("out.onnx"));
    usage(args![model, "-o", output, "--no-such-flag"], &["--no-such-flag"]);
    usage(args![model, "-o", output, "--observer", "nosuch"], &["nosuch", "mse", "entropy"]);
    usage(args![model, "-o", output, "--observer", "percentile:20"], &["percentile:20"]);
    usage(args![model, "-o", output, "--first-last-bits", "9"], &["`9` is none of 2 to 8, same"]);
    usage(args![model, "-o", output, "--first-last-bits", "8", "--plan", "p.json"], &["--plan"]);
    usage(args![model, "-o", output, "--preset", "nosuch"], &["nosuch", "imagenet"]);
    usage(args![model, "-o", output, "--layout", "nosuch"], &["nosuch", "nchw"]);
    usage(args![model, "-o", output, "--crop", "8xq"], &["8xq"]);
    usage(args![model, "-o", output, "--samples", "many"], &["many"]);
    usage(args![model, "-o", output, "--mean", "0.1,x"], &["x"]);
    usage(args![model, "-i", model, "-o", output], &["--input"]);
    usage(args![model, "-o", output, "-q", "-v"], &["--quiet"]);
    usage(args![model], &["--output"]);
    usage(args!["-o", output], &["MODEL"]);
    let bare = msq(args![]);
    assert_eq!(bare.code, Some(2));
    for part in ["MODEL", "\n  inspect ", "\n  completions ", "msq-onnx model.onnx -o small.onnx"] {
        assert!(bare.stderr.contains(part), "no {part:?} in: {}", bare.stderr);
    }
    usage(args!["inspect"], &["MODEL"]);
    usage(args!["evaluate", model, "--no-such-flag"], &["--no-such-flag"]);
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn zero_samples_or_threads() {
    let scratch = Scratch::new();
    let (model, output) = (digits("digits.onnx"), scratch.out("out.onnx"));
    usage(args![model, "-o", output, "--samples", "0"], &["--samples", "must be 1 or more"]);
    usage(args![model, "-o", output, "--threads", "0"], &["--threads", "must be 1 or more"]);
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

/// A search writes JSON.
#[test]
fn a_search_writes_no_model() {
    let scratch = Scratch::new();
    let out = scratch.out("small.onnx");
    let run = msq(args!["search", digits("digits.onnx"), "--calib", digits("calib.npz"), "-o", &out]);
    let error = run.error(2);
    assert!(error.contains("search writes no model") && error.contains("--front"), "{error}");
    assert!(!out.exists());
}

/// Who gives flags alone has neither a bit plan nor a layer `default`.
#[test]
fn flags_that_do_not_fit_are_named() {
    let scratch = Scratch::new();
    for flags in [["--granularity", "block:33"], ["--weight-bits", "4.25"]] {
        let mut args =
            args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")].to_vec();
        args.extend(flags.map(OsString::from));
        let run = msq(&args);
        let error = run.error(2);
        assert!(error.contains(flags[0]) && !error.contains("default"), "{error}");
    }
}

/// A command mistyped is not taken for a model.
#[test]
fn commands_that_are_none() {
    let model = digits("digits.onnx");
    assert_eq!(
        msq(args!["inspekt", model]).error(2),
        "error: `inspekt` is neither a command nor a file; did you mean `inspect`?"
    );
    assert_eq!(msq(args!["nosuch"]).error(2), "error: `nosuch` is neither a command nor a file");
}

/// Data or an output without their flag.
#[test]
fn a_second_argument_says_what_it_could_be() {
    let run = msq(args![digits("digits.onnx"), "calib.npz"]);
    let line = run.error(2);
    assert!(line.contains("--calib calib.npz") && line.contains("-o calib.npz"), "{line}");
}

/// There is no writing to a pipe.
#[test]
fn output_to_nowhere() {
    assert!(msq(args![digits("digits.onnx"), "-o", "-"]).error(2).contains("output goes to a file"));
}

#[test]
fn plans_that_are_none() {
    let scratch = Scratch::new();
    let (model, output) = (digits("digits.onnx"), scratch.out("out.onnx"));
    for name in ["plan.onnx", "plan.json"] {
        let plan = scratch.write(name, "no plan at all");
        let refused = msq(args![model, "-o", output, "--plan", plan]);
        assert!(refused.error(2).contains(&format!("{name}` is no bit plan: ")), "{}", refused.stderr);
    }
}

#[test]
fn patterns() {
    let scratch = Scratch::new();
    let (model, calib) = (digits("digits.onnx"), digits("calib.npz"));
    refused_with(&scratch, &model, args!["--calib", calib, "--skip", "nosuch"], 2, &["`nosuch`", "inspect"]);
    refused_with(&scratch, &model, args!["--calib", calib, "--skip", "conv"], 2, &["`conv`"]);
    refused_with(
        &scratch,
        &model,
        args!["--calib", calib, "--skip", "a("],
        2,
        &["`a(` is no regular expression: unclosed"],
    );
}

#[test]
fn nothing_left_to_quantize() {
    let scratch = Scratch::new();
    let (model, calib) = (digits("digits.onnx"), digits("calib.npz"));
    let run = msq(args![model, "-o", scratch.out("out.onnx"), "--calib", calib, "--skip", ".*"]);
    run.error(3);
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn the_input_is_not_overwritten() {
    let scratch = Scratch::new();
    let bytes = std::fs::read(digits("digits.onnx")).unwrap();
    let model = scratch.write("out/model.onnx", &bytes);
    let spellings = [model.clone(), scratch.path("out/../out/./model.onnx")];
    for output in spellings {
        let run = msq(args![model, "-o", output, "--calib", digits("calib.npz")]);
        assert!(run.error(1).contains("is an input"));
    }
    assert!(std::fs::read(&model).unwrap() == bytes);
    assert_eq!(scratch.outputs(), ["model.onnx"]);
}

/// Whatever is read: data, weights, plans, files of options.
#[test]
fn nothing_that_is_read_is_overwritten() {
    let scratch = Scratch::new();
    let model = scratch.write("model.onnx", std::fs::read(digits("digits.onnx")).unwrap());
    let data = scratch.write("data.npz", std::fs::read(digits("calib.npz")).unwrap());
    let config = scratch.write("msq.toml", "samples = 16");
    let out = scratch.out("out.onnx");
    msq(args![model, "-o", out, "--calib", data, "--save-plan", scratch.path("plan.json"), "-q"]).ok();
    let plan = scratch.path("plan.json");
    let before: Vec<Vec<u8>> = [&model, &data, &config, &plan, &out].map(|path| std::fs::read(path).unwrap()).into();
    let refused = |args: &[std::ffi::OsString]| assert!(msq(args).error(1).contains("is an input"));
    refused(args![model, "-o", out, "--calib", data, "--save-plan", model]);
    refused(args![model, "-o", data, "--calib", data]);
    refused(args![model, "-o", out, "--calib", data, "--report", data]);
    refused(args![model, "-o", config, "--calib", data, "--config", config]);
    refused(args![model, "-o", out, "--calib", data, "--plan", plan, "--save-plan", plan]);
    refused(args!["evaluate", model, "--calib", data, "--save-outputs", data]);
    refused(args!["search", model, "--calib", data, "-o", data]);
    refused(args!["export-encodings", out, "-o", out, "--format", "aimet-2"]);
    let twice = msq(args![model, "-o", out, "--calib", data, "--save-plan", out]);
    assert!(twice.error(2).contains("named for two outputs"));
    for (path, before) in [&model, &data, &config, &plan, &out].iter().zip(before) {
        assert!(std::fs::read(path).unwrap() == before, "{} changed", path.display());
    }
}

/// A rename would replace a device by a file.
#[cfg(unix)]
#[test]
fn what_is_no_ordinary_file_is_not_replaced() {
    let scratch = Scratch::new();
    let pipe = scratch.out("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for flag in ["-o", "--report"] {
        let mut args = args![digits("digits.onnx"), "--calib", digits("calib.npz"), flag, pipe].to_vec();
        if flag != "-o" {
            args.extend(args!["-o", scratch.out("out.onnx")].iter().cloned());
        }
        assert!(msq(&args).error(1).contains("is no ordinary file"));
    }
    assert_eq!(scratch.outputs(), ["pipe"]);
}

#[cfg(unix)]
#[test]
fn the_input_is_not_overwritten_through_links() {
    let scratch = Scratch::new();
    let bytes = std::fs::read(digits("digits.onnx")).unwrap();
    let model = scratch.write("model.onnx", &bytes);
    std::os::unix::fs::symlink(&model, scratch.out("link.onnx")).unwrap();
    let run = msq(args![model, "-o", scratch.out("link.onnx"), "--calib", digits("calib.npz")]);
    assert!(run.error(1).contains("is an input"));
    assert!(std::fs::read(&model).unwrap() == bytes);
}

#[test]
fn outputs_that_cannot_be_written() {
    let scratch = Scratch::new();
    let (model, calib) = (digits("digits.onnx"), digits("calib.npz"));
    std::fs::create_dir(scratch.path("taken")).unwrap();
    for (output, parts) in [
        (scratch.path("missing/out.onnx"), ["missing/out.onnx`: there is no folder", "cannot write"]),
        (scratch.path("taken"), ["taken", "cannot write"]),
        (scratch.path("taken/"), ["taken", "cannot write"]),
        (model.join("out.onnx"), ["out.onnx", "cannot write"]),
        ("/proc/out.onnx".into(), ["/proc/out.onnx", "cannot write"]),
    ] {
        let run = msq(args![model, "-o", output, "--calib", calib]);
        let line = run.error(1);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert_eq!(std::fs::read_dir(scratch.path("taken")).unwrap().count(), 0);
    assert!(!scratch.path("missing").exists());
}

/// The output is tried before the model is run: a typing error must not cost an hour of calibration, nor a warning.
#[test]
fn a_missing_output_folder_is_found_first() {
    let scratch = Scratch::new();
    let run = msq(args![digits("digits.onnx"), "-o", scratch.path("missing/out.onnx")]);
    assert!(run.error(1).contains("missing/out.onnx"));
}

#[test]
fn evaluate_says_what_it_lacks() {
    let scratch = Scratch::new();
    let model = digits("digits.onnx");
    let (calib, test) = (scratch.path("plain.npy"), digits("test.npz"));
    std::fs::write(&calib, Npy::ramp(&[4, 1, 8, 8]).bytes()).unwrap();
    assert!(msq(args!["evaluate", model]).error(2).contains("--calib"));
    assert!(msq(args!["evaluate", model, "--calib", calib]).error(2).contains("--labels"));
    let (four, three) = (Npy::ramp(&[4, 1, 8, 8]), Npy::new("<i8", &[3], &[0; 24]));
    write_npz(&scratch.path("few.npz"), &[("image", four), ("label", three)]);
    let few = msq(args!["evaluate", model, "--calib", scratch.path("few.npz")]);
    assert!(few.stderr.contains("`label`") && few.stderr.contains("3 for 4 samples"), "{}", few.stderr);
    let missing = scratch.path("missing/o.npz");
    assert!(
        msq(args!["evaluate", model, "--calib", test, "--save-outputs", missing]).error(1).contains("missing/o.npz")
    );
    let reference = scratch.path("nosuch.onnx");
    assert!(msq(args!["evaluate", model, "--calib", test, "--reference", reference]).error(3).contains("nosuch.onnx"));
}

/// Read by recursion, they would exhaust the stack.
#[test]
fn plans_and_options_nested_without_end() {
    let scratch = Scratch::new();
    let deep = "[".repeat(100_000);
    let plan = scratch.write("deep.json", format!("{{\"version\": 1, \"default\": {{\"weights\": {deep}"));
    let options = scratch.write("deep.toml", format!("samples = {deep}"));
    let (model, output) = (digits("digits.onnx"), scratch.out("out.onnx"));
    assert!(msq(args![model, "-o", output, "--plan", plan]).error(2).contains("recursion limit"));
    assert!(msq(args![model, "-o", output, "--config", options]).error(2).contains("max recursion depth"));
}
