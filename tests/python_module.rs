//! The Python module in `python/`: its own tests, run in the environment of the other runtime checks.

#![allow(clippy::unwrap_used)]

mod common;

use common::python::python;
use common::{BINARY, repository};
use std::process::Command;

#[test]
fn the_python_module_passes_its_tests() {
    let Some(interpreter) = python() else { return };
    let run = Command::new(interpreter)
        .args(["-m", "unittest", "discover", "-s"])
        .arg(repository("python/tests"))
        .env("MSQ_ONNX", BINARY)
        .env("DIGITS", repository("testdata/digits"))
        .env("PYTHONPATH", repository("python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    // Tests that were not found pass.
    assert!(said.contains("Ran 7 tests"), "{said}");
}
