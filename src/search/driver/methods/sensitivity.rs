//! Method `sensitivity`: bits go where they cost least of the output, layer by layer alone, one after the other.

use super::Proposer;
use super::SearchRow;
use crate::search::SearchError;
use crate::search::allocate::greedy;
use crate::search::driver::{Driver, EvaluatedPlan, Limit};
use crate::search::space::{Measure, Rungs};

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "sensitivity",
    help: "Bits go where the output moves least when that layer alone has fewer, greedily",
    measures: "every layer at every width, alone",
    options: &["search_samples", "costs"],
    needs_classes: false,
    repairs: false,
    proposer: &Sensitivity,
};

struct Sensitivity;

impl Proposer for Sensitivity {
    /// The first plan on the way down that keeps to the limit.
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let problem = driver.problem(limit.measure)?;
        let mut rungs = driver.space.bottom();
        for allocation in greedy(&problem) {
            if driver.size(limit.measure, &allocation.plan)? <= limit.most {
                rungs = allocation.plan;
                break;
            }
        }
        driver.evaluate(ROW.name, rungs)
    }
}

/// The plans on the way down, without the one at the top.
pub(in crate::search) fn path(driver: &mut Driver) -> Result<Vec<Rungs>, SearchError> {
    let problem = driver.problem(Measure::PackedBytes)?;
    Ok(greedy(&problem).into_iter().map(|allocation| allocation.plan).collect())
}
