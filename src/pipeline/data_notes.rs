//! What a user should know of the data and of the inputs.

use super::Calibration;
use crate::calibrate::FarOut;
use crate::calibrate::observe::Seen;
use crate::data::{Array, Dataset};
use crate::error::Error;
use crate::report::HalfReport;
use crate::report::numbers::counted;
use msq_passes::ir::{Graph, Model, Use, ValueId, axis_of};

/// Inputs and samples that are named.
const NAMED: usize = 3;
/// Samples compared to see whether all are the same.
const REPEATED: usize = 8;

/// What is to be known of the data.
pub(super) fn of_data(
    model: &Model,
    calibration: Calibration,
    seen: &Seen,
    float16: Option<&HalfReport>,
) -> Result<Vec<String>, Error> {
    let unseen = unseen_magnitudes(calibration.synthetic, float16);
    if let Some(warning) = &unseen {
        tracing::warn!("{warning}");
    }
    let mut notes: Vec<String> = repetition(calibration)?.into_iter().chain(unseen).collect();
    notes.extend(far_out(model, seen, calibration.data)?);
    if !calibration.synthetic {
        notes.extend(single_rows(model, calibration.data)?);
    }
    Ok(notes)
}

/// A note on data that is one sample, or one many times over, which mistakes in scripts leave.
fn repetition(Calibration { data, synthetic, .. }: Calibration) -> Result<Option<String>, Error> {
    let same = if synthetic {
        None
    } else if data.len() == 1 {
        Some("")
    } else {
        data.is_one_repeated(REPEATED)?.then_some("all that were looked at are the same, so ")
    };
    Ok(same.map(|same| format!("{}: {same}ranges come from one input", data.describe())))
}

/// Inputs of which a few samples reach so far that all others are near zero beside them: that is most often a mistake in
/// the data, for which ranges and repairs pay.
fn far_out(model: &Model, seen: &Seen, data: &Dataset) -> Result<Vec<String>, Error> {
    let inputs = model.graph.runtime_inputs().map(|input| model.graph.value(input).name());
    let found = inputs.enumerate().filter_map(|(at, name)| Some((at, name, seen.far_out(name)?)));
    let said = |(at, name, FarOut { samples, value, others }): (usize, &str, FarOut)| {
        let mut places = Vec::new();
        let reaches = |array: &Array| array.first_of(|x| x.abs() > others).is_some();
        for sample in 0..data.len() {
            if places.len() == samples.min(NAMED) {
                break;
            }
            if data.sample(sample)?.arrays.get(at).is_some_and(reaches) {
                places.push(data.name(sample));
            }
        }
        let more = if samples > places.len() { ", …" } else { "" };
        Ok(format!(
            "input `{name}` reaches {value:?} in {} of {} ({}{more}) and at most {others:?} in the others: ranges have to hold \
             both; leave such samples out if they are mistakes",
            samples,
            counted(data.len(), "sample"),
            places.join(", ")
        ))
    };
    found.map(said).collect()
}

/// Rows of a table of constants from which on it is one of positions or tokens, of which a run reads many.
const TABLE: usize = 16;
/// Operators between an input and the table that its numbers are looked up in, at most.
const BEFORE_LOOKUP: usize = 4;

/// Inputs whose numbers are looked up in a table, and are one and the same in all samples: ranges then hold for one position,
/// or one token, alone.
fn single_rows(model: &Model, data: &Dataset) -> Result<Vec<String>, Error> {
    let inputs = model.graph.runtime_inputs().enumerate();
    let looked_up: Vec<(usize, ValueId, usize)> =
        inputs.filter_map(|(at, input)| Some((at, input, rows_read(&model.graph, input, BEFORE_LOOKUP)?))).collect();
    let (_, some) = data.split(REPEATED.min(data.len()));
    if looked_up.is_empty() || some.len() < 2 {
        return Ok(Vec::new());
    }
    let mut only: Vec<Option<i64>> = vec![None; looked_up.len()];
    let mut varies = vec![false; looked_up.len()];
    for sample in 0..some.len() {
        let arrays = some.sample(sample)?.arrays;
        for (place, (at, ..)) in looked_up.iter().enumerate() {
            for number in arrays.get(*at).into_iter().flat_map(Array::integers) {
                varies[place] |= *only[place].get_or_insert(number) != number;
            }
        }
    }
    let said = looked_up.iter().zip(only).zip(varies).filter_map(|(((_, input, rows), only), varies)| {
        let (name, number) = (model.graph.value(*input).name(), only.filter(|_| !varies)?);
        Some(format!(
            "input `{name}` is {number} in all samples that were looked at, though it is looked up in a table of {rows} rows: \
             ranges hold for that row alone; give samples with others"
        ))
    });
    Ok(said.collect())
}

