//! Layers, their choices, and plans.

use serde::{Deserialize, Serialize};

/// One way to quantize a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Damage done by it: a KL divergence or a distance. Finite; may be negative where a measure says so.
    pub cost: f64,
    /// What it takes of the budget: bytes, MACs · bits, or nanoseconds.
    pub budget: u64,
}

/// What may be done with one layer, in any order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// At least one.
    pub choices: Vec<Choice>,
}

/// The index of one choice for each layer.
pub type Plan = Vec<usize>;

/// A plan with what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The plan.
    pub plan: Plan,
    /// Σ cost.
    pub damage: f64,
    /// Fixed part + Σ budget.
    pub budget: u64,
    /// Whether no plan within the limit does less damage, to nine digits; for a plan of [`greedy`](super::greedy) the
    /// limit is its own budget.
    pub proven: bool,
}

/// A second linear budget on the same choices.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondBudget {
    /// For each layer, for each choice.
    pub budgets: Vec<Vec<u64>>,
    /// What no choice changes.
    pub fixed: u64,
    /// Upper bound of the total.
    pub limit: u64,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// A layer without choices.
    #[error("layer {layer} has no choice")]
    NoChoice {
        /// Its index.
        layer: usize,
    },
    /// A damage that is no number.
    #[error("layer {layer}, choice {choice}: the damage is {cost}")]
    NonFiniteCost {
        /// The layer's index.
        layer: usize,
        /// The choice's index.
        choice: usize,
        /// NaN or an infinity.
        cost: f64,
    },
    /// Budgets that add up to more than an integer holds.
    #[error("the budgets add up to more than {}", u64::MAX)]
    Overflow,
    /// A second budget of other layers or choices.
    #[error("layer {layer}: the second budget does not fit the layer's choices")]
    Mismatch {
        /// The first such layer's index.
        layer: usize,
    },
    /// The smallest plan is too large.
    #[error("no plan fits in {limit}: the smallest possible total is {smallest}")]
    Infeasible {
        /// The limit.
        limit: u64,
        /// The total of the smallest plan.
        smallest: u64,
    },
    /// The smallest plan is too large for the second budget.
    #[error("no plan fits in {limit} of the second budget: the smallest possible total is {smallest}")]
    SecondInfeasible {
        /// The second limit.
        limit: u64,
        /// The total of the plan that is smallest by it.
        smallest: u64,
    },
    /// Each budget can be met, but not both.
    #[error("no plan meets both budgets: alone {limits:?} can be met, the smallest possible totals are {smallest:?}")]
    TogetherInfeasible {
        /// The limits of the two budgets.
        limits: [u64; 2],
        /// The smallest total of each budget by itself.
        smallest: [u64; 2],
    },
    /// The solver found neither a plan nor a proof that there is none.
    #[error("the integer program was not solved: {reason}")]
    Unsolved {
        /// What the solver says.
        reason: String,
    },
}

/// Layers whose numbers have been checked: every layer has a choice, damages are finite, budgets can be added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    layers: Vec<Layer>,
    fixed: u64,
}

impl Problem {
    /// Layers, and what of the budget none of them changes.
    pub fn new(layers: Vec<Layer>, fixed: u64) -> Result<Self, AllocateError> {
        for (layer, choices) in layers.iter().map(|l| &l.choices).enumerate() {
            if choices.is_empty() {
                return Err(AllocateError::NoChoice { layer });
            }
            if let Some(choice) = choices.iter().position(|c| !c.cost.is_finite()) {
                return Err(AllocateError::NonFiniteCost { layer, choice, cost: choices[choice].cost });
            }
        }
        check_sum(fixed, layers.iter().map(|l| l.choices.iter().map(|c| c.budget)))?;
        Ok(Self { layers, fixed })
    }

    /// Layers that hold by construction what [`Problem::new`] checks.
    pub(super) fn unchecked(layers: Vec<Layer>) -> Self {
        Self { layers, fixed: 0 }
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What of the budget no choice changes.
    pub fn fixed(&self) -> u64 {
        self.fixed
    }

    /// Σ cost, layer after layer.
    ///
    /// # Panics
    /// When the plan names a choice that a layer does not have.
    pub fn damage(&self, plan: &[usize]) -> f64 {
        self.layers.iter().zip(plan).map(|(layer, &j)| layer.choices[j].cost).sum()
    }

    /// Fixed part + Σ budget.
    ///
    /// # Panics
    /// When the plan names a choice that a layer does not have.
    pub fn budget(&self, plan: &[usize]) -> u64 {
        self.fixed + self.layers.iter().zip(plan).map(|(layer, &j)| layer.choices[j].budget).sum::<u64>()
    }

    /// The total of the smallest plan.
    pub fn smallest(&self) -> u64 {
        self.fixed + self.layers.iter().filter_map(|l| l.choices.iter().map(|c| c.budget).min()).sum::<u64>()
    }

    /// The plan with its totals.
    pub(super) fn allocation(&self, plan: Plan, proven: bool) -> Allocation {
        Allocation { damage: self.damage(&plan), budget: self.budget(&plan), plan, proven }
    }
}

impl Layer {
    /// The choices that no other one dominates, by rising budget and falling damage; of equals, the first.
    pub(super) fn ladder(&self) -> Vec<usize> {
        let choices = &self.choices;
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by(|&a, &b| {
            choices[a].budget.cmp(&choices[b].budget).then(choices[a].cost.total_cmp(&choices[b].cost)).then(a.cmp(&b))
        });
        let mut ladder: Vec<usize> = Vec::new();
        for j in order {
            if ladder.last().is_none_or(|&last| choices[j].cost < choices[last].cost) {
                ladder.push(j);
            }
        }
        ladder
    }

    /// The least damage the layer can do.
    pub(super) fn least_cost(&self) -> f64 {
        self.choices.iter().map(|c| c.cost).fold(f64::INFINITY, f64::min)
    }
}

/// Fails when fixed + Σ max of the layers' budgets overflows.
pub(super) fn check_sum(
    fixed: u64,
    budgets: impl Iterator<Item = impl Iterator<Item = u64>>,
) -> Result<(), AllocateError> {
    let mut largest = budgets.map(|layer| layer.max().unwrap_or_default());
    largest.try_fold(fixed, u64::checked_add).map(|_| ()).ok_or(AllocateError::Overflow)
}
