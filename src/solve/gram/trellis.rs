//! Integers of a trellis code: the unit is a column, the weights of all rows that multiply the same input.
//!
//! 1. **Feedback**, as in `feedback`: from the input with the largest diagonal on, the whole column is encoded at once for
//!    the targets that make up for errors already made, each row's error weighed by its pivot `D_j` and its scale.
//! 2. **Descent**: given all other inputs, the error is least for `y = q_j − (p_j − t_j/s)/A_jj` in each row (`descent`),
//!    and a column q costs `Σ s²·A_jj·(q − y)²` more than that. The column is encoded for y, and taken if the error falls.
//! 3. Scales by least squares, in turns with 2.
//!
//! Feedback begins from several scales: targets that make up for errors reach further than the weights, and what lies past
//! the ends of the table costs most.
//!
//! Groups have forms of their own and share columns: a depthwise layer has a column per tap. The layer as a whole is never
//! worse than rounded to nearest.

use super::descent::Row;
use super::per_row::starts;
use super::system::{Form, dot};
use super::{GroupSolution, Prepared, Problem};
use crate::quant::trellis::Encoder;
use crate::solve::trellis::encode_column;
use faer::Mat;
use msq_passes::TrellisCode;
use rayon::prelude::*;

/// How often scales and columns are improved in turns.
const TURNS: usize = 8;
/// The same for a quick look.
const QUICK_TURNS: usize = 2;
/// How much larger or smaller the next starting scales are, and how often they grow or shrink at most.
const FACTOR: f64 = 1.15;
const FACTORS: usize = 6;
/// A turn that lowers the error by less than this share is the last one.
const LEAST_GAIN: f64 = 1e-3;
/// Products of this many numbers are spread over threads.
const PARALLEL: usize = 1 << 14;

/// A row on its way down.
struct Line<'a> {
    row: Row<'a>,
    group: &'a Prepared,
    /// X·q where the form is that of few columns; empty where q·A is kept instead.
    outputs: Vec<f64>,
}

/// The rows of all groups, and the order of their inputs.
#[allow(clippy::struct_field_names)] // `lines` is the plain word for them.
struct Lines<'a> {
    lines: Vec<Line<'a>>,
    /// The place of each input in the order of each group.
    places: Vec<Vec<usize>>,
    /// The group of each row.
    groups: Vec<usize>,
    /// Inputs, those with the largest diagonal first.
    order: Vec<usize>,
    per_channel: bool,
}

/// Solves the groups of a layer.
pub(super) fn solve(problem: &Problem, groups: &[Prepared], code: TrellisCode) -> Vec<GroupSolution> {
    let plain = |group: &Prepared| group.plain.clone();
    let scales: Vec<Vec<f64>> = groups.iter().map(|group| group.plain_scales.clone()).collect();
    let lines = Lines::new(problem, groups, plain, &scales);
    let quick = groups.iter().any(|group| group.quick);
    let mut best: Vec<GroupSolution> = groups.iter().map(GroupSolution::new).collect();
    lines.give(&mut best);
    for found in &mut best {
        found.plain_errors.clone_from(&found.errors);
    }
    let mut lines = begin(problem, groups, code);
    lines.descend(code, if quick { QUICK_TURNS } else { TURNS });
    if lines.error() < best.iter().flat_map(|found| &found.errors).sum() {
        lines.give(&mut best);
    }
    best
}

/// Rounding with feedback, from the starting scales with which it comes closest: they grow, or shrink, as long as that
/// lowers the error.
fn begin<'a>(problem: &Problem, groups: &'a [Prepared], code: TrellisCode) -> Lines<'a> {
    let from = |factor: f64| {
        let scale = |group: &Prepared, row: usize| group.rule.scale(group.start_scales[row] * factor, group.least[row]);
        let scales =
            |group: &Prepared| -> Vec<f64> { (0..group.start_scales.len()).map(|row| scale(group, row)).collect() };
        let scales: Vec<Vec<f64>> = groups.iter().map(scales).collect();
        let integers = feedback(problem, groups, &scales, code);
        let fed_back = integers.is_some();
        let mut integers = integers.unwrap_or_default().into_iter();
        let next = |group: &Prepared| integers.next().unwrap_or_else(|| group.start.clone());
        let mut lines = Lines::new(problem, groups, next, &scales);
        if !problem.fixed_scales {
            lines.refit();
        }
        (lines.error(), fed_back, lines)
    };
    let (mut least, fed_back, mut best) = from(1.0);
    if problem.fixed_scales || !fed_back {
        return best;
    }
    for step in [FACTOR, FACTOR.recip()] {
        let mut factor = step;
        for _ in 0..FACTORS {
            let (error, _, lines) = from(factor);
            if error.partial_cmp(&least) != Some(std::cmp::Ordering::Less) {
                break;
            }
            (least, best) = (error, lines);
            factor *= step;
        }
        if factor != step {
            break;
        }
    }
    best
}

