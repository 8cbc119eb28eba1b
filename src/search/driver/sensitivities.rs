//! Sensitivities: what is added to the distance when one layer alone leaves the first rung of the ladder, measured by a run
//! for each, or from gradients ([`gradient`]).
//!
//! Fractions of a bit are not measured: between two whole numbers of bits the error of a code falls by the same factor
//! with every quarter of a bit, 4^−¼ in the bound of rate and distortion, and the distance with it,
//!
//! `d(R) = d(a)^(1−t)·d(b)^t`, `t = (a − R)/(a − b)` for a > R > b.

use super::Driver;
use super::options::Costs;
use crate::calibrate::Shard;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use crate::search::allocate::{self, Problem};
use crate::search::gradient::{self, Network};
use crate::search::space::Measure;
use std::ops::Range;

impl Driver<'_> {
    /// What each layer adds to the distance on each rung, alone; measured on the fewer samples.
    fn sensitivities(&mut self) -> Result<Vec<Vec<f64>>, SearchError> {
        if let Some(costs) = &self.sensitivities {
            return Ok(costs.clone());
        }
        let between: Vec<_> = (0..self.space.rungs()).map(|rung| self.space.between(rung)).collect();
        let measured = self.rungs_measured();
        self.runtime.begin("sensitivity", (self.space.len() * measured.len()) as u64);
        let found = match self.search.costs {
            Costs::Measured => None,
            Costs::Gradient => self.gradient_costs(&measured)?,
        };
        let mut costs = match found {
            Some(costs) => costs,
            None => self.measured_alone(0..self.space.len(), &measured)?,
        };
        for costs in &mut costs {
            for (rung, between) in between.iter().enumerate() {
                if let &Some((above, below, share)) = between {
                    costs[rung] = interpolated(costs[above], costs[below], share);
                }
            }
            let mut least = f64::INFINITY;
            for cost in costs.iter_mut().rev() {
                least = least.min(*cost);
                *cost = least;
            }
        }
        self.runtime.end();
        self.sensitivities = Some(costs.clone());
        Ok(costs)
    }

    /// The rungs that are measured, all but the first and those between two others.
    fn rungs_measured(&self) -> Vec<usize> {
        (1..self.space.rungs()).filter(|&rung| self.space.between(rung).is_none()).collect()
    }

    /// Measures the costs of a part of the layers; returns how many there are.
    pub(super) fn measure_part(&mut self, shard: Shard) -> Result<usize, SearchError> {
        if self.search.costs == Costs::Gradient {
            let reason = "costs from gradients are found for all layers at once, not in parts".to_owned();
            return Err(SearchError::Refused { reason });
        }
        let (layers, rungs) = (shard.items(self.space.len()), self.rungs_measured());
        let count = layers.len() * rungs.len();
        self.runtime.begin("sensitivity", count as u64);
        self.measured_alone(layers, &rungs)?;
        self.runtime.end();
        Ok(count)
    }

    /// Costs of some layers on the rungs measured, each by a run.
    fn measured_alone(&mut self, layers: Range<usize>, measured: &[usize]) -> Result<Vec<Vec<f64>>, SearchError> {
        let top = self.space.top();
        let base = self.space.plan(&top);
        let base = self.quick.evaluate(&mut self.variants, &base, true, &mut self.journal)?.softened_distance();
        let mut costs = vec![vec![0.0; self.space.rungs()]; layers.len()];
        for (layer, costs) in layers.zip(&mut costs) {
            for &rung in measured {
                let mut alone = top.clone();
                alone[layer] = rung;
                let plan = self.space.plan(&alone);
                let metrics = self.quick.evaluate(&mut self.variants, &plan, false, &mut self.journal)?;
                self.answers.observe(&metrics);
                // By chance a layer may do better with fewer bits; more bits are not worse for that.
                costs[rung] = (metrics.softened_distance() - base).max(0.0);
                self.runtime.step(1)?;
            }
        }
        Ok(costs)
    }

    /// Costs on the rungs measured, from gradients; nothing where these give none.
    fn gradient_costs(&mut self, measured: &[usize]) -> Result<Option<Vec<Vec<f64>>>, SearchError> {
        let uniform = |&rung: &usize| self.space.plan(&vec![rung; self.space.len()]);
        let plans: Vec<BitPlan> = [0].iter().chain(measured).map(uniform).collect();
        let key = format!("gradient {}", plans.iter().map(BitPlan::to_json).collect::<Vec<_>>().join(" "));
        let found = if let Some(known) = self.journal.get::<Vec<Vec<f64>>>(&key) {
            known
        } else {
            let network = Network {
                model: self.model,
                placement: &self.placement,
                layers: &self.layers,
                outputs: self.quick.outputs(),
                data: self.quick.data(),
                budget: self.budget(),
                seed: self.options.seed,
            };
            match gradient::costs(&network, &mut self.variants, &plans, self.runtime)? {
                Ok(costs) => costs,
                Err(reason) => {
                    tracing::warn!(%reason, "costs are measured: there are no gradients");
                    return Ok(None);
                }
            }
        };
        self.journal.put(&key, &found)?;
        let mut costs = vec![vec![0.0; self.space.rungs()]; self.space.len()];
        for (costs, found) in costs.iter_mut().zip(&found) {
            for (&rung, cost) in measured.iter().zip(&found[1..]) {
                costs[rung] = (cost - found[0]).max(0.0);
            }
        }
        self.runtime.step((self.space.len() * measured.len()) as u64)?;
        Ok(Some(costs))
    }

    /// The allocation of bits as a problem: sensitivities as costs, and a budget in bytes of the file or whatever is
    /// limited.
    pub(in crate::search) fn problem(&mut self, measure: Measure) -> Result<Problem, SearchError> {
        let costs = self.sensitivities()?;
        let layers = costs.iter().enumerate().map(|(layer, costs)| {
            let choice =
                |(rung, &cost): (usize, &f64)| allocate::Choice { cost, budget: self.space.cost(measure, layer, rung) };
            allocate::Layer { choices: costs.iter().enumerate().map(choice).collect() }
        });
        let layers = layers.collect();
        let fixed = match measure {
            Measure::FileBytes => {
                // Not of the top, where no weight is packed, so that names are kept.
                let bottom = self.space.bottom();
                let weights = self.space.total(measure, &bottom);
                self.size(measure, &bottom)?.saturating_sub(weights)
            }
            _ => 0,
        };
        Ok(Problem::new(layers, fixed)?)
    }
}

/// The distance at a share of the way from one rung to another.
fn interpolated(above: f64, below: f64, share: f64) -> f64 {
    if above > 0.0 && below > 0.0 {
        above.powf(1.0 - share) * below.powf(share)
    } else {
        above + (below - above) * share
    }
}

#[cfg(test)]
mod tests {
    use super::interpolated;

    #[test]
    fn distances_fall_by_the_same_factor_with_every_quarter() {
        let quarters = [0.25, 0.5, 0.75].map(|share| interpolated(1.0, 16.0, share));
        assert!(quarters.iter().zip([2.0, 4.0, 8.0]).all(|(found, wanted)| (found - wanted).abs() < 1e-9));
        assert_eq!(interpolated(0.0, 3.0, 1.0 / 3.0), 1.0);
    }
}
