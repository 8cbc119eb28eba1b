//! Repair: bits are exchanged between layers, one up a rung and where needed another down one.
//!
//! Exchanges are tried in the order of what the sensitivities promise, and the distance of the whole plan on the fewer
//! samples decides. Sensitivities of layers alone only nearly add up, so the plan of least total cost can be improved.

use super::{Driver, EvaluatedPlan, Limit};
use crate::search::SearchError;
use crate::search::allocate::swaps;
use crate::search::space::Rungs;

impl Driver<'_> {
    /// The plan after exchanges, or as it was where exchanges do not help on all samples.
    pub(super) fn repair(&mut self, found: EvaluatedPlan, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let rungs = self.exchanged(&found, limit)?;
        if rungs == found.rungs {
            return Ok(found);
        }
        let repaired = self.evaluate(&format!("{} + repair", found.method), rungs)?;
        // What helps on some samples need not on all.
        let is_better = repaired.metrics.softened_distance() < found.metrics.softened_distance();
        Ok(if is_better { repaired } else { found })
    }

    fn exchanged(&mut self, found: &EvaluatedPlan, limit: Limit) -> Result<Rungs, SearchError> {
        let problem = self.problem(limit.measure)?;
        let mut rungs = found.rungs.clone();
        let plan = self.space.plan(&rungs);
        let mut best = self.quick.evaluate(&mut self.variants, &plan, true, &mut self.journal)?.softened_distance();
        let mut left = self.search.repairs;
        self.runtime.begin("repair", left as u64);
        let mut tried: Vec<Rungs> = vec![rungs.clone()];
        'improved: while left > 0 {
            for swap in swaps(&problem, &rungs, limit.most) {
                let next = swap.apply(&rungs);
                if left == 0 {
                    break 'improved;
                }
                if tried.contains(&next) || self.size(limit.measure, &next)? > limit.most {
                    continue;
                }
                left -= 1;
                self.runtime.step(1)?;
                tried.push(next.clone());
                let plan = self.space.plan(&next);
                let metrics = self.quick.evaluate(&mut self.variants, &plan, false, &mut self.journal)?;
                let distance = metrics.softened_distance();
                if distance < best {
                    (best, rungs) = (distance, next);
                    continue 'improved;
                }
            }
            break;
        }
        self.runtime.end();
        Ok(rungs)
    }
}
