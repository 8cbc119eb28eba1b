//! The operator table holds what the schemas of ONNX say.

use crate::common::python::python;
use crate::common::repository;
use std::process::Command;

#[test]
fn the_table_is_what_its_script_writes() {
    let Some(python) = python() else { return };
    let output = Command::new(python).arg(repository("scripts/operators.py")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
