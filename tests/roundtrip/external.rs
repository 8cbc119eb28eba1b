//! Tensors in files beside the model.

use crate::common::arrays::{Npy, write_npz};
use crate::common::{Scratch, args, child, models, msq};
use msq_passes::ir::{
    self, DataType, ExternalError, Model, ModelProto, SaveError, StringStringEntryProto, TensorProto, save_model,
};
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

const WEIGHT: [f32; 8] = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0];
/// Beyond what 32 bits can count.
const FAR: u64 = (5 << 30) + 4096;

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}

/// A matrix product whose weight is at these external entries.
fn model(entries: &[(&str, &str)]) -> ModelProto {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,4] x) => (float[N,2] y) { y = MatMul (x, w) }",
    );
    let weight = TensorProto {
        dims: vec![4, 2],
        data_type: Some(DataType::Float.number()),
        name: Some("w".to_owned()),
        external_data: entries.iter().map(|(k, v)| entry(k, v)).collect(),
        data_location: Some(1),
        ..TensorProto::default()
    };
    models::graph(&mut proto).initializer.push(weight);
    proto
}

fn weight_bytes() -> Vec<u8> {
    WEIGHT.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes the data file, mostly a hole, and the model.
fn write_far(scratch: &Scratch) -> std::path::PathBuf {
    let file = fs::File::create(scratch.path("weights.bin")).unwrap();
    file.set_len(FAR + (1 << 20)).unwrap();
    file.write_all_at(&weight_bytes(), FAR).unwrap();
    let proto = model(&[("location", "weights.bin"), ("offset", &FAR.to_string()), ("length", "32")]);
    models::write(&scratch.path("far.onnx"), &proto)
}

fn weight(model: &Model) -> Result<Vec<f32>, ExternalError> {
    let value = model.graph.find("w").unwrap();
    Ok(model.loaded(model.graph.initializer(value).unwrap())?.to_f32().unwrap())
}

#[test]
fn far_offsets_are_read() {
    let scratch = Scratch::new();
    let loaded = msq_onnx::load(&write_far(&scratch)).unwrap();
    assert_eq!(weight(&loaded).unwrap(), WEIGHT);
    assert!(ir::export(&loaded).graph.unwrap().initializer[0].raw_data.is_none(), "loading reads no elements in");
}

#[cfg(target_os = "linux")]
#[test]
fn far_offsets_take_little_memory() {
    let scratch = Scratch::new();
    let path = write_far(&scratch);
    let peak = child::peak_of("roundtrip::external::child_reads_far", &path);
    assert!(peak < 200 << 20, "reading 32 bytes took {} MiB", peak >> 20);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by far_offsets_take_little_memory in a process of its own"]
fn child_reads_far() {
    child::report_peak(|path| assert_eq!(weight(&msq_onnx::load(path).unwrap()).unwrap(), WEIGHT));
}

/// A copy does not depend on the original's folder, and only what tensors use is copied.
#[test]
fn saving_copies_the_elements() {
    let scratch = Scratch::new();
    let loaded = msq_onnx::load(&write_far(&scratch)).unwrap();
    let copy = scratch.out("copy.onnx");
    let written = save_model(&loaded, &copy).unwrap();
    assert_eq!(scratch.outputs(), ["copy.onnx", "copy.onnx.data"]);
    let data = scratch.out("copy.onnx.data");
    assert_eq!(fs::read(&data).unwrap(), weight_bytes());
    assert_eq!(written, copy.metadata().unwrap().len() + data.metadata().unwrap().len());
    fs::remove_file(scratch.path("weights.bin")).unwrap();
    let again = msq_onnx::load(&copy).unwrap();
    assert_eq!(weight(&again).unwrap(), WEIGHT);
}

/// Saving over the file the elements are read from would lose them.
#[test]
fn the_data_file_in_use_is_not_overwritten() {
    let scratch = Scratch::new();
    let copy = scratch.out("copy.onnx");
    save_model(&msq_onnx::load(&write_far(&scratch)).unwrap(), &copy).unwrap();
    let loaded = msq_onnx::load(&copy).unwrap();
    assert!(matches!(save_model(&loaded, &copy), Err(SaveError::OverwritesWeights { .. })));
    assert_eq!(scratch.outputs(), ["copy.onnx", "copy.onnx.data"]);
    assert_eq!(weight(&msq_onnx::load(&copy).unwrap()).unwrap(), WEIGHT);
}

#[test]
fn the_command_line_quantizes_such_models() {
    let scratch = Scratch::new();
    let path = write_far(&scratch);
    let data = scratch.path("x.npz");
    write_npz(&data, &[("x", Npy::ramp(&[16, 4]))]);
    let output = scratch.out("out.onnx");
    msq(args![path, "-o", output, "--calib", data, "-q"]).ok();
    let report = msq(args!["evaluate", output, "--reference", path, "--calib", data, "--json"]).ok().json();
    assert!(report["agreement"]["sqnr"].as_f64().unwrap() > 30.0, "{report}");
    // The elements count, wherever they are.
    let inspected = msq(args!["inspect", path, "--json"]).ok().json();
    assert_eq!(inspected["bytes"].as_u64().unwrap(), fs::metadata(&path).unwrap().len() + 32);
    let weights = scratch.path("weights.bin");
    let before = fs::metadata(&weights).unwrap().len();
    assert!(msq(args![path, "-o", weights, "--calib", data]).error(1).contains("is an input"));
    assert_eq!(fs::metadata(&weights).unwrap().len(), before);
}

#[test]
fn defaults_of_the_entries() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("data")).unwrap();
    scratch.write("data/w.bin", weight_bytes());
    for location in ["data/w.bin", "./data/w.bin"] {
        let path = models::write(&scratch.path("m.onnx"), &model(&[("location", location)]));
        assert_eq!(weight(&msq_onnx::load(&path).unwrap()).unwrap(), WEIGHT, "{location}");
    }
}

