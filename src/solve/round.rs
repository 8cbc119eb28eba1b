//! Solver `round`: nearest integers on a scale that minimises the squared error of the weights themselves.
//!
//! q = round(w/s) clamped to the grid, s per channel by search (equations (1) to (5) of the MSQ paper with z = 0), or the
//! nearest entry of a codebook.

use super::{Evidence, LayerSolver, Problem, Solution};
use crate::quant::{QuantError, Sqnr};

/// Rounds to nearest.
#[derive(Clone, Copy, Debug)]
pub struct Round;

impl LayerSolver for Round {
    fn evidence(&self) -> Evidence {
        Evidence::Nothing
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, QuantError> {
        let weights = problem.weights();
        let rounded = problem.nearest(&weights, &vec![1.0; weights.len()])?;
        let ratio: Sqnr = rounded.sqnr(&weights);
        Ok(Solution {
            integers: rounded.data,
            scales: rounded.scales,
            bias_shift: None,
            input_scale: None,
            ratio,
            plain_ratio: ratio,
        })
    }
}
