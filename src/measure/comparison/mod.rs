//! Outputs of a network beside those of the float one: how far they are apart, and what that costs.
//!
//! What an output holds is decided when all samples are seen, in this order: the caller's word; whole numbers; boxes, by
//! shape and numbers; a softmax at the end of the branch, or rows that sum to 1; labels; a sigmoid whose numbers are near
//! 0 or 1; rows of length 1; a name that says it; rows that look like logits. Anything else holds values. Until then the
//! sums of every reading that is possible are kept, each of fixed size, so that nothing grows with the samples. The
//! evidence is that of the float network alone: two networks compared with it on the same samples are read alike.
//!
//! ```text
//! this file     samples are added and parts merged
//! sums          what is summed up of each output
//! reading       what an output is read as, in the end
//! read_output   the figures, the loss and the distance of an output that is read so
//! quarters      samples that are much worse than the rest
//! figures       all of it together
//! limit         how much the loss may be on other samples
//! ```

#[cfg(test)]
mod box_tests;
mod figures;
mod limit;
mod quarters;
mod read_output;
mod reading;
mod sums;
#[cfg(test)]
mod tests;

use super::agreement::Accuracy;
use super::boxes::{self, BoxForm, BoxMatches};
use super::outputs::{OutputArray, OutputSpec, Outputs, Reading};
use crate::data::{DataError, Dataset};
use crate::execute::ExecuteError;
use crate::execute::masks::Kept;
use crate::execute::segment::Ran;
use crate::scheme::output_kind::OutputKind;
use std::borrow::Cow;
use sums::{Compared, SampleSlot};

/// Parts of the samples, in their order, whose sums are kept apart: what differs between parts differs between samples.
const PARTS: usize = 16;
/// Quarters of the samples that are compared with each other, each of several parts.
const QUARTERS: usize = 4;
/// Samples whose rows are looked at side by side, spread over all.
const LOOKED_AT: usize = 64;

/// How boxes are written in the samples so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// There were none.
    Open,
    /// The same way in all that have some.
    As(BoxForm),
    /// The outputs hold something else.
    Otherwise,
}

impl Written {
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Open, other) | (other, Self::Open) => other,
            (Self::As(own), Self::As(other)) => own.and(other).map_or(Self::Otherwise, Self::As),
            _ => Self::Otherwise,
        }
    }
}

/// Sums over samples; parts merge, in the order of samples.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    outputs: Outputs,
    compared: Vec<Compared>,
    boxes: [BoxMatches; PARTS],
    written: Written,
    samples: [u64; PARTS],
    own: [Accuracy; PARTS],
    float: [Accuracy; PARTS],
}

impl Comparison {
    /// Of no samples yet.
    pub(crate) fn new(outputs: &Outputs) -> Self {
        Self {
            compared: vec![Compared::default(); outputs.list.len()],
            outputs: outputs.clone(),
            boxes: Default::default(),
            written: Written::Open,
            samples: [0; PARTS],
            own: Default::default(),
            float: Default::default(),
        }
    }

    /// Adds a sample, given its number: the float network's outputs, those of the network, and labels, one per row, if
    /// there are any. Positions that masks leave out count nowhere.
    pub(crate) fn observe(
        &mut self,
        sample: usize,
        float: &[Vec<f32>],
        network: &[OutputArray],
        labels: Option<&[i64]>,
        kept: Option<&Kept>,
    ) {
        let part = (sample * PARTS / self.outputs.samples.max(1)).min(PARTS - 1);
        let shapes: Vec<Cow<[usize]>> =
            float.iter().zip(network).map(|(float, found)| shape_of(float.len(), found)).collect();
        let arrays: Vec<OutputArray> =
            float.iter().zip(&shapes).map(|(values, shape)| OutputArray { values, shape }).collect();
        self.observe_boxes(part, &arrays, network);
        let pairs = Pairs::new(self.form(), &arrays, network);
        let stride = self.outputs.samples.div_ceil(LOOKED_AT).max(1);
        let slot = SampleSlot { sample, part, side_by_side: sample.is_multiple_of(stride) };
        for (at, (spec, compared)) in self.outputs.list.iter().zip(&mut self.compared).enumerate() {
            let (float, found) = (&arrays[at], &network[at]);
            match pairs.as_ref().and_then(|pairs| pairs.of(at, float, found)) {
                Some(Partners { shape, .. }) if shape[0] == 0 => {}
                Some(Partners { float, found, shape }) => {
                    compared.observe(spec, slot, &float, OutputArray { values: &found, shape: &shape }, kept);
                }
                None => compared.observe(spec, slot, float.values, *found, kept),
            }
        }
        if let (Some(labels), [float, ..], [found, ..]) = (labels, float, network) {
            self.observe_labels(part, labels, float, *found);
        }
        self.samples[part] += 1;
    }

