//! Taking a model in: whatever runtimes load becomes what the later passes know.

use super::{FreezeInitializers, PrepareError, check, refuse_quantized};
use crate::runtime::names::quoted;
use msq_passes::ir::{DataType, Model};
use msq_passes::{PassObserver, Record, SinglePrecision, pipelines};

/// Checks a model, inlines functions, freezes initializers that are inputs, makes it compute in float32. Returns what a
/// user should know of that. A model that is quantized already is refused, before and after: functions may hide it.
pub(crate) fn admit(
    model: &mut Model,
    freeze: FreezeInitializers,
    observer: Option<&dyn PassObserver>,
) -> Result<Vec<String>, PrepareError> {
    // A graph with a cycle stays as it is, for the check to name the nodes.
    let _cycle = model.graph.sort();
    check(model)?;
    if model.graph.outputs().len() == 0 {
        return Err(PrepareError::NoOutputs);
    }
    refuse_quantized(model)?;
    let inputs = input_names(model);
    let mut records = pipelines::inline().observed(observer).run(model)?;
    refuse_quantized(model)?;
    let types = SinglePrecision::types(model);
    records.extend(pipelines::admit(freeze.into()).observed(observer).run(model)?);
    let mut notes: Vec<String> = frozen(&inputs, &input_names(model)).into_iter().collect();
    notes.extend(single_precision(&types, &records));
    notes.extend(declined(&records));
    for note in &notes {
        tracing::info!("{note}");
    }
    Ok(notes)
}

fn input_names(model: &Model) -> Vec<String> {
    model.graph.inputs().map(|value| model.graph.value(value).name().to_owned()).collect()
}

/// What is said of inputs that are gone.
fn frozen(before: &[String], after: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let gone: Vec<&String> = before.iter().filter(|name| !after.contains(name)).collect();
    let shown = quoted(gone.iter().take(SHOWN));
    let more = if gone.len() > SHOWN { ", …" } else { "" };
    let what =
        if gone.len() == 1 { "1 input with a default is" } else { &format!("{} inputs with defaults are", gone.len()) };
    (!gone.is_empty()).then(|| {
        format!("{what} constant now and not fed any more: {shown}{more}; option `freeze-initializers=none` keeps them")
    })
}

/// What is said of a network that computed in other types.
fn single_precision(types: &[DataType], records: &[Record]) -> Option<String> {
    let converted = records.iter().any(|record| record.pass == "single-precision" && record.outcome.changed > 0);
    let names: Vec<&str> = types.iter().map(|element| element.name()).collect();
    converted.then(|| {
        format!(
            "the network computes in {}: quantized as float32, inputs and outputs keep their types",
            names.join(" and ")
        )
    })
}

/// What could not be taken in: it stays as it is, in float.
fn declined(records: &[Record]) -> Vec<String> {
    let said = records.iter().filter(|record| record.pass != "freeze-initializers");
    said.flat_map(|record| &record.outcome.declined)
        .map(|d| format!("`{}` stays as it is: {}", d.site, d.reason))
        .collect()
}
