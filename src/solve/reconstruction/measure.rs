//! How near blocks and networks are to those in float.

use super::network::in_front_of_quantizers;
use super::part::Between;
use crate::data::{Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment};
use crate::runtime::Runtime;
use crate::solve::SolveError;
use msq_passes::ir::Model;

/// What a network writes for samples at one cut, at the next.
pub(super) fn run(
    model: &Model,
    between: Between,
    samples: &[Sample],
    runtime: &Runtime,
) -> Result<Vec<Sample>, SolveError> {
    let first = samples.first().ok_or(ExecuteError::NoSamples)?;
    let segment = Segment::between(model, &in_front_of_quantizers(model, between.read), first, between.written)?;
    let mut written = Vec::with_capacity(samples.len());
    let visit = |kept: &mut Vec<Sample>, _: usize, ran: Ran| -> Result<(), SolveError> {
        kept.push(ran.sample(ran.len()).map_err(ExecuteError::from)?);
        Ok(())
    };
    let merge = |part: Vec<Sample>| {
        written.extend(part);
        Ok::<(), SolveError>(())
    };
    let data = Dataset::stored(samples.to_vec());
    Pool::new(&segment, runtime).fold(&data, &runtime.silent(), Vec::new, visit, merge)?;
    Ok(written)
}

/// The mean square of the elements of each array.
pub(super) fn mean_squares(samples: &[Sample]) -> Vec<f64> {
    let count = samples.first().map_or(0, |sample| sample.arrays.len());
    let of = |at: usize| {
        let (mut sum, mut elements) = (0.0, 0);
        for sample in samples {
            let values = sample.arrays[at].to_f32();
            sum += values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            elements += values.len();
        }
        sum / elements.max(1) as f64
    };
    (0..count).map(of).collect()
}

/// Σ over outputs of the squared error relative to the mean square.
pub(super) fn distance(wanted: &[Sample], found: &[Sample]) -> f64 {
    let signals = mean_squares(wanted);
    let mut total = 0.0;
    for (wanted, found) in wanted.iter().zip(found) {
        for ((wanted, found), signal) in wanted.arrays.iter().zip(&found.arrays).zip(&signals) {
            let squares = wanted.to_f32().into_iter().zip(found.to_f32()).map(|(x, y)| f64::from(x - y).powi(2));
            total += squares.sum::<f64>() / (signal * wanted.len().max(1) as f64).max(f64::MIN_POSITIVE);
        }
    }
    total / wanted.len().max(1) as f64
}
