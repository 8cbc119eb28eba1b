//! The search methods, one a file: each proposes a plan within a limit, and finds the smallest plan that loses no more than
//! it may.

pub(super) mod auto;
pub(super) mod ilp;
pub(super) mod msq;
pub(super) mod sensitivity;
pub(super) mod uniform;

use super::{Driver, EvaluatedPlan, Limit};
use crate::search::SearchError;

/// What there is to know of a search method.
pub struct SearchRow {
    /// Its name in options, reports and messages.
    pub name: &'static str,
    /// One line for the command line's help.
    pub help: &'static str,
    /// What it measures, for the documentation.
    pub measures: &'static str,
    /// The keys of [`SearchOptions`](crate::search::SearchOptions) that belong to it.
    pub options: &'static [&'static str],
    /// Whether it needs a classifier: one output of class scores `[N, C]`.
    pub needs_classes: bool,
    /// Whether its proposal is repaired: bits are exchanged between layers while the whole plan gets better.
    pub repairs: bool,
    /// Proposes plans.
    pub(in crate::search) proposer: &'static dyn Proposer,
}

/// A search method at work.
pub(in crate::search) trait Proposer: Sync {
    /// A plan that keeps to the limit, evaluated on all validation samples. The plan with the fewest bits does.
    fn propose(&self, driver: &mut Driver, limit: Limit) -> Result<EvaluatedPlan, SearchError>;

    /// The smallest plan on this method's way down from `top`, the plan with the most bits, that loses no more than
    /// `drop`. `top` itself does not lose more.
    fn descend(&self, driver: &mut Driver, top: EvaluatedPlan, drop: f64) -> Result<EvaluatedPlan, SearchError> {
        let path = sensitivity::path(driver)?;
        driver.last_within(self.descent_name(), &path, top, drop)
    }

    /// The name under which plans on the way down are reported.
    fn descent_name(&self) -> &'static str {
        sensitivity::ROW.name
    }
}
