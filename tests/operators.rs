//! The operator table holds what the schemas of ONNX say.

#![allow(clippy::unwrap_used)]

mod common;

use common::python::python;
use common::repository;
use std::process::Command;

#[test]
fn the_table_is_what_its_script_writes() {
    let Some(python) = python() else { return };
    let output = Command::new(python).arg(repository("scripts/operators.py")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
