//! Frames of sequences: states that are fed back, in calibration and in every figure.

use crate::common::arrays::{Npy, read_npz, write_npz};
use crate::common::models::{fill, parse, write};
use crate::common::{Scratch, args, msq};
use serde_json::Value;
use std::ffi::OsString;
use std::path::PathBuf;

/// Frames in the data.
const FRAMES: usize = 24;

/// y = relu(h' v), h' = h/2 + x w. Numbers of few bits make every sum exact.
const STREAM: &str = "<ir_version: 8, opset_import: [\"\": 17]>
stream (float[1,4] x, float[1,4] h) => (float[1,8] y, float[1,4] h_out, int64[2] shape)
<float[4,4] w = {0.5,0,0,0.25, 0,-0.5,0.25,0, 0.25,0,0.5,0, 0,0.5,0,-0.25}, float half = {0.5}, float[4,8] v = {}, float[8,8] u = {}>
{
  [old] old = Mul (h, half)
  [new] new = MatMul (x, w)
  [h_out] h_out = Add (old, new)
  [wide] wide = MatMul (h_out, v)
  [r] r = Relu (wide)
  [y] y = MatMul (r, u)
  [shape] shape = Shape (x)
}";

struct Stream {
    scratch: Scratch,
    model: PathBuf,
    frames: Vec<[f32; 4]>,
}

impl Stream {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut proto = parse(STREAM);
        fill(&mut proto);
        let model = write(&scratch.path("stream.onnx"), &proto);
        let frames = (0..FRAMES).map(|t| [0, 1, 2, 3].map(|i| ((t * 7 + i * 5) % 9) as f32 / 2.0 - 2.0)).collect();
        Self { scratch, model, frames }
    }

    /// Frames alone, or with states of the caller's own.
    fn data(&self, name: &str, states: Option<&[[f32; 4]]>) -> PathBuf {
        let path = self.scratch.path(name);
        let array = |rows: &[[f32; 4]]| Npy::floats(&[rows.len(), 4], rows.as_flattened());
        let mut arrays = vec![("x", array(&self.frames))];
        arrays.extend(states.map(|states| ("h", array(states))));
        write_npz(&path, &arrays);
        path
    }

    /// The states that frames are fed with, where a sequence has so many of them and begins with `first`.
    fn states(&self, length: usize, first: impl Fn(usize) -> [f32; 4]) -> Vec<[f32; 4]> {
        let mut state = [0.0; 4];
        let step = |t: usize| {
            if t.is_multiple_of(length) {
                state = first(t);
            }
            let (fed, [a, b, c, d]) = (state, self.frames[t]);
            let new = [0.5 * a + 0.25 * c, -0.5 * b + 0.5 * d, 0.25 * b + 0.5 * c, 0.25 * a - 0.25 * d];
            state = [0, 1, 2, 3].map(|i| 0.5 * fed[i] + new[i]);
            fed
        };
        (0..FRAMES).map(step).collect()
    }

    fn quantized(&self, name: &str, data: &PathBuf, flags: &str) -> (Vec<u8>, Value) {
        let out = self.scratch.out(name);
        let mut all = args![&self.model, "-o", &out, "--calib", data, "--json", "--placement", "all"].to_vec();
        all.extend(flags.split_whitespace().map(OsString::from));
        let report: Value = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
        (std::fs::read(&out).unwrap(), report)
    }
}

/// A run that feeds states back is the run on the states that a caller would have recorded.
#[test]
fn calibration_sees_the_states_that_the_network_is_in() {
    let stream = Stream::new();
    let frames = stream.data("frames.npz", None);
    for (name, flags, length) in [("one", "--state h_out=h", FRAMES), ("six", "--state h_out=h --state-reset 6", 6)] {
        let states = stream.states(length, |_| [0.0; 4]);
        let recorded = stream.data(&format!("{name}.npz"), Some(&states));
        for solver in ["round", "gram"] {
            // Of figures those on the network's own states are others.
            let own = format!("--solver {solver} --weight-bits 5 --verify 0");
            let (fed_back, _) = stream.quantized("fed.onnx", &frames, &format!("{flags} {own}"));
            let (given, _) = stream.quantized("given.onnx", &recorded, &own);
            assert!(fed_back == given, "{flags} {solver}");
        }
        let without = stream.states(1, |_| [0.0; 4]);
        let zeros = stream.data("zeros.npz", Some(&without));
        let own = "--weight-bits 5 --solver round --verify 0";
        assert_ne!(stream.quantized("a", &frames, &format!("{flags} {own}")).0, stream.quantized("b", &zeros, own).0);
    }
}

