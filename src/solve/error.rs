//! Why the weights of a layer cannot become integers.

use super::Solver;
use crate::execute::ExecuteError;
use crate::kernels::KernelError;
use crate::quant::weight_grid::WeightGrid;
use crate::quant::{Granularity, QuantError};
use crate::runtime::names::quoted;
use crate::runtime::{Cancelled, ErrorKind, PeerError};
use msq_passes::PassError;
use msq_passes::ir::{ExternalError, TensorError};
use thiserror::Error;

/// Why a layer cannot be solved. Messages of a solver name no layer; [`SolveError::Layer`] adds its name.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SolveError {
    /// No grid satisfies the request.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// No solver has the name.
    #[error("no solver is called `{name}`; there are {known}")]
    UnknownSolver {
        /// The name.
        name: String,
        /// The names of all solvers.
        known: String,
    },
    /// The solver cannot solve on the grid.
    #[error("solver `{solver}` does not take grid `{grid}`; {others} do")]
    Grid {
        /// The solver.
        solver: String,
        /// The grid.
        grid: WeightGrid,
        /// Solvers that take it.
        others: String,
    },
    /// The solver cannot solve with scales of the granularity, or the layer cannot be written with them.
    #[error("scales of granularity {granularity:?} are not possible: {reason}")]
    Granularity {
        /// The granularity.
        granularity: Granularity,
        /// Why.
        reason: String,
    },
    /// A solver given to the library failed.
    #[error("solver `{solver}`: {source}")]
    Other {
        /// The solver.
        solver: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A solver gave another number of integers or scales than the layer has.
    #[error("solver `{solver}` gave {found} {of} instead of {expected}")]
    Count {
        /// The solver.
        solver: String,
        /// Integers, scales or solutions.
        of: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A layer cannot be solved.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: Box<SolveError>,
    },
    /// Weights that are finite each become infinite together with the batch-norm they take in.
    #[error("tensor `{tensor}` has {value} at index {index}; the model is broken or badly exported")]
    NonFiniteWeight {
        /// The tensor.
        tensor: String,
        /// Index of the first such element in storage order.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// The input of a layer does not fit it, or is of a form that the kernels do not know.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The network could not be run.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Processes that learn together have lost each other.
    #[error(transparent)]
    Peers(#[from] PeerError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A tensor of the model is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An external tensor of the model cannot be read.
    #[error(transparent)]
    External(#[from] ExternalError),
}

impl From<Cancelled> for SolveError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Execute(cancelled.into())
    }
}

impl SolveError {
    /// A solver that does not take a grid, which these others take.
    pub(super) fn grid(solver: &dyn Solver, grid: WeightGrid, others: &[&str]) -> Self {
        Self::Grid { solver: solver.name().to_owned(), grid, others: quoted(others) }
    }

    /// The same, with the layer that it concerns.
    pub(super) fn of(self, layer: &str) -> Self {
        Self::Layer { layer: layer.to_owned(), source: Box::new(self) }
    }

    /// Whether it ends the run, where other errors leave a block as it was.
    pub(super) fn ends_run(&self) -> bool {
        matches!(self, Self::Peers(_)) || self.kind() == ErrorKind::Cancelled
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSolver { .. } => ErrorKind::Usage,
            Self::NonFiniteWeight { .. } | Self::Tensor(_) | Self::External(_) => ErrorKind::Model,
            Self::Layer { source, .. } => source.kind(),
            Self::Execute(error) => error.kind(),
            _ => ErrorKind::Other,
        }
    }
}
