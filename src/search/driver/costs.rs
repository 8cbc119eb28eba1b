//! Plans from what each layer costs alone: sensitivities, the integer program, and repair.

use super::{Driver, Found};
use crate::Error;
use crate::search::allocate::{self, Problem, greedy, ilp, swaps};
use crate::search::space::{Choice, Measure};

/// How often the program's limit is lowered until the file keeps to it.
const ATTEMPTS: usize = 12;
/// Plans of the greedy path that are measured for the front.
const FRONT: usize = 12;

impl Driver<'_> {
    /// What each layer adds to the distance on each rung, alone.
    pub(super) fn costs(&mut self) -> Result<Vec<Vec<f64>>, Error> {
        if let Some(costs) = &self.costs {
            return Ok(costs.clone());
        }
        let (layers, rungs) = (self.space.len(), self.space.rungs());
        self.runtime.begin("sensitivity", (layers * (rungs - 1)) as u64);
        let top = self.space.top();
        let base = self.quick.judge(&mut self.variants, &self.space.plan(&top), true, &mut self.journal)?.distance;
        let mut costs = vec![vec![0.0; rungs]; layers];
        for (layer, costs) in costs.iter_mut().enumerate() {
            for (rung, cost) in costs.iter_mut().enumerate().skip(1) {
                let mut choice = top.clone();
                choice[layer] = rung;
                let plan = self.space.plan(&choice);
                let verdict = self.quick.judge(&mut self.variants, &plan, false, &mut self.journal)?;
                // By chance a layer may do better with fewer bits; more bits are not worse for that.
                *cost = (verdict.distance - base).max(0.0);
                self.runtime.step(1)?;
            }
            let mut least = f64::INFINITY;
            for cost in costs.iter_mut().rev() {
                least = least.min(*cost);
                *cost = least;
            }
        }
        self.runtime.end();
        self.costs = Some(costs.clone());
        Ok(costs)
    }

    /// The costs as a problem, in bytes of the file or whatever is limited.
    pub(super) fn problem(&mut self, measure: Measure) -> Result<Problem, Error> {
        let costs = self.costs()?;
        let layers = costs.iter().enumerate().map(|(layer, costs)| {
            let choice =
                |(rung, &cost): (usize, &f64)| allocate::Choice { cost, budget: self.space.cost(measure, layer, rung) };
            allocate::Layer { choices: costs.iter().enumerate().map(choice).collect() }
        });
        let layers = layers.collect();
        let fixed = match measure {
            Measure::FileBytes => {
                let top = self.space.top();
                let weights = self.space.total(measure, &top);
                self.exact(measure, &top)?.saturating_sub(weights)
            }
            _ => 0,
        };
        Problem::new(layers, fixed).map_err(|error| Error::Search { reason: error.to_string() })
    }

    /// Sensitivities, greedily: the first plan on the way down that keeps to the limit.
    pub(super) fn sensitivity(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        for allocation in greedy(&problem) {
            if self.exact(measure, &allocation.plan)? <= limit {
                return self.judged("sensitivity", allocation.plan);
            }
        }
        let bottom = self.space.bottom();
        self.judged("sensitivity", bottom)
    }

    /// Sensitivities, the plan of least total cost within the limit.
    pub(super) fn program(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        let mut allowed = limit;
        for _ in 0..ATTEMPTS {
            let Ok(allocation) = ilp(&problem, allowed, None) else { break };
            let taken = self.exact(measure, &allocation.plan)?;
            if taken <= limit {
                return self.judged("ilp", allocation.plan);
            }
            // What packing adds is not linear.
            allowed = allowed.saturating_sub(taken - limit);
        }
        let bottom = self.space.bottom();
        self.judged("ilp", bottom)
    }

    /// The highest rung for all that keeps to the limit.
    pub(super) fn uniform(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        for rung in 0..self.space.rungs() {
            let choice = vec![rung; self.space.len()];
            if self.exact(measure, &choice)? <= limit {
                return self.judged("uniform", choice);
            }
        }
        let bottom = self.space.bottom();
        self.judged("uniform", bottom)
    }

    /// Exchanges bits between layers while the whole plan gets better, by what is measured on the fewer samples.
    pub(super) fn repair(&mut self, found: Found, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        let mut choice = found.choice.clone();
        let mut best =
            self.quick.judge(&mut self.variants, &self.space.plan(&choice), true, &mut self.journal)?.distance;
        let mut left = self.search.repairs;
        self.runtime.begin("repair", left as u64);
        let mut tried: Vec<Choice> = vec![choice.clone()];
        'improved: while left > 0 {
            for swap in swaps(&problem, &choice, limit) {
                let next = swap.apply(&choice);
                if left == 0 {
                    break 'improved;
                }
                if tried.contains(&next) || self.exact(measure, &next)? > limit {
                    continue;
                }
                left -= 1;
                self.runtime.step(1)?;
                tried.push(next.clone());
                let plan = self.space.plan(&next);
                let distance = self.quick.judge(&mut self.variants, &plan, false, &mut self.journal)?.distance;
                if distance < best {
                    (best, choice) = (distance, next);
                    continue 'improved;
                }
            }
            break;
        }
        self.runtime.end();
        if choice == found.choice {
            return Ok(found);
        }
        let repaired = self.judged(&format!("{} + repair", found.method), choice)?;
        // What helps on some samples need not on all.
        Ok(if repaired.verdict.distance < found.verdict.distance { repaired } else { found })
    }

    /// Measures plans evenly along the way of the sensitivities.
    pub(super) fn fill_front(&mut self) -> Result<(), Error> {
        if self.costs.is_none() {
            return Ok(());
        }
        let problem = self.problem(Measure::PackedBytes)?;
        let path = greedy(&problem);
        let last = path.len().saturating_sub(1);
        self.runtime.begin("front", FRONT as u64);
        for point in 0..FRONT {
            let Some(allocation) = path.get(point * last / (FRONT - 1)) else { continue };
            let known = self.proposals.len();
            self.judged("sensitivity", allocation.plan.clone())?;
            // Not a proposal.
            self.proposals.truncate(known);
            self.runtime.step(1)?;
        }
        self.runtime.end();
        Ok(())
    }
}
