//! Bounds of masked scores, as [`BoundMasks`] wants them: from the largest score that each row of a `Softmax` has.
//!
//! What no mask leaves out and counts (`execute::masks`) is looked at. Rows without such an element have no largest score.

use super::CalibrateError;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::coverage::Coverage;
use crate::execute::fold::Pool;
use crate::execute::masks::{Masked, Masks};
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::Limit;
use crate::runtime::Runtime;
use indexmap::IndexMap;
use msq_passes::BoundMasks;
use msq_passes::ir::Model;

/// Samples that are looked at, evenly spread.
const SAMPLES: usize = 32;

/// The least of the largest scores of all rows, and the number of elements of the longest row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rows {
    least: f32,
    length: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Self { least: f32::INFINITY, length: 0 }
    }
}

impl Rows {
    fn merge(&mut self, other: Self) {
        *self = Self { least: self.least.min(other.least), length: self.length.max(other.length) };
    }

    /// Adds rows of this length, of whose elements those count for which `keeps` holds.
    fn observe(&mut self, values: &[f32], length: usize, keeps: impl Fn(usize) -> bool) {
        for (row, values) in values.chunks_exact(length.max(1)).enumerate() {
            let scores = values.iter().enumerate().filter(|&(at, _)| keeps(row * length + at)).map(|(_, &score)| score);
            let largest = scores.filter(|score| *score > BoundMasks::LEAST && score.is_finite()).reduce(f32::max);
            if let Some(largest) = largest {
                self.merge(Self { least: largest, length });
            }
        }
    }
}

/// The bound of each value that is masked and that a `Softmax` of so many bits reads, by its name: of none where the engine
/// does not run the whole model, or not at once.
pub(crate) fn bounds(
    model: &Model,
    data: &Dataset,
    masks: &Masks,
    bits: u8,
    runtime: &Runtime,
) -> Result<IndexMap<String, f32>, CalibrateError> {
    let names = BoundMasks::masked(model);
    let whole = || Coverage::within(model, runtime.memory).is_whole() && Limit::of(model, runtime.memory).is_none();
    if names.is_empty() || data.is_empty() || !whole() {
        return Ok(IndexMap::new());
    }
    let segment = Segment::whole(model);
    let outputs = segment.names.len();
    let segment = segment.and_taps(&names)?;
    let pool = Pool::new(&segment, runtime);
    let data = data.split(SAMPLES.min(data.len())).1;
    let masked = Masked::new(masks, &data);
    runtime.begin("bound masks", data.len() as u64);
    let mut total = vec![Rows::default(); names.len()];
    let visit = |part: &mut Vec<Rows>, sample: usize, ran: Ran| {
        let kept = masked.sample(sample).map_err(ExecuteError::from)?;
        for (at, (rows, name)) in part.iter_mut().zip(&names).enumerate() {
            let (values, shape) = (ran.values(outputs + at).map_err(ExecuteError::from)?, ran.shape(outputs + at));
            let positions = kept.as_ref().and_then(|kept| kept.of(name, shape));
            let keeps = |element: usize| positions.as_ref().is_none_or(|positions| positions.keeps(element));
            rows.observe(&values, shape.last().copied().unwrap_or(1), keeps);
        }
        Ok::<(), CalibrateError>(())
    };
    let merge = |part: Vec<Rows>| {
        total.iter_mut().zip(part).for_each(|(rows, part)| rows.merge(part));
        Ok(())
    };
    pool.fold(&data, runtime, || vec![Rows::default(); names.len()], visit, merge)?;
    runtime.end();
    let seen = names.into_iter().zip(total).filter(|(_, rows)| rows.least.is_finite());
    Ok(seen.map(|(name, rows)| (name, BoundMasks::bound(rows.least, rows.length, bits))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_score_say_nothing_and_others_their_largest() {
        let infinite = f32::NEG_INFINITY;
        let values = [1.0, 4.0, -2.0, infinite, infinite, -1e4, -3.0, -1e4, 0.5];
        let mut rows = Rows::default();
        rows.observe(&values, 3, |_| true);
        assert_eq!(rows, Rows { least: 0.5, length: 3 });
        let mut rows = Rows::default();
        rows.observe(&values, 3, |element| element != 8);
        assert_eq!(rows.least, -3.0);
    }

    #[test]
    fn masked_elements_together_weigh_less_than_half_a_step() {
        for (bits, length) in [(8, 64), (16, 512)] {
            let bound = f64::from(BoundMasks::bound(3.0, length, bits));
            let weight = length as f64 * (bound - 3.0).exp();
            let half = 0.5 / (f64::from(bits).exp2() - 1.0);
            assert!(weight <= half * 1.001 && weight > half * 0.99, "{bits} bits: {weight} of {half}");
        }
    }
}
