//! Weights to integers.
//!
//! A layer computes y = W·x + b at each of its positions ([`crate::kernels`]). A solver chooses integers q of a grid and
//! scales s so that V = s·q takes the place of W; each is one file behind [`LayerSolver`]:
//!
//! | solver | what it minimises | what it looks at |
//! |---|---|---|
//! | [`round`] | `‖W − V‖²` | the weights |
//! | [`gram`] | `Σ ‖W·x − V·x̂‖²` in closed form | moments of what the layer reads |

mod bias_correction;
mod binary_bases;
mod codebook;
mod fixed_levels;
pub mod gram;
mod layer;
mod levels;
mod planned;
mod problem;
mod random;
pub mod round;

pub(crate) use layer::{LayerInput, Rounded, Rounding, Sights, round_layer};
pub use problem::{Grid, Group, Problem, Seen, Solution};

use crate::quant::QuantError;
use crate::{RoundingMode, Solver};

/// What a solver has to see of what a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing.
    Nothing,
    /// Second moments over all positions: [`Seen::Moments`].
    Moments,
    /// Some positions as they are: [`Seen::Columns`].
    Columns,
}

/// A way to turn the weights of a layer into integers.
pub trait LayerSolver: std::fmt::Debug + Sync {
    /// What it has to see.
    fn evidence(&self) -> Evidence;
    /// Whether it keeps to the grid. All keep to uniform grids with free scales.
    fn takes(&self, grid: &Grid) -> bool {
        matches!(grid, Grid::Uniform(_))
    }
    /// Integers, scales and what to add to the bias. The result does not depend on the number of threads. Weights that
    /// are not finite, and limits that do not fit the rows, are errors.
    fn solve(&self, problem: &Problem) -> Result<Solution, QuantError>;
}

/// The solver of a name; how it rounds, if it is `Round`.
pub(crate) fn solver(kind: Solver, mode: RoundingMode) -> Box<dyn LayerSolver> {
    match kind {
        Solver::Round => Box::new(round::Round { mode }),
        Solver::Gram => Box::new(gram::ClosedForm),
    }
}
