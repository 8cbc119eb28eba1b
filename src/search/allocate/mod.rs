//! Choosing bits under a budget: the mathematics, without a graph or an engine.
//!
//! Layer i offers choices j with a damage `d_ij` (the KL divergence at the network's output with that layer alone
//! quantized, the measure of `ZeroQ`: Cai et al., 2020) and a budget `b_ij` (bytes, MACs · bits, nanoseconds). A plan
//! takes one choice per layer; damages and budgets are taken to add up. Wanted is
//!
//! ```text
//! min Σ_i d_i,j(i)   subject to   fixed + Σ_i b_i,j(i) ≤ limit
//! ```
//!
//! which is the integer program of `AdaQuant` (Hubara et al., 2020) and HAWQ-v3 (Yao et al., 2021), and the
//! multiple-choice knapsack problem of the literature (Kellerer, Pferschy and Pisinger, *Knapsack Problems*, ch. 11).
//!
//! - [`greedy`] walks the Lagrangian front from the best plan to the smallest;
//! - [`dynamic_programming`] is exact for one budget;
//! - [`ilp`] takes two budgets;
//! - [`swaps`] proposes changes to a plan whose true damage is then measured, as damages only nearly add up;
//! - [`Front`] keeps the plans worth having.
//!
//! No function depends on threads, hashing or time.

mod dynamic_programming;
mod front;
mod greedy;
mod ilp;
mod incumbent;
mod lane;
mod problem;
mod swaps;

pub use dynamic_programming::{DEFAULT_STATES, dynamic_programming};
pub use front::{Front, Point};
pub use greedy::greedy;
pub use ilp::ilp;
pub use problem::{AllocateError, Allocation, Choice, Layer, Plan, Problem, SecondBudget};
pub use swaps::{Step, Swap, swaps};

#[cfg(test)]
mod tests;
