//! Solver `block`: blocks learn to make up for quantized activations (module `reconstruction`), then their weights are
//! rounded as by `gram`.

use super::gram::ClosedForm;
use super::{Grid, Problem, Solution, SolveError, Solver, SolverRow, StatisticsKind};
use crate::quant::Granularity;
use crate::scheme::options::SolveOptions;

/// Mini-batches per block, unless the options say otherwise.
const STEPS: usize = 250;
/// Learning rate of weights, relative to their root mean square.
const RATE: f64 = 0.01;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "block",
    help: "`gram`, after blocks have learned to make up for quantized activations",
    minimises: "E ‖B(x̂) − B_float(x)‖² of each block B, then as `gram`",
    time: "long",
    options: &["solver_steps", "solver_time", "solver_rate", "solver_processes", "gradient_code", "position_step"],
    solver: |options| Block::boxed(&ROW, options, Reach::Block, (STEPS, RATE)),
    quick: None,
};

/// How layers learn before they are solved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Mini-batches: per block, or of the whole network before its first block is rounded.
    pub steps: usize,
    /// Seconds of work that all of them may take, about: work is counted, not timed. `None` for no limit.
    pub seconds: Option<f64>,
    /// What learns together.
    pub reach: Reach,
    /// Learning rate of weights at the start, relative to the root mean square of a layer's weights.
    pub rate: f32,
}

/// What learns together, by the errors of what it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A block, until it is rounded.
    Block,
    /// All blocks that are not rounded yet.
    Network,
    /// A block, until it is rounded, by the errors of the outputs too, the rest of the network being in float.
    Prediction,
}

/// Learns, then rounds in closed form.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// How blocks are learned.
    pub learning: Learning,
    /// How weights are rounded.
    pub gram: ClosedForm,
    /// Whose name it has.
    pub(super) row: &'static SolverRow,
}

impl Block {
    /// The solver of a row as the options have it; so many steps at such a rate unless they say otherwise.
    pub(super) fn boxed(
        row: &'static SolverRow,
        options: &SolveOptions,
        reach: Reach,
        (steps, rate): (usize, f64),
    ) -> Box<dyn Solver> {
        let learning = Learning {
            steps: options.solver_steps.unwrap_or(steps),
            seconds: options.solver_time,
            reach,
            rate: options.solver_rate.unwrap_or(rate) as f32,
        };
        Box::new(Self { learning, gram: ClosedForm { stride: options.position_step, quick: false }, row })
    }
}

impl Solver for Block {
    fn name(&self) -> &str {
        self.row.name
    }

    fn statistics(&self) -> StatisticsKind {
        self.gram.statistics()
    }

    fn learning(&self) -> Option<Learning> {
        Some(self.learning)
    }

    fn takes(&self, grid: &Grid) -> bool {
        self.gram.takes(grid)
    }

    fn takes_granularity(&self, granularity: Granularity) -> bool {
        self.gram.takes_granularity(granularity)
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        self.gram.solve(problem)
    }
}
