//! Calibration and the costs of layers on several machines: what all parts found makes the same file as one run, byte for
//! byte.

use crate::common::{Run, Scratch, args, digits, msq};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// 101 samples: parts of unequal size, none a multiple of what is added at once.
const SAMPLES: [&str; 2] = ["--samples", "101"];

/// Options whose later phases go by different things: ranges alone, means of channels, and moments of inputs.
const OPTIONS: [&[&str]; 3] = [
    &["--observer", "moving-average"],
    &["--weight-bits", "4", "--solver", "round"],
    &["--weight-bits", "3", "--act-bits", "4"],
];

/// Runs on the digits with these arguments as well.
fn on_digits(first: &[OsString], options: &[&str]) -> Run {
    let mut all = first.to_vec();
    all.extend(args!["--calib", digits("calib.npz"), "-q"].iter().cloned());
    all.extend(SAMPLES.iter().chain(options).map(OsString::from));
    msq(&all)
}

/// The statistics of each of so many parts.
fn parts(scratch: &Scratch, of: usize, options: &[&str]) -> Vec<PathBuf> {
    let part = |number| {
        let path = scratch.path(&format!("{number}-of-{of}.stats"));
        let shard = format!("{number}/{of}");
        on_digits(args!["calibrate", digits("digits.onnx"), "-o", path, "--shard", shard], options).ok();
        path
    };
    // Parts come in any order.
    (1..=of).rev().map(part).collect()
}

fn quantized(scratch: &Scratch, statistics: &[PathBuf], options: &[&str]) -> Result<Vec<u8>, Run> {
    let output = scratch.path("out.onnx");
    let mut given = args![digits("digits.onnx"), "-o", output].to_vec();
    if !statistics.is_empty() {
        given.push("--statistics".into());
        given.extend(statistics.iter().map(OsString::from));
    }
    let run = on_digits(&given, options);
    if run.code == Some(0) { Ok(std::fs::read(output).unwrap()) } else { Err(run) }
}

#[test]
fn parts_make_the_same_file_as_one_run() {
    for options in OPTIONS {
        let scratch = Scratch::new();
        let whole = quantized(&scratch, &[], options).unwrap();
        for of in [1, 2, 5] {
            let parts = parts(&scratch, of, options);
            assert!(quantized(&scratch, &parts, options).unwrap() == whole, "{options:?} in {of} parts");
        }
    }
}

#[test]
fn more_parts_than_samples_leave_some_empty() {
    let scratch = Scratch::new();
    let whole = quantized(&scratch, &[], &[]).unwrap();
    assert!(quantized(&scratch, &parts(&scratch, 30, &[]), &[]).unwrap() == whole);
}

/// The line of a run that was refused, which names this file.
#[track_caller]
fn refusal(run: Result<Vec<u8>, Run>, file: &Path) -> String {
    let line = run.unwrap_err().error(4).to_owned();
    assert!(line.contains(&file.display().to_string()), "{line}");
    line
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let scratch = Scratch::new();
    let options = OPTIONS[1];
    let three = parts(&scratch, 3, options);
    let of = |chosen: &[usize]| chosen.iter().map(|&at| three[at].clone()).collect::<Vec<_>>();
    // In order: the last, the second, the first.
    let middle_missing = refusal(quantized(&scratch, &of(&[0, 2]), options), &three[0]);
    assert!(middle_missing.contains("are in none of the files"), "{middle_missing}");
    let end_missing = refusal(quantized(&scratch, &of(&[1, 2]), options), &three[1]);
    assert!(end_missing.contains("are in none of the files"), "{end_missing}");
    let twice = refusal(quantized(&scratch, &of(&[0, 1, 1, 2]), options), &three[1]);
    assert!(twice.contains("is in another file too"), "{twice}");
    // Batch-norms that are not folded are another model.
    let other = refusal(quantized(&scratch, &three, &[options, &["--batch-norm", "affine"]].concat()), &three[2]);
    assert!(other.contains("another model"), "{other}");
    let other = refusal(quantized(&scratch, &three, &[options, &["--verify", "3"]].concat()), &three[2]);
    assert!(other.contains("`verify`"), "{other}");
    let other = refusal(quantized(&scratch, &three, &[options, &["--scale", "0.5"]].concat()), &three[2]);
    assert!(other.contains("other data"), "{other}");
    // Without the solver that fits the data nothing is held out.
    let other = refusal(quantized(&scratch, &three, &["--weight-bits", "4"]), &three[2]);
    assert!(other.contains("samples in all"), "{other}");
    let bytes = std::fs::read(&three[0]).unwrap();
    let cut = scratch.write("cut.stats", &bytes[..bytes.len() / 2]);
    let damaged = refusal(quantized(&scratch, std::slice::from_ref(&cut), options), &cut);
    assert!(damaged.contains("damaged"), "{damaged}");
    let absent = scratch.path("absent.stats");
    refusal(quantized(&scratch, std::slice::from_ref(&absent), options), &absent);
}

#[test]
fn statistics_are_not_for_searches() {
    let scratch = Scratch::new();
    let run = quantized(&scratch, &[scratch.path("any.stats")], &["--target-bits", "4"]).unwrap_err();
    assert!(run.usage().contains("--statistics"), "{}", run.stderr);
}

