//! Coordinate descent on `(s·q − w*)·A·(s·q − w*)ᵀ` for one row.
//!
//! With p = q·A and t = w*·A kept, the error is `s²·(q·p) − 2s·(q·t) + w*·t`. Given all other integers it is least for
//! `q_j − (s·p_j − t_j)/(s·A_jj)`, and among levels for the one nearest to that, as the error is a parabola in `q_j`. A
//! move by δ adds δ times a row of A to p. Given the integers, the error is least for s = (q·t)/(q·p), or for the lower
//! limit of s; among powers of two, for the one nearest to that, as the error is a parabola in s. No step raises the
//! error.

use super::system::{Form, System, dot};
use super::thin::Thin;
use crate::quant::{normal_scale, power_of_two};
use crate::solve::levels::Levels;
use crate::solve::{Grid, Problem};

/// How often scale and integers are improved in turns.
const TURNS: usize = 12;
/// How often the integers are gone through for one scale.
const SWEEPS: usize = 4;
/// A turn that lowers the error by less than this share is the last one.
const LEAST_GAIN: f64 = 1e-3;

/// A row on its way down.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    /// q.
    pub(super) integers: Vec<f64>,
    /// q·A.
    pub(super) product: Vec<f64>,
    /// w* and w*·A.
    pub(super) target: &'a [f64],
    pub(super) target_product: &'a [f64],
    /// s, and the least it may be.
    pub(super) scale: f64,
    pub(super) least: f64,
    /// What s may be.
    pub(super) rule: ScaleRule,
    /// What the form was divided by.
    pub(super) weight: f64,
}

impl Row<'_> {
    /// The error, in units of the moments.
    pub(super) fn error(&self) -> f64 {
        let squares = self.scale * self.scale * dot(&self.integers, &self.product);
        let error = squares - 2.0 * self.scale * dot(&self.integers, self.target_product)
            + dot(self.target, self.target_product);
        // Rounding may leave less than nothing of an exact fit.
        self.weight * error.max(0.0)
    }

    /// Moves integers and scale down until nothing changes, or long enough.
    pub(super) fn descend(&mut self, system: &System, levels: &Levels) {
        let mut before = f64::INFINITY;
        for turn in 0..TURNS {
            let refitted = self.refit();
            let error = self.error();
            if error > before * (1.0 - LEAST_GAIN) || !(refitted || turn == 0) || !self.settle(system, levels) {
                break;
            }
            before = error;
        }
        self.refit();
    }

    /// Moves integers until none changes, or long enough; whether any did.
    pub(super) fn settle(&mut self, system: &System, levels: &Levels) -> bool {
        let mut any = false;
        for _ in 0..SWEEPS {
            if !self.sweep(system, levels) {
                break;
            }
            any = true;
        }
        any
    }

    /// Moves each integer once; whether any did.
    fn sweep(&mut self, system: &System, levels: &Levels) -> bool {
        let matrix = match &system.form {
            Form::Full { matrix, .. } => matrix,
            Form::Thin(thin) => return self.sweep_thin(thin, levels),
        };
        let mut any = false;
        for input in (0..self.integers.len()).rev() {
            let column = matrix.col_as_slice(input);
            let Some(step) = self.step(input, self.product[input], column[input], levels) else { continue };
            self.integers[input] += step;
            self.product.iter_mut().zip(column).for_each(|(product, value)| *product += step * value);
            any = true;
        }
        any
    }

    /// A sweep where A is made of few columns.
    fn sweep_thin(&mut self, thin: &Thin, levels: &Levels) -> bool {
        let mut outputs = thin.outputs(&self.integers);
        let mut any = false;
        for input in (0..self.integers.len()).rev() {
            let product = thin.element(input, self.integers[input], &outputs);
            let Some(step) = self.step(input, product, thin.diagonal(input), levels) else { continue };
            self.integers[input] += step;
            thin.shift(input, step, &mut outputs);
            any = true;
        }
        if any {
            for (input, product) in self.product.iter_mut().enumerate() {
                *product = thin.element(input, self.integers[input], &outputs);
            }
        }
        any
    }

    /// The move of an integer to its best level, given its element of q·A and of the diagonal; none where it stays.
    fn step(&self, input: usize, product: f64, diagonal: f64, levels: &Levels) -> Option<f64> {
        let current = self.integers[input];
        let slope = product - self.target_product[input] / self.scale;
        let step = levels.nearest(current - slope / diagonal) - current;
        // In the middle between two levels a move gains nothing.
        (step != 0.0 && step * (step * diagonal + 2.0 * slope) < 0.0).then_some(step)
    }

    /// Sets the best scale for the integers, as a single-precision number; whether it changed.
    fn refit(&mut self) -> bool {
        let (mixed, square) = self.fit();
        if !(mixed > 0.0 && square > 0.0) {
            return false;
        }
        let scale = self.rule.scale(mixed / square, self.least);
        let changed = scale != self.scale;
        self.scale = scale;
        changed
    }

    /// q·t and q·p.
    pub(super) fn fit(&self) -> (f64, f64) {
        (dot(&self.integers, self.target_product), dot(&self.integers, &self.product))
    }
}

/// What a scale may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ScaleRule {
    /// Any normal single-precision number.
    Any,
    /// A power of two.
    PowerOfTwo,
    /// The one that its limit states.
    Fixed,
}

impl ScaleRule {
    /// The rule of a problem.
    pub(super) fn of(problem: &Problem) -> Self {
        match problem.grid {
            _ if problem.fixed_scales => Self::Fixed,
            Grid::Scaled(..) => Self::PowerOfTwo,
            _ => Self::Any,
        }
    }

    /// The scale nearest to `scale` that is not below its limit.
    pub(super) fn scale(self, scale: f64, least: f64) -> f64 {
        match self {
            Self::Any => f64::from(normal_scale(scale.max(least))),
            Self::Fixed => least,
            Self::PowerOfTwo => f64::from(power_of_two::nearest(scale).max(power_of_two::ceiling(least))),
        }
    }

    /// Starting scales, as multiples of the one with the least squared error of rounding to nearest: feedback makes
    /// weights larger than they were, and clipping costs less.
    pub(super) fn factors(self, bits: u8) -> &'static [f64] {
        match (self, bits) {
            (Self::Fixed, _) => &[1.0],
            (Self::PowerOfTwo, _) => &[1.0, 0.5, 2.0],
            (_, 0..=3) => &[1.0, 0.8, 0.9, 1.12, 1.25],
            (_, 4..=5) => &[1.0, 0.9, 1.1],
            _ => &[1.0],
        }
    }
}
