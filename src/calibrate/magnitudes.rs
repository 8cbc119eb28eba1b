//! How large the values of a network are: whether float16 holds them.

use super::CalibrateError;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use indexmap::IndexMap;
use msq_passes::ir::{Model, ValueId};
use msq_passes::{HalfPrecision, Magnitude};
use std::collections::HashSet;

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

/// Forgets the magnitudes of squares, and of means and sums of such: on made-up samples they say nothing of real ones, whose
/// variances float16 may not hold. What has no known range stays float32.
pub(crate) fn without_squares(
    model: &Model,
    mut magnitudes: IndexMap<String, Magnitude>,
) -> IndexMap<String, Magnitude> {
    let graph = &model.graph;
    let mut squares: HashSet<ValueId> = HashSet::new();
    for (_, node) in graph.nodes() {
        let is_square = match node.op() {
            "Mul" if node.input(0) == node.input(1) => true,
            "Pow" | "ReduceSumSquare" => true,
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "GlobalAveragePool" | "Add" | "Sub" | "Max" | "Min" | "Clip"
            | "Expand" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" => {
                node.inputs().iter().flatten().any(|input| squares.contains(input))
            }
            "Mul" | "Div" => node.input(0).is_some_and(|input| squares.contains(&input)),
            _ => false,
        };
        if is_square {
            squares.extend(node.outputs().iter().flatten());
        }
    }
    let is_square = |name: &String| graph.find(name).is_some_and(|value| squares.contains(&value));
    magnitudes.retain(|name, _| !is_square(name));
    magnitudes
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

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    #[test]
    fn variances_of_made_up_samples_are_forgotten() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,8] x) => (float[N,8] y) <float e = {0.1}>
            { m = ReduceMean <axes = [1]> (x) d = Sub (x, m) s = Mul (d, d) v = ReduceMean <axes = [1]> (s)
              a = Add (v, e) r = Sqrt (a) y = Div (d, r) }";
        let model = import(text::parse(text).unwrap()).unwrap();
        let names = ["x", "m", "d", "s", "v", "a", "r", "y"];
        let all = names.map(|name| (name.to_owned(), Magnitude::default())).into_iter().collect();
        let left: Vec<String> = without_squares(&model, all).into_keys().collect();
        assert_eq!(left, ["x", "m", "d", "r", "y"]);
    }
}