/// The tensor cannot be read, and the command line says why in one line.
#[track_caller]
fn refused(scratch: &Scratch, entries: &[(&str, &str)], part: &str) {
    let path = models::write(&scratch.path("m.onnx"), &model(entries));
    let error = weight(&msq_onnx::load(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("`w`") && error.contains(part), "{error}");
    let data = scratch.path("x.npz");
    write_npz(&data, &[("x", Npy::ramp(&[16, 4]))]);
    let run = msq(args![path, "-o", scratch.out("out.onnx"), "--calib", data]);
    let line = run.error(3);
    assert!(line.contains("`w`") && line.contains(part), "{line}");
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn locations_outside_the_folder() {
    let scratch = Scratch::new();
    let outside = Scratch::new();
    let absolute = outside.write("w.bin", weight_bytes());
    scratch.write("w.bin", weight_bytes());
    let folder = absolute.parent().unwrap();
    let name = folder.file_name().unwrap().to_str().unwrap();
    symlink(&absolute, scratch.path("link.bin")).unwrap();
    symlink(folder, scratch.path("folder")).unwrap();
    for location in [
        absolute.to_str().unwrap(),
        scratch.path("w.bin").to_str().unwrap(),
        &format!("../{name}/w.bin"),
        "out/../../w.bin",
        "out/../w.bin",
        "link.bin",
        "folder/w.bin",
        "",
    ] {
        refused(&scratch, &[("location", location)], "not inside the model's folder");
    }
}

#[test]
fn links_inside_the_folder_are_fine() {
    let scratch = Scratch::new();
    let target = scratch.write("w.bin", weight_bytes());
    symlink(target, scratch.path("link.bin")).unwrap();
    let path = models::write(&scratch.path("m.onnx"), &model(&[("location", "link.bin")]));
    assert_eq!(weight(&msq_onnx::load(&path).unwrap()).unwrap(), WEIGHT);
}

#[test]
fn files_that_do_not_hold_the_tensor() {
    let scratch = Scratch::new();
    scratch.write("short.bin", &weight_bytes()[..31]);
    scratch.write("w.bin", weight_bytes());
    refused(&scratch, &[("location", "nosuch.bin")], "`nosuch.bin`");
    refused(&scratch, &[("location", "out")], "`out`");
    refused(&scratch, &[("location", "short.bin")], "`short.bin`");
    refused(&scratch, &[("location", "w.bin"), ("offset", "1")], "offset 1");
    refused(&scratch, &[("location", "w.bin"), ("offset", &u64::MAX.to_string())], "offset");
    refused(&scratch, &[("location", "w.bin"), ("length", "31")], "31");
    refused(&scratch, &[("location", "w.bin"), ("offset", "x")], "`offset`");
    refused(&scratch, &[("location", "w.bin"), ("offset", "-4")], "`offset`");
    refused(&scratch, &[("offset", "0")], "`location`");
}

/// Opening a pipe would wait for someone to write into it.
#[test]
fn pipes_are_not_read() {
    let scratch = Scratch::new();
    let made = std::process::Command::new("mkfifo").arg(scratch.path("w.bin")).status().unwrap();
    assert!(made.success());
    refused(&scratch, &[("location", "w.bin")], "cannot read `w.bin`: it is not a file");
}

#[test]
fn a_model_from_no_folder_has_no_external_elements() {
    let loaded = ir::import(model(&[("location", "w.bin")])).unwrap();
    assert!(matches!(weight(&loaded), Err(ExternalError::NoFolder { .. })));
}

/// A shape that asks for more than there could be is an error, not an allocation.
#[test]
fn impossible_sizes() {
    let scratch = Scratch::new();
    scratch.write("w.bin", weight_bytes());
    // Counted carelessly, the bits of 2^59 elements are none.
    for dims in [vec![1 << 40, 2], vec![i64::MAX, i64::MAX], vec![1 << 59], vec![-1]] {
        let mut proto = model(&[("location", "w.bin")]);
        models::initializer(&mut proto, "w").dims = dims;
        let path = models::write(Path::new(&scratch.path("m.onnx")), &proto);
        assert!(weight(&msq_onnx::load(&path).unwrap()).is_err());
    }
}
