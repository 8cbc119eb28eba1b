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
pub(crate) mod network;
mod planned;
mod problem;
mod random;
pub(crate) mod reconstruct;
pub mod round;

#[cfg(test)]
pub(crate) use layer::{LayerInput, Rounding, round_layer};
pub(crate) use layer::{Rounded, Sights, target_weight};
pub(crate) use network::Solved;
pub use problem::{Grid, Group, Problem, Seen, Solution};

use crate::quant::QuantError;
use crate::scheme::Scheme;
use crate::{RoundingMode, Solver, WeightBits};
use msq_passes::analysis::Layer;

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

/// The solver that a scheme names, or the one that suits its bits: `gram` if any layer has fewer than 8, else `round`.
pub(crate) fn solver(scheme: &Scheme) -> Box<dyn LayerSolver> {
    let options = &scheme.solve;
    let low = |layer: &Layer| scheme.layer_plan(layer).weights != WeightBits::Bits(8);
    let nearest = options.rounding == RoundingMode::Nearest;
    let suits = || if nearest && scheme.layers().any(low) { Solver::Gram } else { Solver::Round };
    let steps = options.solver_steps;
    match options.solver.unwrap_or_else(suits) {
        Solver::Round => Box::new(round::Round { mode: options.rounding }),
        Solver::Cosine => Box::new(cosine::Cosine),
        Solver::Gram => Box::new(gram::ClosedForm::default()),
        Solver::Adaround => Box::new(adaround::AdaRound { steps }),
        Solver::Lsq => Box::new(lsq::Lsq { steps }),
    }
}
