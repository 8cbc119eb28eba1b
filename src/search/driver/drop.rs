//! The smallest plan that loses no more than it may.

use super::{Driver, EvaluatedPlan};
use crate::data::Groups;
use crate::measure::metrics::Metrics;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use crate::search::guard::{Goal, Work, mend};
use crate::search::space::Rungs;

impl Driver<'_> {
    /// The smallest plan on the way down that loses no more than `drop`, and whether there is one. Where the most bits
    /// lose more, it is repaired first. Refused where the samples do not show what is lost.
    pub(super) fn within_drop(&mut self, drop: f64) -> Result<(EvaluatedPlan, bool), SearchError> {
        let method = self.search.method.row();
        self.check_classes(method)?;
        let name = method.proposer.descent_name();
        let mut top = self.evaluate(name, self.space.top())?;
        if !top.metrics.is_measured() {
            let reason =
                "in no sample do the outputs hold anything that can be compared, so no loss can be measured".to_owned();
            return Err(SearchError::Refused { reason });
        }
        if self.likely(&top) > drop {
            match self.repaired(name, drop)? {
                Some(found) => top = found,
                None => return Ok((top, false)),
            }
        }
        Ok((method.proposer.descend(self, top, drop)?, true))
    }

    /// The last plan of a path from large to small that loses no more than `drop`, by bisection; `top` if none does.
    pub(in crate::search) fn last_within(
        &mut self,
        name: &str,
        path: &[Rungs],
        top: EvaluatedPlan,
        drop: f64,
    ) -> Result<EvaluatedPlan, SearchError> {
        // Less with every step down, but for chance. Before the first is the top.
        let (mut good, mut bad, mut best) = (0, path.len() + 1, top);
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let found = self.evaluate(name, path[middle - 1].clone())?;
            if self.is_within(drop, &found) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        Ok(best)
    }

    /// The loss that a plan is likely to have on other samples.
    fn likely(&self, found: &EvaluatedPlan) -> f64 {
        self.answers.likely(&found.metrics, self.evaluator.data().len())
    }

    /// Whether a plan loses no more than `drop`, and is not as small as one that lost more once it was carried out.
    pub(in crate::search) fn is_within(&self, drop: f64, found: &EvaluatedPlan) -> bool {
        let is_large = |bits: f64| self.space.average_bits(&found.rungs) > bits;
        self.likely(found) <= drop && self.search.too_few_bits.is_none_or(is_large)
    }

    /// Repairs the plan with the most bits, as the guard does: by other ranges, then by layers and operators in float, as
    /// few as it takes to lose no more than `drop`. All plans after it have these repairs. `None` if no repair is enough.
    fn repaired(&mut self, name: &str, drop: f64) -> Result<Option<EvaluatedPlan>, SearchError> {
        if !self.space.is_on_integers() {
            return Ok(None);
        }
        let integers = self.space.clone();
        let base = integers.plan(&integers.top());
        let scheme = Scheme::new(self.model, &base, self.options)?;
        let goal = Goal { allowed: drop, strict: true };
        let (evaluator, variants, journal) = (&mut self.evaluator, &mut self.variants, &mut self.journal);
        let answers = &mut self.answers;
        let mut measure = |plan: &BitPlan| {
            let metrics = evaluator.evaluate(variants, plan, false, journal)?;
            answers.observe(&metrics);
            Ok(Metrics { lost: answers.likely(&metrics, evaluator.data().len()), ..metrics })
        };
        let samples = Groups::one(self.parts.validation.clone());
        let work = Work { samples: &samples, calibrated: self.parts.calibration.len(), spares: false };
        let found = mend(self.model, &scheme, self.options, work, goal, &mut measure, self.runtime)?;
        self.space = integers.repaired(&found.plan);
        let top = self.evaluate(name, self.space.top())?;
        if self.likely(&top) <= drop {
            return Ok(Some(top));
        }
        self.space = integers;
        Ok(None)
    }
}
