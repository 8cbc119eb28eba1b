//! Calibration data that does not fit.

use super::refused_with;
use crate::common::arrays::{Npy, write_npz};
use crate::common::{Scratch, args, digits, models, msq};
use std::path::Path;

#[track_caller]
fn refused_data(scratch: &Scratch, data: &Path, parts: &[&str]) {
    refused_with(scratch, &digits("digits.onnx"), args!["--calib", data], 4, parts);
}

/// An `.npz` with one array, refused.
#[track_caller]
fn refused_array(name: &str, array: Npy, parts: &[&str]) {
    let scratch = Scratch::new();
    let path = scratch.path("data.npz");
    write_npz(&path, &[(name, array), ("other", Npy::ramp(&[4, 1, 8, 8]))]);
    let mut all = vec!["data.npz"];
    all.extend_from_slice(parts);
    refused_data(&scratch, &path, &all);
}

fn with(value: f32) -> Npy {
    let mut values = vec![0.5; 4 * 64];
    values[2 * 64 + 10] = value;
    Npy::floats(&[4, 1, 8, 8], &values)
}

#[test]
fn wrong_names_and_shapes() {
    refused_array("picture", Npy::ramp(&[4, 1, 8, 8]), &["`image`", "`picture`"]);
    refused_array("image", Npy::ramp(&[4, 64]), &["`image`", "[4, 64]", "[N, 1, 8, 8]"]);
    refused_array("image", Npy::ramp(&[64]), &["`image`", "[64]"]);
    refused_array("image", Npy::ramp(&[4, 1, 1, 1, 8, 8]), &["[4, 1, 1, 1, 8, 8]"]);
    refused_array("image", Npy::ramp(&[4, 1, 9, 9]), &["`image`", "[4, 1, 9, 9]", "[N, 1, 8, 8]"]);
    refused_array("image", Npy::ramp(&[4, 3, 8, 8]), &["`image`", "[4, 3, 8, 8]"]);
    refused_array("image", Npy::ramp(&[0, 1, 8, 8]), &["`image`", "empty"]);
}

#[test]
fn wrong_element_types() {
    refused_array("image", Npy::new("<U1", &[4, 1, 8, 8], &[0; 4 * 4 * 64]), &["`image`", "<U1"]);
    refused_array("image", Npy::new("<c8", &[4, 1, 8, 8], &[0; 8 * 4 * 64]), &["`image`", "<c8"]);
    refused_array("image", Npy::new("|O", &[4, 1, 8, 8], &[0; 8 * 4 * 64]), &["`image`"]);
}

/// A fraction cannot feed an integer input.
#[test]
fn floats_for_an_integer_input() {
    let scratch = Scratch::new();
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (int64[N,4] ids) => (float[N,2] y) <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
        { f = Cast <to = 1> (ids)  y = MatMul (f, w) }";
    let model = models::write(&scratch.path("ids.onnx"), &models::parse(text));
    let data = scratch.path("ids.npz");
    write_npz(&data, &[("ids", Npy::floats(&[1, 4], &[1.0, 2.0, 0.5, 4.0]))]);
    refused_with(&scratch, &model, args!["--calib", data], 4, &["ids.npz", "`ids`", "0.5"]);
}

/// Ids are rows of the table that they index, from the end where they are negative.
#[test]
fn ids_beyond_their_table() {
    let scratch = Scratch::new();
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (int64[N,4] ids) => (float[N,4,2] y) <float[3,16] table = {}, float[16,2] w = {}>
        { e = Gather (table, ids)  y = MatMul (e, w) }";
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    let model = models::write(&scratch.path("ids.onnx"), &proto);
    let data = |last: f32| {
        let path = scratch.path("ids.npz");
        write_npz(&path, &[("ids", Npy::floats(&[2, 4], &[0.0, 1.0, 2.0, -3.0, 0.0, 0.0, 0.0, last]))]);
        path
    };
    for id in [3.0, -4.0] {
        let said = format!("{id}");
        refused_with(&scratch, &model, args!["--calib", data(id)], 4, &["sample 1", "`ids`", &said, "3 rows"]);
    }
    msq(args![model, "-o", scratch.out("out.onnx"), "--calib", data(-1.0), "-q"]).ok();
}

