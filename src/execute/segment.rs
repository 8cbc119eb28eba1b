//! A part of a model that is run by itself.
//!
//! A segment reaches from the values it is fed with to those wanted of it. A value that is fed and wanted only passes by;
//! the engine never sees it.

use super::ExecuteError;
use crate::data::{Array, Sample};
use crate::engine::{EngineError, Output};
use msq_passes::ir::{DataType, Graph, Model, NodeId, TypeProto, ValueId};
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
    /// All of a model: its outputs are wanted, but for those that are text.
    pub(crate) fn whole(model: &Model) -> Self {
        let names: Vec<String> = outputs(model);
        let places = (0..names.len()).map(Place::Output).collect();
        Self { model: without_text(model), names, places }
    }

    /// What of a model some of its outputs need; all inputs are fed.
    pub(crate) fn yielding(model: &Model, wanted: &[String]) -> Result<Self, ExecuteError> {
        let graph = &model.graph;
        let typed = |value| Some((graph.value(value).name().to_owned(), graph.value(value).ty()?.clone()));
        let inputs = graph.runtime_inputs().filter_map(typed).collect();
        let mut segment = model.clone();
        pipelines::extract(inputs, wanted.to_vec()).run(&mut segment)?;
        let places = (0..wanted.len()).map(Place::Output).collect();
        Ok(Self { model: segment, names: wanted.to_vec(), places })
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

/// Names of a model's outputs, but for those that are [text](text_outputs).
pub(crate) fn outputs(model: &Model) -> Vec<String> {
    let (text, graph) = (text_outputs(model), &model.graph);
    let outputs = graph.outputs().map(|value| graph.value(value).name());
    outputs.filter(|name| !text.iter().any(|text| text == name)).map(str::to_owned).collect()
}

/// Names of the outputs that are text, where there are others, as the class names of a classifier beside its scores. No array
/// holds text: such outputs are neither computed nor compared.
pub(crate) fn text_outputs(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    if graph.outputs().all(|value| is_text(graph, value)) {
        return Vec::new();
    }
    let text = graph.outputs().filter(|&value| is_text(graph, value));
    text.map(|value| graph.value(value).name().to_owned()).collect()
}

fn is_text(graph: &Graph, value: ValueId) -> bool {
    graph.value(value).element_type() == Some(DataType::String)
}

/// A copy without outputs that are text, and without the nodes that write text nobody reads then.
fn without_text(model: &Model) -> Model {
    let mut own = model.clone();
    let text = text_outputs(model);
    if text.is_empty() {
        return own;
    }
    let graph = &mut own.graph;
    let outputs: Vec<ValueId> =
        graph.outputs().filter(|&value| !text.iter().any(|name| name == graph.value(value).name())).collect();
    graph.set_outputs(&outputs);
    let is_unread = |graph: &Graph, id: NodeId| {
        let written: Vec<ValueId> = graph.node(id).outputs().iter().flatten().copied().collect();
        written.iter().any(|&value| is_text(graph, value)) && !written.iter().any(|&value| graph.is_used(value))
    };
    loop {
        let unread = graph.node_ids().rfind(|&id| is_unread(graph, id));
        let Some(id) = unread else { break };
        graph.remove_node(id);
    }
    own
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

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn model(outputs: &str) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17, \"ai.onnx.ml\": 3]> g (float[1,2] x) => ({outputs})
             <string[2] names = {{\"a\", \"b\"}}, string l>
             {{
                s = Softmax (x)
                c = ArgMax <axis = 1> (x)
                l = ai.onnx.ml.ArrayFeatureExtractor (names, c)
                label = Identity (l)
             }}"
        );
        import(text::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn text_is_neither_run_nor_compared() {
        let model = model("string[1] label, float[1,2] s, int64[1,1] c");
        assert_eq!(
            (outputs(&model), text_outputs(&model)),
            (vec!["s".to_owned(), "c".to_owned()], vec!["label".to_owned()])
        );
        let whole = Segment::whole(&model);
        let left: Vec<&str> = whole.model.graph.nodes().map(|(_, node)| node.op()).collect();
        assert_eq!((whole.names.len(), left), (2, vec!["Softmax", "ArgMax"]));
        let tapped = Segment::tapped(&model, &["x".to_owned(), "s".to_owned()]).unwrap();
        assert_eq!(tapped.places, [Place::Output(0), Place::Output(1), Place::Input(0), Place::Output(0)]);
    }

    #[test]
    fn a_model_of_text_alone_keeps_it() {
        let model = model("string[1] label");
        assert_eq!((outputs(&model), text_outputs(&model)), (vec!["label".to_owned()], Vec::new()));
        assert_eq!(Segment::whole(&model).model.graph.node_ids().len(), 4);
    }
}
