//! Models of the repository's tests.

use msq_passes::ir::{ModelProto, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Small float networks, each of which can be quantized.
pub fn networks() -> &'static [ModelProto] {
    static NETWORKS: LazyLock<Vec<ModelProto>> = LazyLock::new(|| models("tests/networks"));
    &NETWORKS
}

/// The networks, and the fixtures of the passes and of the linter.
pub fn fixtures() -> &'static [ModelProto] {
    static FIXTURES: LazyLock<Vec<ModelProto>> =
        LazyLock::new(|| ["tests/networks", "testdata"].into_iter().flat_map(models).collect());
    &FIXTURES
}

fn models(folder: &str) -> Vec<ModelProto> {
    let texts = texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder));
    texts.iter().map(|path| text::parse(&fs::read_to_string(path).expect("a text")).expect("a model")).collect()
}

/// The models in text form below a folder, in the order of their paths.
pub fn texts(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(texts(&path));
        } else if path.extension().is_some_and(|ending| ending == "onnxtxt") {
            found.push(path);
        }
    }
    found.sort();
    found
}
