//! The smallest plan that loses no more than it may.

use super::{Driver, EvaluatedPlan};
use crate::search::SearchError;
use crate::search::space::Rungs;

impl Driver<'_> {
    /// The smallest plan on the way down that loses no more than `drop`, and whether there is one. Where the most bits
    /// lose more, some layers compute in float.
    pub(super) fn within_drop(&mut self, drop: f64) -> Result<(EvaluatedPlan, bool), SearchError> {
        let method = self.search.method.row();
        self.check_classes(method)?;
        let name = method.proposer.descent_name();
        let mut top = self.evaluate(name, self.space.top())?;
        if !self.keeps(&top, drop) {
            match self.leave_worst_float(name, drop)? {
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
            if self.keeps(&found, drop) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        Ok(best)
    }

    /// Whether a plan loses no more than `drop`.
    pub(in crate::search) fn keeps(&self, plan: &EvaluatedPlan, drop: f64) -> bool {
        plan.metrics.lost <= drop
    }

    /// Leaves those layers in float, with integer weights, that alone on integers move the output most: as few as it
    /// takes to lose no more than `drop`. `None` if that is not enough, or all are in float already.
    fn leave_worst_float(&mut self, name: &str, drop: f64) -> Result<Option<EvaluatedPlan>, SearchError> {
        if !self.space.is_on_integers() {
            return Ok(None);
        }
        let integers = self.space.clone();
        let (top, mut order) = (integers.top(), (0..integers.len()).collect::<Vec<usize>>());
        self.space = integers.with_float(&order);
        let all = self.evaluate(name, top.clone())?;
        if !self.keeps(&all, drop) {
            self.space = integers;
            return Ok(None);
        }
        self.runtime.begin("float layers", order.len() as u64);
        let mut moved = Vec::new();
        for layer in order.clone() {
            let others: Vec<usize> = order.iter().copied().filter(|&other| other != layer).collect();
            let plan = integers.with_float(&others).plan(&top);
            moved.push(self.quick.evaluate(&mut self.variants, &plan, false, &mut self.journal)?.distance);
            self.runtime.step(1)?;
        }
        self.runtime.end();
        order.sort_by(|&a, &b| moved[b].total_cmp(&moved[a]));
        let (mut bad, mut good, mut best) = (0, order.len(), all);
        while good - bad > 1 {
            let middle = usize::midpoint(bad, good);
            self.space = integers.with_float(&order[..middle]);
            let found = self.evaluate(name, top.clone())?;
            if self.keeps(&found, drop) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        self.space = integers.with_float(&order[..good]);
        Ok(Some(best))
    }
}
