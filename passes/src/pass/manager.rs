//! Runs passes in order.

use crate::ir::{Model, check};
use crate::pass::{Outcome, Pass, PassError};
use std::time::{Duration, Instant};

/// What one pass of a run did.
#[derive(Clone, Debug)]
pub struct Record {
    /// The pass.
    pub pass: &'static str,
    /// What it did.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
}

type Inspect<'a> = Box<dyn FnMut(&str, &Model) + 'a>;

/// An ordered list of passes. In debug and test builds the validator runs before the first and after each.
#[derive(Default)]
pub struct Manager<'a> {
    passes: Vec<Box<dyn Pass + 'a>>,
    validate: bool,
    after: Option<Inspect<'a>>,
}

impl<'a> Manager<'a> {
    /// An empty list.
    pub fn new() -> Self {
        Self { passes: Vec::new(), validate: cfg!(debug_assertions), after: None }
    }

    /// Appends a pass.
    #[must_use]
    pub fn with(mut self, pass: impl Pass + 'a) -> Self {
        self.passes.push(Box::new(pass));
        self
    }

    /// Sets whether the validator runs around every pass, whatever the build.
    #[must_use]
    pub fn validating(mut self, validate: bool) -> Self {
        self.validate = validate;
        self
    }

    /// Calls `after` with the name of each pass and the model as the pass left it.
    #[must_use]
    pub fn inspecting(mut self, after: impl FnMut(&str, &Model) + 'a) -> Self {
        self.after = Some(Box::new(after));
        self
    }

    /// Runs the passes. Nodes are put back in topological order after each.
    pub fn run(mut self, model: &mut Model) -> Result<Vec<Record>, PassError> {
        if self.validate {
            check(model).map_err(PassError::Invalid)?;
        }
        let mut records = Vec::with_capacity(self.passes.len());
        for pass in &self.passes {
            records.push(run_pass(pass.as_ref(), model, self.validate)?);
            if let Some(after) = &mut self.after {
                after(pass.name(), model);
            }
        }
        Ok(records)
    }
}

/// Runs one pass, sorts the nodes and, if asked to, validates the result.
pub fn run_pass(pass: &dyn Pass, model: &mut Model, validate: bool) -> Result<Record, PassError> {
    let name = pass.name();
    let within = |source| PassError::In { pass: name, source: Box::new(source) };
    let start = Instant::now();
    pass.requires(model)?;
    let outcome = pass.run(model).map_err(within)?;
    model.graph.sort().map_err(|e| within(e.into()))?;
    let time = start.elapsed();
    if validate {
        check(model).map_err(|error| PassError::Broken { pass: name, error })?;
    }
    tracing::debug!(pass = name, changed = outcome.changed, declined = outcome.declined.len(), ?time, "pass");
    Ok(Record { pass: name, outcome, time })
}