#[test]
fn what_would_be_ignored_is_refused() {
    let scratch = Scratch::new();
    let (model, path) = (digits("digits.onnx"), scratch.path("part.stats"));
    assert!(msq(args!["calibrate", model, "-o", path]).usage().contains("--calib"));
    assert!(msq(args![model, "-o", scratch.path("o.onnx"), "--statistics", path]).usage().contains("--calib"));
    let plan = scratch.path("plan.json");
    let run = on_digits(args!["calibrate", model, "-o", path, "--save-plan", plan], &[]);
    assert!(run.usage().contains("--save-plan"));
    assert!(!path.exists() && !plan.exists());
}

#[test]
fn a_part_says_what_it_holds() {
    let scratch = Scratch::new();
    let path = scratch.path("part.stats");
    let arguments = args!["calibrate", digits("digits.onnx"), "-o", path, "--shard", "2/5", "--json"];
    let found = on_digits(arguments, &["--solver", "round"]).ok().json();
    assert_eq!(found["shard"]["number"], 2);
    assert_eq!(found["samples"]["start"], 20);
    assert_eq!(found["total"], 101);
    assert_eq!(found["bytes"].as_u64().unwrap(), path.metadata().unwrap().len());
    let wrong = on_digits(args!["calibrate", digits("digits.onnx"), "-o", path, "--shard", "6/5"], &[]);
    assert!(wrong.usage().contains("6/5"), "{}", wrong.stderr);
}

/// Few widths and images: each layer is run once for each of them.
const SEARCH: [&str; 4] = ["--ladder", "8,4,2", "--samples", "48"];

/// The costs of each of so many parts of the layers.
fn costs(scratch: &Scratch, of: usize) -> Vec<PathBuf> {
    let part = |number| {
        let path = scratch.path(&format!("{number}-of-{of}.costs"));
        let given = args!["search", digits("digits.onnx"), "--calib", digits("calib.npz"), "-q", "-o", path];
        let given = given.iter().cloned().chain(SEARCH.map(OsString::from));
        msq(&given.chain([OsString::from(format!("--shard={number}/{of}"))]).collect::<Vec<_>>()).ok();
        path
    };
    (1..=of).map(part).collect()
}

/// A search for 3 bits with these costs and options.
fn searched(scratch: &Scratch, costs: &[PathBuf], options: &[&str]) -> Run {
    let output = scratch.path("searched.onnx");
    let [model, data] = ["digits.onnx", "calib.npz"].map(digits);
    let given = args![model, "-o", output, "--calib", data, "--target-bits", "3", "--search", "ilp", "--json"];
    let more = SEARCH.iter().chain(options).map(OsString::from);
    let mut given: Vec<OsString> = given.iter().cloned().chain(more).collect();
    if !costs.is_empty() {
        given.push("--measurements".into());
        given.extend(costs.iter().map(OsString::from));
    }
    msq(&given)
}

#[test]
fn costs_of_parts_make_the_same_file_as_one_search() {
    let scratch = Scratch::new();
    let measured = |run: Run| run.ok().json()["search"]["resumed"].as_u64().unwrap();
    let file = || std::fs::read(scratch.path("searched.onnx")).unwrap();
    assert_eq!(measured(searched(&scratch, &[], &[])), 0);
    let whole = file();
    for of in [1, 3] {
        let parts = costs(&scratch, of);
        // Two rungs of ten layers, and the plan that all parts start from.
        assert_eq!(measured(searched(&scratch, &parts, &[])), 21);
        assert!(file() == whole, "{of} parts");
        assert!(!scratch.path("1-of-3.costs.search.jsonl").exists());
    }
    // What is missing is measured.
    assert_eq!(measured(searched(&scratch, &costs(&scratch, 3)[1..], &[])), 15);
    assert!(file() == whole);
}

#[test]
fn costs_of_another_search_are_refused() {
    let scratch = Scratch::new();
    let parts = costs(&scratch, 2);
    let refused = |costs: &[PathBuf], options: &[&str]| searched(&scratch, costs, options).error(4).to_owned();
    let other = refused(&parts, &["--scale", "0.5"]);
    assert!(other.contains("other data"), "{other}");
    let text = std::fs::read_to_string(&parts[1]).unwrap();
    let cut = scratch.write("cut.costs", &text.as_bytes()[..text.len() - 9]);
    let damaged = refused(&[parts[0].clone(), cut.clone()], &[]);
    assert!(damaged.contains("cut.costs") && damaged.contains("is damaged"), "{damaged}");
    let not_costs = refused(&[digits("calib.npz")], &[]);
    assert!(not_costs.contains("calib.npz"), "{not_costs}");
    assert!(!scratch.path("searched.onnx").exists());
    let run = msq(args!["search", digits("digits.onnx"), "--calib", digits("calib.npz"), "--shard", "1/2"]);
    assert!(run.usage().contains("--output"), "{}", run.stderr);
    let gradient = args![
        "search",
        digits("digits.onnx"),
        "--calib",
        digits("calib.npz"),
        "--shard",
        "1/2",
        "--costs",
        "gradient",
        "-q",
        "-o",
        scratch.path("o")
    ];
    assert!(msq(gradient).error(1).contains("not in parts"));
}
