//! Parts of a model, run by themselves.

use crate::Error;
use crate::data::{Array, Sample};
use msq_passes::ir::{Model, TypeProto};
use msq_passes::{ExtractSegment, Manager};

/// What lies between some values, whose elements in one sample are given, and others.
pub(crate) fn extract(model: &Model, fed: &[String], sample: &Sample, outputs: Vec<String>) -> Result<Model, Error> {
    let ty = |array: &Array| TypeProto::tensor(array.dtype(), &vec![None; array.shape().len()]);
    let inputs = fed.iter().cloned().zip(sample.arrays.iter().map(ty)).collect();
    let mut segment = model.clone();
    Manager::new().with(ExtractSegment { inputs, outputs }).run(&mut segment)?;
    Ok(segment)
}

/// Names of the values a caller feeds.
pub(crate) fn inputs(model: &Model) -> Vec<String> {
    model.graph.runtime_inputs().map(|value| model.graph.value(value).name().to_owned()).collect()
}
