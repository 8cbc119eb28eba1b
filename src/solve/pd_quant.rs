//! Solver `pd-quant`: blocks learn by what their errors do to the predictions of the network (module `reconstruction`),
//! then their weights are rounded as by `gram`.

use super::SolverRow;
use super::block::{Block, Reach};

/// Mini-batches per block, unless the options say otherwise.
const STEPS: usize = 100;
/// Learning rate of weights, relative to their root mean square.
const RATE: f64 = 0.003;

/// The row of this solver.
pub(super) const ROW: SolverRow = SolverRow {
    name: "pd-quant",
    help: "`block`, with the errors of the predictions that each block makes",
    minimises: "E ‖B(x̂) − B_float(x)‖² of each block B and KL of the outputs behind it, then as `gram`",
    time: "long",
    options: &["solver_steps", "solver_time", "solver_rate", "solver_processes", "gradient_code", "position_step"],
    solver: |options| Block::boxed(&ROW, options, Reach::Prediction, (STEPS, RATE)),
    quick: None,
};
