//! The form A = Λ + `XᵀX` of fewer columns than values, X `[P, K]` with a column of the input in each row, P < K.
//!
//! Neither A nor a factor of it is ever written down: with `G_j` = (I + Σ_{i<j} `x_i·x_iᵀ/Λ_i)⁻¹` and `x_j` the P values of
//! input j, the Cholesky factor of A has the pivots `D_j = Λ_j + x_jᵀ·G_j·x_j` and, its columns divided by their diagonal,
//! the entries `M_ij = x_iᵀ·g_j/D_j`, `g_j = G_j·x_j` (the matrix inversion lemma). G follows from input to input by
//! `G_{j+1} = G_j − g_j·g_jᵀ/D_j`. So rounding with feedback and descent need P numbers per row and input where they would
//! need K, and W* is a system of P equations.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Solve;
use faer::{Accum, Mat, MatRef, Par, Side};

/// A form of few columns.
#[derive(Clone, Debug)]
pub(super) struct Thin {
    /// X, `[P, K]`: the P values of an input stand together.
    columns: Mat<f64>,
    /// The columns of the float network less these; none where they are the same.
    difference: Option<Mat<f64>>,
    /// Λ.
    damping: Vec<f64>,
    /// `g_j`.
    gains: Mat<f64>,
    /// `D_j`.
    pivots: Vec<f64>,
}

impl Thin {
    /// The form; none where it is not finite.
    pub(super) fn new(columns: Mat<f64>, difference: Option<Mat<f64>>, damping: Vec<f64>) -> Option<Self> {
        let (count, size) = (columns.nrows(), columns.ncols());
        let mut inverse: Mat<f64> = Mat::identity(count, count);
        let mut gains: Mat<f64> = Mat::zeros(count, size);
        let mut pivots = vec![0.0; size];
        for input in 0..size {
            let column = columns.col_as_slice(input);
            let gain = gains.col_as_slice_mut(input);
            for (at, &value) in column.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                add(gain, value, inverse.col_as_slice(at));
            }
            let pivot = damping[input] + dot(column, gain);
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            for (at, &value) in gain.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                add(inverse.col_as_slice_mut(at), -value / pivot, gain);
            }
            pivots[input] = pivot;
        }
        Some(Self { columns, difference, damping, gains, pivots })
    }

    /// X, `[P, K]`.
    pub(super) fn columns(&self) -> MatRef<'_, f64> {
        self.columns.as_ref()
    }

    /// `g_j` in the columns, `[P, K]`.
    pub(super) fn gains(&self) -> MatRef<'_, f64> {
        self.gains.as_ref()
    }

    /// `D_j`.
    pub(super) fn pivots(&self) -> &[f64] {
        &self.pivots
    }

    /// An element of Λ.
    pub(super) fn damping(&self, input: usize) -> f64 {
        self.damping[input]
    }

    /// The diagonal of A.
    pub(super) fn diagonal(&self, input: usize) -> f64 {
        let column = self.columns.col_as_slice(input);
        self.damping[input] + dot(column, column)
    }

    /// A·values.
    pub(super) fn times(&self, values: MatRef<f64>) -> Mat<f64> {
        let outputs = product(self.columns.as_ref(), values);
        let mut all = product(self.columns.transpose(), outputs.as_ref());
        for row in 0..values.ncols() {
            for (input, damping) in self.damping.iter().enumerate() {
                all[(input, row)] += damping * values[(input, row)];
            }
        }
        all
    }

    /// W* for weights `[K, O]`: W + Λ⁻¹·Xᵀ·(I + X·Λ⁻¹·Xᵀ)⁻¹·D·W, D the difference of the columns.
    pub(super) fn target(&self, weights: &Mat<f64>) -> Option<Mat<f64>> {
        let difference = self.difference.as_ref()?;
        let (count, size) = (self.columns.nrows(), self.columns.ncols());
        let divided = Mat::from_fn(count, size, |at, input| self.columns[(at, input)] / self.damping[input]);
        let mut system = product(divided.as_ref(), self.columns.transpose());
        (0..count).for_each(|at| system[(at, at)] += 1.0);
        let outputs = product(difference.as_ref(), weights.as_ref());
        let solved = system.llt(Side::Lower).ok()?.solve(outputs);
        let mut target = product(divided.transpose(), solved.as_ref());
        target += weights;
        Some(target)
    }

    /// Rounds the inputs from the last to the first, each error made up for by those still to come. `round` gives the
    /// replacement of a wanted value.
    pub(super) fn feed_back(&self, target: &[f64], mut round: impl FnMut(usize, f64) -> f64) {
        let mut carried = vec![0.0; self.columns.nrows()];
        for input in (0..target.len()).rev() {
            let later = dot(&carried, self.gains.col_as_slice(input)) / self.pivots[input];
            let error = round(input, target[input] - later) - target[input];
            add(&mut carried, error, self.columns.col_as_slice(input));
        }
    }

    /// X·values.
    pub(super) fn outputs(&self, values: &[f64]) -> Vec<f64> {
        let mut outputs = vec![0.0; self.columns.nrows()];
        for (input, &value) in values.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            add(&mut outputs, value, self.columns.col_as_slice(input));
        }
        outputs
    }

    /// An element of A·values, given X·values.
    pub(super) fn element(&self, input: usize, value: f64, outputs: &[f64]) -> f64 {
        self.damping[input] * value + dot(self.columns.col_as_slice(input), outputs)
    }

    /// X·values after a value has moved.
    pub(super) fn shift(&self, input: usize, step: f64, outputs: &mut [f64]) {
        add(outputs, step, self.columns.col_as_slice(input));
    }
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((chunks, tail), (others, other_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (x, y) in chunks.iter().zip(others) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f64>() + tail.iter().zip(other_tail).map(|(x, y)| x * y).sum::<f64>()
}

fn product(left: MatRef<f64>, right: MatRef<f64>) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    product
}
