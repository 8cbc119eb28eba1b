//! The Python module: its own tests, run against the binary under test.

use crate::common::python::python;
use crate::common::{BINARY, repository};
use std::process::Command;

/// Tests that need packages of their own, or minutes: `.ci/run` runs them against a wheel.
const APART: [&str; 4] = ["test_parts.py", "test_sweep.py", "test_bench.py", "test_toolchains.py"];

/// `python/tests`, in the environment of the reference runtimes.
#[test]
fn the_tests_of_the_module_pass() {
    let Some(python) = python() else { return };
    let mut tests = Command::new(python);
    tests.args(["-m", "pytest", "--quiet", "--no-header", "-p", "no:cacheprovider"]).current_dir(repository("python"));
    tests.args(APART.map(|file| format!("--ignore=tests/{file}")));
    tests.env("MSQ_ONNX_BINARY", BINARY).env_remove("MSQ_ONNX_TEST_INSTALLED").env_remove("RUST_LOG");
    // Bytes compiled from sources stay out of the repository.
    tests.env("PYTHONDONTWRITEBYTECODE", "1").stdin(std::process::Stdio::null());
    let output = tests.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
