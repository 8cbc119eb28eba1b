//! The integer program, for one budget or two.
//!
//! ```text
//! min Σ c_ij·x_ij   subject to   Σ_j x_ij = 1,   Σ e_ij·x_ij ≤ room  (for each budget),   x binary
//! ```
//!
//! with `c_ij = d_ij − min_j d_ij` and `e_ij` the budget beyond the layer's smallest. It is solved by branch and bound
//! in floating point, so the numbers are brought near one another first, without changing the optimum:
//!
//! - a plan of excess damage U is found without search; choices with `c > U` alone are worse than it and go, as do those
//!   with `e > room` and dominated ones. What is left spans `0..U` and `0..room`;
//! - c is multiplied by a power of two near `1000/U`, e by one near `1000/room` (the largest where these are larger), so
//!   that one byte in 10^8 is still a hundred times the solver's tolerance of 1e-7, and 1e-9 of U the least difference
//!   it tells apart.
//!
//! The answer is read as integers and checked against the budgets as integers. A plan that exceeds one is cut off,
//! `Σ x of the plan ≤ n − 1`, and the program solved again. Where the solver gives up, stops at [`NODES`] or comes back
//! with nothing usable, one budget is left to [`dynamic_programming`] and two to the plan that was found first; the
//! result is then not called proven unless dynamic programming was exact.

use super::dynamic_programming::{DEFAULT_STATES, dynamic_programming};
use super::incumbent::incumbent;
use super::lane::Lane;
use super::problem::{AllocateError, Allocation, Plan, Problem, SecondBudget};
use microlp::{ComparisonOp, Error, OptimizationDirection, SolveOptions, Variable};

/// Nodes of the search, counted rather than timed so that results repeat.
const NODES: u64 = 20_000;

/// How often a plan that only rounding lets fit is cut off.
const CUTS: usize = 16;

/// What the largest coefficient becomes, about.
const LARGEST: f64 = 1000.0;

/// A binary this far from an integer moves a budget of `LARGEST` by a tenth of a byte in 10^8.
const INTEGRALITY: f64 = 1e-9;

/// The plan of least damage within the limit, and within a second budget if there is one.
pub fn ilp(problem: &Problem, limit: u64, second: Option<&SecondBudget>) -> Result<Allocation, AllocateError> {
    let mut lanes = vec![Lane::new(problem, limit)?];
    if let Some(second) = second {
        lanes.push(Lane::second(problem, second)?);
    }
    let known = incumbent(problem, &lanes);
    let program = Program::new(problem, &lanes, known.as_deref());
    if let Some(plan) = known.as_ref().filter(|plan| program.excess(plan) == 0.0) {
        return Ok(problem.allocation(plan.clone(), true));
    }
    let reason = match program.solve() {
        Answer::Plan { plan, proven } => {
            let better = known.as_ref().is_none_or(|known| problem.damage(&plan) < problem.damage(known));
            let plan = if better { plan } else { known.unwrap_or(plan) };
            return settle(problem, limit, second, problem.allocation(plan, proven));
        }
        Answer::Infeasible => None,
        Answer::Failed(reason) => Some(reason),
    };
    match (known, second, reason) {
        (Some(plan), ..) => settle(problem, limit, second, problem.allocation(plan, false)),
        (None, Some(second), None) => Err(AllocateError::TogetherInfeasible {
            limits: [limit, second.limit],
            smallest: [problem.smallest(), second.smallest()],
        }),
        (.., reason) => Err(AllocateError::Unsolved { reason: reason.unwrap_or_default() }),
    }
}

/// The better of what was found without a proof and, for one budget, what dynamic programming finds.
fn settle(
    problem: &Problem,
    limit: u64,
    second: Option<&SecondBudget>,
    found: Allocation,
) -> Result<Allocation, AllocateError> {
    if found.proven || second.is_some() {
        return Ok(found);
    }
    let exact = dynamic_programming(problem, limit, DEFAULT_STATES)?;
    Ok(if exact.proven || exact.damage < found.damage { exact } else { found })
}

enum Answer {
    Plan { plan: Plan, proven: bool },
    Infeasible,
    Failed(String),
}

/// The choices worth considering, with their coefficients.
struct Program<'a> {
    lanes: &'a [Lane],
    /// Damage beyond the layer's least, for each layer, for each choice.
    excess: Vec<Vec<f64>>,
    /// For each layer, the choices left.
    kept: Vec<Vec<usize>>,
    known: Option<&'a [usize]>,
}

impl<'a> Program<'a> {
    fn new(problem: &Problem, lanes: &'a [Lane], known: Option<&'a [usize]>) -> Self {
        let excess = problem.layers().iter().map(|layer| {
            let least = layer.least_cost();
            layer.choices.iter().map(|c| c.cost - least).collect()
        });
        let mut program = Self { lanes, excess: excess.collect(), kept: Vec::new(), known };
        let most = known.map_or(f64::INFINITY, |plan| program.excess(plan));
        program.kept = (0..program.excess.len()).map(|i| program.worth(i, most)).collect();
        program
    }

