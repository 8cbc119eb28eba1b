//! The quadratic form A = H + λI + γ·diag(H) of one group, divided by the mean diagonal of H, its inputs in the order of rising
//! diagonal, and the target W* that it belongs to.
//!
//! γ shrinks correlations towards none, the more the fewer columns were summed: with P columns, R the K×K matrix of their
//! correlations and t = ‖R‖², ρ = ((1 − 2/K)·t + K²)/((P + 1 − 2/K)·(t − K)) is the share of the diagonal in the estimate
//! of least expected error (Chen, Wiesel, Eldar, Hero 2010, eq. 23, of R in the place of the covariance), and
//! γ = ρ/(1 − ρ). Of many columns next to nothing is left of it; of fewer columns than values most correlations are chance.
//!
//! Matrices `[K, O]` in column-major order hold a row of weights in each column.

use super::thin::Thin;
use super::{Group, Problem};
use crate::kernels::{Columns, Moments};
use crate::solve::Statistics;
use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Accum, Mat, MatRef, Par, Side};

/// How often damping grows tenfold when the form has no Cholesky factor.
const ATTEMPTS: usize = 8;
/// The damping to grow from where none is asked for.
const LEAST_DAMPING: f64 = 1e-8;

/// The most of the estimate that the diagonal may be.
const MOST_SHRUNK: f64 = 0.99;

/// A quadratic form with its Cholesky factor.
pub(super) struct System {
    /// Input at each place.
    order: Vec<usize>,
    pub(super) form: Form,
    factor: Option<Llt<f64>>,
    /// λ.
    damping: f64,
    /// What is added to the diagonal as a multiple of itself.
    shrinkage: f64,
    /// The diagonal of H, divided as A is.
    undamped: Vec<f64>,
    /// What A was divided by.
    unit: f64,
    /// C in this order, divided as A is; none where it is H.
    cross: Option<Mat<f64>>,
}

/// A, in one of two ways.
pub(super) enum Form {
    /// Of moments.
    Full {
        /// A.
        matrix: Mat<f64>,
        /// The Cholesky factor of A, each column divided by its diagonal.
        unit_lower: Mat<f64>,
    },
    /// Of fewer columns than values.
    Thin(Thin),
}