#[test]
fn first_frames_get_the_state_of_the_data() {
    let stream = Stream::new();
    let first = |t: usize| [2.0, t as f32 / 2.0, -1.0, 0.5];
    let given: Vec<[f32; 4]> = (0..FRAMES).map(first).collect();
    let own = "--weight-bits 5 --solver round --verify 0";
    let begun = stream.data("begun.npz", Some(&given));
    let recorded = stream.data("recorded.npz", Some(&stream.states(8, first)));
    let (fed_back, _) = stream.quantized("fed.onnx", &begun, &format!("--state h_out=h --state-reset 8 {own}"));
    assert!(fed_back == stream.quantized("given.onnx", &recorded, own).0);
}

#[test]
fn threads_do_not_count() {
    let stream = Stream::new();
    let frames = stream.data("frames.npz", None);
    let bytes = |threads: usize| {
        let flags = format!("--state h_out=h --state-reset 3 --threads {threads} --weight-bits 4 --verify 8");
        let (bytes, mut report) = stream.quantized(&format!("{threads}.onnx"), &frames, &flags);
        (bytes, report["quality"].take())
    };
    assert_eq!(bytes(1), bytes(3));
}

/// A network that is measured feeds back its own states, so that its errors add up as where it is used.
#[test]
fn figures_are_those_of_a_network_in_its_own_states() {
    let stream = Stream::new();
    let frames = stream.data("frames.npz", None);
    let (_, report) = stream.quantized("two.onnx", &frames, "--state h_out=h --weight-bits 3 --no-repair");
    let out = stream.scratch.out("two.onnx");
    let evaluated = |data: &PathBuf, flags: &str| -> Value {
        let saved = stream.scratch.out("outputs.npz");
        let mut all =
            args!["evaluate", &out, "--reference", &stream.model, "--calib", data, "--json", "--save-outputs", &saved]
                .to_vec();
        all.extend(flags.split_whitespace().map(OsString::from));
        let found = serde_json::from_str(&msq(&all).ok().stdout).unwrap();
        let outputs = read_npz(&saved);
        // The state behind a frame is what the next one is fed with.
        let mut states = vec![[0.0; 4]];
        states.extend(outputs["h_out"].as_chunks::<4>().0.iter().copied());
        states.truncate(FRAMES);
        let again = stream.data("own.npz", Some(&states));
        let mut all = args!["evaluate", &out, "--calib", &again, "--save-outputs", &saved].to_vec();
        all.push("--quiet".into());
        msq(&all).ok();
        if !flags.is_empty() {
            assert_eq!(read_npz(&saved)["h_out"], outputs["h_out"], "the run on recorded states is the same");
        }
        found
    };
    let closed = evaluated(&frames, "--state h_out=h");
    let open = evaluated(&stream.data("float.npz", Some(&stream.states(FRAMES, |_| [0.0; 4]))), "");
    let noise = |found: &Value| found["outputs"][1]["sqnr"].as_f64().unwrap();
    // Whether errors add up or cancel is up to the network: they are others.
    assert!((noise(&closed) - noise(&open)).abs() > 0.05, "{} {}", noise(&closed), noise(&open));
    assert!(report["quality"]["outputs"][1]["sqnr"].as_f64().is_some(), "{report}");
    assert_eq!(report["quality"]["outputs"][1]["state"], true, "an output that is fed back is a state");
    let all = args!["compare", &stream.model, &out, "--calib", &frames, "--json", "--state", "h_out=h"];
    let compared: Value = serde_json::from_str(&msq(all).ok().stdout).unwrap();
    assert_eq!(compared["outputs"][1]["sqnr"], closed["outputs"][1]["sqnr"]);
}