#[test]
fn numbers_that_are_none() {
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        refused_array("image", with(value), &["`image`", "sample 2", text]);
    }
}

#[test]
fn files_that_are_no_data() {
    let scratch = Scratch::new();
    refused_data(&scratch, &scratch.path("nosuch.npz"), &["nosuch.npz"]);
    refused_data(&scratch, &scratch.write("text.npz", "no archive"), &["text.npz"]);
    refused_data(&scratch, &scratch.write("empty.npz", ""), &["empty.npz"]);
    refused_data(&scratch, &scratch.write("text.npy", "no array"), &["text.npy"]);
    refused_data(&scratch, &scratch.write("empty.npy", ""), &["empty.npy"]);
    refused_data(&scratch, &scratch.write("notes.txt", "no data"), &["notes.txt"]);
    refused_data(&scratch, &digits("digits.onnx"), &["digits.onnx"]);
    let calib = std::fs::read(digits("calib.npz")).unwrap();
    for length in [10, calib.len() / 2, calib.len() - 1] {
        refused_data(&scratch, &scratch.write("cut.npz", &calib[..length]), &["cut.npz"]);
    }
    let array = Npy::ramp(&[4, 1, 8, 8]);
    refused_data(&scratch, &scratch.write("cut.npy", &array.bytes()[..array.bytes().len() - 1]), &["cut.npy"]);
    refused_data(&scratch, &scratch.write("cut.npy", &array.bytes()[..40]), &["cut.npy"]);
}

/// Bytes flipped inside the compressed arrays show as a wrong checksum, not as odd pixels.
#[test]
fn damaged_archive() {
    let scratch = Scratch::new();
    let mut calib = std::fs::read(digits("calib.npz")).unwrap();
    let middle = calib.len() / 3;
    calib[middle..middle + 64].iter_mut().for_each(|b| *b = !*b);
    refused_data(&scratch, &scratch.write("damaged.npz", calib), &["damaged.npz"]);
}

#[test]
fn folders_without_data() {
    let scratch = Scratch::new();
    let folder = scratch.path("data");
    std::fs::create_dir(&folder).unwrap();
    refused_data(&scratch, &folder, &["data"]);
    scratch.write("data/notes.txt", "hello");
    refused_data(&scratch, &folder, &["data"]);
}

