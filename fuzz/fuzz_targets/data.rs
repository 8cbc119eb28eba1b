//! Bytes as a file of calibration data: opened for an input of floats, and samples read. The first byte says which kind
//! of file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msq_onnx::data::{DataOptions, Dataset, InputSpec};
use msq_passes::ir::DataType;
use std::path::PathBuf;
use std::sync::LazyLock;

/// In memory where the system has such a folder; a file for each process of the fuzzer.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let builder = tempfile::Builder::new();
    if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() }.expect("a folder")
});

const LABELS: &str = "labels.csv";

fuzz_target!(|data: &[u8]| {
    const NAMES: [&str; 4] = ["x.npy", "x.npz", "x.pb", LABELS];
    let [kind, bytes @ ..] = data else { return };
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    let mut path = FOLDER.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    let mut options = DataOptions::default();
    if name == LABELS {
        options.labels = Some(path);
        path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/digits/calib.npz"));
    }
    for shape in [None, Some(vec![None, Some(1), Some(8), Some(8)])] {
        let input = InputSpec { name: "image".to_owned(), dtype: DataType::Float, shape, symbols: Vec::new(), image_size: None };
        let Ok(data) = Dataset::open(&path, &[input], &options) else { continue };
        for index in (0..data.len()).take(4) {
            let _ = (data.sample(index), data.labels(index));
        }
    }
});
