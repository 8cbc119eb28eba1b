//! Columns of a group, and what its rows compute on them.

use crate::kernels::Columns;
use crate::quant::Affine;
use crate::solve::{Group, Statistics};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use std::borrow::Cow;

/// The most columns, the least where there are as many, and the multiplications of a candidate aimed at between.
const MOST_COLUMNS: usize = 2048;
const LEAST_COLUMNS: usize = 256;
const PRODUCTS: usize = 1 << 30;

/// Sums of a row over the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    /// Σ y².
    pub(super) signal: f64,
    /// Σ y·ŷ.
    pub(super) product: f64,
    /// Σ ŷ².
    pub(super) square: f64,
}

impl Sums {
    /// cos(y, ŷ); −1 where either is zero or not finite.
    pub(super) fn cosine(self) -> f64 {
        let cosine = self.product / (self.signal.sqrt() * self.square.sqrt());
        if cosine.is_finite() { cosine } else { -1.0 }
    }

    /// The sums with another row's, whose ŷ is `scale` times as large as was summed.
    pub(super) fn plus(self, other: Self, scale: f64) -> Self {
        Self {
            signal: self.signal + other.signal,
            product: self.product + scale * other.product,
            square: self.square + scale * scale * other.square,
        }
    }
}

/// Some of the columns of a group.
#[derive(Debug)]
pub(super) struct Sample {
    size: usize,
    /// x and x̂, `[P, K]`.
    float: Vec<f32>,
    quantized: Vec<f32>,
    /// y = W·x, `[O, P]`.
    output: Vec<f32>,
    /// Σ y² of each row.
    signal: Vec<f64>,
}

impl Sample {
    /// Columns of a group, spread evenly over those seen.
    pub(super) fn new(group: &Group, size: usize) -> Self {
        let none = Columns { size, quantized: Vec::new(), float: Vec::new() };
        let columns = match group.statistics {
            Statistics::Columns(columns) if columns.size == size => columns,
            _ => &none,
        };
        let count = columns.count();
        let wanted = (PRODUCTS / group.weights.len().max(1)).clamp(LEAST_COLUMNS, MOST_COLUMNS).min(count);
        let taken = |values: &[f32]| -> Vec<f32> {
            (0..wanted).flat_map(|i| &values[i * count / wanted * size..][..size]).copied().collect()
        };
        let (float, quantized) = (taken(&columns.float), taken(&columns.quantized));
        let output = outputs(group.weights, &float, size);
        let square = |row: &[f32]| row.iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        let signal = if wanted == 0 {
            vec![0.0; group.weights.len() / size.max(1)]
        } else {
            output.chunks(wanted).map(square).collect()
        };
        Self { size, float, quantized, output, signal }
    }

    /// x̂, `[P, K]`: the float columns through the quantizer given, or what was seen.
    pub(super) fn inputs(&self, quantizer: Option<Affine>) -> Cow<'_, [f32]> {
        quantizer.map_or(Cow::Borrowed(&self.quantized), |quantizer| {
            self.float.iter().map(|&x| quantizer.fake_quantize(x)).collect()
        })
    }

    /// Sums for ŷ = q·x̂, rows `[O, K]` of q given.
    pub(super) fn sums(&self, integers: &[f32], inputs: &[f32]) -> Vec<Sums> {
        let computed = outputs(integers, inputs, self.size);
        let columns = self.output.len() / self.signal.len().max(1);
        let row = |(row, &signal): (usize, &f64)| {
            let here = row * columns..(row + 1) * columns;
            let pairs = self.output[here.clone()].iter().zip(&computed[here]);
            pairs.fold(Sums { signal, ..Sums::default() }, |sums, (&y, &other)| {
                let (y, other) = (f64::from(y), f64::from(other));
                Sums { product: sums.product + y * other, square: sums.square + other * other, ..sums }
            })
        };
        self.signal.iter().enumerate().map(row).collect()
    }
}

/// What rows `[O, K]` compute on columns `[P, K]`: `[O, P]`.
fn outputs(rows: &[f32], columns: &[f32], size: usize) -> Vec<f32> {
    let size = size.max(1);
    let (rows_count, count) = (rows.len() / size, columns.len() / size);
    let mut products = vec![0.0; rows_count * count];
    matmul(
        MatMut::from_column_major_slice_mut(&mut products, count, rows_count),
        Accum::Replace,
        MatRef::from_row_major_slice(columns, count, size),
        MatRef::from_column_major_slice(rows, size, rows_count),
        1.0,
        Par::Seq,
    );
    products
}
