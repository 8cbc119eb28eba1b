//! Every pipeline is described, and its passes stand where their reasons say.

use super::descriptions;
use std::collections::HashSet;

/// The passes that a reason names after a word: ``before `a` and before `b` `` names a and b.
fn named<'a>(reason: &'a str, word: &str) -> Vec<&'a str> {
    reason.split(&format!("{word} `")).skip(1).filter_map(|rest| rest.split('`').next()).collect()
}

#[test]
fn every_pipeline_is_described_once() {
    let lines = include_str!("../pipelines.rs").lines().chain(include_str!("copies.rs").lines());
    let written = lines.filter(|line| line.trim_start().starts_with("Pipeline::new(\"")).count();
    let names: HashSet<&str> = descriptions().iter().map(|pipeline| pipeline.name).collect();
    assert_eq!((names.len(), descriptions().len()), (written, written));
}

#[test]
fn passes_stand_where_the_reasons_say() {
    let pipelines = descriptions();
    let steps: Vec<_> = pipelines.iter().flat_map(|pipeline| &pipeline.steps).collect();
    let mut constraints = 0;
    for (at, step) in steps.iter().enumerate() {
        for other in named(step.place, "before") {
            assert!(steps[at + 1..].iter().any(|s| s.pass == other), "{} before `{other}`", step.pass);
            constraints += 1;
        }
        for other in named(step.place, "after") {
            assert!(steps[..at].iter().any(|s| s.pass == other), "{} after `{other}`", step.pass);
            constraints += 1;
        }
    }
    assert!(constraints > 20, "{constraints}");
}

#[test]
fn every_pass_is_in_a_pipeline() {
    let pipelines = descriptions();
    let listed: HashSet<&str> = pipelines.iter().flat_map(|p| &p.steps).map(|step| step.pass).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/passes");
    let pages = std::fs::read_dir(folder).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let documented: HashSet<String> = pages.filter_map(|page| page.strip_suffix(".md").map(str::to_owned)).collect();
    assert_eq!(listed, documented.iter().map(String::as_str).collect());
}
