//! The guard: a result that loses too much is repaired, and made again by the plan that repairs it.

use super::calibration::calibrate;
use super::{Calibration, Made, Run, cross_validation};
use crate::calibrate::observe::Seen;
use crate::data::Groups;
use crate::error::Error;
use crate::measure::metrics::OutputMetrics;
use crate::report::Quality;
use crate::report::repair::Repair;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{BitPlan, LayerPlan, WeightBits};
use crate::search::guard::{Goal, Guarded, Network, SEVERE, Work, is_worse, loses, repair};

/// The share of answers, or of the variance of a channel, that a result may lose before it is repaired.
const ALLOWED: f64 = 0.01;

/// Samples that what is stated of a repaired result is measured on, at least and at most.
const UNSEEN: usize = 8;
const COMPARED: usize = 64;

/// Divergence from the float answers in nats from which on answers are looked at more closely.
const MOVED: f64 = 0.02;

/// The result, or another one that loses less, and what was repaired.
pub(super) fn guarded(run: Run, mut made: Made, seen: &Seen) -> Result<(Made, Option<Repair>), Error> {
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
    let (again, report) = repaired(run, &made, seen)?;
    let chosen = again.as_ref().filter(|_| report.ranges > 0 && made.folds.is_none());
    let (again, report) = match chosen {
        Some(chosen) if cross_validation::is_needed(run, &chosen.scheme, seen, &chosen.observed)? => {
            // Such ranges were judged on the samples that they are from, and lose more on others.
            let folds = cross_validation::folds(run, &made.scheme, (&made.observed, &made.solved))?;
            made.folds = Some(folds);
            repaired(run, &made, seen)?
        }
        _ => (again, report),
    };
    Ok((again.unwrap_or(made), Some(report)))
}

/// The result by the plan that repairs it, if there is one, and what was tried.
fn repaired(run: Run, made: &Made, seen: &Seen) -> Result<(Option<Made>, Repair), Error> {
    let Run { float: model, outputs, calibration, validation, options, runtime, .. } = run;
    let Made { scheme, observed, solved, folds, .. } = made;
    // Ranges are judged on samples that they were not chosen from: few of them mislead less than those.
    let (samples, networks) = if let Some(folds) = folds {
        (folds.groups(), folds.networks())
    } else {
        let data = validation.unwrap_or(calibration.data).clone();
        (Groups::one(data), vec![Network { seen, observed, solved }])
    };
    let network = Guarded { model, compared: (outputs, calibration.metric), scheme, networks: &networks, options };
    let others = run.others.filter(|others| others.len() >= UNSEEN);
    let work = Work { samples: &samples, calibrated: calibration.data.len(), spares: others.is_none() };
    let goal = Goal { allowed: ALLOWED, strict: false };
    let found = repair(network, work, goal, runtime)?;
    if found.plan == scheme.plan {
        return Ok((None, found.report));
    }
    // What is stated of the result is measured on samples that had no part in its choice, where there are enough.
    let held_out = made.quality.as_ref().is_some_and(|quality| quality.held_out);
    let unseen = others.cloned().unwrap_or_else(|| samples.data().subset(&found.spared));
    let unseen = Some(unseen).filter(|unseen| unseen.len() >= UNSEEN);
    let compared = folds.as_ref().map(|folds| match &unseen {
        Some(_) => folds.places(found.spared),
        None => folds.places(0..samples.data().len()),
    });
    let apart = unseen.as_ref().filter(|_| folds.is_none());
    let apart = apart.map(|unseen| unseen.split(COMPARED.min(unseen.len())).1);
    let run = Run { validation: apart.as_ref().or(validation), compared: compared.as_deref(), ..run };
    let mut again = made_by(run, &found.plan, scheme, seen)?;
    if let Some(quality) = &mut again.quality {
        quality.held_out = if apart.is_some() { held_out } else { quality.held_out };
        quality.chosen_by = unseen.is_none();
    }
    Ok((Some(again), found.report))
}

/// The result of another plan.
fn made_by(run: Run, plan: &BitPlan, before: &Scheme, seen: &Seen) -> Result<Made, Error> {
    let Run { float, calibration, options, runtime, .. } = run;
    let scheme = Scheme::within(float, plan, options, before.coverage.clone())?;
    let constant = |value| float.graph.constant(value).is_some();
    let observed = |value| seen.has(float.graph.value(value).name());
    if scheme.placement.roots().all(|value| constant(value) || observed(value)) {
        return run.make(scheme, seen);
    }
    // Values are looked at that were not when statistics were counted elsewhere.
    let calibration = Calibration { statistics: None, ..calibration };
    let (scheme, seen) = calibrate(float, plan, calibration, options, runtime)?;
    run.make(scheme, &seen)
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
