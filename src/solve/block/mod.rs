//! Solver `block`: blocks of layers reconstructed by gradients with their activations quantized, then `gram`.
//!
//! Rounding activations to few bits costs more than rounding weights, and no closed form makes up for it. BRECQ (Li et al.,
//! arXiv 2102.05426) learns what minimises the error behind each block of a network, with all layers of the block
//! together; QDrop (Wei et al., arXiv 2203.05740) shows that activations have to be quantized meanwhile, and not all of
//! them. Here both come before the weights are rounded, so that every grid of weights gains by them, trellis codes too:
//!
//! 1. **Blocks** ([`cuts`]): cuts where one value is live, so that a residual block is one block.
//! 2. **Learning** ([`learn`](learning), block after block): float weights W', biases and the steps of activation
//!    quantizers minimise `E‖B(x̃; W', s) − B_float(x)‖² / E‖B_float(x)‖²` by Adam, B a block with quantized activations
//!    and weights in float. Each element of x̃ is that of x̂, what the blocks in front make of the sample, or that of x, what
//!    the float network does, with probability ½ each. A block keeps what it learned if that is better on samples that
//!    were held out.
//! 3. **Rounding** (`gram`): weights are solved by statistics of the network of step 2 as the float one, so that they
//!    come as near to what was learned as their grid lets them.
//!
//! The result takes the place of that of plain `gram` if the outputs of the whole network are nearer to those of the float
//! network on held-out samples. So it is never worse there.
//!
//! **Declines** layers whose form the kernels do not know, shared weights, weights on scales that are given, and blocks
//! with an operator that has no gradient rule: they stay as they are, and a log line (`-v`) names them.

mod cuts;
mod learning;
mod parameters;
mod part;
mod relaxed;
#[cfg(test)]
mod tests;

pub(crate) use learning::{Learned, better, learn};

use super::gram::ClosedForm;
use super::{Grid, Problem, Solution, SolveError, Solver, SolverRow, StatisticsKind};
use crate::quant::Granularity;

/// Mini-batches per block, unless the options say otherwise.
const STEPS: usize = 250;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "block",
    help: "`gram`, after blocks have learned to make up for quantized activations",
    minimises: "E ‖B(x̂) − B_float(x)‖² of each block B, then as `gram`",
    time: "long",
    options: &["solver_steps", "solver_time", "position_step"],
    solver: |options| {
        Box::new(Block {
            learning: Learning { steps: options.solver_steps.unwrap_or(STEPS), seconds: options.solver_time },
            gram: ClosedForm { stride: options.position_step, quick: false },
        })
    },
    quick: None,
};

/// How long blocks are learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Mini-batches per block.
    pub steps: usize,
    /// Seconds of work that all of them may take, about: work is counted, not timed. `None` for no limit.
    pub seconds: Option<f64>,
}

/// Learns blocks, then rounds in closed form.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// How blocks are learned.
    pub learning: Learning,
    /// How weights are rounded.
    pub gram: ClosedForm,
}

impl Solver for Block {
    fn name(&self) -> &str {
        ROW.name
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
