//! The smallest plan that loses no more than it may.

use super::{Driver, Found};
use crate::Error;
use crate::comparison::Verdict;
use crate::search::allocate::greedy;
use crate::search::options::Method;
use crate::search::space::{Choice, Measure};

impl Driver<'_> {
    /// The smallest plan on the way down that loses no more than `drop`.
    pub(super) fn smallest_within(&mut self, drop: f64) -> Result<(Found, bool), Error> {
        let float = self.judge.float().accuracy;
        let keeps = |verdict: &Verdict| verdict.lost(float) <= drop;
        if self.search.method == Method::Msq {
            let mut last = None;
            self.walk_msq(|driver, choice| {
                let found = driver.judged("msq", choice.to_vec())?;
                let good = keeps(&found.verdict);
                if good {
                    last = Some(found);
                }
                Ok(!good)
            })?;
            let top = self.space.top();
            return Ok(last.map_or((self.judged("msq", top)?, false), |found| (found, true)));
        }
        let path: Vec<Choice> = if self.search.method == Method::Uniform {
            (0..self.space.rungs()).map(|rung| vec![rung; self.space.len()]).collect()
        } else {
            let problem = self.problem(Measure::PackedBytes)?;
            greedy(&problem).into_iter().map(|allocation| allocation.plan).collect()
        };
        let name = if self.search.method == Method::Uniform { "uniform" } else { "sensitivity" };
        let first = path.first().cloned().unwrap_or_else(|| self.space.top());
        let mut best = self.judged(name, first)?;
        if !keeps(&best.verdict) {
            return Ok((best, false));
        }
        // Less with every step down, but for chance.
        let (mut good, mut bad) = (0, path.len());
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let found = self.judged(name, path[middle].clone())?;
            if keeps(&found.verdict) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        Ok((best, true))
    }
}
