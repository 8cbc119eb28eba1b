//! Integration tests, in one binary: each of its own would link the whole engine once more, which takes more time than
//! to run most of them.
//!
//! A part runs alone by its module: `cargo test --test integration lint::`.

#![allow(clippy::unwrap_used)]

mod admit;
mod architecture;
mod backend;
mod blocks;
mod cli;
mod common;
mod compare;
mod conformance;
mod coverage;
mod detectors;
mod dynamic;
mod engine;
mod equalize;
mod exchange;
mod experts;
mod faults;
mod few_samples;
mod fixed_inputs;
mod float16;
mod forms;
mod gradient;
mod grids;
mod input_scale;
mod lint;
mod measure;
mod messages;
mod node_tests;
mod numerics;
mod openvino;
mod operators;
mod outliers;
mod own_solver;
mod packing;
mod patterns;
mod processes;
mod profiles;
mod python;
mod recurrent;
mod repair;
mod roundtrip;
mod runtime;
mod search;
mod shards;
mod size;
mod smooth;
mod state;
mod text_outputs;
mod wide;

/// A file that is no module here would never run.
#[test]
fn every_file_is_a_module() {
    let listed = include_str!("main.rs");
    for file in common::repository("tests").read_dir().unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_module = path.extension().is_some_and(|e| e == "rs") || path.join("mod.rs").exists();
        assert!(!is_module || name == "main" || listed.contains(&format!("mod {name};\n")), "{name}");
    }
}
