//! The guard: a result that loses too much is repaired, and made again by the plan that repairs it.

use super::calibration::calibrate;
use super::cross_validation::{Fold, Folds};
use super::{Calibration, Made, Run};
use crate::calibrate::observe::Seen;
use crate::error::Error;
use crate::measure::metrics::OutputMetrics;
use crate::report::Quality;
use crate::report::repair::Repair;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{LayerPlan, WeightBits};
use crate::search::guard::{Goal, Guarded, SEVERE, Work, is_worse, loses, repair};

/// The share of answers, or of the variance of a channel, that a result may lose before it is repaired.
const ALLOWED: f64 = 0.01;

/// Samples that what is stated of a repaired result is measured on, at least and at most.
const UNSEEN: usize = 8;
const COMPARED: usize = 64;

/// Divergence from the float answers in nats from which on answers are looked at more closely.
const MOVED: f64 = 0.02;

/// The result, or another one that loses less, and what was repaired.
pub(super) fn guarded(run: Run, made: Made, seen: &Seen) -> Result<(Made, Option<Repair>), Error> {
    if !is_asked_for(run) || !made.quality.as_ref().is_some_and(loses_too_much) {
        return Ok((made, None));
    }
    let scheme = &made.scheme;
    let eight = |plan: LayerPlan| plan.weights == WeightBits::whole(8);
    let few = || !scheme.layers().all(|layer| eight(scheme.layer_plan(layer)));
    let severe = made.quality.as_ref().is_some_and(|quality| loses(&quality.outputs, SEVERE));
    if scheme.placement.roots().next().is_none() && few() && !severe {
        // Activations lose nothing here, and weights of few bits are what was asked for.
        return Ok((made, None));
    }
    let Run { float, outputs, calibration, validation, options, runtime, .. } = run;
    let (Made { scheme, observed, solved, folds, .. }, model) = (&made, float);
    let compared = (outputs, calibration.metric);
    let network = Guarded { model, compared, scheme, seen, observed, solved, options };
    let calibrated = calibration.data.len();
    // Ranges are judged on samples that they were not chosen from: few of them mislead less than those.
    let fold = folds.as_ref().and_then(Folds::first);
    let (network, data) = match &fold {
        Some((Fold { seen, observed, solved, .. }, data)) => (Guarded { seen, observed, solved, ..network }, data),
        None => (network, validation.unwrap_or(calibration.data)),
    };
    let others = run.others.filter(|others| others.len() >= UNSEEN);
    let work = Work { data, calibrated, spares: fold.is_none() && others.is_none() };
    let goal = Goal { allowed: ALLOWED, strict: false };
    let found = repair(network, work, goal, runtime)?;
    let report = found.report;
    if found.plan == made.scheme.plan {
        return Ok((made, Some(report)));
    }
    // What is stated of the result is measured on samples that had no part in its choice, where there are enough.
    let held_out = made.quality.as_ref().is_some_and(|quality| quality.held_out);
    let unseen = others.unwrap_or(&found.spared);
    let unseen = unseen.split(COMPARED.min(unseen.len())).1;
    let unseen = Some(unseen).filter(|unseen| fold.is_none() && unseen.len() >= UNSEEN);
    let run = Run { validation: unseen.as_ref().or(validation), repaired: true, ..run };
    let scheme = Scheme::within(float, &found.plan, options, made.scheme.coverage.clone())?;
    let constant = |value| float.graph.constant(value).is_some();
    let observed = |value| seen.has(float.graph.value(value).name());
    let known = scheme.placement.roots().all(|value| constant(value) || observed(value));
    let mut again = if known {
        run.make(scheme, seen)?
    } else {
        // Values are looked at that were not when statistics were counted elsewhere.
        let calibration = Calibration { statistics: None, ..calibration };
        let (scheme, seen) = calibrate(float, &found.plan, calibration, options, runtime)?;
        run.make(scheme, &seen)?
    };
    if let Some(quality) = &mut again.quality {
        quality.held_out = if unseen.is_some() { held_out } else { quality.held_out };
        quality.chosen_by = unseen.is_none() && !quality.cross_validated;
    }
    Ok((again, Some(report)))
}

/// Whether repairs may change anything: not what was chosen layer by layer or value by value, and not by synthetic inputs,
/// whose outputs say little.
fn is_asked_for(run: Run) -> bool {
    let chosen = &run.options.scheme;
    let free = chosen.plan.is_uniform() && chosen.encodings.tensors.is_empty();
    run.options.repair.repair && free && !run.calibration.synthetic
}

/// Whether more is lost than allowed, or so it seems: of few answers one may differ by chance, or none, but where all have
/// moved it is no chance. Repairs begin by measuring on more samples, and end there if these lose no more than allowed.
fn loses_too_much(quality: &Quality) -> bool {
    let seems = |output: &OutputMetrics| output.figures.divergence.is_some_and(|moved| moved > MOVED);
    let surely = |output: &OutputMetrics| is_worse(output, quality.samples, ALLOWED);
    let lost = quality.lost > ALLOWED && (quality.metric.is_some() || quality.outputs.iter().any(surely));
    quality.lost.is_nan() || lost || quality.outputs.iter().any(seems)
}
