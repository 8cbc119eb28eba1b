//! The solvers by name.
//!
//! `ROWS` is the only list of them: the values and help of the option `solver`, the table of `docs/solvers.md` and the
//! messages that name solvers are printed from it. A new solver is a file with a [`SolverRow`] and a line in the list
//! (`docs/guides/add-a-solver.md`).

use super::{
    Grid, SolveError, Solver, SolverRow, StatisticsKind, adaround, block, cosine, distill, gram, lsq, pd_quant, round,
};
use crate::scheme::options::SolveOptions;
use crate::scheme::solver_name::SolverName;

/// All solvers, from the simplest on.
static ROWS: &[&SolverRow] =
    &[&round::ROW, &cosine::ROW, &gram::ROW, &adaround::ROW, &lsq::ROW, &block::ROW, &pd_quant::ROW, &distill::ROW];

impl SolverRow {
    /// All rows.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ROWS.iter().copied()
    }

    /// The row of a solver. Where no solver has the name, the error lists those there are.
    pub fn of(name: &SolverName) -> Result<&'static Self, SolveError> {
        Self::all().find(|row| row.name == name.as_str()).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(|row| row.name).collect();
            SolveError::UnknownSolver { name: name.to_string(), known: names.join(", ") }
        })
    }

    /// Whether the option of this key belongs to the solver.
    pub fn has_option(&self, key: &str) -> bool {
        self.options.contains(&key)
    }

    /// The quick form of the solver, or that of `gram` where it has none.
    pub(crate) fn quick_form(&self, options: &SolveOptions) -> Box<dyn Solver> {
        (self.quick.unwrap_or(gram::quick))(options)
    }
}

/// The names of the solvers that take a grid.
pub(super) fn taking(grid: &Grid) -> Vec<&'static str> {
    let options = SolveOptions::default();
    SolverRow::all().filter(|row| (row.solver)(&options).takes(grid)).map(|row| row.name).collect()
}

/// The table of solvers in `docs/solvers.md`.
pub fn table() -> String {
    let options = SolveOptions::default();
    let head = "| solver | minimises | statistics | grids | options | time |\n|---|---|---|---|---|---|\n";
    let mut rows = vec![head.to_owned()];
    for row in SolverRow::all() {
        let solver = (row.solver)(&options);
        let statistics = match solver.statistics() {
            StatisticsKind::Nothing => "none",
            StatisticsKind::Moments { .. } => "second moments of x and x̂",
            StatisticsKind::Columns => "columns x and x̂",
        };
        let levels = Grid::Levels(&[-1, 1]);
        let grids = if solver.takes(&levels) { "all" } else { "`narrow`, `full`, `codebook`" };
        let flags: Vec<String> = row.options.iter().map(|key| format!("`--{}`", key.replace('_', "-"))).collect();
        let SolverRow { name, minimises, time, .. } = row;
        rows.push(format!(
            "| [`{name}`](#{name}) | {minimises} | {statistics} | {grids} | {} | {time} |\n",
            flags.join(", ")
        ));
    }
    rows.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::GridSpec;

    #[test]
    fn a_solver_has_the_name_of_its_row() {
        let options = SolveOptions::default();
        for row in SolverRow::all() {
            assert!(std::ptr::eq(SolverRow::of(&SolverName::new(row.name)).unwrap(), row));
            let solver = (row.solver)(&options);
            assert_eq!(solver.name(), row.name);
            assert!(solver.takes(&Grid::Uniform(GridSpec::WEIGHT_S8)), "{}", row.name);
        }
        let said = SolverRow::of(&SolverName::new("best")).unwrap_err().to_string();
        assert_eq!(
            said,
            "no solver is called `best`; there are round, cosine, gram, adaround, lsq, block, pd-quant, distill"
        );
    }

    #[test]
    fn quick_forms_fall_back_on_the_closed_form() {
        let options = SolveOptions { position_step: 1, ..SolveOptions::default() };
        for (name, quick) in [("round", "round"), ("gram", "gram"), ("lsq", "gram"), ("cosine", "gram")] {
            let solver = SolverRow::of(&SolverName::new(name)).unwrap().quick_form(&options);
            assert_eq!(solver.name(), quick, "{name}");
            assert!(matches!(solver.statistics(), StatisticsKind::Nothing | StatisticsKind::Moments { stride: 8 }));
        }
    }

    /// Between the markers of the document; print it with `cargo test -- --nocapture` where it has changed.
    #[test]
    fn the_table_of_the_documentation_is_the_list() {
        let document = include_str!("../../docs/solvers.md");
        let found = document.split("<!-- solvers -->\n").nth(1).unwrap_or_default();
        assert_eq!(found, table(), "docs/solvers.md");
    }
}
