//! A part of a model that is run by itself.
//!
//! A segment reaches from the values it is fed with to those wanted of it. A value that is fed and wanted only passes by;
//! the engine never sees it.

use super::ExecuteError;
use crate::data::{Array, Sample};
use crate::engine::{EngineError, Output};
use msq_passes::ir::{Graph, Model, TypeProto};
use msq_passes::pipelines;
use std::borrow::Cow;

/// Where a value is found when a segment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the segment's outputs.
    Output(usize),
    /// Among its inputs.
    Input(usize),
}

impl Place {
    /// Where a model has a value.
    fn of(graph: &Graph, name: &str) -> Result<Self, EngineError> {
        let missing = || EngineError::NoSuchValue { name: name.to_owned() };
        let value = graph.find(name).ok_or_else(missing)?;
        let input = graph.runtime_inputs().position(|v| v == value).map(Self::Input);
        input.or_else(|| graph.outputs().position(|v| v == value).map(Self::Output)).ok_or_else(missing)
    }
}

/// A part of a model, or all of it.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// The nodes between what is fed and what is wanted. Its outputs are those of the values wanted that are computed.
    pub model: Model,
    /// Names of the values wanted.
    pub names: Vec<String>,
    /// Where each of them is found.
    pub places: Vec<Place>,
}

impl Segment {
    /// All of a model: its outputs are wanted.
    pub(crate) fn whole(model: &Model) -> Self {
        let names: Vec<String> = outputs(model);
        let places = (0..names.len()).map(Place::Output).collect();
        Self { model: model.clone(), names, places }
    }

    /// All of a model: its outputs are wanted, and then these values.
    pub(crate) fn tapped(model: &Model, taps: &[String]) -> Result<Self, ExecuteError> {
        Self::whole(model).and_taps(taps)
    }

    /// What lies between some values, whose elements in one sample are given, and others.
    pub(crate) fn between(
        model: &Model,
        fed: &[String],
        sample: &Sample,
        wanted: &[String],
    ) -> Result<Self, ExecuteError> {
        let ty = |array: &Array| TypeProto::tensor(array.dtype(), &vec![None; array.shape().len()]);
        let inputs = fed.iter().cloned().zip(sample.arrays.iter().map(ty)).collect();
        let mut outputs: Vec<String> = Vec::new();
        for name in wanted.iter().filter(|name| !fed.contains(name)) {
            if !outputs.contains(name) {
                outputs.push(name.clone());
            }
        }
        let mut segment = model.clone();
        pipelines::extract(inputs, outputs).run(&mut segment)?;
        let places = wanted.iter().map(|name| Place::of(&segment.graph, name)).collect::<Result<_, _>>()?;
        Ok(Self { model: segment, names: wanted.to_vec(), places })
    }

    /// The segment with more values wanted.
    pub(crate) fn and_taps(mut self, taps: &[String]) -> Result<Self, ExecuteError> {
        let graph = &self.model.graph;
        let computed = |name: &&String| graph.find(name).is_none_or(|value| !graph.is_input(value));
        let values = taps.iter().filter(computed).cloned().collect();
        pipelines::tap(values).run(&mut self.model)?;
        for name in taps {
            self.places.push(Place::of(&self.model.graph, name)?);
            self.names.push(name.clone());
        }
        Ok(self)
    }

    /// Whether a value is computed in the segment or fed to it.
    pub(crate) fn has(&self, name: &str) -> bool {
        let graph = &self.model.graph;
        graph.find(name).is_some_and(|v| graph.value(v).producer().is_some() || graph.is_input(v))
    }
}

/// The type of a tensor like this one.
pub(crate) fn type_of(array: &Array) -> TypeProto {
    TypeProto::tensor(array.dtype(), &array.shape().iter().map(|&length| Some(length)).collect::<Vec<_>>())
}

/// States the types and shapes that a sample has for the inputs of a model; those stated for inner values are dropped.
pub(crate) fn state_shapes_of(sample: &Sample, model: &mut Model) {
    let typed = model.graph.runtime_inputs().zip(sample.arrays.iter().map(type_of)).collect();
    model.graph.set_inputs(typed);
    model.graph.clear_value_info();
}

/// Names of the values a caller feeds.
pub(crate) fn inputs(model: &Model) -> Vec<String> {
    model.graph.runtime_inputs().map(|value| model.graph.value(value).name().to_owned()).collect()
}

/// Names of a model's outputs.
pub(crate) fn outputs(model: &Model) -> Vec<String> {
    model.graph.outputs().map(|value| model.graph.value(value).name().to_owned()).collect()
}

/// A sample, and what a segment makes of it. Values are counted as they are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran<'a> {
    pub(super) inputs: &'a [Array],
    pub(super) outputs: &'a [Output],
    pub(super) places: &'a [Place],
}

impl<'a> Ran<'a> {
    /// The number of values wanted.
    pub(crate) fn len(self) -> usize {
        self.places.len()
    }

    /// The shape of a value.
    pub(crate) fn shape(self, at: usize) -> &'a [usize] {
        match self.places[at] {
            Place::Output(output) => self.outputs[output].shape(),
            Place::Input(input) => self.inputs[input].shape(),
        }
    }

    /// The elements of a value, if they are 32-bit floats.
    pub(crate) fn as_f32(self, at: usize) -> Option<&'a [f32]> {
        match self.places[at] {
            Place::Output(output) => self.outputs[output].as_f32(),
            Place::Input(input) => crate::engine::Value::as_f32(&self.inputs[input]),
        }
    }

    /// The elements of a value of any numeric type as 32-bit floats.
    pub(crate) fn values(self, at: usize) -> Result<Cow<'a, [f32]>, EngineError> {
        match (self.as_f32(at), self.places[at]) {
            (Some(values), _) => Ok(Cow::Borrowed(values)),
            (None, Place::Output(output)) => self.outputs[output].to_f32().map(Cow::Owned),
            (None, Place::Input(input)) => Ok(Cow::Owned(self.inputs[input].to_f32())),
        }
    }

    /// The elements of the first `count` values, as 32-bit floats.
    pub(crate) fn first(self, count: usize) -> Result<Vec<Vec<f32>>, EngineError> {
        (0..count).map(|at| Ok(self.values(at)?.into_owned())).collect()
    }

    /// A copy of the first `count` values.
    pub(crate) fn sample(self, count: usize) -> Result<Sample, EngineError> {
        let array = |place: &Place| match *place {
            Place::Output(at) => self.outputs[at].to_array(),
            Place::Input(at) => Ok(self.inputs[at].clone()),
        };
        Ok(Sample { arrays: self.places[..count].iter().map(array).collect::<Result<_, _>>()? })
    }

    /// Bytes of the first `count` values as floats.
    pub(crate) fn bytes(self, count: usize) -> u64 {
        (0..count).map(|at| 4 * self.shape(at).iter().product::<usize>() as u64).sum()
    }

    /// The first `count` values alone.
    pub(crate) fn take(self, count: usize) -> Self {
        Self { places: &self.places[..count], ..self }
    }

    /// All but the first `count` values.
    pub(crate) fn skip(self, count: usize) -> Self {
        Self { places: &self.places[count..], ..self }
    }
}
