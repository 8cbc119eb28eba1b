//! Quantizing to a target: the search for bits, and the check of its promise on the finished file.

use super::{Calibration, Prepared, Quantized, thread_pool};
use crate::data::Dataset;
use crate::error::Error;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::scheme::options::Options;
use crate::search::{Outcome, Parts, SearchError, SearchOptions, Target};
use msq_passes::ir::Model;

/// How often a target is tightened that the finished file misses.
const TIGHTER: usize = 4;

/// Looks for the bits of every layer of a float model, on data in two parts, and quantizes it. What the search promises
/// is checked on the result: a file that is still too large, or that loses more than it may, is sought again with a
/// target as much tighter.
pub(crate) fn search_and_quantize(
    mut model: Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let prepared = Prepared::new(&mut model, options, runtime)?;
    let mut wanted = search.clone();
    let mut attempts = TIGHTER;
    let mut resumed = None;
    let mut nearest = None;
    loop {
        let mut outcome = seek(&model, calibration, validation, options, &wanted, runtime)?;
        let found = options.with_plan(&outcome.plan);
        let mut quantized = prepared.quantize(model.clone(), calibration, Some(validation), &found, runtime)?;
        let (sought, tighter) = (outcome.reached, tighter(search.target, wanted.target, &quantized.report));
        // What is checked on the file counts, not what the search made of it or of a tighter target.
        let checked = matches!(search.target, Target::Size(_) | Target::MaxDrop(_));
        outcome.reached = tighter.is_none() && (checked || sought);
        outcome.target = search.target.to_string();
        // Later attempts go on from the first one's measurements.
        outcome.resumed = *resumed.get_or_insert(outcome.resumed);
        quantized.report.search = Some(outcome);
        let best = nearer(search.target, nearest.take(), quantized);
        match tighter {
            Some(target) if sought && attempts > 1 => wanted.target = target,
            _ => return Ok(best),
        }
        nearest = Some(best);
        attempts -= 1;
    }
}

/// The one of two attempts that keeps to the target or misses it by less; the later one where they are equal.
fn nearer(target: Target, before: Option<Quantized>, now: Quantized) -> Quantized {
    let missed = |quantized: &Quantized| match target {
        Target::Size(asked) => quantized.report.bytes.saturating_sub(asked) as f64,
        Target::MaxDrop(asked) => quantized.report.quality.map_or(0.0, |quality| (quality.lost - asked).max(0.0)),
        Target::Ratio(_) | Target::Bits(_) | Target::MacBits(_) => 0.0,
    };
    match before {
        Some(before) if missed(&before) < missed(&now) => before,
        _ => now,
    }
}

/// Looks for the bits of every layer of a float model.
pub(crate) fn search_only(
    mut model: Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    Prepared::new(&mut model, options, runtime)?;
    seek(&model, calibration, validation, options, search, runtime)
}

fn seek(
    model: &Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    if !options.scheme.encodings.tensors.is_empty() {
        return Err(SearchError::Refused { reason: "encodings say what the bits are".to_owned() }.into());
    }
    let parts = Parts { calibration: calibration.data, validation, margin: calibration.margin() };
    let pool = thread_pool(runtime)?;
    Ok(pool.install(|| crate::search::search(model, parts, options, search, runtime))?)
}

/// The target to seek with instead, where the one asked for is missed by the file or its answers.
fn tighter(asked: Target, sought: Target, report: &Report) -> Option<Target> {
    match (asked, sought) {
        (Target::Size(asked), Target::Size(sought)) if report.bytes > asked => {
            Some(Target::Size(sought.saturating_sub(report.bytes - asked)))
        }
        (Target::MaxDrop(asked), Target::MaxDrop(sought)) => {
            let lost = report.quality?.lost;
            // In proportion: what is lost in full grows with what was lost in the search, from nothing on.
            (lost > asked).then(|| Target::MaxDrop(sought * (asked / lost).max(0.0)))
        }
        _ => None,
    }
}
