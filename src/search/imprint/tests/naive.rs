//! The equations written out, with neither matrices nor pooled templates.

use super::super::{Normalization, ScaleWeight};

/// The scales of the default pyramid.
pub(super) const SCALES: [usize; 3] = [1, 2, 4];

/// `e^d` by the definition: each bin of each channel summed, then each pixel of the larger map from its four neighbours.
pub(super) fn naive_feature(
    values: &[f32],
    [_, channels, height, width]: [usize; 4],
    d: usize,
    size: usize,
) -> Vec<f64> {
    let (rows, columns) = (d.min(height), d.min(width));
    let mut feature = Vec::new();
    for c in 0..channels {
        let mut pooled = vec![vec![0.0; columns]; rows];
        for (i, row) in pooled.iter_mut().enumerate() {
            for (j, bin) in row.iter_mut().enumerate() {
                let (mut sum, mut count) = (0.0, 0.0);
                for y in 0..height {
                    for x in 0..width {
                        let inside = |p: usize, b: usize, extent: usize, bins: usize| {
                            let start = (b as f64 * extent as f64 / bins as f64).floor();
                            let end = ((b + 1) as f64 * extent as f64 / bins as f64).ceil();
                            (start..end).contains(&(p as f64))
                        };
                        if inside(y, i, height, rows) && inside(x, j, width, columns) {
                            sum += f64::from(values[(c * height + y) * width + x]);
                            count += 1.0;
                        }
                    }
                }
                *bin = sum / count;
            }
        }
        let source = |i: usize, from: usize| {
            let place = (from as f64 / size as f64 * (i as f64 + 0.5) - 0.5).max(0.0);
            let low = (place.floor() as usize).min(from - 1);
            (low, (low + 1).min(from - 1), place - low as f64)
        };
        for i in 0..size {
            for j in 0..size {
                let ((y0, y1, v), (x0, x1, u)) = (source(i, rows), source(j, columns));
                let top = (1.0 - u) * pooled[y0][x0] + u * pooled[y0][x1];
                let bottom = (1.0 - u) * pooled[y1][x0] + u * pooled[y1][x1];
                feature.push((1.0 - v) * top + v * bottom);
            }
        }
    }
    feature
}

pub(super) fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn unit(vector: Vec<f64>, normalization: Normalization) -> Vec<f64> {
    let norm = product(&vector, &vector).sqrt();
    if normalization == Normalization::None || norm == 0.0 {
        return vector;
    }
    vector.into_iter().map(|v| v / norm).collect()
}

/// A sample: class, confidence, values.
pub(super) type Sample = (usize, f64, Vec<f32>);

/// (10)-(15) for the sample `asked`: logits, entropies and scores over the classes in `known`.
pub(super) fn naive_query(
    samples: &[Sample],
    asked: &[f32],
    shape: [usize; 4],
    known: &[usize],
    normalization: Normalization,
    weight: ScaleWeight,
) -> (Vec<Vec<f64>>, Vec<f64>, Vec<f64>) {
    let size = SCALES.into_iter().max().unwrap();
    let feature = |values: &[f32], d: usize| unit(naive_feature(values, shape, d, size), normalization);
    let (mut logits, mut entropies) = (vec![], vec![]);
    for d in SCALES {
        let of_class = |class: usize| {
            let members: Vec<&Sample> = samples.iter().filter(|sample| sample.0 == class).collect();
            let total: f64 = members.iter().map(|sample| sample.1).sum();
            let mut mean = vec![0.0; feature(asked, d).len()];
            for (_, confidence, values) in members {
                for (m, e) in mean.iter_mut().zip(feature(values, d)) {
                    *m += confidence * e / total;
                }
            }
            product(&unit(mean, normalization), &feature(asked, d))
        };
        let s: Vec<f64> = known.iter().map(|&class| of_class(class)).collect();
        let total: f64 = s.iter().map(|s| s.exp()).sum();
        entropies.push(s.iter().map(|s| -(s.exp() / total) * (s.exp() / total).ln()).sum::<f64>());
        logits.push(s);
    }
    let factors: Vec<f64> =
        entropies.iter().map(|h| if weight == ScaleWeight::Entropy { *h } else { 1.0 / h }).collect();
    let total: f64 = factors.iter().sum();
    let scores = (0..known.len()).map(|c| (0..3).map(|d| factors[d] * logits[d][c]).sum::<f64>() / total).collect();
    (logits, entropies, scores)
}
