//! Several processes that learn together: `--solver-processes`.

use crate::common::{BINARY, Run, Scratch, args, digits, msq};
use msq_onnx::data::{DataOptions, Dataset};
use msq_onnx::{BitsOptions, GradientCode, Options, Quantizer, SolverName};
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `distill` with few steps.
fn run(output: &Path, processes: &str, code: &str, more: &[OsString]) -> Run {
    let own = args![
        digits("digits.onnx"),
        "-o",
        output,
        "--calib",
        digits("calib.npz"),
        "--samples",
        "64",
        "--weight-bits",
        "4",
        "--act-bits",
        "4",
        "--solver",
        "distill",
        "--solver-steps",
        "12",
        "--no-repair",
        "--solver-processes",
        processes,
        "--gradient-code",
        code,
    ];
    msq(&[own, more].concat())
}

/// What the report says of learning.
fn learned(output: &Path, processes: &str, code: &str) -> Value {
    run(output, processes, code, args!["--json"]).ok().json()["learning"].clone()
}

#[test]
fn two_processes_learn_nearly_what_one_does() {
    let scratch = Scratch::new();
    let one = learned(&scratch.out("one.onnx"), "1", "float");
    let two = learned(&scratch.out("two.onnx"), "2", "float");
    let error = |report: &Value| report["distance_with"].as_f64().unwrap();
    assert!((error(&one) - error(&two)).abs() < 0.1 * error(&one), "{one} {two}");
    assert_eq!((one["exchanged_bytes"].as_u64(), two["processes"].as_u64()), (Some(0), Some(2)));
    assert!(two["exchanged_bytes"].as_u64().unwrap() > 1_000_000, "{two}");
    assert_eq!(two["exchanged_bytes"], two["float_bytes"]);
    assert_eq!(scratch.outputs(), ["one.onnx", "two.onnx"]);
}

/// Processes write the same bytes again, and those of the library, which computes the shares in turn.
#[test]
fn processes_write_the_same_bytes_as_shares_in_turn() {
    let scratch = Scratch::new();
    for code in ["onebit", "qsgd:4"] {
        let [first, again, in_turn] = ["first.onnx", "again.onnx", "turn.onnx"].map(|name| scratch.out(name));
        let report = learned(&first, "2", code);
        assert_eq!(report["gradient_code"], code);
        let [sent, float] = ["exchanged_bytes", "float_bytes"].map(|key| report[key].as_u64().unwrap());
        assert!(0 < sent && 3 * sent < float, "{report}");
        run(&again, "2", code, args!["--threads", "1", "--quiet"]).ok();
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&again).unwrap(), "{code}");

        let mut options = Options::default();
        let bits = BitsOptions { weight_bits: "4".parse().ok(), act_bits: "4".parse().ok(), ..BitsOptions::default() };
        options.scheme.plan = bits.plan();
        options.solve.solver = Some(SolverName::DISTILL);
        options.solve.solver_steps = Some(12);
        options.solve.solver_processes = 2;
        options.solve.gradient_code = code.parse::<GradientCode>().unwrap();
        options.repair.repair = false;
        let quantizer = Quantizer::open(digits("digits.onnx")).unwrap().options(options);
        let data = DataOptions { samples: Some(64), ..DataOptions::default() };
        let data = Dataset::open(&digits("calib.npz"), &quantizer.inputs(), &data).unwrap();
        quantizer.calibration(data).run().unwrap().save(&in_turn).unwrap();
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&in_turn).unwrap(), "{code}");
    }
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    listed.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_killed_ends_the_run() {
    let scratch = Scratch::new();
    let (model, calib, output) = (digits("digits.onnx"), digits("calib.npz"), scratch.out("out.onnx"));
    let mut command = Command::new(BINARY);
    command.args(args![model, "-o", output, "--calib", calib, "--samples", "64", "--act-bits", "4"]);
    command.args(["--weight-bits", "4", "--solver", "distill", "--solver-steps", "100000", "--progress", "lines"]);
    command.args(["--solver-processes", "3"]).env_remove("RUST_LOG").stdin(Stdio::null());
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let learns = |line: &String| line.contains("\"learn\"") && !line.contains("\"done\":0,");
    assert!(lines.any(|line| learns(&line)), "nothing learns");
    let others = children(run.id());
    assert_eq!(others.len(), 2);
    assert!(Command::new("kill").args(["-9", &others[1].to_string()]).status().unwrap().success());
    let said: Vec<String> = lines.filter(|line| !line.starts_with('{')).collect();
    let wanted = "error: process 2 of those that learn together has ended: signal: 9 (SIGKILL)";
    assert_eq!(said, [wanted]);
    assert_eq!(run.wait().unwrap().code(), Some(1));
    let mut printed = String::new();
    run.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!((printed.as_str(), scratch.outputs().len()), ("", 0));
    for other in others {
        let gone = || !Path::new(&format!("/proc/{other}")).exists();
        assert!((0..100).any(|_| gone() || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            false
        }));
    }
}

#[test]
fn only_what_learns_is_shared() {
    let scratch = Scratch::new();
    let output = scratch.out("out.onnx");
    let common = args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz"), "--weight-bits", "4"];
    let refused = msq(&[&common[..], args!["--solver-processes", "2"]].concat());
    assert!(refused.error(2).contains("choose one of `block`, `pd-quant`, `distill` by --solver"), "{refused:?}");
    let many = msq(&[&common[..], args!["--solver", "distill", "--solver-processes", "33"]].concat());
    assert!(many.usage().contains("32 or fewer"), "{many:?}");
    let unknown = msq(&[&common[..], args!["--solver", "distill", "--gradient-code", "qsgd:9"]].concat());
    assert!(unknown.usage().contains("is no code of gradients"), "{unknown:?}");
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}
