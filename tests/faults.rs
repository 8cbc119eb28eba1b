//! Runs that are killed, interrupted or out of space: the output is complete or absent, the input is as it was, and
//! nothing else stays behind.

#![cfg(unix)]
use crate::common::arrays::Npy;
use crate::common::{BINARY, Scratch, args, digits, models, msq};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The arguments of a run that takes a second or so on digits.
fn run(scratch: &Scratch, model: &str, more: &str) -> Vec<OsString> {
    let mut run = args![scratch.path(model), "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")].to_vec();
    run.extend(more.split_whitespace().map(OsString::from));
    run
}

fn started(args: &[OsString]) -> Child {
    let mut command = Command::new(BINARY);
    command.args(args).stderr(Stdio::piped()).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap()
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A temporary folder that is not there is no fault of the data.
#[test]
fn temporary_folders_are_named() {
    let scratch = Scratch::new();
    fs::copy(digits("digits.onnx"), scratch.path("float.onnx")).unwrap();
    let folder = scratch.path("missing");
    let output = Command::new(BINARY).args(run(&scratch, "float.onnx", "")).env("TMPDIR", &folder).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let said = format!("error: cannot write a temporary file in `{}`: ", folder.display());
    assert!(error.starts_with(&said) && error.contains("TMPDIR") && !error.contains("calib.npz"), "{error}");
}

#[test]
fn standard_output_that_is_full_is_named() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = Command::new(BINARY).arg("inspect").arg(digits("digits.onnx")).stdout(full).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: cannot write to standard output: "), "{error}");
}

#[test]
fn killed_at_any_moment() {
    let scratch = Scratch::new();
    let float = fs::read(digits("digits.onnx")).unwrap();
    fs::write(scratch.path("float.onnx"), &float).unwrap();
    let args = run(&scratch, "float.onnx", "--samples 32 --verify 4");
    let begin = Instant::now();
    msq(&args).ok();
    let (whole, duration) = (fs::read(scratch.out("out.onnx")).unwrap(), begin.elapsed());
    let mut written = 0;
    for moment in 0..50_u32 {
        let _ = fs::remove_file(scratch.out("out.onnx"));
        let mut child = started(&args);
        // Over the length of the run and a little beyond; nearly half of them where the file is written.
        let share = if moment < 30 { f64::from(moment) / 30.0 } else { 0.9 + f64::from(moment - 30) / 100.0 };
        std::thread::sleep(duration.mul_f64(share));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(fs::read(scratch.path("float.onnx")).unwrap(), float, "the input changed");
        if let Ok(found) = fs::read(scratch.out("out.onnx")) {
            assert!(found == whole, "moment {moment}: {} of {} bytes", found.len(), whole.len());
            written += 1;
        }
    }
    // What killed runs left in passing is no obstacle.
    msq(&args).ok();
    assert_eq!(fs::read(scratch.out("out.onnx")).unwrap(), whole);
    assert!(written < 50, "no run was killed in time");
}

#[test]
fn asked_to_stop() {
    let scratch = Scratch::new();
    fs::copy(digits("digits.onnx"), scratch.path("float.onnx")).unwrap();
    for (signal, code) in [("-INT", 130), ("-TERM", 130)] {
        // Long enough not to be through before; what it logs says that it has begun.
        let flags = "-vv --weight-bits 3 --solver adaround --solver-steps 20000";
        let mut child = started(&run(&scratch, "float.onnx", flags));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        log.read_line(&mut String::new()).unwrap();
        send(&child, signal);
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}: {rest}");
        assert_eq!(rest.lines().last(), Some("error: cancelled"), "{signal}: {rest}");
        assert_eq!(scratch.outputs(), Vec::<String>::new(), "{signal}");
    }
}

/// What a search measured stays, and the message says so.
#[test]
fn a_search_that_was_asked_to_stop_goes_on() {
    let scratch = Scratch::new();
    fs::copy(digits("digits.onnx"), scratch.path("float.onnx")).unwrap();
    let args = run(&scratch, "float.onnx", "--samples 256 --target-bits 3");
    let child = started(&args);
    let journal = scratch.out("out.onnx.search.jsonl");
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::metadata(&journal).map_or(0, |m| m.len()) < 4000 {
        assert!(Instant::now() < deadline, "the search writes no journal");
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("the same command goes on"), "{stderr}");
    assert!(journal.exists());
    msq(&args).ok();
    assert_eq!(scratch.outputs(), ["out.onnx"]);
}

#[test]
fn a_disk_that_is_full() {
    let scratch = Scratch::new();
    fs::copy(digits("digits.onnx"), scratch.path("float.onnx")).unwrap();
    // Blocks of 512 or 1,024 bytes: less than the model has, in either.
    let limited = "ulimit -f 8; exec \"$0\" \"$@\"";
    for more in ["", "--weight-bits 7", "--target-size 12KB"] {
        // No arrays: these are unpacked to disk.
        let mut args =
            args![scratch.path("float.onnx"), "-o", scratch.out("out.onnx"), "-q", "--samples", "64"].to_vec();
        args.extend(more.split_whitespace().map(OsString::from));
        let output = Command::new("sh").args(["-c", limited, BINARY]).args(&args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{more}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("out.onnx") && stderr.lines().count() == 1,
            "{stderr}"
        );
        let left = scratch.outputs();
        assert!(left.iter().all(|name| name.ends_with(".search.jsonl") || name.ends_with(".plan.json")), "{left:?}");
    }
}

