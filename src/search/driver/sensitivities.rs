//! Sensitivities: what is added to the distance when one layer alone leaves the first rung of the ladder.

use super::Driver;
use crate::search::SearchError;
use crate::search::allocate::{self, Problem};
use crate::search::space::Measure;

impl Driver<'_> {
    /// What each layer adds to the distance on each rung, alone; measured on the fewer samples.
    fn sensitivities(&mut self) -> Result<Vec<Vec<f64>>, SearchError> {
        if let Some(costs) = &self.sensitivities {
            return Ok(costs.clone());
        }
        let (layers, rungs) = (self.space.len(), self.space.rungs());
        self.runtime.begin("sensitivity", (layers * (rungs - 1)) as u64);
        let top = self.space.top();
        let base = self.quick.evaluate(&mut self.variants, &self.space.plan(&top), true, &mut self.journal)?.distance;
        let mut costs = vec![vec![0.0; rungs]; layers];
        for (layer, costs) in costs.iter_mut().enumerate() {
            for (rung, cost) in costs.iter_mut().enumerate().skip(1) {
                let mut alone = top.clone();
                alone[layer] = rung;
                let plan = self.space.plan(&alone);
                let metrics = self.quick.evaluate(&mut self.variants, &plan, false, &mut self.journal)?;
                // By chance a layer may do better with fewer bits; more bits are not worse for that.
                *cost = (metrics.distance - base).max(0.0);
                self.runtime.step(1)?;
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
                let top = self.space.top();
                let weights = self.space.total(measure, &top);
                self.size(measure, &top)?.saturating_sub(weights)
            }
            _ => 0,
        };
        Ok(Problem::new(layers, fixed)?)
    }
}
