//! What a search found, as it is reported.

use super::front::FrontPlan;
use super::{Driver, EvaluatedPlan};
use crate::report::search::{FrontPoint, Outcome, Passes, Sensitivity};
use crate::search::SearchError;
use crate::search::allocate::Point;

impl Driver<'_> {
    /// What the search found.
    pub(super) fn outcome(mut self, found: EvaluatedPlan, reached: bool) -> Result<Outcome, SearchError> {
        let bytes = self.variants.size(&self.space.plan(&found.rungs))?;
        let (all, some) = (self.evaluator.spent(), self.quick.spent());
        // As the runs were counted.
        let once = self.space.macs_at_least().max(1);
        let passes = |macs: u64| macs as f64 / once as f64;
        let point = |point: &Point<FrontPlan>| {
            let FrontPlan { metrics, method, bits, plan } = point.payload.clone();
            FrontPoint { bits, packed_bytes: point.size, metrics, method, plan }
        };
        let sensitivity = |(layer, costs): (usize, &Vec<f64>)| Sensitivity {
            layer: self.space.name(layer).to_owned(),
            costs: costs.iter().enumerate().map(|(rung, &cost)| (self.space.bits(rung).to_string(), cost)).collect(),
        };
        Ok(Outcome {
            method: self.search.method.name(),
            target: self.search.target.to_string(),
            reached,
            plan: self.space.plan(&found.rungs),
            chosen: found.method,
            bits: self.space.average_bits(&found.rungs),
            bytes,
            metrics: found.metrics,
            float: self.evaluator.float().clone(),
            samples: [self.parts.calibration.len(), self.parts.validation.len()],
            proposals: self.proposals.clone(),
            steps: self.steps.clone(),
            sensitivities: self.sensitivities.iter().flatten().enumerate().map(sensitivity).collect(),
            front: self.front.points().iter().map(point).collect(),
            passes: Passes {
                run: passes(self.spent.run + all.run + some.run),
                full: passes(self.spent.full + all.full + some.full),
            },
            resumed: self.journal.resumed(),
        })
    }
}