impl System {
    /// The form of a group's columns, where they are few.
    fn of_columns(columns: &Columns, problem: &Problem, order: Option<&[usize]>) -> Option<Self> {
        let (size, count) = (problem.size, columns.count());
        let finite = columns.quantized.iter().chain(&columns.float).all(|v| v.is_finite());
        let means = columns.means();
        let mean = |of: &[f64], input: usize| if problem.centered { of[input] } else { 0.0 };
        let value =
            |at: usize, input: usize| f64::from(columns.quantized[at * size + input]) - mean(&means.quantized, input);
        let squares: Vec<f64> =
            (0..size).map(|input| (0..count).map(|at| value(at, input).powi(2)).sum::<f64>()).collect();
        let unit = squares.iter().sum::<f64>() / size.max(1) as f64;
        if !finite || unit < f64::MIN_POSITIVE * 1e6 {
            return None;
        }
        let rising = || {
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| squares[a].total_cmp(&squares[b]).then(b.cmp(&a)));
            order
        };
        let order = order.map_or_else(rising, <[usize]>::to_vec);
        let root = unit.sqrt();
        let own = Mat::from_fn(count, size, |at, i| value(at, order[i]) / root);
        let difference = (columns.float != columns.quantized).then(|| {
            let float =
                |at: usize, input: usize| f64::from(columns.float[at * size + input]) - mean(&means.float, input);
            Mat::from_fn(count, size, |at, i| (float(at, order[i]) - value(at, order[i])) / root)
        });
        let deviations: Vec<f64> = order.iter().map(|&input| (squares[input] / unit).sqrt()).collect();
        let standard =
            Mat::from_fn(count, size, |at, i| if deviations[i] > 0.0 { own[(at, i)] / deviations[i] } else { 0.0 });
        // The squares of all correlations, by way of the smaller product.
        let products = product(standard.as_ref(), standard.transpose());
        let correlations = products.col_iter().flat_map(|column| column.iter().map(|v| v * v)).sum();
        let used = deviations.iter().filter(|d| **d > 0.0).count();
        let shrinkage = shrinkage_of(correlations, used, count as f64 / problem.redundancy);
        let damping =
            order.iter().map(|&input| problem.damping.max(LEAST_DAMPING) + shrinkage * squares[input] / unit).collect();
        let form = Form::Thin(Thin::new(own, difference, damping)?);
        Some(Self { order, form, unit, ..Self::identity(0) })
    }

    /// The form of a group's moments, or of its columns. Without any, or with such as are not finite, it is the identity.
    /// `order` is that of all groups, where they need one.
    pub(super) fn new(group: &Group, problem: &Problem, order: Option<&[usize]>) -> Self {
        let own = Self::of(group, problem, order);
        let identity =
            || Self { order: order.map_or_else(Vec::new, <[usize]>::to_vec), ..Self::identity(problem.size) };
        own.unwrap_or_else(|| if order.is_some() { identity() } else { Self::identity(problem.size) })
    }

    /// An order of inputs for all groups: that of the sums of their diagonals, each relative to its mean.
    pub(super) fn common_order(problem: &Problem) -> Vec<usize> {
        let size = problem.size;
        let mut sums = vec![0.0; size];
        for group in problem.groups {
            let diagonal: Vec<f64> = match group.statistics {
                Statistics::Moments(moments) => (0..size).map(|i| f64::from(moments.product[i * size + i])).collect(),
                Statistics::Columns(columns) => {
                    let square =
                        |input| columns.quantized.iter().skip(input).step_by(size).map(|&v| f64::from(v).powi(2)).sum();
                    (0..size).map(square).collect()
                }
                _ => continue,
            };
            let total: f64 = diagonal.iter().sum();
            if total.is_normal() && total > 0.0 {
                sums.iter_mut().zip(diagonal).for_each(|(sum, value)| *sum += value / total);
            }
        }
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| sums[a].total_cmp(&sums[b]).then(b.cmp(&a)));
        order
    }

    fn of(group: &Group, problem: &Problem, order: Option<&[usize]>) -> Option<Self> {
        let size = problem.size;
        let moments = match group.statistics {
            Statistics::Moments(moments) => moments,
            Statistics::Columns(columns) => {
                return Self::of_columns(columns, problem, order);
            }
            _ => return None,
        };
        let means = Means::of(moments, problem.centered);
        let product = |i: usize, j: usize| {
            f64::from(moments.product[j * size + i]) - means.quantized[i] * means.quantized[j] * means.count
        };
        let diagonal: Vec<f64> = (0..size).map(|i| product(i, i).max(0.0)).collect();
        let unit = diagonal.iter().sum::<f64>() / size.max(1) as f64;
        let finite = moments.product.iter().chain(moments.cross.iter().flatten()).all(|v| v.is_finite())
            && means.quantized.iter().chain(&means.float).all(|v| v.is_finite());
        if !finite || unit < f64::MIN_POSITIVE * 1e6 {
            return None;
        }
        let rising = || {
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]).then(b.cmp(&a)));
            order
        };
        let order = order.map_or_else(rising, <[usize]>::to_vec);
        let form = Mat::from_fn(size, size, |i, j| product(order[i], order[j]) / unit);
        let shrinkage = shrinkage(form.as_ref(), moments.count as f64 / problem.redundancy);
        let cross = moments.cross.as_ref().map(|cross| {
            let value =
                |i: usize, j: usize| f64::from(cross[i * size + j]) - means.float[i] * means.quantized[j] * means.count;
            // Transposed: rows of weights are columns here.
            Mat::from_fn(size, size, |j, i| value(order[i], order[j]) / unit)
        });
        let parts = Self { order, shrinkage, unit, cross, ..Self::identity(0) };
        Self::factorize(&form, problem.damping, parts)
    }

    /// The form with as little damping from `damping` on as lets it be factorised.
    fn factorize(form: &Mat<f64>, mut damping: f64, parts: Self) -> Option<Self> {
        let size = form.nrows();
        for _ in 0..ATTEMPTS {
            let mut matrix = form.clone();
            for i in 0..size {
                matrix[(i, i)] += damping + parts.shrinkage * form[(i, i)];
            }
            if let Ok(factor) = matrix.llt(Side::Lower)
                && let Some(unit_lower) = unit_lower(&factor, size)
            {
                let undamped = (0..size).map(|i| form[(i, i)]).collect();
                let form = Form::Full { matrix, unit_lower };
                return Some(Self { form, factor: Some(factor), damping, undamped, ..parts });
            }
            damping = (damping * 10.0).max(LEAST_DAMPING);
        }
        None
    }

    fn identity(size: usize) -> Self {
        Self {
            order: (0..size).collect(),
            form: Form::Full { matrix: Mat::identity(size, size), unit_lower: Mat::identity(size, size) },
            factor: None,
            damping: 0.0,
            shrinkage: 0.0,
            undamped: Vec::new(),
            unit: 1.0,
            cross: None,
        }
    }

    /// The squares of the diagonal of the Cholesky factor; 1 where there is none.
    pub(super) fn pivots(&self) -> Vec<f64> {
        let root = |place: usize| self.factor.as_ref().map_or(1.0, |factor| factor.L()[(place, place)]);
        (0..self.order.len()).map(|place| root(place).powi(2)).collect()
    }

    /// The input at each place.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The same form with all of its elements written down; none where it has no Cholesky factor.
    pub(super) fn dense(self) -> Option<Self> {
        let Form::Thin(thin) = &self.form else { return Some(self) };
        let size = self.order.len();
        let matrix = thin.times(Mat::identity(size, size).as_ref());
        let factor = matrix.llt(Side::Lower).ok()?;
        let unit_lower = unit_lower(&factor, size)?;
        Some(Self { form: Form::Full { matrix, unit_lower }, factor: Some(factor), ..self })
    }

    /// What errors have to be multiplied with to be those of the moments.
    pub(super) fn unit(&self) -> f64 {
        self.unit
    }

    /// Values `[O, K]` as columns in this order.
    pub(super) fn arrange<T: Copy>(&self, rows: &[T], number: impl Fn(T) -> f64) -> Mat<f64> {
        let size = self.order.len();
        Mat::from_fn(size, rows.len() / size.max(1), |i, row| number(rows[row * size + self.order[i]]))
    }

    /// Columns in this order as values `[O, K]`.
    pub(super) fn restore<T: Copy + Default>(&self, columns: MatRef<f64>, number: impl Fn(f64) -> T) -> Vec<T> {
        let size = self.order.len();
        let mut rows = vec![T::default(); size * columns.ncols()];
        for row in 0..columns.ncols() {
            for (i, &input) in self.order.iter().enumerate() {
                rows[row * size + input] = number(columns[(i, row)]);
            }
        }
        rows
    }

    /// The diagonal of A for each of so many rows, as values `[O, K]`.
    pub(super) fn importance(&self, rows: usize) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.order.len()];
        self.order.iter().enumerate().for_each(|(i, &input)| diagonal[input] = self.unit * self.diagonal(i));
        diagonal.repeat(rows)
    }

    /// An element of the diagonal of A.
    pub(super) fn diagonal(&self, input: usize) -> f64 {
        match &self.form {
            Form::Full { matrix, .. } => matrix[(input, input)],
            Form::Thin(thin) => thin.diagonal(input),
        }
    }

    /// A·columns.
    pub(super) fn times(&self, columns: MatRef<f64>) -> Mat<f64> {
        match &self.form {
            Form::Full { matrix, .. } => product(matrix.as_ref(), columns),
            Form::Thin(thin) => thin.times(columns),
        }
    }

    /// W* of the group, `[K, O]`; W itself where float and quantized inputs are the same, or nothing better is known.
    pub(super) fn target(&self, group: &Group) -> Mat<f64> {
        let weights = self.arrange(group.weights, f64::from);
        let target = match &self.form {
            Form::Full { .. } => self.full_target(&weights),
            Form::Thin(thin) => thin.target(&weights),
        };
        let finite = |target: &Mat<f64>| target.col_iter().all(|c| c.iter().all(|v| v.abs() < f64::from(f32::MAX)));
        target.filter(finite).unwrap_or(weights)
    }

    fn full_target(&self, weights: &Mat<f64>) -> Option<Mat<f64>> {
        let (cross, factor) = (self.cross.as_ref()?, self.factor.as_ref()?);
        let mut right = product(cross.as_ref(), weights.as_ref());
        for row in 0..right.ncols() {
            for (i, diagonal) in self.undamped.iter().enumerate() {
                right[(i, row)] += (self.damping + self.shrinkage * diagonal) * weights[(i, row)];
            }
        }
        Some(factor.solve(right))
    }
}

