//! Weights to integers.
//!
//! A layer computes y = W·x + b at each of its positions ([`crate::kernels`]). A solver chooses integers q of a grid and
//! scales s so that V = s·q takes the place of W; each is one file behind [`LayerSolver`]:
//!
//! | solver | what it minimises | what it looks at |
//! |---|---|---|
//! | [`round`] | `‖W − V‖²` | the weights |
//! | [`cosine`] | the angle between W·x and V·x̂, by scales alone | columns of what the layer reads |
//! | [`gram`] | `Σ ‖W·x − V·x̂‖²` in closed form | moments of what the layer reads |
//! | [`adaround`] | `Σ ‖f(W·x + b) − f(V·x̂ + b)‖²` by gradients, each weight rounded down or up | columns of it |
//! | [`lsq`] | the same, latent weights and scales learned | columns of it |
//!
//! f is what the layer's output is cut off by, if anything.

pub mod adaround;
mod bias_correction;
mod binary_bases;
mod codebook;
pub mod cosine;
mod fixed_levels;
mod gradient;
#[cfg(test)]
mod gradient_tests;
pub mod gram;
mod layer;
mod levels;
pub mod lsq;
#[cfg(test)]
mod made_up;
mod planned;
mod problem;
mod random;
pub(crate) mod reconstruct;
pub mod round;

pub(crate) use layer::{LayerInput, Rounded, Rounding, Sights, round_layer, target_weight};
pub use problem::{Grid, Group, Problem, Seen, Solution};

use crate::quant::QuantError;
use crate::{Options, Solver};

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
    /// Whether it looks for a scale of the layer's input as well ([`Problem::input`]).
    fn scales_input(&self) -> bool {
        false
    }

    /// Whether it keeps to the grid. All keep to uniform grids with free scales.
    fn takes(&self, grid: &Grid) -> bool {
        matches!(grid, Grid::Uniform(_))
    }
    /// Integers, scales and what to add to the bias. The result does not depend on the number of threads. Weights that
    /// are not finite, and limits that do not fit the rows, are errors.
    fn solve(&self, problem: &Problem) -> Result<Solution, QuantError>;
}

/// The solver of a name, with what the options say of it.
pub(crate) fn solver(kind: Solver, options: &Options) -> Box<dyn LayerSolver> {
    let steps = options.solve.solver_steps;
    match kind {
        Solver::Round => Box::new(round::Round { mode: options.solve.rounding }),
        Solver::Cosine => Box::new(cosine::Cosine),
        Solver::Gram => Box::new(gram::ClosedForm::default()),
        Solver::Adaround => Box::new(adaround::AdaRound { steps }),
        Solver::Lsq => Box::new(lsq::Lsq { steps }),
    }
}
