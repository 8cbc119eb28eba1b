//! Rounding with error feedback.
//!
//! With A = M·D·Mᵀ, M unit lower triangular (a Cholesky factor), an error e = s·q − w* costs
//! `e·A·eᵀ = Σ_j D_j·(e_j + Σ_{i>j} e_i·M_ij)²`. Taken from the last input, which has the largest diagonal, to the
//! first, each term holds only errors already made besides its own, so that
//! `q_j = nearest((w*_j − Σ_{i>j} e_i·M_ij)/s)` makes it as small as it can be. These are the integers of GPTQ (Frantar
//! et al., Algorithm 1), whose updates through the inverse of A are the same sums taken from the other end.
//!
//! The sums are split: products with whole blocks of later inputs are matrix products for many rows at once.

use super::system::{Form, System, dot};
use crate::solve::levels::Levels;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

/// Inputs in a block.
const BLOCK: usize = 32;

/// Integers `[K, R]` for the targets `[K, R]` of some rows with their scales.
pub(super) fn round(system: &System, target: MatRef<f64>, scales: &[f64], levels: &Levels) -> Mat<f64> {
    round_by(system, target, |row, _, wanted| {
        let integer = levels.nearest(wanted / scales[row]);
        (integer, scales[row] * integer)
    })
}

/// The same where `nearest` gives the integer of a row and an input that is nearest to a value, and the value it stands for.
pub(super) fn round_by(
    system: &System,
    target: MatRef<f64>,
    nearest: impl Fn(usize, usize, f64) -> (f64, f64),
) -> Mat<f64> {
    let (size, rows) = (target.nrows(), target.ncols());
    let mut integers: Mat<f64> = Mat::zeros(size, rows);
    let unit_lower = match &system.form {
        Form::Full { unit_lower, .. } => unit_lower,
        Form::Thin(thin) => {
            for row in 0..rows {
                let wanted: Vec<f64> = target.col(row).iter().copied().collect();
                let found = integers.col_as_slice_mut(row);
                thin.feed_back(&wanted, |input, value| {
                    let (integer, stands_for) = nearest(row, input, value);
                    found[input] = integer;
                    stands_for
                });
            }
            return integers;
        }
    };
    let mut errors: Mat<f64> = Mat::zeros(size, rows);
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let mut later: Mat<f64> = Mat::zeros(end - begin, rows);
        if end < size {
            let left = unit_lower.submatrix(end, begin, size - end, end - begin).transpose();
            matmul(later.as_mut(), Accum::Replace, left, errors.subrows(end, size - end), 1.0, Par::Seq);
        }
        for row in 0..rows {
            let errors = &mut errors.col_as_slice_mut(row)[begin..end];
            for input in (begin..end).rev() {
                let at = input - begin;
                let factors = &unit_lower.col_as_slice(input)[input + 1..end];
                let carried = later[(at, row)] + dot(factors, &errors[at + 1..]);
                let wanted = target[(input, row)];
                let (integer, stands_for) = nearest(row, input, wanted - carried);
                errors[at] = stands_for - wanted;
                integers[(input, row)] = integer;
            }
        }
        end = begin;
    }
    integers
}