/// A Cholesky factor with each column divided by its diagonal; none where it is not finite.
fn unit_lower(factor: &Llt<f64>, size: usize) -> Option<Mat<f64>> {
    let lower = factor.L();
    let divided = Mat::from_fn(size, size, |i, j| if i < j { 0.0 } else { lower[(i, j)] / lower[(j, j)] });
    let finite = divided.col_iter().all(|column| column.iter().all(|value| value.is_finite()));
    finite.then_some(divided)
}

/// γ for the form of so many columns.
fn shrinkage(form: MatRef<f64>, count: f64) -> f64 {
    let used: Vec<usize> = (0..form.nrows()).filter(|&i| form[(i, i)] > 0.0).collect();
    let squares: f64 = used
        .iter()
        .flat_map(|&j| used.iter().map(move |&i| (i, j)))
        .map(|(i, j)| form[(i, j)].powi(2) / (form[(i, i)] * form[(j, j)]))
        .sum();
    shrinkage_of(squares, used.len(), count)
}

/// γ, given the squares of all correlations of so many inputs.
fn shrinkage_of(squares: f64, used: usize, count: f64) -> f64 {
    let size = used as f64;
    let (kept, correlated) = (1.0 - 2.0 / size, squares - size);
    if size < 2.0 || correlated <= 0.0 {
        return 0.0;
    }
    let share = (kept * squares + size * size) / ((count + kept) * correlated);
    let share = share.clamp(0.0, MOST_SHRUNK);
    share / (1.0 - share)
}

fn product(left: MatRef<f64>, right: MatRef<f64>) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    product
}

/// Means of the columns; 0 where moments are not to be taken about them.
struct Means {
    quantized: Vec<f64>,
    float: Vec<f64>,
    count: f64,
}

impl Means {
    fn of(moments: &Moments, centered: bool) -> Self {
        let count = if centered { moments.count as f64 } else { 0.0 };
        let mean = |sums: &[f64]| sums.iter().map(|sum| if count > 0.0 { sum / count } else { 0.0 }).collect();
        Self { quantized: mean(&moments.quantized_sum), float: mean(&moments.float_sum), count }
    }
}

/// Σ a·b.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((chunks, tail), (others, other_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (x, y) in chunks.iter().zip(others) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f64>() + tail.iter().zip(other_tail).map(|(x, y)| x * y).sum::<f64>()
}