/// The model alone fits, the page that is written with it does not: neither is there then.
#[test]
fn a_disk_that_the_report_fills() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,8] x) => (float[N,8] y)
        <float[8,8] w = {}> { y = MatMul (x, w) }";
    let network = models::Network::new(text, Npy::ramp(&[8, 8]));
    let (out, page, plan) =
        (network.scratch.out("out.onnx"), network.scratch.out("page.html"), network.scratch.out("plan.json"));
    let args = args![
        network.float,
        "-o",
        out,
        "-q",
        "--report",
        page,
        "--save-plan",
        plan,
        "--placement",
        "all",
        "--verify",
        "0"
    ];
    // Blocks of 512 or 1,024 bytes.
    let output =
        Command::new("sh").args(["-c", "ulimit -f 8; exec \"$0\" \"$@\"", BINARY]).args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: cannot write") && stderr.contains("page.html"), "{stderr}");
    assert_eq!(network.scratch.outputs(), Vec::<String>::new());
    msq(args).ok();
    assert_eq!(network.scratch.outputs(), ["out.onnx", "page.html", "plan.json"]);
    assert!(out.metadata().unwrap().len() < 4096 && page.metadata().unwrap().len() > 8192);
}

/// A few bytes ask for gigabytes: an error, where the process would end at the first allocation that fails.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_not_there() {
    const GIB: u64 = 1 << 30;
    let scratch = Scratch::new();
    let model = |name: &str, body: &str| {
        let text = format!("<ir_version: 8, opset_import: [\"\": 17]> net {body}");
        models::write(&scratch.path(name), &models::parse(&text))
    };
    let sparse = |name: &str, start: &[u8]| {
        let path = scratch.write(name, start);
        fs::File::options().write(true).open(&path).unwrap().set_len(start.len() as u64 + 8 * GIB).unwrap();
        path
    };
    let limited = |args: &[OsString]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 3000000; exec \"$0\" \"$@\"", BINARY]).args(args);
        command
    };
    let refused = |args: &[OsString], code: i32, part: &str| {
        let output = limited(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(part) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(scratch.outputs(), Vec::<String>::new());
    };
    let out = scratch.out("out.onnx");
    // A model without an end.
    refused(args!["/dev/zero", "-o", out], 3, "`/dev/zero`");
    // Made-up data for an input of 4 GiB.
    let input = model(
        "input.onnx",
        "(float[1073741824,1] x) => (float[1073741824,1] y) <float[1,1] w = {1}> { y = MatMul (x, w) }",
    );
    let data = "too large to make data up for";
    refused(args!["search", input, "--target-bits", "4", "-q"], 4, data);
    refused(args![input, "-o", out, "--target-bits", "4", "-q"], 4, data);
    // Without a search, what nothing can feed is left out: weights only, and a warning that says why.
    let output = limited(args![input, "-o", out]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("only weights are quantized") && stderr.contains(data), "{stderr}");
    assert_eq!(scratch.outputs(), ["out.onnx"]);
    fs::remove_file(&out).unwrap();
    // A value of 8 GiB. Quantizing would leave the engine out and round the weights alone.
    let inner = model(
        "inner.onnx",
        "(float[N,2] x) => (float[N,2] z)
         <float[2,2] w = {1, 2, 3, 4}, int64[1] often = {1073741824}, int64[1] once = {1}>
         { both = Concat <axis = 0> (often, once)  t = Tile (x, both)  z = MatMul (t, w) }",
    );
    let pairs = scratch.write("pairs.npy", Npy::ramp(&[4, 2]).bytes());
    refused(args!["evaluate", inner, "--reference", inner, "--calib", pairs], 3, "there is no memory for what node");
    // A constant of 8 TiB, which tract would compute at once; sixteen bytes say so.
    let constant = model(
        "constant.onnx",
        "(float[N,2] x) => (float[N,2] z)
         <float[2,2] w = {1, 2, 3, 4}, int64[2] shape = {1099511627776, 2}, int64[1] axes = {0}>
         { t = ConstantOfShape (shape)  s = ReduceSum (t, axes)  u = Add (x, s)  z = MatMul (u, w) }",
    );
    refused(args!["evaluate", constant, "--reference", constant, "--calib", pairs], 3, "that node `t` makes");
    // A row of 8 GiB, all of it there.
    let wide = model(
        "wide.onnx",
        "(float[N,K] x) => (float[N,2] y) <int64[2] shape = {-1, 2}, float[2,2] w = {1, 2, 3, 4}>
         { pairs = Reshape (x, shape)  y = MatMul (pairs, w) }",
    );
    let npy = Npy::new("<f4", &[1, 2 << 30], &[]);
    refused(args![wide, "-o", out, "--calib", sparse("row.npy", npy.bytes())], 4, "row.npy");
    // Weights of 8 GiB, all of them there.
    sparse("w.bin", &[]);
    let weights = model(
        "weights.onnx",
        "(float[N,1] x) => (float[N,2147483648] y)
         <float[1,2147483648] w = [\"location\": \"w.bin\"]> { y = MatMul (x, w) }",
    );
    refused(args![weights, "-o", out, "-q"], 3, "w.bin");
}
