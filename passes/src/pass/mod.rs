//! What a pass is, and how an ordered list of passes is run.

mod pipeline;
mod rewrite;

pub use pipeline::{PassObserver, Pipeline, PipelineDescription, Record, StepDescription, run_pass};
pub(crate) use rewrite::{Found, Miss, Operand, Plan, Rewrite, in_turn, shared_with};

use crate::ir::{CheckError, CycleError, ExternalError, ImportError, Model, TensorError};
use std::fmt;

/// A graph-to-graph rewrite: a small value with a name. Whatever it needs beyond the model is in its fields.
pub trait Pass {
    /// A kebab-case noun, the same in the command line, logs, docs and test data.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn about(&self) -> &'static str;

    /// Fails when a step this pass builds on has not been done.
    fn requires(&self, model: &Model) -> Result<(), PassError> {
        let _ = model;
        Ok(())
    }

    /// Rewrites the model. Sites are collected first, then changed.
    fn run(&self, model: &mut Model) -> Result<Outcome, PassError>;
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many places were rewritten.
    pub changed: usize,
    /// Places that nearly matched and were left, with the reason.
    pub declined: Vec<Declined>,
}

/// A place a pass left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The node or value.
    pub site: String,
    /// Why.
    pub reason: String,
}

/// A message that a pass has changed does not become a model: what the file said leads there.
impl From<ImportError> for PassError {
    fn from(error: ImportError) -> Self {
        Self::Input(error.to_string())
    }
}

impl Outcome {
    /// Counts one more rewritten place.
    pub fn count(&mut self) {
        self.changed += 1;
    }

    /// Records a place left alone.
    pub fn decline(&mut self, site: impl Into<String>, reason: impl Into<String>) {
        let declined = Declined { site: site.into(), reason: reason.into() };
        tracing::debug!(site = declined.site, reason = declined.reason, "declined");
        self.declined.push(declined);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changed {
            0 => f.write_str("unchanged")?,
            1 => f.write_str("1 site changed")?,
            n => write!(f, "{n} sites changed")?,
        }
        self.declined.iter().try_for_each(|d| write!(f, "\ndeclined `{}`: {}", d.site, d.reason))
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// A tensor cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// The graph has a cycle.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// An earlier pass is missing.
    #[error("pass `{pass}` needs `{earlier}` to run before it")]
    Requires {
        /// The pass.
        pass: &'static str,
        /// What must run before.
        earlier: &'static str,
    },
    /// What the caller handed in, or the model itself, does not fit.
    #[error("{0}")]
    Input(String),
    /// The model was not valid before the pass.
    #[error("the model is not valid: {0}")]
    Invalid(CheckError),
    /// The pass broke the model.
    #[error("pass `{pass}` broke the model: {error}; this is a bug, please report it")]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What the validator says.
        error: CheckError,
    },
    /// Whoever observes the passes ended the run.
    #[error("after pass `{pass}`: {source}")]
    Observer {
        /// The pass.
        pass: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A pass failed.
    #[error("pass `{pass}`: {source}")]
    In {
        /// The pass.
        pass: &'static str,
        /// Its error.
        source: Box<PassError>,
    },
}
