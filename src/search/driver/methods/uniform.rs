//! Method `uniform`: the same bits in every layer.

use super::Proposer;
use super::SearchRow;
use crate::search::SearchError;
use crate::search::driver::{Driver, EvaluatedPlan, Limit};
use crate::search::space::Rungs;

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "uniform",
    help: "All layers have the same bits",
    measures: "nothing",
    options: &[],
    needs_classes: false,
    repairs: false,
    proposer: &Uniform,
};

struct Uniform;

impl Proposer for Uniform {
    /// The highest rung that keeps to the limit.
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let mut rungs = driver.space.top();
        for rung in 0..driver.space.rungs() {
            rungs = vec![rung; driver.space.len()];
            if driver.size(limit.measure, &rungs)? <= limit.most {
                break;
            }
        }
        driver.evaluate(ROW.name, rungs)
    }

    fn descend(&self, driver: &mut Driver, top: EvaluatedPlan, drop: f64) -> Result<EvaluatedPlan, SearchError> {
        let path: Vec<Rungs> = (1..driver.space.rungs()).map(|rung| vec![rung; driver.space.len()]).collect();
        driver.last_within(ROW.name, &path, top, drop)
    }

    fn descent_name(&self) -> &'static str {
        ROW.name
    }
}
