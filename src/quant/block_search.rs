//! Scale and zero point of a block of weights by the least weighed error of rounding to nearest.
//!
//! E(s, z) = Σ h·(w − s·(q − z))², q = clamp(round(w/s) + z), h the importance of each weight. The range is shrunk from that
//! which clips nothing in steps, on grids with a free zero point from both ends at once; then the alternation
//! `s ← Σ h·w·(q − z) / Σ h·(q − z)²`, `q ← nearest` goes on from the best, neither half of which can raise E.

use super::rounding::round_half_even_f64;
use super::spec::normal_scale;
use super::{Granularity, GridSpec, QuantizedWeight, ZERO_CHANNEL_SCALE};
use rayon::prelude::*;

/// Ranges tried.
const POINTS: usize = 24;
/// How often the least-squares alternation may run.
const REFITS: usize = 5;
/// Weights of a chunk that one thread rounds.
const CHUNK: usize = 1 << 14;

/// The scale of a block and its zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BlockScale {
    /// s.
    pub(crate) scale: f32,
    /// z.
    pub(crate) zero_point: i32,
}

impl BlockScale {
    /// q − z of the integer nearest to a weight.
    pub(crate) fn nearest(self, weight: f64, grid: GridSpec) -> f64 {
        let (low, high) = self.ends(grid);
        round_half_even_f64((weight / f64::from(self.scale)).max(low).min(high))
    }

    /// The ends of q − z.
    pub(crate) fn ends(self, grid: GridSpec) -> (f64, f64) {
        let end = |end: i32| f64::from(end - self.zero_point);
        (end(grid.quantized_min()), end(grid.quantized_max()))
    }
}

/// Rounds rows of `size` weights to nearest, with one scale, and on grids with a free zero point one of these, per `block`
/// of them. `importance` is that of each weight.
pub(crate) fn round_blocks(
    weights: &[f32],
    importance: &[f64],
    size: usize,
    block: usize,
    grid: GridSpec,
) -> QuantizedWeight {
    let size = size.max(1);
    let rows: Vec<(&[f32], &[f64])> = weights.chunks(size).zip(importance.chunks(size)).collect();
    let row = |&(weights, importance): &(&[f32], &[f64])| {
        let of_block = |(weights, importance): (&[f32], &[f64])| {
            let found = search(weights, importance, grid);
            let q = |&w: &f32| (found.nearest(f64::from(w), grid) as i32 + found.zero_point) as i8;
            (found, weights.iter().map(q).collect::<Vec<i8>>())
        };
        let blocks = weights.chunks(block.max(1)).zip(importance.chunks(block.max(1)));
        blocks.map(of_block).collect::<Vec<_>>()
    };
    let found: Vec<Vec<(BlockScale, Vec<i8>)>> = rows.par_iter().with_min_len(CHUNK.div_ceil(size)).map(row).collect();
    let blocks = || found.iter().flatten();
    QuantizedWeight {
        data: blocks().flat_map(|(_, integers)| integers).copied().collect(),
        granularity: Granularity::Block(block),
        scales: blocks().map(|(found, _)| found.scale).collect(),
        zero_points: if grid.is_symmetric() {
            Vec::new()
        } else {
            blocks().map(|(found, _)| found.zero_point as i8).collect()
        },
        shape: vec![weights.len() / size, size],
        axis: Some(0),
        grid,
    }
}

/// The best scale and zero point found for a block of finite weights.
fn search(weights: &[f32], importance: &[f64], grid: GridSpec) -> BlockScale {
    let (min, max) = weights.iter().fold((0.0_f64, 0.0_f64), |(min, max), &w| (min.min(w.into()), max.max(w.into())));
    if min == max {
        return BlockScale { scale: ZERO_CHANNEL_SCALE, zero_point: 0 };
    }
    let lowest = lowest_ratio(grid.bits());
    let step = (1.0 - lowest) / (POINTS - 1) as f64;
    let judged = |candidate: BlockScale| (error(weights, importance, candidate, grid), candidate);
    let ratios = (0..POINTS).map(|point| 1.0 - point as f64 * step);
    let ranges = ratios.map(|ratio| judged(over(min * ratio, max * ratio, grid)));
    // From wide to narrow, so that of equals the first clips least.
    let mut best = ranges
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .unwrap_or_else(|| judged(over(min, max, grid)));
    for _ in 0..REFITS {
        let Some(next) = refit(weights, importance, best.1, grid).map(judged).filter(|next| next.0 < best.0) else {
            break;
        };
        best = next;
    }
    best.1
}

