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
//! ```

mod figures;
mod quarters;
mod read_output;
mod reading;
mod sums;
#[cfg(test)]
mod tests;

use super::agreement::Accuracy;
use super::boxes::{BoxForm, BoxMatches};
use super::outputs::{OutputArray, OutputSpec, Outputs, Reading};
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::masks::Kept;
use crate::execute::segment::Ran;
use crate::scheme::output_kind::OutputKind;
use std::borrow::Cow;
use sums::{Compared, SampleSlot};

/// Parts of the samples that are compared with each other.
const QUARTERS: usize = 4;
/// Samples whose rows are looked at side by side, spread over all.
const LOOKED_AT: usize = 64;

/// Sums over samples; parts merge, in the order of samples.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    outputs: Outputs,
    compared: Vec<Compared>,
    boxes: [BoxMatches; QUARTERS],
    /// How boxes are written, as long as that is the same in all samples.
    form: Option<BoxForm>,
    samples: u64,
    own: Accuracy,
    float: Accuracy,
}

impl Comparison {
    /// Of no samples yet.
    pub(crate) fn new(outputs: &Outputs) -> Self {
        Self {
            compared: vec![Compared::default(); outputs.list.len()],
            outputs: outputs.clone(),
            boxes: Default::default(),
            form: None,
            samples: 0,
            own: Accuracy::default(),
            float: Accuracy::default(),
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
        let quarter = (sample * QUARTERS / self.outputs.samples.max(1)).min(QUARTERS - 1);
        self.observe_boxes(quarter, float, network);
        let stride = self.outputs.samples.div_ceil(LOOKED_AT).max(1);
        let slot = SampleSlot { sample, quarter, side_by_side: sample.is_multiple_of(stride) };
        let specs = self.outputs.list.iter().zip(&mut self.compared);
        for ((spec, compared), (float, found)) in specs.zip(float.iter().zip(network)) {
            compared.observe(spec, slot, float, *found, kept);
        }
        if let (Some(labels), [float, ..], [found, ..]) = (labels, float, network) {
            self.observe_labels(labels, float, *found);
        }
        self.samples += 1;
    }

    fn observe_labels(&mut self, labels: &[i64], float: &[f32], found: OutputArray) {
        match self.outputs.list.first() {
            Some(spec) if spec.is_whole && found.values.len() == labels.len() => {
                self.float.observe_classes(float, labels);
                self.own.observe_classes(found.values, labels);
            }
            Some(spec) if !spec.is_whole && is_matrix(found.shape) && found.values.len() >= 2 * labels.len() => {
                self.float.observe_rows(float, labels);
                self.own.observe_rows(found.values, labels);
            }
            _ => {}
        }
    }

    fn observe_boxes(&mut self, quarter: usize, float: &[Vec<f32>], network: &[OutputArray]) {
        if self.samples > 0 && self.form.is_none() {
            return;
        }
        let may = |spec: &OutputSpec| !spec.is_whole && spec.kind().is_none_or(|kind| kind == OutputKind::Boxes);
        let shapes: Vec<Cow<[usize]>> =
            float.iter().zip(network).map(|(float, found)| shape_of(float.len(), found)).collect();
        let mut parts = Vec::with_capacity(float.len());
        for (at, values) in float.iter().enumerate() {
            // What holds something else by the caller's word is no part of boxes.
            let spec = &self.outputs.list[at];
            let is_part = may(spec) || spec.is_whole;
            parts.push(if is_part {
                OutputArray { values, shape: &shapes[at] }
            } else {
                OutputArray { values: &[], shape: &[] }
            });
        }
        let joined: Vec<bool> = self.outputs.list.iter().map(|spec| spec.joins_scores).collect();
        let asked: Vec<bool> = self.outputs.list.iter().map(|spec| spec.kind() == Some(OutputKind::Boxes)).collect();
        let form = BoxForm::of(&parts, &joined, &asked);
        if self.samples > 0 && form != self.form {
            self.form = None;
            return;
        }
        self.form = form;
        if let Some(form) = form {
            self.boxes[quarter].observe(form, &parts, network);
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
        let kept = outputs.kept(data, sample)?;
        self.observe(sample, float, &found, data.labels(sample), kept.as_ref());
        Ok(())
    }

    /// Adds what a later part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.samples == 0 {
            return;
        }
        self.form = if self.samples == 0 || self.form == other.form { other.form } else { None };
        self.compared.iter_mut().zip(&other.compared).for_each(|(own, other)| own.merge(other));
        self.boxes.iter_mut().zip(&other.boxes).for_each(|(own, other)| own.merge(other));
        self.own.merge(other.own);
        self.float.merge(other.float);
        self.samples += other.samples;
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
        self.float.share()
    }
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