/// Opening a pipe would wait for someone to write into it.
#[cfg(unix)]
#[test]
fn pipes_among_the_data() {
    let scratch = Scratch::new();
    for (folder, name) in [("a", "a.npy"), ("b", "b.png"), ("c", "input_0.pb")] {
        let pipe = scratch.path(folder).join(name);
        std::fs::create_dir(scratch.path(folder)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        refused_data(&scratch, &scratch.path(folder), &[name, "is not a file"]);
        refused_data(&scratch, &pipe, &[name, "is not a file"]);
    }
}

#[test]
fn images_that_cannot_be_read() {
    let scratch = Scratch::new();
    let folder = scratch.path("photos");
    std::fs::create_dir(&folder).unwrap();
    image::GrayImage::new(8, 8).save(scratch.path("photos/good.png")).unwrap();
    scratch.write("photos/text.png", "no image");
    refused_with(&scratch, &digits("digits.onnx"), args!["--calib", folder, "--preset", "unit"], 4, &["text.png"]);
    // Asked to, it leaves the bad one out and says so.
    let out = scratch.out("out.onnx");
    let run = msq(args![digits("digits.onnx"), "-o", out, "--calib", folder, "--preset", "unit", "--skip-bad"]).ok();
    assert!(run.stderr.contains("text.png"), "{}", run.stderr);
    std::fs::remove_file(&out).unwrap();
    std::fs::remove_file(scratch.path("photos/good.png")).unwrap();
    let more = args!["--calib", folder, "--preset", "unit", "--skip-bad", "-q"];
    refused_with(&scratch, &digits("digits.onnx"), more, 4, &["photos"]);
}

#[test]
fn truncated_image() {
    let scratch = Scratch::new();
    let path = scratch.path("image.png");
    let noise = image::GrayImage::from_fn(64, 64, |x, y| image::Luma([((x * 7) ^ (y * 13)) as u8]));
    noise.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    scratch.write("image.png", &bytes[..bytes.len() / 2]);
    refused_with(&scratch, &digits("digits.onnx"), args!["--calib", path, "--preset", "unit"], 4, &["image.png"]);
}

#[test]
fn labels_that_do_not_fit() {
    let scratch = Scratch::new();
    let (model, data) = (digits("digits.onnx"), scratch.path("data.npy"));
    std::fs::write(&data, Npy::ramp(&[4, 1, 8, 8]).bytes()).unwrap();
    let labels = scratch.write("labels.npy", Npy::new("<i8", &[3], &[0; 24]).bytes());
    let run = msq(args!["evaluate", model, "--calib", data, "--labels", labels]);
    let line = run.error(4);
    assert!(line.contains("labels.npy") && line.contains('3') && line.contains('4'), "{line}");
    let missing = scratch.path("nosuch.npy");
    assert!(msq(args!["evaluate", model, "--calib", data, "--labels", missing]).error(4).contains("nosuch.npy"));
}

/// A label that is no class would only make the accuracy wrong.
#[test]
fn labels_that_are_no_classes() {
    let scratch = Scratch::new();
    let (model, data) = (digits("digits.onnx"), scratch.path("data.npz"));
    let labels = |last: i64| [0, 3, 9, last].map(i64::to_le_bytes).concat();
    for wrong in [10, -1] {
        let y = Npy::new("<i8", &[4], &labels(wrong));
        write_npz(&data, &[("image", Npy::ramp(&[4, 1, 8, 8])), ("y", y)]);
        let part = format!("sample 3 has the label {wrong}, but output `logits` has 10 classes, from 0 to 9");
        assert!(msq(args!["evaluate", model, "--calib", data]).error(4).contains(&part));
        refused_with(&scratch, &model, args!["--calib", data], 4, &[&part]);
    }
    write_npz(&data, &[("image", Npy::ramp(&[4, 1, 8, 8])), ("y", Npy::new("<i8", &[4], &labels(1)))]);
    msq(args!["evaluate", model, "--calib", data]).ok();
}

/// A sample without rows is run like any other; only where the model does not take it, the run says which it is.
#[test]
fn samples_without_rows() {
    let scratch = Scratch::new();
    let folder = scratch.path("rows");
    std::fs::create_dir(&folder).unwrap();
    for (name, rows) in [("0.npy", 2), ("1.npy", 0), ("2.npy", 3)] {
        std::fs::write(folder.join(name), Npy::ramp(&[rows, 4]).bytes()).unwrap();
    }
    let model = |name: &str, rows: &str, nodes: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,4] x) => (float[{rows},2] y)
             <float[4,2] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, int64[1] first = {{0}}> {{ {nodes} }}"
        );
        models::write(&scratch.path(name), &models::parse(&text))
    };
    let runs = model("runs.onnx", "N", "t = MatMul (x, w)  y = Relu (t)");
    let run = msq(args![runs, "-o", scratch.path("runs-int8.onnx"), "--calib", folder, "--placement", "all"]).ok();
    assert!(run.stdout.contains("1 of 1 layers int8"), "{}", run.stdout);
    let report = msq(args!["evaluate", runs, "--reference", runs, "--calib", folder, "--json"]).ok().json();
    assert_eq!((&report["samples"], &report["lost"]), (&3.into(), &0.0.into()));
    let picks = model("picks.onnx", "1", "f = Gather (x, first)  y = MatMul (f, w)");
    let part = "sample 1: input `x` has shape [0, 4], with which the model does not run";
    refused_with(&scratch, &picks, args!["--calib", folder], 4, &[part]);
    assert!(msq(args!["evaluate", picks, "--reference", picks, "--calib", folder]).error(4).contains(part));
}

/// The data is fine, the model turns it into NaN: log of a negative number.
#[test]
fn activations_that_are_no_numbers() {
    let scratch = Scratch::new();
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
        { l = Log (x)  y = MatMul (l, w) }";
    let model = models::write(&scratch.path("log.onnx"), &models::parse(text));
    let data = scratch.path("x.npz");
    write_npz(&data, &[("x", Npy::floats(&[2, 4], &[1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0]))]);
    refused_with(&scratch, &model, args!["--calib", data], 4, &["`l`", "sample 1"]);
}
