//! Method `auto`: the better of `ilp` and, for classifiers, `msq`, repaired.

use super::Proposer;
use super::SearchRow;
use super::ilp::Program;
use super::msq::Msq;
use crate::search::SearchError;
use crate::search::driver::{Driver, EvaluatedPlan, Limit};

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "auto",
    help: "The better of ilp and, for classifiers, msq, repaired by exchanges of bits between layers",
    measures: "what both measure, and each exchange",
    options: &["search_samples", "costs", "repairs"],
    needs_classes: false,
    repairs: true,
    proposer: &Auto,
};

struct Auto;

impl Proposer for Auto {
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let best = Program.propose(driver, limit)?;
        if !driver.is_classifier() {
            return Ok(best);
        }
        let other = Msq.propose(driver, limit)?;
        let is_better = other.metrics.softened_distance() < best.metrics.softened_distance();
        Ok(if is_better { other } else { best })
    }
}