/// The number of rows of the first table of constants that the numbers of a value are looked up in, within so many operators.
fn rows_read(graph: &Graph, value: ValueId, depth: usize) -> Option<usize> {
    graph.value(value).uses().iter().find_map(|&Use { node, slot }| {
        let node = graph.node(node);
        match (node.op(), slot) {
            ("Gather", 1) => {
                let table = graph.constant(node.input(0)?)?.shape().ok()?;
                let axis = axis_of(node.int_or("axis", 0), table.len())?;
                Some(table[axis]).filter(|&rows| rows >= TABLE)
            }
            ("Cast" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" | "Identity" | "Expand" | "Add", 0) => {
                rows_read(graph, node.output(0)?, depth.checked_sub(1)?)
            }
            _ => None,
        }
    })
}

/// A warning where float16 computes what only made-up inputs have shown to fit: squares and variances of real ones may not.
fn unseen_magnitudes(synthetic: bool, float16: Option<&HalfReport>) -> Option<String> {
    let computing = float16.filter(|halved| synthetic && halved.nodes > 0)?.nodes;
    let nodes = counted(computing, "node");
    Some(format!(
        "{nodes} in float16, by magnitudes seen on made-up samples only; squares and variances stay float32, other values may \
         still go beyond 65504 on real inputs: give data with `--calib`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ArrayData, Sample};
    use msq_passes::ir::TensorProto;

    #[test]
    fn float16_on_made_up_samples_is_warned_of() {
        let computing = HalfReport { nodes: 3, constants: 1, bytes: 8, left: Vec::new() };
        let warned = unseen_magnitudes(true, Some(&computing)).unwrap();
        assert!(warned.starts_with("3 nodes in float16") && warned.contains("--calib"), "{warned}");
        assert_eq!(unseen_magnitudes(false, Some(&computing)), None);
        assert_eq!(unseen_magnitudes(true, Some(&HalfReport { nodes: 0, ..computing })), None);
        assert_eq!(unseen_magnitudes(true, None), None);
    }

    #[test]
    fn positions_that_are_one_in_all_samples_are_named() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]>
            net (int64[N,t] ids, int64[N,t] positions, int64[N,t] types) => (float[N,t,2] y)
            <float[32,2] words = {}, float[64,2] places = {}, float[2,2] kinds = {}, int64 two = {2}>
            { a = Gather (words, ids)  p = Add (positions, two)  b = Gather (places, p)  c = Gather (kinds, types)
              s = Add (a, b)  y = Add (s, c) }";
        let mut proto = msq_passes::ir::text::parse(text).unwrap();
        for tensor in proto.graph.as_mut().unwrap().initializer.iter_mut().take(3) {
            let shape: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
            *tensor = TensorProto::from_f32(tensor.name(), &shape, &vec![0.5; shape.iter().product()]);
        }
        let model = msq_passes::ir::import(proto).unwrap();
        let data = |position: fn(i64) -> i64| {
            let sample = |at: i64| {
                let numbers = [at, position(at), 0];
                let arrays = numbers.map(|number| Array::new(vec![1, 1], ArrayData::I64(vec![number])).unwrap());
                Sample { arrays: arrays.to_vec() }
            };
            Dataset::stored((0..4).map(sample).collect())
        };
        let said = single_rows(&model, &data(|_| 7)).unwrap();
        assert!(said.len() == 1 && said[0].contains("`positions`") && said[0].contains("is 7 in all"), "{said:?}");
        assert_eq!(single_rows(&model, &data(|at| at + 3)).unwrap(), [""; 0]);
    }
}
