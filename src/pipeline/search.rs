//! Quantizing to a target: the search for bits, and the check of the target on the finished file.

use super::masks::bound_masks;
use super::{Calibration, Prepared, Quantized, begin, in_states, notes};
use crate::calibrate::Shard;
use crate::data::Dataset;
use crate::error::Error;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::scheme::options::Options;
use crate::search::{Outcome, Parts, SearchError, SearchOptions, Target};
use msq_passes::ir::Model;
use std::borrow::Cow;

/// How often the target is tightened when the finished file misses it.
const TIGHTER: usize = 4;
/// How many times as many bits the next plan has where the search has no estimate to go by: where what was found loses
/// nothing on the few samples of the search.
const LARGER: f64 = 1.25;

/// Searches for the bits of every layer of a float model, on data in two parts, and quantizes it. The target is then
/// checked on the result: if the file is still too large, or loses too much, the search runs again with a target that
/// is tighter by as much, and where the search found that the plan keeps to that one too, with more bits.
pub(crate) fn search_and_quantize(
    model: Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let Begun { prepared, model, data, validation } = Begun::new(model, calibration, validation, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    let mut wanted = search.clone();
    let mut attempts = TIGHTER;
    let mut resumed = None;
    let mut nearest = None;
    loop {
        let mut outcome = seek(&model, calibration, &validation, options, &wanted, runtime)?;
        let found = options.with_plan(&outcome.plan);
        let mut quantized = prepared.quantize(model.clone(), calibration, Some(&validation), &found, runtime)?;
        let (found_loss, found_bits) = (outcome.metrics.lost, outcome.bits);
        let (sought, tighter) = (outcome.reached, tighter(search.target, wanted.target, &quantized.report));
        // Only the check of the file against the original target counts, not the search's estimate or a tighter target.
        let checked = matches!(search.target, Target::Size(_) | Target::MaxDrop(_));
        // What was not measured is not kept to.
        let unknown = matches!(search.target, Target::MaxDrop(_)) && quantized.report.quality.is_none();
        outcome.reached = tighter.is_none() && !unknown && (checked || sought);
        outcome.target = search.target.to_string();
        // Later attempts reuse the measurements of the first.
        outcome.resumed = *resumed.get_or_insert(outcome.resumed);
        quantized.report.search = Some(outcome);
        let said = notes::chosen(&quantized.report).filter(|note| !quantized.report.notes.contains(note));
        quantized.report.notes.extend(said);
        let blind = |target| matches!(target, Target::MaxDrop(drop) if found_loss <= drop);
        if tighter.is_some_and(blind) {
            wanted.too_few_bits = Some(LARGER * found_bits);
        }
        let best = nearer(search.target, nearest.take(), quantized);
        match tighter {
            Some(target) if sought && attempts > 1 => wanted.target = target,
            _ => return Ok(best),
        }
        nearest = Some(best);
        attempts -= 1;
    }
}

/// Of two attempts, the one that meets the target or misses it by less; the later one where they are equal.
fn nearer(target: Target, before: Option<Quantized>, now: Quantized) -> Quantized {
    let missed = |quantized: &Quantized| match target {
        Target::Size(asked) => quantized.report.bytes.saturating_sub(asked) as f64,
        Target::MaxDrop(asked) => {
            quantized.report.quality.as_ref().map_or(0.0, |quality| (quality.lost - asked).max(0.0))
        }
        Target::Ratio(_) | Target::Bits(_) | Target::MacBits(_) => 0.0,
    };
    match before {
        Some(before) if missed(&before) < missed(&now) => before,
        _ => now,
    }
}

/// Searches for the bits of every layer of a float model.
pub(crate) fn search_only(
    model: Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    let Begun { model, data, validation, .. } = Begun::new(model, calibration, validation, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    seek(&model, calibration, &validation, options, search, runtime)
}

/// Measures a part of what the layers of a float model cost alone, for searches elsewhere.
pub(crate) fn measure_part(
    model: Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    (search, shard): (&SearchOptions, Shard),
    runtime: &Runtime,
) -> Result<usize, Error> {
    let Begun { model, data, validation, .. } = Begun::new(model, calibration, validation, options, runtime)?;
    let calibration = Calibration { data: &data, ..calibration };
    let parts = parts(calibration, &validation, options)?;
    Ok(crate::search::measure(&model, parts, options, search, shard, runtime)?)
}

/// What every search begins with.
struct Begun<'d> {
    prepared: Prepared,
    /// The float model, with masks bounded where the target runs integers alone.
    model: Model,
    /// The calibration samples, and those that results are compared on, in the states of the float model.
    data: Cow<'d, Dataset>,
    validation: Cow<'d, Dataset>,
}

impl<'d> Begun<'d> {
    fn new(
        mut model: Model,
        calibration: Calibration<'d>,
        validation: &'d Dataset,
        options: &Options,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        let (prepared, data) = begin(&mut model, calibration, options, runtime)?;
        let validation = in_states(&model, validation, options, runtime)?;
        bound_masks(&mut model, Calibration { data: &data, ..calibration }, options, runtime)?;
        Ok(Self { prepared, model, data, validation })
    }
}

fn seek(
    model: &Model,
    calibration: Calibration,
    validation: &Dataset,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    let parts = parts(calibration, validation, options)?;
    Ok(crate::search::search(model, parts, options, search, runtime)?)
}

/// The data of a search, where the options leave something to search for.
fn parts<'a>(
    calibration: Calibration<'a>,
    validation: &'a Dataset,
    options: &Options,
) -> Result<Parts<'a>, SearchError> {
    if !options.scheme.encodings.tensors.is_empty() {
        return Err(SearchError::Refused { reason: "encodings say what the bits are".to_owned() });
    }
    let (margin, metric) = (calibration.margin(), calibration.metric);
    Ok(Parts { calibration: calibration.data, validation, margin, metric })
}

/// The tighter target for another search, where the file's size or its answers miss the requested one.
fn tighter(asked: Target, sought: Target, report: &Report) -> Option<Target> {
    match (asked, sought) {
        (Target::Size(asked), Target::Size(sought)) if report.bytes > asked => {
            Some(Target::Size(sought.saturating_sub(report.bytes - asked)))
        }
        (Target::MaxDrop(asked), Target::MaxDrop(sought)) => {
            let lost = report.quality.as_ref()?.lost;
            // In proportion, assuming that the loss of the finished file is proportional to that of the search.
            (lost > asked).then(|| Target::MaxDrop(sought * (asked / lost).max(0.0)))
        }
        _ => None,
    }
}
