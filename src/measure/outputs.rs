//! The outputs of a float model, and what is known of them before it runs.

use super::MeasureError;
use super::head::{ChannelAxis, Head, channel_axis, head, joins_scores};
use super::whole::is_rounded;
use crate::data::{DataError, Dataset, Link};
use crate::execute::masks::{Kept, Masks};
use crate::execute::segment;
use crate::runtime::names::quoted;
use crate::scheme::output_kind::{OutputChoice, OutputKind};
use msq_passes::ir::{DataType, Model, ValueId};
use std::borrow::Cow;
use std::sync::Arc;

/// What an output is read as, and why.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) kind: OutputKind,
    pub(crate) because: Cow<'static, str>,
}

/// The values and the shape of an output of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputArray<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) shape: &'a [usize],
}

/// What is known of an output.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(crate) struct OutputSpec {
    pub(crate) name: String,
    /// What it holds, where the caller says so or it was decided before.
    pub(crate) asked: Option<Reading>,
    pub(crate) head: Head,
    pub(crate) channels: ChannelAxis,
    /// Whether it holds whole numbers: classes, indices, grey levels.
    pub(crate) is_whole: bool,
    /// Whether an input of the next run takes it: a state or a cache.
    pub(crate) is_state: bool,
    /// Whether its whole numbers are floats that were converted.
    pub(crate) is_rounded: bool,
    /// Whether it is put together from parts of which some are between 0 and 1.
    pub(crate) joins_scores: bool,
}

impl OutputSpec {
    /// What the output holds, where that is known.
    pub(crate) fn kind(&self) -> Option<OutputKind> {
        self.asked.as_ref().map(|reading| reading.kind)
    }

    /// Whether it can only be compared answer by answer: whole numbers that are no values.
    pub(crate) fn holds_answers(&self) -> bool {
        let answers = match self.kind() {
            None => !self.is_rounded,
            Some(kind) => matches!(kind, OutputKind::Scores | OutputKind::Sequence),
        };
        self.is_whole && answers
    }

    /// Whether labels can be its classes: unless the caller says that it holds something else.
    pub(crate) fn takes_labels(&self) -> bool {
        self.kind().is_none_or(|kind| kind == OutputKind::Scores)
    }

    /// Refuses labels of a sample that are none of so many classes.
    pub(crate) fn check_labels(&self, sample: usize, labels: &[i64], classes: usize) -> Result<(), DataError> {
        let is_class = |label: i64| usize::try_from(label).is_ok_and(|label| label < classes);
        match labels.iter().find(|&&label| !is_class(label)) {
            Some(&label) => Err(DataError::ForeignLabel { sample, label, output: self.name.clone(), classes }),
            None => Ok(()),
        }
    }

    /// Whether a sigmoid makes it.
    pub(crate) fn is_behind_sigmoid(&self) -> bool {
        self.head == Head::Sigmoid
    }

    /// The axis that rows of scores or vectors lie along.
    pub(crate) fn row_axis(&self, shape: &[usize]) -> Option<usize> {
        match (self.head, shape.len()) {
            (_, 0 | 1) => None,
            (Head::Softmax(Some(axis)), rank) if axis < rank => Some(axis),
            (Head::Softmax(None), rank @ 2..=3) => Some(rank - 1),
            (_, 2) => Some(1),
            (_, rank) => self.channels.of_rank(rank).or(Some(rank - 1)),
        }
    }
}

/// The outputs that are compared, and on how many samples.
#[derive(Clone, Debug)]
pub(crate) struct Outputs {
    pub(crate) list: Arc<[OutputSpec]>,
    /// Whether the model reads tokens, so that a sequence that comes out has one answer for each.
    pub(crate) reads_tokens: bool,
    pub(crate) samples: usize,
    masks: Arc<Masks>,
    /// Whether labels are for a metric of the caller's own, and may be anything.
    labels_are_free: bool,
}