    /// Refuses labels of a sample that are no classes of the first output.
    pub(crate) fn check_labels(
        &self,
        sample: usize,
        labels: Option<&[i64]>,
        network: &[OutputArray],
    ) -> Result<(), DataError> {
        let (Some(labels), Some(spec), [found, ..]) = (labels, self.outputs.labelled(), network) else {
            return Ok(());
        };
        if !holds_classes(*found, labels) {
            return Ok(());
        }
        spec.check_labels(sample, labels, found.values.len() / labels.len())
    }

    fn observe_labels(&mut self, part: usize, labels: &[i64], float: &[f32], found: OutputArray) {
        let (own, of_float) = (&mut self.own[part], &mut self.float[part]);
        match self.outputs.list.first().filter(|spec| spec.takes_labels()) {
            Some(spec) if spec.is_whole && found.values.len() == labels.len() => {
                of_float.observe_classes(float, labels);
                own.observe_classes(found.values, labels);
            }
            Some(spec) if !spec.is_whole && holds_classes(found, labels) => {
                of_float.observe_rows(float, labels);
                own.observe_rows(found.values, labels);
            }
            _ => {}
        }
    }

    fn observe_boxes(&mut self, part: usize, float: &[OutputArray], network: &[OutputArray]) {
        if self.written == Written::Otherwise {
            return;
        }
        let may = |spec: &OutputSpec| spec.is_whole || spec.kind().is_none_or(|kind| kind == OutputKind::Boxes);
        // What holds something else by the caller's word is no part of boxes.
        let none = OutputArray { values: &[], shape: &[] };
        let parts =
            float.iter().zip(self.outputs.list.iter()).map(|(array, spec)| if may(spec) { *array } else { none });
        let parts: Vec<OutputArray> = parts.collect();
        let joined: Vec<bool> = self.outputs.list.iter().map(|spec| spec.joins_scores).collect();
        let asked: Vec<bool> = self.outputs.list.iter().map(|spec| spec.kind() == Some(OutputKind::Boxes)).collect();
        let found = match BoxForm::of(&parts, &joined, &asked) {
            Some(form) => Written::As(form),
            None if boxes::are_none(&parts) => Written::Open,
            None => Written::Otherwise,
        };
        self.written = self.written.and(found);
        // Until the float network finds some, the other shows how those are written that it invents.
        let invented = || BoxForm::of(network, &joined, &asked).filter(|_| self.written == Written::Open);
        if let Some(form) = self.form().or_else(invented) {
            self.boxes[part].observe(form, &parts, network);
        }
    }

    /// How boxes are written, if the outputs hold any.
    fn form(&self) -> Option<BoxForm> {
        match self.written {
            Written::As(form) => Some(form),
            Written::Open | Written::Otherwise => None,
        }
    }

    /// Adds a sample of some data, where the network has just run: its outputs are the values wanted.
    pub(crate) fn observe_run(
        &mut self,
        sample: usize,
        float: &[Vec<f32>],
        ran: Ran,
        data: &Dataset,
    ) -> Result<(), ExecuteError> {
        let values = (0..ran.len()).map(|at| ran.values(at)).collect::<Result<Vec<_>, _>>()?;
        let found: Vec<OutputArray> =
            values.iter().enumerate().map(|(at, values)| OutputArray { values, shape: ran.shape(at) }).collect();
        let outputs = self.outputs.clone();
        self.check_labels(sample, data.labels(sample), &found)?;
        let kept = outputs.kept(data, sample)?;
        self.observe(sample, float, &found, data.labels(sample), kept.as_ref());
        Ok(())
    }