/// The grid laid over a range.
fn over(min: f64, max: f64, grid: GridSpec) -> BlockScale {
    let (low, high) = (f64::from(grid.quantized_min()), f64::from(grid.quantized_max()));
    if grid.is_symmetric() {
        return BlockScale { scale: normal_scale(max.max(-min) / high), zero_point: 0 };
    }
    let scale = normal_scale((max - min) / (high - low));
    let zero_point = round_half_even_f64((low - min / f64::from(scale)).max(low).min(high)) as i32;
    BlockScale { scale, zero_point }
}

fn error(weights: &[f32], importance: &[f64], at: BlockScale, grid: GridSpec) -> f64 {
    let scale = f64::from(at.scale);
    let (low, high) = at.ends(grid);
    let inverse = 1.0 / scale;
    let each = |(&w, &h): (&f32, &f64)| {
        let w = f64::from(w);
        let difference = w - scale * round_half_even_f64((w * inverse).max(low).min(high));
        h * difference * difference
    };
    weights.iter().zip(importance).map(each).sum()
}

/// The least-squares scale for the integers nearest on another.
fn refit(weights: &[f32], importance: &[f64], at: BlockScale, grid: GridSpec) -> Option<BlockScale> {
    let (mut mixed, mut square) = (0.0, 0.0);
    for (&w, &h) in weights.iter().zip(importance) {
        let q = at.nearest(w.into(), grid);
        mixed += h * f64::from(w) * q;
        square += h * q * q;
    }
    (mixed > 0.0 && square > 0.0).then(|| BlockScale { scale: normal_scale(mixed / square), ..at })
}

/// The smallest share of a block's range worth trying.
fn lowest_ratio(bits: u8) -> f64 {
    match bits {
        0..=2 => 0.25,
        3 => 0.4,
        4 => 0.55,
        5 => 0.65,
        _ => 0.8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::GridKind;

    fn weights(count: usize, shift: f32) -> Vec<f32> {
        (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5 + shift).collect()
    }

    #[test]
    fn blocks_do_not_influence_each_other() {
        let weights: Vec<f32> =
            weights(40, 0.0).iter().enumerate().map(|(i, w)| if i < 16 { w * 100.0 } else { *w }).collect();
        let grid = GridSpec::new(GridKind::Symmetric, 4).unwrap();
        let ones = vec![1.0; 40];
        let all = round_blocks(&weights, &ones, 40, 16, grid);
        assert_eq!((all.scales.len(), all.zero_points.len()), (3, 0));
        for (at, part) in weights.chunks(16).enumerate() {
            let alone = round_blocks(part, &ones[..part.len()], part.len(), 16, grid);
            assert_eq!(alone.scales, all.scales[at..=at]);
            assert_eq!(alone.data, all.data[at * 16..at * 16 + part.len()]);
        }
        assert!(all.sqnr(&weights).decibels() > 18.0);
    }

    #[test]
    fn zero_points_follow_the_range() {
        let weights = weights(64, 0.7);
        let kind = |kind| GridSpec::new(kind, 4).unwrap();
        let ones = vec![1.0; 64];
        let [plain, shifted] = [GridKind::Symmetric, GridKind::Signed]
            .map(|of| round_blocks(&weights, &ones, 64, 32, kind(of)).sqnr(&weights).decibels());
        assert!(shifted > plain + 3.0, "{shifted} {plain}");
    }

    #[test]
    fn important_weights_are_rounded_better() {
        let weights = weights(32, 0.0);
        let grid = GridSpec::new(GridKind::Symmetric, 3).unwrap();
        let mut importance = vec![1.0; 32];
        importance[5] = 1e6;
        let of = |importance: &[f64]| {
            let rounded = round_blocks(&weights, importance, 32, 32, grid).dequantize();
            (rounded[5] - weights[5]).abs()
        };
        assert!(of(&importance) < of(&[1.0; 32]));
    }
}