impl Outputs {
    /// The outputs of a float model, but for text; positions that its masks leave out are not compared. A choice for an output that it
    /// has not is an error.
    pub(crate) fn of(
        float: &Model,
        choices: &[OutputChoice],
        masks: Masks,
        samples: usize,
    ) -> Result<Self, MeasureError> {
        let graph = &float.graph;
        let names: Vec<&str> = graph.outputs().map(|v| graph.value(v).name()).collect();
        if let Some(unknown) = choices.iter().find(|choice| !names.contains(&choice.output.as_str())) {
            let known = quoted(&names);
            return Err(MeasureError::NoSuchOutput { name: unknown.output.clone(), known });
        }
        let spec = |value| {
            let own = graph.value(value);
            OutputSpec {
                name: own.name().to_owned(),
                // Of several choices the last counts.
                asked: choices
                    .iter()
                    .rev()
                    .find(|choice| choice.output == own.name())
                    .map(|choice| Reading { kind: choice.kind, because: "as asked".into() }),
                head: head(graph, value),
                channels: channel_axis(graph, value),
                is_whole: own.element_type().is_some_and(is_whole),
                is_state: is_cache(own.name()),
                is_rounded: own.element_type().is_some_and(is_whole) && is_rounded(graph, value),
                joins_scores: joins_scores(graph, value),
            }
        };
        let tokens = |value| {
            let own = graph.value(value);
            own.element_type().is_some_and(is_whole) && own.shape().is_some_and(|shape| shape.len() == 2)
        };
        let compared = segment::outputs(float);
        let is_compared = |&value: &ValueId| compared.iter().any(|name| name == graph.value(value).name());
        let list = graph.outputs().filter(is_compared).map(spec).collect();
        let reads_tokens = graph.runtime_inputs().any(tokens);
        Ok(Self { list, reads_tokens, samples, masks: Arc::new(masks), labels_are_free: false })
    }

    /// What the masks among the inputs of a sample leave out; `None` where that is nothing.
    pub(crate) fn kept(&self, data: &Dataset, sample: usize) -> Result<Option<Kept<'_>>, DataError> {
        if self.masks.is_empty() {
            return Ok(None);
        }
        Ok(self.masks.of_inputs(&data.sample(sample)?.arrays))
    }

    /// Refuses labels that are no classes of the first output, where the model says how many it has.
    pub(crate) fn check_labels(&self, float: &Model, data: &Dataset) -> Result<(), DataError> {
        let Some(spec) = self.labelled() else { return Ok(()) };
        let shape = float.graph.find(&spec.name).and_then(|value| float.graph.value(value).shape());
        let classes = match shape.as_deref() {
            Some([_, Some(classes @ 2..), rest @ ..]) if rest.iter().all(|&length| length == Some(1)) => *classes,
            _ => return Ok(()),
        };
        (0..data.len()).try_for_each(|at| {
            data.labels(at).map_or(Ok(()), |labels| spec.check_labels(data.number(at).unwrap_or(at), labels, classes))
        })
    }

    /// The same where a metric of the caller's own may be given, which reads labels in its own way.
    pub(crate) fn scored(self, by_metric: bool) -> Self {
        Self { labels_are_free: by_metric, ..self }
    }

    /// The same where outputs feed inputs of the next run, as the caller says.
    pub(crate) fn fed_back(self, links: &[Link]) -> Self {
        let fed = |spec: &OutputSpec| links.iter().any(|link| link.output == spec.name);
        let marked = |spec: &OutputSpec| OutputSpec { is_state: spec.is_state || fed(spec), ..spec.clone() };
        Self { list: self.list.iter().map(marked).collect(), ..self }
    }

    /// The output whose classes labels have to be, if there is one.
    pub(crate) fn labelled(&self) -> Option<&OutputSpec> {
        self.list.first().filter(|spec| !self.labels_are_free && spec.takes_labels() && !spec.is_whole)
    }

    /// These outputs, compared on so many samples.
    pub(crate) fn on(&self, samples: usize) -> Self {
        Self { samples, ..self.clone() }
    }

    /// These outputs with what each holds decided, whatever the samples show.
    pub(crate) fn decided(&self, readings: Vec<Reading>) -> Self {
        let decide = |(spec, reading): (&OutputSpec, Reading)| OutputSpec { asked: Some(reading), ..spec.clone() };
        Self { list: self.list.iter().zip(readings).map(decide).collect(), ..self.clone() }
    }
}

/// Whether an output has a name of those that exporters give to caches of keys and values: `present.0.key`,
/// `present_key_values`, `presents`.
fn is_cache(name: &str) -> bool {
    let rest = name.strip_prefix("present").map(|rest| rest.strip_prefix('s').unwrap_or(rest));
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
}

fn is_whole(element: DataType) -> bool {
    !element.is_float()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_told_by_their_names() {
        let caches = ["present", "presents.1", "present.0.key", "present_key_values.3.value", "present0"];
        assert!(caches.into_iter().all(is_cache));
        assert!(
            ["logits", "presentation", "presenter", "represent", "hidden_present"].into_iter().all(|n| !is_cache(n))
        );
    }
}
