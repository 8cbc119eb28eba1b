//! The quadratic form A = H + λI of one group, divided by the mean diagonal of H, its inputs in the order of rising
//! diagonal, and the target W* that it belongs to.
//!
//! Matrices `[K, O]` in column-major order hold a row of weights in each column.

use super::{Group, Problem};
use crate::kernels::Moments;
use crate::solve::Statistics;
use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Accum, Mat, MatRef, Par, Side};

/// How often damping grows tenfold when the form has no Cholesky factor.
const ATTEMPTS: usize = 8;
/// The damping to grow from where none is asked for.
const LEAST_DAMPING: f64 = 1e-8;

/// A quadratic form with its Cholesky factor.
pub(super) struct System {
    /// Input at each place.
    order: Vec<usize>,
    /// A.
    pub(super) matrix: Mat<f64>,
    /// The Cholesky factor of A, each column divided by its diagonal.
    pub(super) unit_lower: Mat<f64>,
    factor: Option<Llt<f64>>,
    /// λ.
    damping: f64,
    /// What A was divided by.
    unit: f64,
    /// C in this order, divided as A is; none where it is H.
    cross: Option<Mat<f64>>,
}

impl System {
    /// The form of a group's moments. Without any, or with such as are not finite, it is the identity.
    pub(super) fn new(group: &Group, problem: &Problem) -> Self {
        let size = problem.size;
        let Statistics::Moments(moments) = group.statistics else { return Self::identity(size) };
        let means = Means::of(moments, problem.centered);
        let product = |i: usize, j: usize| {
            f64::from(moments.product[j * size + i]) - means.quantized[i] * means.quantized[j] * means.count
        };
        let diagonal: Vec<f64> = (0..size).map(|i| product(i, i).max(0.0)).collect();
        let unit = diagonal.iter().sum::<f64>() / size.max(1) as f64;
        let finite = moments.product.iter().chain(moments.cross.iter().flatten()).all(|v| v.is_finite())
            && means.quantized.iter().chain(&means.float).all(|v| v.is_finite());
        if !finite || unit < f64::MIN_POSITIVE * 1e6 {
            return Self::identity(size);
        }
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]).then(b.cmp(&a)));
        let form = Mat::from_fn(size, size, |i, j| product(order[i], order[j]) / unit);
        let cross = moments.cross.as_ref().map(|cross| {
            let value =
                |i: usize, j: usize| f64::from(cross[i * size + j]) - means.float[i] * means.quantized[j] * means.count;
            // Transposed: rows of weights are columns here.
            Mat::from_fn(size, size, |j, i| value(order[i], order[j]) / unit)
        });
        Self::factorize(&form, problem.damping, Self { order, unit, cross, ..Self::identity(0) })
            .unwrap_or_else(|| Self::identity(size))
    }

    /// The form with as little damping from `damping` on as lets it be factorised.
    fn factorize(form: &Mat<f64>, mut damping: f64, parts: Self) -> Option<Self> {
        let size = form.nrows();
        for _ in 0..ATTEMPTS {
            let mut matrix = form.clone();
            for i in 0..size {
                matrix[(i, i)] += damping;
            }
            if let Ok(factor) = matrix.llt(Side::Lower) {
                let lower = factor.L();
                let unit_lower =
                    Mat::from_fn(size, size, |i, j| if i < j { 0.0 } else { lower[(i, j)] / lower[(j, j)] });
                if unit_lower.col_iter().all(|c| c.iter().all(|v| v.is_finite())) {
                    return Some(Self { matrix, unit_lower, factor: Some(factor), damping, ..parts });
                }
            }
            damping = (damping * 10.0).max(LEAST_DAMPING);
        }
        None
    }

    fn identity(size: usize) -> Self {
        Self {
            order: (0..size).collect(),
            matrix: Mat::identity(size, size),
            unit_lower: Mat::identity(size, size),
            factor: None,
            damping: 0.0,
            unit: 1.0,
            cross: None,
        }
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
        self.order.iter().enumerate().for_each(|(i, &input)| diagonal[input] = self.unit * self.matrix[(i, i)]);
        diagonal.repeat(rows)
    }

    /// A·columns.
    pub(super) fn times(&self, columns: MatRef<f64>) -> Mat<f64> {
        product(self.matrix.as_ref(), columns)
    }

    /// W* of the group, `[K, O]`; W itself where float and quantized inputs are the same, or nothing better is known.
    pub(super) fn target(&self, group: &Group) -> Mat<f64> {
        let weights = self.arrange(group.weights, f64::from);
        let (Some(cross), Some(factor)) = (&self.cross, &self.factor) else { return weights };
        let mut right = product(cross.as_ref(), weights.as_ref());
        right += faer::Scale(self.damping) * &weights;
        let target = factor.solve(right);
        let finite = target.col_iter().all(|column| column.iter().all(|v| v.abs() < f64::from(f32::MAX)));
        if finite { target } else { weights }
    }
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
