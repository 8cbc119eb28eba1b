//! One budget with the unavoidable taken off.
//!
//! Every plan spends at least `fixed + Σ_i min_j b_ij`. What a choice takes beyond its layer's smallest,
//! `e_ij = b_ij − min_j b_ij`, has to fit in `room = limit − fixed − Σ_i min_j b_ij`. The numbers are smaller than the budgets and many are zero, which is
//! what a solver in floating point wants.

use super::problem::{AllocateError, Problem, SecondBudget, check_sum};

/// Extras and what they have to fit in.
#[derive(Debug)]
pub(super) struct Lane {
    /// `e_ij`, for each layer, for each choice.
    pub(super) extras: Vec<Vec<u64>>,
    /// Upper bound of Σ e.
    pub(super) room: u64,
}

impl Lane {
    /// The lane of the problem's own budget; fails when no plan fits.
    pub(super) fn new(problem: &Problem, limit: u64) -> Result<Self, AllocateError> {
        let smallest = problem.smallest();
        let room = limit.checked_sub(smallest).ok_or(AllocateError::Infeasible { limit, smallest })?;
        let budgets = problem.layers().iter().map(|l| l.choices.iter().map(|c| c.budget).collect());
        Ok(Self { extras: budgets.map(extras).collect(), room })
    }

    /// The lane of a second budget; fails when no plan fits or the choices are not the problem's.
    pub(super) fn second(problem: &Problem, second: &SecondBudget) -> Result<Self, AllocateError> {
        let layers = problem.layers();
        let fits = |i: usize| layers.get(i).map(|l| l.choices.len()) == second.budgets.get(i).map(Vec::len);
        if let Some(layer) = (0..layers.len().max(second.budgets.len())).find(|&i| !fits(i)) {
            return Err(AllocateError::Mismatch { layer });
        }
        check_sum(second.fixed, second.budgets.iter().map(|b| b.iter().copied()))?;
        let (limit, smallest) = (second.limit, second.smallest());
        let room = limit.checked_sub(smallest).ok_or(AllocateError::SecondInfeasible { limit, smallest })?;
        Ok(Self { extras: second.budgets.iter().cloned().map(extras).collect(), room })
    }

    /// Σ e of a plan.
    pub(super) fn spent(&self, plan: &[usize]) -> u64 {
        self.extras.iter().zip(plan).map(|(extras, &j)| extras[j]).sum()
    }

    /// Whether a plan meets the budget, in integers.
    pub(super) fn fits(&self, plan: &[usize]) -> bool {
        self.spent(plan) <= self.room
    }
}

impl SecondBudget {
    /// The total of the plan that is smallest by this budget.
    pub(super) fn smallest(&self) -> u64 {
        self.fixed + self.budgets.iter().filter_map(|b| b.iter().min()).sum::<u64>()
    }
}

fn extras(mut budgets: Vec<u64>) -> Vec<u64> {
    let least = budgets.iter().copied().min().unwrap_or_default();
    for budget in &mut budgets {
        *budget -= least;
    }
    budgets
}