/// Integers by rounding with feedback on the scales of each group; none where the groups have no common order of inputs.
fn feedback(problem: &Problem, groups: &[Prepared], scales: &[Vec<f64>], code: TrellisCode) -> Option<Vec<Mat<f64>>> {
    let order = groups.first()?.system.order();
    let factors: Option<Vec<&Mat<f64>>> = groups
        .iter()
        .map(|group| match &group.system.form {
            Form::Full { unit_lower, .. } if group.system.order() == order => Some(unit_lower),
            _ => None,
        })
        .collect();
    let factors = factors?;
    let pivots: Vec<Vec<f64>> = groups.iter().map(|group| group.system.pivots()).collect();
    let rows: Vec<(usize, usize)> =
        groups.iter().enumerate().flat_map(|(g, group)| (0..group.target.ncols()).map(move |row| (g, row))).collect();
    let size = problem.size;
    let mut encoder = Encoder::new(code, rows.len());
    // Errors s·q − w* of each row, in the order of the inputs.
    let mut errors: Vec<Vec<f64>> = rows.iter().map(|_| vec![0.0; size]).collect();
    let mut integers: Vec<Mat<f64>> = groups.iter().map(|g| Mat::zeros(size, g.target.ncols())).collect();
    for input in (0..size).rev() {
        let wanted = |(&(g, row), errors): (&(usize, usize), &Vec<f64>)| {
            let carried = dot(&factors[g].col_as_slice(input)[input + 1..], &errors[input + 1..]);
            groups[g].target[(input, row)] - carried
        };
        let pairs = rows.iter().zip(&errors);
        let wanted: Vec<f64> = if rows.len() * (size - input) < PARALLEL {
            pairs.map(wanted).collect()
        } else {
            rows.par_iter().zip(&errors).map(wanted).collect()
        };
        let scale = |&(g, row): &(usize, usize)| scales[g][row];
        let targets: Vec<f64> = wanted.iter().zip(&rows).map(|(w, at)| w / scale(at)).collect();
        let weight = |at: &(usize, usize)| groups[at.0].system.unit() * pivots[at.0][input] * scale(at).powi(2);
        let column = encode_column(&mut encoder, &targets, &rows.iter().map(weight).collect::<Vec<f64>>());
        for ((&(g, row), &q), errors) in rows.iter().zip(&column).zip(&mut errors) {
            integers[g][(input, row)] = f64::from(q);
            errors[input] = scales[g][row] * f64::from(q) - groups[g].target[(input, row)];
        }
    }
    Some(integers)
}

impl<'a> Lines<'a> {
    fn new(
        problem: &Problem,
        groups: &'a [Prepared],
        mut integers: impl FnMut(&Prepared) -> Mat<f64>,
        scales: &[Vec<f64>],
    ) -> Self {
        let mut lines = Vec::new();
        let mut of_row = Vec::new();
        for (at, group) in groups.iter().enumerate() {
            let rows = starts(group, 0, integers(group).as_ref(), &scales[at]);
            of_row.extend(rows.iter().map(|_| at));
            lines.extend(rows.into_iter().map(|row| {
                let outputs = match &group.system.form {
                    Form::Thin(thin) => thin.outputs(&row.integers),
                    Form::Full { .. } => Vec::new(),
                };
                Line { row, group, outputs }
            }));
        }
        let place = |group: &Prepared| {
            let mut places = vec![0; problem.size];
            group.system.order().iter().enumerate().for_each(|(place, &input)| places[input] = place);
            places
        };
        let places: Vec<Vec<usize>> = groups.iter().map(place).collect();
        let diagonal = |input: usize| -> f64 {
            groups.iter().zip(&places).map(|(g, places)| g.system.unit() * g.system.diagonal(places[input])).sum()
        };
        let diagonals: Vec<f64> = (0..problem.size).map(diagonal).collect();
        let mut order: Vec<usize> = (0..problem.size).collect();
        order.sort_by(|&a, &b| diagonals[b].total_cmp(&diagonals[a]).then(a.cmp(&b)));
        Self { lines, places, groups: of_row, order, per_channel: problem.per_channel() }
    }

    fn error(&self) -> f64 {
        self.lines.iter().map(|line| line.row.error()).sum()
    }

    /// Writes rows and errors into solutions.
    fn give(self, found: &mut [GroupSolution]) {
        let mut rows: Vec<Vec<Row>> = found.iter().map(|_| Vec::new()).collect();
        for (line, group) in self.lines.into_iter().zip(self.groups) {
            rows[group].push(line.row);
        }
        found.iter_mut().zip(&rows).for_each(|(found, rows)| found.take(rows));
    }

