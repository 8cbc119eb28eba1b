//! Grids and rounding by name: the integers and scales in the file are those the grid allows, whatever the solver, and
//! what cannot be is refused in one line.

use crate::common::{Scratch, args, digits, msq, quantize_digits};
use std::collections::BTreeSet;
use std::ffi::OsString;

/// A weight as the file has it.
struct Weight {
    integers: Vec<i64>,
    scales: Vec<f32>,
}

/// The weights of digits quantized with these flags, a byte each.
#[track_caller]
fn weights(scratch: &Scratch, flags: &str) -> Vec<Weight> {
    let fixed = "--samples 32 --verify 0 --packing none --keep-names";
    let mut more = args!["--calib", digits("calib.npz")].to_vec();
    more.extend(fixed.split_whitespace().chain(flags.split_whitespace()).map(OsString::from));
    let model = msq_onnx::load(&quantize_digits(scratch, "out.onnx", &more)).unwrap();
    let graph = &model.graph;
    let constant = |value| graph.constant(value);
    let nodes = graph.nodes().filter(|(_, node)| node.op() == "DequantizeLinear");
    let weight = |input: [Option<_>; 2]| {
        let (integers, scales) = (constant(input[0]?)?, constant(input[1]?)?);
        let int8 = integers.element_type() == Some(msq_passes::ir::DataType::Int8);
        int8.then(|| Weight { integers: integers.to_i64().unwrap(), scales: scales.to_f32().unwrap() })
    };
    let weights: Vec<Weight> = nodes.filter_map(|(_, node)| weight([node.input(0), node.input(1)])).collect();
    assert_eq!(weights.len(), 10, "{flags}");
    weights
}

fn used(weight: &Weight) -> BTreeSet<i64> {
    weight.integers.iter().copied().collect()
}

fn is_power_of_two(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0 && scale.to_bits().trailing_zeros() >= 23
}

#[test]
fn files_hold_what_the_grids_allow() {
    let scratch = Scratch::new();
    let powers: BTreeSet<i64> = (0..7).flat_map(|e| [-(1 << e), 1 << e]).chain([0]).collect();
    for solver in ["--solver round", "--solver gram", "--rounding stochastic"] {
        for weight in weights(&scratch, &format!("--weight-bits binary {solver}")) {
            assert_eq!(used(&weight), BTreeSet::from([-1, 1]), "{solver}");
            assert!(weight.scales.iter().all(|s| s.is_normal()), "{solver}");
        }
        for weight in weights(&scratch, &format!("--weight-bits 4 --grid power-of-two {solver}")) {
            assert!(used(&weight).is_subset(&powers) && used(&weight).len() > 7, "{solver}");
        }
        for weight in weights(&scratch, &format!("--weight-bits 3 --grid binary-bases {solver}")) {
            let used: Vec<i64> = used(&weight).into_iter().collect();
            assert!((4..=8).contains(&used.len()) && used.iter().all(|q| (-127..=127).contains(q)), "{used:?}");
            // α1 ± α2 ± α3 with either sign: the distances from the ends are the same.
            assert!(used.len() < 8 || used.iter().zip(used.iter().rev()).all(|(a, b)| *a == -b), "{used:?}");
            assert!(used.len() < 8 || used[0] + used[3] == used[1] + used[2], "{used:?}");
        }
        for (grid, low) in [("fixed-point", -8), ("wage", -7)] {
            for weight in weights(&scratch, &format!("--weight-bits 4 --grid {grid} {solver}")) {
                assert!(weight.scales.iter().all(|&s| is_power_of_two(s)), "{grid} {solver}: {:?}", weight.scales);
                assert!(weight.integers.iter().all(|q| (low..=7).contains(q)), "{grid} {solver}");
            }
        }
    }
}

/// A plan with a fraction of a bit goes into the file and comes out again: in the metadata, and where there is none from
/// the integers.
#[test]
fn fractions_of_a_bit_are_named() {
    let scratch = Scratch::new();
    let args = ["--calib", "--samples", "16", "--verify", "0", "--weight-bits", "1.75", "--keep-names"];
    let mut more: Vec<OsString> = args.map(OsString::from).to_vec();
    more.insert(1, digits("calib.npz").into());
    let file = quantize_digits(&scratch, "out.onnx", &more);
    let bits = |file: &std::path::Path| {
        let said = msq(args!["inspect", file, "--json"]).ok().stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let layers = said["layers"].as_array().unwrap().clone();
        (
            said["plan"].clone(),
            layers.iter().map(|layer| layer["bits"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    let (plan, named) = bits(&file);
    assert_eq!(plan["default"]["weights"], serde_json::json!(1.75));
    assert_eq!(named, ["1.75"; 10]);
    // The same file with another key in the place of the plan's.
    let mut bytes = std::fs::read(&file).unwrap();
    let key = b"msq-onnx.plan";
    let at = bytes.windows(key.len()).position(|part| part == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"other-tool.is");
    let bare = scratch.out("bare.onnx");
    std::fs::write(&bare, bytes).unwrap();
    let (plan, found) = bits(&bare);
    assert!(plan.is_null());
    assert!(found.iter().filter(|bits| *bits == "1.75, trellis").count() > 6, "{found:?}");
    let refused = msq(args![digits("digits.onnx"), "-o", scratch.out("no.onnx"), "--weight-bits", "2.75"]);
    assert!(refused.error(2).contains("grid `trellis` takes weights of 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 4 bits"));
}

/// One seed is one file, two are two, and the number of threads is neither here nor there.
#[test]
fn draws_follow_the_seed() {
    let scratch = Scratch::new();
    let file = |flags: &str| {
        let mut more = args!["--calib", digits("calib.npz"), "--samples", "8", "--verify", "0"].to_vec();
        more.extend("--weight-bits 4 --rounding stochastic".split(' ').chain(flags.split(' ')).map(OsString::from));
        std::fs::read(quantize_digits(&scratch, "out.onnx", &more)).unwrap()
    };
    let first = file("--seed 1 --threads 1");
    assert_eq!(first, file("--seed 1 --threads 3"));
    assert_ne!(first, file("--seed 2 --threads 1"));
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let refused = |flags: &str, reason: &str| {
        let mut all = args![digits("digits.onnx"), "-o", scratch.out("out.onnx"), "-q"].to_vec();
        all.extend(flags.split_whitespace().map(OsString::from));
        let run = msq(&all);
        assert!(run.error(2).contains(reason), "{flags}: {}", run.error(2));
    };
    refused("--rounding stochastic --solver gram", "--rounding stochastic belongs to --solver round");
    refused("--grid power-of-two", "grid `power-of-two` takes weights of 2 to 4 bits");
    refused("--grid sign --weight-bits 2", "grid `sign` takes weights that are \"binary\"");
    refused("--grid binary-bases --weight-bits 7", "grid `binary-bases` takes weights of 2 to 6 bits");
    refused("--grid power-of-two --weight-bits 4 --packing int4", "cannot be stored as INT4 or INT2");
}
