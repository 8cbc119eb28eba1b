//! Method `ilp`: the costs of `sensitivity`, and the plan of least total cost within the limit, by an integer program.

use super::Proposer;
use super::SearchRow;
use crate::search::SearchError;
use crate::search::allocate::ilp;
use crate::search::driver::{Driver, EvaluatedPlan, Limit};

/// How often the limit of the program is lowered until the file keeps to the limit asked for.
const ATTEMPTS: usize = 12;

/// The row of this method.
pub(in crate::search) const ROW: SearchRow = SearchRow {
    name: "ilp",
    help: "The plan of least total cost within the limit, by an integer program over the same costs",
    measures: "every layer at every width, alone",
    options: &["search_samples"],
    needs_classes: false,
    repairs: false,
    proposer: &Program,
};

pub(super) struct Program;

impl Proposer for Program {
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError> {
        let problem = driver.problem(limit.measure)?;
        let mut allowed = limit.most;
        for _ in 0..ATTEMPTS {
            let Ok(allocation) = ilp(&problem, allowed, None) else { break };
            let taken = driver.size(limit.measure, &allocation.plan)?;
            if taken <= limit.most {
                return driver.evaluate(ROW.name, allocation.plan);
            }
            // What packing adds is not linear.
            allowed = allowed.saturating_sub(taken - limit.most);
        }
        let bottom = driver.space.bottom();
        driver.evaluate(ROW.name, bottom)
    }
}