    fn descend(&mut self, code: TrellisCode, turns: usize) {
        let mut encoder = Encoder::new(code, self.lines.len());
        let mut before = f64::INFINITY;
        for _ in 0..turns {
            self.refit();
            let error = self.error();
            if error > before * (1.0 - LEAST_GAIN) || !self.sweep(&mut encoder) {
                break;
            }
            before = error;
        }
        self.refit();
    }

    fn refit(&mut self) {
        let fits: Vec<(f64, f64)> = self.lines.par_iter().map(|line| line.row.fit()).collect();
        let weighed =
            self.lines.iter().zip(&fits).map(|(line, fit)| (line.row.weight * fit.0, line.row.weight * fit.1));
        let total = weighed.fold((0.0, 0.0), |sum, fit| (sum.0 + fit.0, sum.1 + fit.1));
        let largest = self.lines.iter().map(|line| line.row.least).fold(0.0, f64::max);
        for (line, fit) in self.lines.iter_mut().zip(fits) {
            let ((mixed, square), least) = if self.per_channel { (fit, line.row.least) } else { (total, largest) };
            if mixed > 0.0 && square > 0.0 {
                line.row.scale = line.row.rule.scale(mixed / square, least);
            }
        }
    }

    /// Encodes each column once; whether any changed.
    fn sweep(&mut self, encoder: &mut Encoder) -> bool {
        let mut any = false;
        for at in 0..self.order.len() {
            let input = self.order[at];
            let diagonals = self.diagonals(input);
            let slope = |(line, &group): (&Line, &usize)| line.slope(self.places[group][input]);
            let slopes: Vec<f64> = self.lines.iter().zip(&self.groups).map(slope).collect();
            let mut targets = Vec::with_capacity(slopes.len());
            let mut importance = Vec::with_capacity(slopes.len());
            for ((line, &group), slope) in self.lines.iter().zip(&self.groups).zip(&slopes) {
                let current = line.row.integers[self.places[group][input]];
                targets.push(current - slope / diagonals[group]);
                importance.push(line.row.weight * line.row.scale.powi(2) * diagonals[group]);
            }
            let column = encode_column(encoder, &targets, &importance);
            let mut change = 0.0;
            for (row, ((line, &group), &q)) in self.lines.iter().zip(&self.groups).zip(&column).enumerate() {
                let step = f64::from(q) - line.row.integers[self.places[group][input]];
                let parabola = step * (step * diagonals[group] + 2.0 * slopes[row]);
                change += line.row.weight * line.row.scale.powi(2) * parabola;
            }
            if change >= 0.0 {
                continue;
            }
            any = true;
            let Self { lines, places, groups, .. } = self;
            let set = |((line, &group), &q): ((&mut Line, &usize), &i8)| line.set(places[group][input], f64::from(q));
            if lines.len() * self.order.len() < PARALLEL {
                lines.iter_mut().zip(&*groups).zip(&column).for_each(set);
            } else {
                lines.par_iter_mut().zip(&*groups).zip(&column).for_each(set);
            }
        }
        // What is kept of few columns are their outputs.
        self.lines.par_iter_mut().for_each(Line::finish);
        any
    }

    /// The diagonal of each group at an input.
    fn diagonals(&self, input: usize) -> Vec<f64> {
        let mut found = vec![f64::NAN; self.places.len()];
        for (line, &group) in self.lines.iter().zip(&self.groups) {
            if found[group].is_nan() {
                found[group] = line.group.system.diagonal(self.places[group][input]);
            }
        }
        found
    }
}

impl Line<'_> {
    /// Half the slope of the error in an integer, over s².
    fn slope(&self, place: usize) -> f64 {
        let product = match &self.group.system.form {
            Form::Full { .. } => self.row.product[place],
            Form::Thin(thin) => thin.element(place, self.row.integers[place], &self.outputs),
        };
        product - self.row.target_product[place] / self.row.scale
    }

    fn set(&mut self, place: usize, integer: f64) {
        let step = integer - self.row.integers[place];
        if step == 0.0 {
            return;
        }
        self.row.integers[place] = integer;
        match &self.group.system.form {
            Form::Full { matrix, .. } => {
                let column = matrix.col_as_slice(place);
                self.row.product.iter_mut().zip(column).for_each(|(product, value)| *product += step * value);
            }
            Form::Thin(thin) => thin.shift(place, step, &mut self.outputs),
        }
    }

    /// Brings q·A up to date.
    fn finish(&mut self) {
        if let Form::Thin(thin) = &self.group.system.form {
            for (place, product) in self.row.product.iter_mut().enumerate() {
                *product = thin.element(place, self.row.integers[place], &self.outputs);
            }
        }
    }
}
