//! Weights to integers.
//!
//! A layer computes y = W·x + b at each of its positions ([`crate::kernels`]). A solver chooses integers q of a grid and
//! scales s so that V = s·q takes the place of W. Each solver is one file with a row in [`registry`], which lists the
//! solvers by name, what each minimises and the statistics of the layer's input that it needs.
//!
//! ```text
//! layerwise   ── layer after layer: statistics of the inputs, then the solver
//! network     ── the layers of a network, solved and written into its graph
//! layer       ── a layer of the graph as a problem; a solution as integers, scales and a bias
//! held_out    ── whether a solution beats rounding to nearest on samples it was not fitted to
//! problem     ── what a solver is given and what it answers
//! rows        ── a weight as the rows of a problem
//! reconstruction ── blocks of float layers learn to make up for quantized activations, before they are solved
//! gradient_code ── the gradients of that in few bits, for processes that learn together
//! bias        ── the bias as it is written
//! statistics  ── moments or columns of a layer's input
//! registry    ── the solvers by name
//! ```

pub mod adaround;
mod agreed;
mod bias;
mod bias_correction;
mod binary_bases;
pub mod block;
mod codebook;
pub mod cosine;
mod distill;
mod error;
mod fixed_levels;
mod gradient;
mod gradient_code;
#[cfg(test)]
mod gradient_tests;
pub mod gram;
mod held_out;
mod layer;
#[cfg(test)]
mod layer_tests;
pub(crate) mod layerwise;
mod levels;
pub mod lsq;
pub(crate) mod network;
mod pd_quant;
mod planned;
mod problem;
mod random;
pub(crate) mod reconstruction;
mod redundancy;
pub mod registry;
pub mod round;
mod rounding;
mod rows;
mod statistics;
pub(crate) mod stored;
#[cfg(test)]
mod synthetic;
mod trellis;

pub use error::SolveError;
pub(crate) use layer::target_weight;
pub(crate) use network::Solved;
pub use problem::{Grid, Group, Problem, Solution, Unit};
pub(crate) use rounding::Rounded;
pub(crate) use statistics::StatisticsCollector;
pub use statistics::{LayerStatistics, Statistics, StatisticsKind};

use crate::quant::Granularity;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::WeightBits;
use crate::scheme::options::{RoundingMode, SolveOptions};
use crate::scheme::solver_name::SolverName;
use msq_passes::analysis::Layer;

/// Makes a solver from the options that belong to it.
pub type Constructor = fn(&SolveOptions) -> Box<dyn Solver>;

/// What there is to know of a solver.
#[derive(Debug)]
pub struct SolverRow {
    /// Its name in options, reports and messages.
    pub name: &'static str,
    /// One line for the command line's help.
    pub help: &'static str,
    /// What it minimises, for the documentation.
    pub minimises: &'static str,
    /// How long it takes, for the documentation.
    pub time: &'static str,
    /// The keys of [`SolveOptions`] that belong to it.
    pub options: &'static [&'static str],
    /// Makes it, with the options that belong to it.
    pub solver: Constructor,
    /// Makes a quick form of it, good enough to compare bit widths while a search is on; `None` where the closed form of
    /// `gram` takes its place.
    pub quick: Option<Constructor>,
}

/// A way to turn the weights of layers into integers.
///
/// A library user gives one of his own to [`Quantizer::solver`](crate::Quantizer::solver). Results must not depend on the
/// number of threads.
pub trait Solver: std::fmt::Debug + Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// The statistics of a layer's input that it needs.
    fn statistics(&self) -> StatisticsKind;

    /// Whether it chooses the scale of the layer's input as well ([`Problem::input`]).
    fn scales_input(&self) -> bool {
        false
    }

    /// How blocks of the float network learn to make up for quantized activations before their weights are solved; `None`
    /// where they do not.
    fn learning(&self) -> Option<block::Learning> {
        None
    }

    /// Whether it takes the nearest level for each weight: its scales may then be rounded to half precision, and the
    /// integers rounded anew.
    fn rounds_to_nearest(&self) -> bool {
        false
    }

    /// Whether it can solve on a grid. All solvers take uniform grids with free scales.
    fn takes(&self, grid: &Grid) -> bool {
        matches!(grid, Grid::Uniform(_))
    }

    /// Whether it can solve with scales of a granularity. All solvers take one scale per channel and one per tensor.
    fn takes_granularity(&self, granularity: Granularity) -> bool {
        !matches!(granularity, Granularity::Block(_))
    }

    /// Integers, scales and bias shifts of one layer. Weights that are not finite, and limits that do not fit the rows,
    /// are errors.
    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError>;

    /// Solutions of all layers of a unit, in order. Unless a solver has an objective of the unit as a whole, each layer
    /// is solved on its own.
    fn solve_unit(&self, unit: &Unit) -> Result<Vec<Solution>, SolveError> {
        unit.layers.iter().map(|problem| self.solve(problem)).collect()
    }
}

/// The solver that a scheme names, or the one that suits its bits: `gram` if any layer has fewer than 8, else `round`.
pub(crate) fn solver(scheme: &Scheme) -> Result<Box<dyn Solver>, SolveError> {
    let low = |layer: &Layer| scheme.layer_plan(layer).weights != WeightBits::whole(8);
    let nearest = scheme.solve.rounding == RoundingMode::Nearest;
    let suits = || if nearest && scheme.layers().any(low) { SolverName::GRAM } else { SolverName::ROUND };
    let row = SolverRow::of(&scheme.solve.solver.clone().unwrap_or_else(suits))?;
    Ok((row.solver)(&scheme.solve))
}

/// The form of the solver of some options that is quick enough for searches; that of `gram` where none is named.
pub(crate) fn quick_solver(options: &SolveOptions) -> Result<Box<dyn Solver>, SolveError> {
    let row = SolverRow::of(options.solver.as_ref().unwrap_or(&SolverName::GRAM))?;
    Ok(row.quick_form(options))
}
