//! The front: of all plans measured, those that no other plan beats in size and distance at once.

use super::Driver;
use crate::measure::metrics::Metrics;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use crate::search::allocate::greedy;
use crate::search::driver::methods::sensitivity;
use crate::search::space::Measure;

/// Plans of the greedy path that are measured for the front.
const POINTS: usize = 12;

/// A plan of the front, whose size and quality the front itself keeps.
#[derive(Clone, Debug)]
pub(super) struct FrontPlan {
    pub(super) metrics: Metrics,
    pub(super) method: String,
    pub(super) bits: f64,
    pub(super) plan: BitPlan,
}

impl Driver<'_> {
    /// Measures plans evenly along the way of the sensitivities, where those were measured.
    pub(super) fn fill_front(&mut self) -> Result<(), SearchError> {
        if self.sensitivities.is_none() {
            return Ok(());
        }
        let path = greedy(&self.problem(Measure::PackedBytes)?);
        let last = path.len().saturating_sub(1);
        self.runtime.begin("front", POINTS as u64);
        for point in 0..POINTS {
            let Some(allocation) = path.get(point * last / (POINTS - 1)) else { continue };
            let known = self.proposals.len();
            self.evaluate(sensitivity::ROW.name, allocation.plan.clone())?;
            // Points of the front are no proposals.
            self.proposals.truncate(known);
            self.runtime.step(1)?;
        }
        self.runtime.end();
        Ok(())
    }
}
