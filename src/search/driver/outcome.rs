//! What a search found, as it is reported.

use super::front::FrontPlan;
use super::options::Target;
use super::{Driver, EvaluatedPlan};
use crate::report::search::{FrontPoint, Outcome, Passes, Sensitivity};
use crate::search::SearchError;
use crate::search::allocate::Point;

impl Driver<'_> {
    /// What a plan that misses the target reaches of it.
    fn nearest(&self, rungs: &[usize], bytes: u64) -> Option<String> {
        let [float, stored] = self.beside;
        match self.search.target {
            Target::Ratio(_) => {
                let ratio =
                    (self.space.float_bytes() + float) as f64 / (self.space.packed_bytes(rungs) + stored).max(1) as f64;
                let beside = if stored == 0 {
                    String::new()
                } else {
                    format!(", {stored} bytes of them are in no layer that has a choice of bits")
                };
                Some(format!("weights packed {ratio:.2} times{beside}"))
            }
            Target::Bits(_) => Some(format!("{:.2} bits a weight", self.space.average_bits(rungs))),
            Target::Size(_) => Some(format!("a file of {bytes} bytes")),
            Target::MaxDrop(_) | Target::MacBits(_) => None,
        }
    }

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
            nearest: (!reached).then(|| self.nearest(&found.rungs, bytes)).flatten(),
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
