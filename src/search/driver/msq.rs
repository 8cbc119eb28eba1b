//! Algorithm 1 of the MSQ paper.

use super::{Driver, Found, KEPT};
use crate::Error;
use crate::data::Dataset;
use crate::report::search::Step;
use crate::search::imprint::{Candidate, search_step};
use crate::search::layer_accuracy::LayerAccuracy;
use crate::search::space::Measure;

/// Samples a class below which images are copied for MSQ, and how often.
const LEAST_A_CLASS: usize = 2;
const COPIES: usize = 3;

impl Driver<'_> {
    /// Algorithm 1 of the MSQ paper, until the limit is kept to.
    pub(super) fn msq(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        self.walk_msq(|driver, choice| {
            // Packing adds to what the weights take: far above the limit there is no need to write the file.
            Ok(driver.space.total(measure, choice) <= limit && driver.exact(measure, choice)? <= limit)
        })
    }

    pub(super) fn walk_msq(
        &mut self,
        mut enough: impl FnMut(&mut Self, &[usize]) -> Result<bool, Error>,
    ) -> Result<Found, Error> {
        if !self.judge.is_classifier() {
            return Err(Error::NotAClassifier);
        }
        let budget = self.runtime.memory.map_or(KEPT, |memory| memory / 6);
        let more = self.enough_a_class()?;
        let mut accuracy = LayerAccuracy::new(
            self.model,
            &self.placement,
            &self.layers,
            [more.as_ref().unwrap_or(self.parts.calibration), self.parts.validation],
            &self.search.imprinting,
            budget,
            self.runtime,
        )?;
        let chance = self.search.first_layer.then(|| 1.0 / accuracy.classes().max(1) as f64);
        let mut choice = self.space.top();
        self.runtime.begin("msq", (self.space.len() * (self.space.rungs() - 1)) as u64);
        self.steps.clear();
        while !enough(self, &choice)? {
            let plan = self.space.plan(&choice);
            let accuracies = accuracy.measure(&mut self.variants, &plan, &mut self.journal)?;
            let candidate = |(layer, &accuracy): (usize, &f64)| Candidate {
                accuracy,
                weights: self.space.weights(layer),
                can_go_lower: choice[layer] + 1 < self.space.rungs(),
            };
            let candidates: Vec<Candidate> = accuracies.iter().enumerate().map(candidate).collect();
            let lowered = search_step(&candidates, chance, self.search.step);
            self.steps.push(Step {
                bits: self.space.average_bits(&choice),
                packed_bytes: self.space.total(Measure::PackedBytes, &choice),
                accuracies,
                lowered: lowered.iter().map(|&layer| self.space.name(layer).to_owned()).collect(),
                plan,
            });
            if lowered.is_empty() {
                // The first layer stays where it is; what is left to lower is it.
                break;
            }
            for &layer in &lowered {
                choice[layer] += 1;
            }
            self.runtime.step(lowered.len() as u64)?;
        }
        self.runtime.end();
        let spent = accuracy.spent();
        self.spent.run += spent.run;
        self.spent.full += spent.full;
        self.judged("msq", choice)
    }

    /// More samples to imprint, moved and mirrored, where there are too few for the classes.
    fn enough_a_class(&self) -> Result<Option<Dataset>, Error> {
        let calibration = self.parts.calibration;
        let classes = LayerAccuracy::count_classes(self.model, calibration, self.runtime)?;
        if calibration.len() >= LEAST_A_CLASS * classes {
            return Ok(None);
        }
        let more = calibration.augmented(COPIES, self.options.seed);
        let (samples, copied) = (calibration.len(), more.is_some());
        tracing::warn!(samples, classes, copied, "few samples a class: what MSQ finds about layers is vague");
        Ok(more)
    }
}
