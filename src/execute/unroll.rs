//! Runs a network over sequences, frame by frame, so that every frame has its states.
//!
//! s₀ is what the data give or zeros, and sₜ₊₁ = f(xₜ, sₜ) for the outputs f that are fed back. The states of a
//! network are written to a temporary file once, and frames become samples like any others: whatever runs them, in
//! whatever order and on however many threads, finds the same states. So a quantized network that is calibrated or solved
//! beside the float one reads the float one's states; one that is measured gets its own, by a run of its own.

use super::ExecuteError;
use super::fold::{Pool, Steps};
use super::segment::{Ran, Segment, inputs, outputs};
use super::stages::{Limit, Stages};
use crate::data::{Array, Dataset, Link, StateWriter};
use crate::engine::EngineError;
use crate::runtime::Runtime;
use msq_passes::ir::Model;
use std::borrow::Cow;

/// The samples with the states that the model has in them; the data themselves where no output is fed back.
pub(crate) fn unrolled<'d>(
    model: &Model,
    data: &'d Dataset,
    runtime: &Runtime,
) -> Result<Cow<'d, Dataset>, ExecuteError> {
    let links = data.links();
    if links.is_empty() || data.is_empty() {
        return Ok(Cow::Borrowed(data));
    }
    links.iter().try_for_each(|link| check(model, link))?;
    // Outputs that are no states may depend on what the engine does not know.
    let mut states: Vec<String> = links.iter().map(|link| link.output.clone()).collect();
    states.sort_unstable();
    states.dedup();
    let segment = Segment::yielding(model, &states)?;
    if Stages::new(&segment, Limit::of(model, runtime.memory))?.len() > 1 {
        return Err(ExecuteError::StatesInStages);
    }
    let places: Vec<usize> =
        links.iter().filter_map(|link| states.iter().position(|state| *state == link.output)).collect();
    let sequences = data.frames();
    let writer = StateWriter::new()?;
    runtime.begin("states", sequences.len() as u64);
    let sequence = |steps: &mut Steps, at: usize| -> Result<(), ExecuteError> {
        let mut states: Option<Vec<Array>> = None;
        for &frame in sequences[at] {
            let mut arrays = data.first_frame(frame)?;
            if let Some(states) = states.take() {
                links.iter().zip(states).for_each(|(link, state)| arrays[link.input] = state);
            }
            let fed: Vec<Array> = links.iter().map(|link| arrays[link.input].clone()).collect();
            writer.add(frame, &fed)?;
            let next = |ran: Ran| {
                links.iter().zip(&places).map(|(link, &output)| handed_on(link, ran, output, frame)).collect()
            };
            let next: Result<Vec<Array>, ExecuteError> = steps.run(&arrays, next)?;
            states = Some(next?);
        }
        Ok(())
    };
    Pool::new(&segment, runtime).sequences(sequences.len(), runtime, sequence).map_err(|error| match error {
        ExecuteError::Engine(EngineError::Load { reason }) => ExecuteError::StatesUnknown { reason },
        other => other,
    })?;
    runtime.end();
    Ok(Cow::Owned(data.with_states(writer.finish())))
}

/// Refuses a link between an input and an output that the model does not have.
fn check(model: &Model, link: &Link) -> Result<(), ExecuteError> {
    let names = outputs(model);
    if !names.contains(&link.output) {
        return Err(ExecuteError::NoStateOutput { output: link.output.clone(), outputs: names });
    }
    if inputs(model).get(link.input) != Some(&link.spec.name) {
        return Err(ExecuteError::NoStateInput { input: link.spec.name.clone() });
    }
    Ok(())
}

/// What an output hands on to the next frame.
fn handed_on(link: &Link, ran: Ran, output: usize, frame: usize) -> Result<Array, ExecuteError> {
    let refused =
        |reason: String| ExecuteError::State { output: link.output.clone(), input: link.spec.name.clone(), reason };
    let array = ran.take(output + 1).sample(output + 1)?.arrays.swap_remove(output);
    let shape = array.shape().to_vec();
    let fits = link.spec.shape.as_ref().is_none_or(|dims| {
        dims.len() == shape.len() && dims.iter().zip(&shape).all(|(dim, length)| dim.is_none_or(|dim| dim == *length))
    });
    if !fits {
        return Err(refused(format!("its shape is {shape:?}, the input's {}", link.shape())));
    }
    if array.dtype().is_float() != link.spec.dtype.is_float() {
        return Err(refused(format!("it is {}, the input {}", array.dtype(), link.spec.dtype)));
    }
    if let Some((element, value)) = array.first_non_finite() {
        return Err(refused(format!("element {element} is {value} behind frame {frame}")));
    }
    array.cast(link.spec.dtype).map_err(|error| refused(error.to_string()))
}