#[test]
fn links_that_do_not_fit_are_named() {
    let stream = Stream::new();
    let frames = stream.data("frames.npz", None);
    for (flags, said) in [
        ("--state h_new=h", "the model has no output `h_new`; it has `y`, `h_out`, `shape`"),
        (
            "--state h_out=g",
            "--state h_out=g, an output and the input that it feeds: the model has no input `g`; it has `x`, `h`",
        ),
        ("--state y=h", "--state y=h: its shape is [1, 8], the input's [1, 4]"),
        ("--state shape=h", "--state shape=h: its shape is [2], the input's [1, 4]"),
        ("--state-reset 4", "--state-reset says where states begin anew: name them with --state"),
        ("--state h_out=h --state y=h", "input `h` is fed by two outputs"),
        ("--state h_out=h --state y=x", "every input of the model is fed by an output"),
    ] {
        let mut all = args![&stream.model, "-o", stream.scratch.out("no.onnx"), "--calib", &frames].to_vec();
        all.extend(flags.split_whitespace().map(OsString::from));
        let run = msq(&all);
        // What the flags alone contradict is bad usage; what the model or its shapes say is found with the data.
        let of_flags = ["no input", "begin anew", "fed by"].iter().any(|part| said.contains(part));
        let error = run.error(if of_flags { 2 } else { 4 });
        assert!(error.contains(said), "{flags}: {error}");
    }
    let bad = msq(args![&stream.model, "-o", stream.scratch.out("no.onnx"), "--calib", &frames, "--state", "h"]);
    assert!(bad.stderr.contains("`h` is not OUT=IN"), "{}", bad.stderr);
    let made_up = msq(args![&stream.model, "-o", stream.scratch.out("no.onnx"), "--state", "h_out=h"]);
    assert!(made_up.stderr.contains("--state") && made_up.code != Some(0), "{}", made_up.stderr);
}

/// What the engine does not know is left out where no state depends on it.
#[test]
fn an_unknown_operator_and_the_states() {
    let stream = Stream::new();
    let frames = stream.data("frames.npz", None);
    let opsets = STREAM.replace("[\"\": 17]", "[\"\": 17, \"odd\": 1]");
    let written = |from: &str, to: &str| {
        let mut proto = parse(&opsets.replace(from, to));
        fill(&mut proto);
        let model = write(&stream.scratch.path("odd.onnx"), &proto);
        let out = stream.scratch.out("odd.q.onnx");
        (msq(args![model, "-o", &out, "--calib", &frames, "--placement", "all", "--state", "h_out=h"]), out)
    };
    let (behind, out) = written("r = Relu (wide)", "r = odd.Twist (wide)");
    assert!(behind.ok().stderr.contains("odd.Twist") && out.exists());
    let (before, _) = written("h_out = Add (old, new)", "h_out = odd.Twist (old, new)");
    let error = before.error(3);
    assert!(error.contains("odd.Twist") && error.contains("the states depend on it"), "{error}");
}

/// A product of a frame with all frames so far, as decoders keep their keys and values.
const GROWING: &str = "<ir_version: 8, opset_import: [\"\": 17]>
decoder (float[batch,1,8] x, float[batch,past,8] before) => (float[batch,1,8] y, float[batch,total,8] after)
<float[8,8] key = {}, float[8,8] query = {}, float[8,8] out = {}>
{
  [k] k = MatMul (x, key)
  [after] after = Concat <axis = 1> (before, k)
  [q] q = MatMul (x, query)
  [t] t = Transpose <perm = [0, 2, 1]> (after)
  [s] s = MatMul (q, t)
  [p] p = Softmax <axis = 2> (s)
  [c] c = MatMul (p, after)
  [y] y = MatMul (c, out)
}";

#[test]
fn states_may_grow_from_nothing() {
    let scratch = Scratch::new();
    let mut proto = parse(GROWING);
    fill(&mut proto);
    let model = write(&scratch.path("decoder.onnx"), &proto);
    let data = scratch.path("tokens.npz");
    let values: Vec<f32> = (0..20 * 8).map(|i| ((i * 37) % 64) as f32 / 16.0 - 2.0).collect();
    write_npz(&data, &[("x", Npy::floats(&[20, 1, 8], &values))]);
    let written = |threads: &str| {
        let out = scratch.out(&format!("{threads}.onnx"));
        let all = args![
            &model,
            "-o",
            &out,
            "--calib",
            &data,
            "--state",
            "after=before",
            "--state-reset",
            "5",
            "--json",
            "--threads",
            threads
        ];
        let report: Value = serde_json::from_str(&msq(all).ok().stdout).unwrap();
        (std::fs::read(&out).unwrap(), report["quality"]["outputs"][0]["sqnr"].as_f64().unwrap())
    };
    let (one, three) = (written("1"), written("3"));
    assert!(one == three && one.1 > 20.0, "{} {}", one.1, three.1);
}
