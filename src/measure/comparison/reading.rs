//! What an output is read as, by the evidence of the float network.

use super::sums::has_rows;
use super::{Comparison, is_matrix};
use crate::measure::boxes::BoxForm;
use crate::measure::head::Head;
use crate::measure::outputs::{OutputSpec, Reading};
use crate::scheme::output_kind::OutputKind;
use std::borrow::Cow;

impl Comparison {
    /// What an output is read as.
    pub(super) fn reading(&self, at: usize) -> Reading {
        let (spec, compared) = (&self.outputs.list[at], &self.compared[at]);
        let read = |kind, because| Reading { kind, because: Cow::Borrowed(because) };
        let boxes = self.form().filter(|form| form.outputs().contains(&at));
        let boxes = boxes.filter(|form| self.has_boxes() || self.is_evident(*form));
        match &spec.asked {
            Some(Reading { kind: OutputKind::Boxes, .. }) if boxes.is_none() => {
                let because = format!("shape {:?} and its numbers are no boxes, as was asked", compared.shape);
                return Reading { kind: OutputKind::Values, because: because.into() };
            }
            Some(Reading { kind: OutputKind::Sequence, .. }) if spec.is_whole => {
                return read(OutputKind::Scores, "whole numbers, each an answer of its own");
            }
            Some(reading) => return reading.clone(),
            None => {}
        }
        let evidence = &compared.evidence;
        let rank = compared.shape.len();
        let is_sequence = rank == 3 && !is_matrix(&compared.shape) && self.may_spell(at);
        let scores = if is_sequence { OutputKind::Sequence } else { OutputKind::Scores };
        let name = spec.name.to_lowercase();
        let is_labelled = at == 0 && self.accuracies(None)[0].samples() > 0;
        match spec.head {
            _ if boxes.is_some() && self.has_boxes() => read(OutputKind::Boxes, "by shape and numbers"),
            _ if boxes.is_some() => read(OutputKind::Boxes, "by shape, though float finds none in these samples"),
            _ if spec.is_rounded && !is_labelled && compared.numbers.are_values(&compared.shape) => {
                read(OutputKind::Values, "floats rounded to whole numbers")
            }
            _ if spec.is_whole => read(OutputKind::Scores, "whole numbers"),
            Head::Softmax(_) => read(scores, "ends in a softmax"),
            _ if evidence.is_probabilities() => read(scores, "rows sum to 1"),
            _ if is_labelled => read(OutputKind::Scores, "the data has labels"),
            Head::Sigmoid if rank == 2 && evidence.is_decided() => {
                read(OutputKind::Scores, "ends in a sigmoid, and its numbers are near 0 or 1")
            }
            Head::Sigmoid => read(OutputKind::Values, "ends in a sigmoid, but its numbers are no decisions"),
            Head::Normalized => read(OutputKind::Embedding, "brought to length 1"),
            Head::LayerNorm => read(OutputKind::Embedding, "ends in a layer norm"),
            _ if evidence.is_normalized() => read(OutputKind::Embedding, "rows have length 1"),
            _ if rank <= 3 && has_rows(spec, &compared.shape) && name.contains("logit") => read(scores, "by its name"),
            _ if rank == 2 && name.contains("embed") => read(OutputKind::Embedding, "by its name"),
            _ if evidence.is_logits() => read(scores, "its numbers look like logits"),
            Head::Open => read(OutputKind::Values, "nothing says otherwise"),
        }
    }

    /// Whether scores with three axes may be of symbols along a sequence. A blank and one symbol spell nothing, and where another
    /// output has four numbers for each position, these are candidates for boxes.
    fn may_spell(&self, at: usize) -> bool {
        let shape = &self.compared[at].shape;
        let symbols = self.outputs.list[at].row_axis(shape).map_or(0, |axis| shape[axis]);
        let is_beside = |other: &[usize]| other.len() == 3 && other[..2] == shape[..2] && other[2] == 4;
        let mut others = self.compared.iter().enumerate().filter(|(other, _)| *other != at);
        self.outputs.reads_tokens || (symbols > 2 && !others.any(|(_, other)| is_beside(&other.shape)))
    }

    /// Whether the float network finds any box.
    fn has_boxes(&self) -> bool {
        self.boxes.iter().any(|matches| matches.counts()[0] > 0)
    }

    /// Whether outputs that may be boxes are taken for them even where none is found: two that merely have fitting shapes may
    /// be anything, and so may one that has numbers of which nothing is known.
    fn is_evident(&self, form: BoxForm) -> bool {
        let shapes: Vec<&[usize]> = self.compared.iter().map(|compared| &compared.shape[..]).collect();
        let joins = !form.has_extras(&shapes);
        let evident = |spec: &OutputSpec| (joins && spec.joins_scores) || spec.kind() == Some(OutputKind::Boxes);
        form.outputs().into_iter().any(|at| evident(&self.outputs.list[at]))
    }
}