    fn excess(&self, plan: &[usize]) -> f64 {
        self.excess.iter().zip(plan).map(|(excess, &j)| excess[j]).sum()
    }

    /// The choices of layer i that fit, do no more damage than `most`, and are not dominated.
    fn worth(&self, i: usize, most: f64) -> Vec<usize> {
        let excess = &self.excess[i];
        let no_worse = |a: usize, b: usize| {
            excess[a] <= excess[b] && self.lanes.iter().all(|lane| lane.extras[i][a] <= lane.extras[i][b])
        };
        let dominated = |b: usize| (0..excess.len()).any(|a| a != b && no_worse(a, b) && (a < b || !no_worse(b, a)));
        let fits = |j: usize| self.lanes.iter().all(|lane| lane.extras[i][j] <= lane.room);
        // The known plan is only a hint to the solver: an equally good one stands in for a dominated choice of it.
        (0..excess.len()).filter(|&j| excess[j] <= most && fits(j) && !dominated(j)).collect()
    }

    fn solve(&self) -> Answer {
        if self.kept.iter().any(Vec::is_empty) {
            return Answer::Infeasible;
        }
        let mut cuts = Vec::new();
        while cuts.len() < CUTS {
            match self.attempt(&cuts) {
                Answer::Plan { plan, .. } if !self.lanes.iter().all(|lane| lane.fits(&plan)) => cuts.push(plan),
                answer => return answer,
            }
        }
        Answer::Failed("every plan it offers exceeds the budget by a rounding error".to_owned())
    }

    /// One run of the solver, without the plans in `cuts`.
    fn attempt(&self, cuts: &[Plan]) -> Answer {
        let mut program = microlp::Problem::new(OptimizationDirection::Minimize);
        let variables = self.variables(&mut program);
        for layer in &variables {
            program.add_constraint(layer.iter().map(|&(_, x)| (x, 1.0)).collect::<Vec<_>>(), ComparisonOp::Eq, 1.0);
        }
        for lane in self.lanes {
            add_budget(&mut program, lane, &variables);
        }
        for plan in cuts {
            let chosen = pick(&variables, plan).map(|x| (x, 1.0)).collect::<Vec<_>>();
            program.add_constraint(chosen, ComparisonOp::Le, plan.len() as f64 - 1.0);
        }
        let mut options = SolveOptions::default();
        options.node_limit = Some(NODES);
        options.int_tol = INTEGRALITY;
        options.warm_start = self.known.map(|plan| pick(&variables, plan).map(|x| (x, 1.0)).collect());
        match program.solve_with(options).map(microlp::SolveOutcome::into_solution) {
            Ok(Ok(solution)) => Answer::Plan {
                plan: variables.iter().map(|layer| chosen(layer, &solution)).collect(),
                proven: solution.status() == microlp::SolutionStatus::Optimal,
            },
            Ok(Err(_)) => Answer::Failed(format!("no plan after {NODES} nodes")),
            Err(Error::Infeasible) => Answer::Infeasible,
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// A binary variable for each choice kept.
    fn variables(&self, program: &mut microlp::Problem) -> Vec<Vec<(usize, Variable)>> {
        let largest = self.kept.iter().zip(&self.excess).flat_map(|(kept, excess)| kept.iter().map(|&j| excess[j]));
        let largest = self.known.map_or_else(|| largest.fold(0.0, f64::max), |plan| self.excess(plan));
        let scale = scale(largest);
        let layers = self.kept.iter().zip(&self.excess);
        layers
            .map(|(kept, excess)| kept.iter().map(|&j| (j, program.add_binary_var(excess[j] * scale))).collect())
            .collect()
    }
}

/// The budget's row, brought to `LARGEST`.
fn add_budget(program: &mut microlp::Problem, lane: &Lane, variables: &[Vec<(usize, Variable)>]) {
    let scale = scale(lane.room as f64);
    let layers = lane.extras.iter().zip(variables);
    let terms = layers.flat_map(|(extras, layer)| {
        layer.iter().filter(|(j, _)| extras[*j] > 0).map(|&(j, x)| (x, extras[j] as f64 * scale))
    });
    program.add_constraint(terms.collect::<Vec<_>>(), ComparisonOp::Le, lane.room as f64 * scale);
}

/// The power of two that brings a number to `LARGEST`, about; products with it are exact.
fn scale(largest: f64) -> f64 {
    if largest > 0.0 { (LARGEST / largest).log2().floor().clamp(-1000.0, 1000.0).exp2() } else { 1.0 }
}

/// The variables of a plan's choices, where they were kept.
fn pick<'a>(variables: &'a [Vec<(usize, Variable)>], plan: &'a [usize]) -> impl Iterator<Item = Variable> + 'a {
    let layers = variables.iter().zip(plan);
    layers.filter_map(|(layer, j)| layer.iter().find(|(kept, _)| kept == j).map(|&(_, x)| x))
}

/// The choice whose variable is largest.
fn chosen(layer: &[(usize, Variable)], solution: &microlp::Solution) -> usize {
    let values = layer.iter().map(|&(j, x)| (j, solution.var_value(x)));
    values.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(j, _)| j)
}
