//! The command line from end to end: what it writes, what it says, what it refuses and how.

mod bad_arguments;
mod bad_data;
mod bad_models;
mod config;
mod done;
mod passes;
mod report;
mod schema;

use crate::common::{Scratch, digits, msq};
use std::ffi::OsString;
use std::path::Path;

/// Asserts that the model is refused with this exit code and one line that holds all of `parts`, that the file stays as
/// it is and that nothing is left in the output folder. Real data is given, so that there is no warning either.
#[track_caller]
fn refused(scratch: &Scratch, model: &Path, code: i32, parts: &[&str]) {
    refused_with(scratch, model, &[OsString::from("--calib"), digits("calib.npz").into()], code, parts);
}

/// The same with other arguments.
#[track_caller]
fn refused_with(scratch: &Scratch, model: &Path, more: &[OsString], code: i32, parts: &[&str]) {
    let before = std::fs::read(model).ok();
    let mut args = vec![model.into(), OsString::from("-o"), scratch.out("out.onnx").into()];
    args.extend_from_slice(more);
    let run = msq(&args);
    let line = run.error(code);
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
    assert!(std::fs::read(model).ok() == before, "the input changed");
    assert_eq!(scratch.outputs(), Vec::<String>::new(), "something is left behind");
}
