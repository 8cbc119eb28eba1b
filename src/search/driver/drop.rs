//! The smallest plan that loses no more than it may.

use super::{Driver, Found};
use crate::Error;
use crate::search::allocate::greedy;
use crate::search::options::Method;
use crate::search::space::{Choice, Measure};

impl Driver<'_> {
    /// The smallest plan on the way down that loses no more than `drop`. Where the most bits lose more, some layers
    /// compute in float.
    pub(super) fn smallest_within(&mut self, drop: f64) -> Result<(Found, bool), Error> {
        let name = match self.search.method {
            Method::Msq => "msq",
            Method::Uniform => "uniform",
            Method::Auto | Method::Sensitivity | Method::Ilp => "sensitivity",
        };
        if self.search.method == Method::Msq && !self.judge.is_classifier() {
            return Err(Error::NotAClassifier);
        }
        let mut best = self.judged(name, self.space.top())?;
        if !self.keeps(&best, drop) {
            match self.leave_worst_float(name, drop)? {
                Some(found) => best = found,
                None => return Ok((best, false)),
            }
        }
        if self.search.method == Method::Msq {
            self.walk_msq(|driver, choice| {
                let found = driver.judged("msq", choice.to_vec())?;
                let good = driver.keeps(&found, drop);
                if good {
                    best = found;
                }
                Ok(!good)
            })?;
            return Ok((best, true));
        }
        let path: Vec<Choice> = if self.search.method == Method::Uniform {
            (1..self.space.rungs()).map(|rung| vec![rung; self.space.len()]).collect()
        } else {
            let problem = self.problem(Measure::PackedBytes)?;
            greedy(&problem).into_iter().map(|allocation| allocation.plan).collect()
        };
        // Less with every step down, but for chance. Before the first is the top.
        let (mut good, mut bad) = (0, path.len() + 1);
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let found = self.judged(name, path[middle - 1].clone())?;
            if self.keeps(&found, drop) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        Ok((best, true))
    }

    fn keeps(&self, found: &Found, drop: f64) -> bool {
        found.verdict.lost(self.judge.float().accuracy) <= drop
    }

    /// Leaves those layers in float, with integer weights, that alone on integers move the output most: as few as it
    /// takes to lose no more than `drop`. Nothing if that is not enough, or all are in float already.
    fn leave_worst_float(&mut self, name: &str, drop: f64) -> Result<Option<Found>, Error> {
        if !self.space.is_on_integers() {
            return Ok(None);
        }
        let integers = self.space.clone();
        let (top, mut order) = (integers.top(), (0..integers.len()).collect::<Vec<usize>>());
        self.space = integers.with_float(&order);
        let all = self.judged(name, top.clone())?;
        if !self.keeps(&all, drop) {
            self.space = integers;
            return Ok(None);
        }
        self.runtime.begin("float layers", order.len() as u64);
        let mut moved = Vec::new();
        for layer in order.clone() {
            let others: Vec<usize> = order.iter().copied().filter(|&other| other != layer).collect();
            let plan = integers.with_float(&others).plan(&top);
            moved.push(self.quick.judge(&mut self.variants, &plan, false, &mut self.journal)?.distance);
            self.runtime.step(1)?;
        }
        self.runtime.end();
        order.sort_by(|&a, &b| moved[b].total_cmp(&moved[a]));
        let (mut bad, mut good, mut best) = (0, order.len(), all);
        while good - bad > 1 {
            let middle = usize::midpoint(bad, good);
            self.space = integers.with_float(&order[..middle]);
            let found = self.judged(name, top.clone())?;
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