    /// Adds what a later part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.compared_samples() == 0 {
            return;
        }
        self.written = self.written.and(other.written);
        self.compared.iter_mut().zip(&other.compared).for_each(|(own, other)| own.merge(other));
        self.boxes.iter_mut().zip(&other.boxes).for_each(|(own, other)| own.merge(other));
        for part in 0..PARTS {
            self.own[part].merge(other.own[part]);
            self.float[part].merge(other.float[part]);
            self.samples[part] += other.samples[part];
        }
    }

    /// The number of samples added.
    fn compared_samples(&self) -> u64 {
        self.samples.iter().sum()
    }

    /// Labels that the network and the float network get right, without those of a part.
    fn accuracies(&self, without: Option<usize>) -> [Accuracy; 2] {
        let mut total = [Accuracy::default(); 2];
        for part in (0..PARTS).filter(|&part| Some(part) != without) {
            total[0].merge(self.own[part]);
            total[1].merge(self.float[part]);
        }
        total
    }

    /// Boxes of both networks, without those of a part.
    fn matches(&self, without: Option<usize>) -> BoxMatches {
        let mut total = BoxMatches::default();
        let parts = self.boxes.iter().enumerate().filter(|(part, _)| Some(*part) != without);
        parts.for_each(|(_, part)| total.merge(part));
        total
    }

    /// Whether the network has one output `[N, C]`, which a caller may take for class scores.
    pub(crate) fn has_classes(&self) -> bool {
        let matrix = matches!(&self.compared[..], [one] if one.shape.len() == 2 && one.shape[1] >= 2);
        let asked = self.outputs.list.first().and_then(OutputSpec::kind);
        matrix && !self.outputs.list[0].is_whole && asked.is_none_or(|kind| kind == OutputKind::Scores)
    }

    /// Whether that output holds class scores.
    pub(crate) fn is_of_classifier(&self) -> bool {
        self.has_classes() && self.reading(0).kind == OutputKind::Scores
    }

    /// What the outputs hold.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        (0..self.compared.len()).map(|at| self.reading(at)).collect()
    }

    /// Share of labels the float network gets right; none without labels.
    pub(crate) fn float_accuracy(&self) -> Option<f64> {
        self.accuracies(None)[1].share()
    }
}

/// Boxes of both networks that are partners, where further outputs hold something for each box.
struct Pairs {
    places: Vec<(usize, usize)>,
    /// How many boxes the float network has, and the other.
    rows: [usize; 2],
    /// The outputs that are the boxes.
    boxes: Vec<usize>,
}

/// What an output holds for boxes that are partners, in the same order, and its shape.
struct Partners {
    float: Vec<f32>,
    found: Vec<f32>,
    shape: Vec<usize>,
}

impl Pairs {
    fn new(form: Option<BoxForm>, float: &[OutputArray], network: &[OutputArray]) -> Option<Self> {
        let form = form.filter(|form| form.outputs().len() < float.len())?;
        let rows = [form.rows(float)?, form.rows(network)?];
        Some(Self { places: form.partners(float, network), rows, boxes: form.outputs() })
    }

    /// Of an output that holds something for each box.
    fn of(&self, at: usize, float: &OutputArray, found: &OutputArray) -> Option<Partners> {
        let (&rows, each) = found.shape.split_first().filter(|_| !self.boxes.contains(&at))?;
        let size: usize = each.iter().product();
        if rows != self.rows[1] || float.values.len() != size * self.rows[0] {
            return None;
        }
        let row = |values: &[f32], place: usize| values[place * size..][..size].to_vec();
        Some(Partners {
            float: self.places.iter().flat_map(|&(own, _)| row(float.values, own)).collect(),
            found: self.places.iter().flat_map(|&(_, partner)| row(found.values, partner)).collect(),
            shape: [&[self.places.len()], each].concat(),
        })
    }
}

/// Whether an output has rows of scores, one for each label.
fn holds_classes(found: OutputArray, labels: &[i64]) -> bool {
    is_matrix(found.shape) && !labels.is_empty() && found.values.len() >= 2 * labels.len()
}

/// Whether a shape is `[N, C]`, with axes of length one behind.
fn is_matrix(shape: &[usize]) -> bool {
    shape.len() >= 2 && shape[1] >= 2 && shape.iter().skip(2).all(|&dim| dim == 1)
}

/// The shape of the float network's output, which may have another number of rows than the network's.
fn shape_of<'a>(elements: usize, found: &OutputArray<'a>) -> Cow<'a, [usize]> {
    if elements == found.values.len() || found.shape.is_empty() {
        return Cow::Borrowed(found.shape);
    }
    let at = found.shape.len().saturating_sub(2);
    let others: usize = found.shape.iter().enumerate().filter(|(axis, _)| *axis != at).map(|(_, &dim)| dim).product();
    let mut shape = found.shape.to_vec();
    shape[at] = elements / others.max(1);
    Cow::Owned(shape)
}
