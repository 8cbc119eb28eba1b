//! How large the values of a network are: whether float16 holds them.

use super::CalibrateError;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use msq_passes::{HalfPrecision, Magnitude};

/// Runs the data through the model and returns the largest finite magnitudes of every float value that is computed or fed,
/// by name, as far as the engine runs it. A maximum does not depend on the order of samples, so threads do not count.
pub(crate) fn magnitudes(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<IndexMap<String, Magnitude>, CalibrateError> {
    let floats = HalfPrecision::floats(model).into_iter().filter(|&value| scheme.coverage.sees(model, value));
    let names: Vec<String> = floats.map(|value| model.graph.value(value).name().to_owned()).collect();
    if names.is_empty() || data.is_empty() {
        return Ok(IndexMap::new());
    }
    let segment = Segment::whole(&scheme.coverage.part(model));
    let stages = Stages::new(&segment, Limit::of(model, runtime.memory)).map_err(ExecuteError::from)?;
    runtime.begin("magnitudes", data.len() as u64);
    let mut seen: Vec<Option<Magnitude>> = vec![None; names.len()];
    let begin = |taps: &[usize]| vec![Magnitude::default(); taps.len()];
    let visit = |sums: &mut Vec<Magnitude>, taps: &[usize], _: usize, ran: Ran| -> Result<(), CalibrateError> {
        for (at, sum) in sums.iter_mut().enumerate().take(taps.len()) {
            ran.values(at).map_err(ExecuteError::from)?.iter().for_each(|&value| add(sum, value));
        }
        Ok(())
    };
    let merge = |taps: &[usize], sums: Vec<Magnitude>| {
        for (&tap, sum) in taps.iter().zip(sums) {
            let of_all = seen[tap].get_or_insert_default();
            of_all.largest = of_all.largest.max(sum.largest);
            of_all.below_infinite = of_all.below_infinite.max(sum.below_infinite);
        }
        Ok(())
    };
    stages.fold_taps(&names, data, runtime, begin, visit, merge)?;
    runtime.end();
    Ok(names.into_iter().zip(seen).filter_map(|(name, seen)| Some((name, seen?))).collect())
}

fn add(sum: &mut Magnitude, value: f32) {
    let magnitude = value.abs();
    if magnitude.is_finite() {
        sum.largest = sum.largest.max(magnitude);
        if magnitude < HalfPrecision::INFINITE {
            sum.below_infinite = sum.below_infinite.max(magnitude);
        }
    }
}
