//! Method `msq`: algorithm 1 of the MSQ paper.
//!
//! All layers start with the most bits. While the plan is above the target, measure `Acc_1` to `Acc_N`, the share that a
//! task predictor behind each layer gets right, and lower the layer with the least `|Acc_i − Acc_(i−1)|` that can go
//! lower ([`search_step`]).

use super::Proposer;
use super::SearchRow;
use crate::data::Dataset;
use crate::report::search::Step;
use crate::search::SearchError;
use crate::search::driver::{Driver, EvaluatedPlan, Limit};
use crate::search::imprint::{Candidate, search_step};
use crate::search::layer_accuracy::LayerAccuracy;
use crate::search::space::Rungs;
use std::collections::HashSet;

/// Samples per class below which images are copied for MSQ, and how often.
const LEAST_PER_CLASS: usize = 2;
const COPIES: usize = 3;

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "msq",
    help: "Bits go where a layer adds little to what can be predicted from its activation",
    measures: "task predictors at every layer, each time a layer was lowered",
    options: &["step", "search_first_layer", "pyramid", "imprint_norm", "imprint_weight", "tap"],
    needs_classes: true,
    repairs: false,
    proposer: &Msq,
};

pub(super) struct Msq;

impl Proposer for Msq {
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let rungs = walk(driver, |driver, rungs| {
            // Packing adds to what the weights take: far above the limit there is no need to write the file.
            let weights = driver.space.total(limit.measure, rungs);
            Ok(weights <= limit.most && driver.size(limit.measure, rungs)? <= limit.most)
        })?;
        let rungs = raised(driver, rungs, limit)?;
        driver.evaluate(ROW.name, rungs)
    }

    fn descend(&self, driver: &mut Driver, top: EvaluatedPlan, drop: f64) -> Result<EvaluatedPlan, SearchError> {
        let mut best = top;
        walk(driver, |driver, rungs| {
            let found = driver.evaluate(ROW.name, rungs.to_vec())?;
            let keeps = driver.is_within(drop, &found);
            if keeps {
                best = found;
            }
            Ok(!keeps)
        })?;
        Ok(best)
    }

    fn descent_name(&self) -> &'static str {
        ROW.name
    }
}

/// Raises the layers that were lowered last by fractions of a bit, as far as the limit allows.
fn raised(driver: &mut Driver, mut rungs: Rungs, limit: Limit) -> Result<Rungs, SearchError> {
    let mut lowered: Vec<String> = driver.steps.iter().rev().flat_map(|step| step.lowered.clone()).collect();
    let mut seen = HashSet::new();
    lowered.retain(|name| seen.insert(name.clone()));
    for name in lowered {
        let Some(layer) = (0..driver.space.len()).find(|&layer| driver.space.name(layer) == name) else { continue };
        while rungs[layer] > 0 && driver.space.between(rungs[layer] - 1).is_some() {
            rungs[layer] -= 1;
            if driver.space.total(limit.measure, &rungs) > limit.most
                || driver.size(limit.measure, &rungs)? > limit.most
            {
                rungs[layer] += 1;
                break;
            }
        }
    }
    Ok(rungs)
}

/// Lowers layers by whole bits until a plan is enough, or none can go lower.
fn walk(
    driver: &mut Driver,
    mut enough: impl FnMut(&mut Driver, &[usize]) -> Result<bool, SearchError>,
) -> Result<Rungs, SearchError> {
    let more = enough_per_class(driver)?;
    let mut accuracy = LayerAccuracy::new(
        driver.model,
        &driver.placement,
        &driver.layers,
        [more.as_ref().unwrap_or(driver.parts.calibration), driver.parts.validation],
        &driver.search.imprinting,
        driver.budget(),
        driver.runtime,
    )?;
    let chance = driver.search.first_layer.then(|| 1.0 / accuracy.classes().max(1) as f64);
    let mut rungs = driver.space.top();
    let steps = (1..driver.space.rungs()).filter(|&rung| driver.space.between(rung).is_none()).count();
    driver.runtime.begin("msq", (driver.space.len() * steps) as u64);
    driver.steps.clear();
    while !enough(driver, &rungs)? {
        let plan = driver.space.plan(&rungs);
        let accuracies = accuracy.measure(&mut driver.variants, &plan, &mut driver.journal)?;
        let candidate = |(layer, &accuracy): (usize, &f64)| Candidate {
            accuracy,
            weights: driver.space.weights(layer),
            can_go_lower: driver.space.next_whole(rungs[layer]).is_some(),
        };
        let candidates: Vec<Candidate> = accuracies.iter().enumerate().map(candidate).collect();
        let lowered = search_step(&candidates, chance, driver.search.step);
        driver.steps.push(Step {
            bits: driver.space.average_bits(&rungs),
            packed_bytes: driver.space.packed_bytes(&rungs),
            accuracies,
            lowered: lowered.iter().map(|&layer| driver.space.name(layer).to_owned()).collect(),
            plan,
        });
        if lowered.is_empty() {
            // The first layer stays where it is; all others are at the last rung.
            break;
        }
        for &layer in &lowered {
            rungs[layer] = driver.space.next_whole(rungs[layer]).unwrap_or(rungs[layer]);
        }
        driver.runtime.step(lowered.len() as u64)?;
    }
    driver.runtime.end();
    driver.count(accuracy.spent());
    Ok(rungs)
}

/// More samples to imprint, moved and mirrored, where there are too few for the classes.
fn enough_per_class(driver: &Driver) -> Result<Option<Dataset>, SearchError> {
    let calibration = driver.parts.calibration;
    let classes = LayerAccuracy::count_classes(driver.model, calibration, driver.runtime)?;
    if calibration.len() >= LEAST_PER_CLASS * classes {
        return Ok(None);
    }
    let more = calibration.augmented(COPIES, driver.options.seed);
    let (samples, copied) = (calibration.len(), more.is_some());
    tracing::warn!(samples, classes, copied, "few samples a class: what MSQ finds about layers is vague");
    Ok(more)
}
