//! Plans that are tried, within a budget of work.
//!
//! The budget is counted, not measured: a trial takes [`OVERHEAD`] seconds and the multiply-accumulates of the network over
//! the samples at [`MACS_PER_SECOND`](crate::runtime::MACS_PER_SECOND). So the same run tries the same plans on a slow machine and on a fast one, with one
//! thread and with many, and its result depends on no clock.

use crate::measure::metrics::Metrics;
use crate::report::repair::RepairTrial;
use crate::runtime::ErrorKind;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use std::collections::HashMap;

/// Seconds to build and load a network.
pub(super) const OVERHEAD: f64 = 0.1;

/// Measures plans.
pub(in crate::search) type Measure<'a> = dyn FnMut(&BitPlan) -> Result<Metrics, SearchError> + 'a;

/// Plans that are tried.
pub(super) struct Trials<'a, 'm> {
    measure: &'a mut Measure<'m>,
    /// Seconds of work that a trial takes.
    cost: f64,
    /// Seconds of work that are left.
    left: f64,
    known: HashMap<String, Metrics>,
    /// What was tried.
    pub made: Vec<RepairTrial>,
    /// Whether a trial was asked for that the budget had no room for.
    pub cut_short: bool,
}

impl<'a, 'm> Trials<'a, 'm> {
    pub(super) fn new(measure: &'a mut Measure<'m>, cost: f64, budget: f64) -> Self {
        Self { measure, cost, left: budget, known: HashMap::new(), made: Vec::new(), cut_short: false }
    }

    /// Metrics of a plan; `None` where the budget has no room for it, or the plan cannot be built.
    pub(super) fn metrics(&mut self, what: &str, plan: &BitPlan) -> Result<Option<Metrics>, SearchError> {
        let key = plan.to_line();
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(known.clone()));
        }
        if self.left < self.cost {
            self.cut_short = true;
            return Ok(None);
        }
        self.left -= self.cost;
        let metrics = match (self.measure)(plan) {
            Ok(metrics) => metrics,
            Err(error @ (SearchError::Solve(_) | SearchError::Scheme(_))) if error.kind() != ErrorKind::Cancelled => {
                tracing::info!(%error, what, "a repair cannot be carried out");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        tracing::info!(what, distance = metrics.distance, "tried");
        self.known.insert(key, metrics.clone());
        Ok(Some(metrics))
    }

    /// How many more trials the budget has room for.
    pub(super) fn left(&self) -> usize {
        (self.left / self.cost) as usize
    }

    /// Writes down what came of a trial.
    pub(super) fn note(&mut self, what: String, metrics: &Metrics, kept: bool) {
        self.made.push(RepairTrial { what, lost: metrics.lost, distance: metrics.distance, kept });
    }
}
