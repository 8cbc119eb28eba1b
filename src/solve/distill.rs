//! Solver `distill`: the network learns as a whole from the float one, with its activations quantized (module
//! `reconstruction`); then its blocks are rounded one after the other as by `gram`, while those behind go on learning.

use super::SolverRow;
use super::block::{Block, Reach};

/// Mini-batches before the first block is rounded, unless the options say otherwise.
const STEPS: usize = 300;
/// Learning rate of weights, relative to their root mean square.
const RATE: f64 = 0.001;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "distill",
    help: "`gram`, while the network learns as a whole to make up for quantized activations",
    minimises: "E ‖a(x̂) − a_float(x)‖² of the outputs and of what each block writes, then as `gram`",
    time: "long",
    options: &["solver_steps", "solver_time", "solver_rate", "solver_processes", "gradient_code", "position_step"],
    solver: |options| Block::boxed(&ROW, options, Reach::Network, (STEPS, RATE)),
    quick: None,
};
