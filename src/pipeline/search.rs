//! Quantizing to a target: the search for bits, and the check of the target on the finished file.

use super::masks::bound_masks;
use super::{Calibration, Prepared, Quantized, begin, in_states, notes};
use crate::calibrate::Shard;
use crate::data::Dataset;
use crate::error::Error;
use crate::report::Quality;
use crate::report::search::Passes;
use crate::runtime::Runtime;
use crate::scheme::options::Options;
use crate::scheme::output_kind::OutputKind;
use crate::search::answers::AnswerRates;
use crate::search::{Division, Outcome, Parts, SearchError, SearchOptions, Target};
use msq_passes::ir::Model;
use std::borrow::Cow;

/// How often the target is tightened when the finished file misses it.
const TIGHTER: usize = 4;
/// How many times as many bits the next plan has where the search has no estimate to go by: where what was found loses
/// nothing on the few samples of the search.
const LARGER: f64 = 1.25;

/// Searches for the bits of every layer of a float model, on data in parts, and quantizes it. The target is then checked
/// on the result, on samples that had no part in the choice where there are enough: if the file is still too large, or
/// loses too much, the search runs again with a target that is tighter by as much, and where the search found that the plan
/// keeps to that one too, with more bits; in the end with the most bits that there are.
pub(crate) fn search_and_quantize(
    model: Model,
    calibration: Calibration,
    division: &Division,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Quantized, Error> {
    let Begun { prepared, model, data, validation } =
        Begun::new(model, calibration, &division.validation, options, runtime)?;
    let solving = in_states(&model, &division.solving, options, runtime)?;
    let unseen = division.unseen.as_ref().map(|unseen| in_states(&model, unseen, options, runtime)).transpose()?;
    let calibration = Calibration { data: &data, ..calibration };
    let mut wanted = search.clone();
    let mut attempts = TIGHTER;
    let mut resumed = None;
    let mut passes = Passes::default();
    let mut nearest = None;
    loop {
        let mut outcome = seek(&model, calibration, &validation, options, &wanted, runtime)?;
        let found = options.with_plan(&outcome.plan);
        let solved_on = Calibration { data: &solving, ..calibration };
        let stated_on = unseen.as_deref().unwrap_or(&validation);
        let mut quantized = prepared.quantize(model.clone(), solved_on, Some(stated_on), &found, runtime)?;
        if let Some(quality) = &mut quantized.report.quality {
            quality.chosen_by |= unseen.is_none();
        }
        let rates = rates(&outcome);
        let lost = quantized.report.quality.as_ref().map(|quality| counted(quality, &rates));
        let (found_loss, found_bits) = (rates.likely(&outcome.metrics, outcome.samples[1]), outcome.bits);
        let (sought, tighter) = (outcome.reached, tighter(search.target, wanted.target, quantized.report.bytes, lost));
        // Only the check of the file against the original target counts, not the search's estimate or a tighter target.
        let checked = matches!(search.target, Target::Size(_) | Target::MaxDrop(_));
        // What was not measured is not kept to.
        let unknown = matches!(search.target, Target::MaxDrop(_)) && quantized.report.quality.is_none();
        outcome.reached = tighter.is_none() && !unknown && (checked || sought);
        outcome.target = search.target.to_string();
        // Later attempts reuse the measurements of the first.
        outcome.resumed = *resumed.get_or_insert(outcome.resumed);
        passes += outcome.passes;
        outcome.passes = passes;
        quantized.report.search = Some(outcome);
        let said = notes::chosen(&quantized.report).filter(|note| !quantized.report.notes.contains(note));
        quantized.report.notes.extend(said);
        quantized.report.notes.extend(notes::likely(&quantized.report, search.target, lost));
        let blind = |target| matches!(target, Target::MaxDrop(drop) if found_loss <= drop);
        if tighter.is_some_and(blind) {
            wanted.too_few_bits = Some(LARGER * found_bits);
        }
        let best = nearer(search.target, nearest.take(), (quantized, lost));
        let Some(target) = tighter.filter(|_| sought && attempts > 1) else { return Ok(best.0) };
        (nearest, attempts) = (Some(best), attempts - 1);
        wanted.target = target;
        if attempts == 1 && matches!(target, Target::MaxDrop(_)) {
            // The plan with the most bits: what that one loses is out of reach.
            (wanted.target, wanted.too_few_bits) = (search.target, Some(f64::INFINITY));
        }
    }
}

/// A file, and what it is taken to lose.
type Attempt = (Quantized, Option<f64>);

/// Answers lost in what a search has measured.
fn rates(outcome: &Outcome) -> AnswerRates {
    let proposals = outcome.proposals.iter().map(|proposal| &proposal.metrics);
    AnswerRates::of(proposals.chain(outcome.front.iter().map(|point| &point.metrics)))
}

/// The loss that a target is compared with: of answers the one that is likely on other samples, and of values that are
/// measured on the samples that chose the plan, more by one standard error.
fn counted(quality: &Quality, rates: &AnswerRates) -> f64 {
    let worst = quality.outputs.iter().max_by(|a, b| a.lost.total_cmp(&b.lost));
    let of_values = quality.accuracy.is_none()
        && worst.is_some_and(|worst| matches!(worst.kind, OutputKind::Values | OutputKind::Embedding));
    let margin = if quality.chosen_by && of_values { quality.lost_error.unwrap_or(0.0) } else { 0.0 };
    rates.likely_of_file(quality) + margin
}

/// Of two attempts, the one that meets the target or misses it by less; the later one where they are equal.
fn nearer(target: Target, before: Option<Attempt>, now: Attempt) -> Attempt {
    let missed = |(quantized, lost): &Attempt| match target {
        Target::Size(asked) => quantized.report.bytes.saturating_sub(asked) as f64,
        Target::MaxDrop(asked) => lost.map_or(0.0, |lost| (lost - asked).max(0.0)),
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
fn tighter(asked: Target, sought: Target, bytes: u64, lost: Option<f64>) -> Option<Target> {
    match (asked, sought) {
        (Target::Size(asked), Target::Size(sought)) if bytes > asked => {
            Some(Target::Size(sought.saturating_sub(bytes - asked)))
        }
        (Target::MaxDrop(asked), Target::MaxDrop(sought)) => {
            let lost = lost?;
            // In proportion, assuming that the loss of the finished file is proportional to that of the search.
            (lost > asked).then(|| Target::MaxDrop(sought * (asked / lost).max(0.0)))
        }
        _ => None,
    }
}
