//! Pipelines: ordered lists of passes, each pass with the reason for its place.

use crate::ir::{Model, Node, NodeId, check};
use crate::pass::{Outcome, Pass, PassError};
use std::error::Error;
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

/// Is shown what each pass of a pipeline leaves.
pub trait PassObserver: Sync {
    /// `model` is as the pass of `record`, in the pipeline of this name, left it. An error ends the run.
    fn after(&self, pipeline: &str, record: &Record, model: &Model) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A pass and its place.
struct Step<'a> {
    pass: Box<dyn Pass + 'a>,
    /// Why it stands where it stands.
    place: &'static str,
    /// The option that decides whether it runs.
    option: Option<&'static str>,
    /// Whether it runs.
    runs: bool,
}

/// An ordered list of passes. In debug and test builds the validator runs before the first and after each.
pub struct Pipeline<'a> {
    name: &'static str,
    about: &'static str,
    steps: Vec<Step<'a>>,
    sealed: Vec<String>,
    observer: Option<&'a dyn PassObserver>,
}

/// The domain of nodes that no pass may touch.
const SEALED: &str = "sealed";

/// What is to be said of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineDescription {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its passes, in order.
    pub steps: Vec<StepDescription>,
}

/// What is to be said of a pass in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDescription {
    /// The pass.
    pub pass: &'static str,
    /// What the pass does.
    pub about: &'static str,
    /// Why it stands where it stands.
    pub place: &'static str,
    /// The option that decides whether it runs; it always runs where there is none.
    pub option: Option<&'static str>,
}

impl<'a> Pipeline<'a> {
    /// An empty list.
    pub(crate) fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, steps: Vec::new(), sealed: Vec::new(), observer: None }
    }

    /// Appends a pass, with the reason for its place.
    #[must_use]
    pub(crate) fn with(mut self, pass: impl Pass + 'a, place: &'static str) -> Self {
        self.steps.push(Step { pass: Box::new(pass), place, option: None, runs: true });
        self
    }

    /// Appends a pass that runs if an option says so.
    #[must_use]
    pub(crate) fn with_if(
        mut self,
        runs: bool,
        option: &'static str,
        pass: impl Pass + 'a,
        place: &'static str,
    ) -> Self {
        self.steps.push(Step { pass: Box::new(pass), place, option: Some(option), runs });
        self
    }

    /// Keeps the nodes of these operators as they are: while the passes run they are of a domain that none of them knows.
    #[must_use]
    pub(crate) fn sealing(self, operators: Vec<String>) -> Self {
        Self { sealed: operators, ..self }
    }

    /// Shows `observer` what each pass leaves.
    #[must_use]
    pub fn observed(self, observer: Option<&'a dyn PassObserver>) -> Self {
        Self { observer, ..self }
    }

    /// Runs the passes. Nodes are put back in topological order after each.
    pub fn run(self, model: &mut Model) -> Result<Vec<Record>, PassError> {
        let is_sealed = |node: &Node| self.sealed.iter().any(|op| node.is(op));
        let nodes = model.graph.nodes();
        let sealed: Vec<NodeId> = nodes.filter(|(_, node)| is_sealed(node)).map(|(id, _)| id).collect();
        if sealed.is_empty() {
            return self.run_steps(model);
        }
        for &id in &sealed {
            model.graph.set_domain(id, SEALED);
        }
        model.set_opset(SEALED, 1);
        let records = self.run_steps(model);
        for id in sealed {
            if model.graph.contains_node(id) {
                model.graph.set_domain(id, "");
            }
        }
        model.drop_opset(SEALED);
        records
    }

    fn run_steps(&self, model: &mut Model) -> Result<Vec<Record>, PassError> {
        let validate = cfg!(debug_assertions);
        if validate {
            check(model).map_err(PassError::Invalid)?;
        }
        let mut records = Vec::with_capacity(self.steps.len());
        for Step { pass, .. } in self.steps.iter().filter(|step| step.runs) {
            let record = run_pass(pass.as_ref(), model, validate)?;
            if let Some(observer) = self.observer {
                let ended = |source| PassError::Observer { pass: pass.name(), source };
                observer.after(self.name, &record, model).map_err(ended)?;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// What is to be said of the pipeline and its passes, those included that options leave out.
    pub(crate) fn describe(&self) -> PipelineDescription {
        let step = |&Step { ref pass, place, option, .. }: &Step| StepDescription {
            pass: pass.name(),
            about: pass.about(),
            place,
            option,
        };
        PipelineDescription { name: self.name, about: self.about, steps: self.steps.iter().map(step).collect() }
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
