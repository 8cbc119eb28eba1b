//! The figures of one output by what it holds, made of its sums.

use super::sums::Sums;
use crate::measure::boxes::BoxMatches;
use crate::measure::channels::decibels;
use crate::measure::head::Head;
use crate::measure::metrics::KindFigures;
use crate::measure::outputs::OutputSpec;
use crate::scheme::output_kind::OutputKind;

/// An output and what it is read as.
#[derive(Clone, Copy)]
pub(super) struct ReadOutput<'a> {
    pub(super) spec: &'a OutputSpec,
    pub(super) kind: OutputKind,
    pub(super) reads_tokens: bool,
    pub(super) labelled: bool,
}

impl ReadOutput<'_> {
    /// The figures of the kind, the loss and the distance.
    pub(super) fn figures(self, sums: &Sums, boxes: &BoxMatches) -> (KindFigures, f64, f64) {
        let rows = &sums.rows;
        let divergence = rows.divergence().unwrap_or(0.0);
        let scored = KindFigures {
            rows: Some(rows.rows()),
            agreement: rows.same(),
            divergence: rows.divergence(),
            softened_divergence: rows.softened(),
            ..KindFigures::default()
        };
        let one = |share: Option<f64>| 1.0 - share.unwrap_or(1.0);
        match self.kind {
            OutputKind::Scores if self.spec.is_whole => {
                let (rows, agreement) = (Some(sums.equality.elements()), sums.equality.same());
                (KindFigures { rows, agreement, ..KindFigures::default() }, one(agreement), one(agreement))
            }
            OutputKind::Scores if self.decides_alone(sums) => {
                let width_of_one = rows.rows() == 0;
                let agreement = sums.decisions.same(width_of_one);
                let rows = Some(sums.decisions.elements());
                let distance = one(agreement) + sums.channels.figures().mean;
                (KindFigures { rows, agreement, ..KindFigures::default() }, one(agreement), distance)
            }
            OutputKind::Scores => (scored, one(rows.same()), divergence),
            OutputKind::Sequence => {
                let same_sequences = rows.same_sequences();
                let lost = if self.reads_tokens { one(rows.same()) } else { one(same_sequences) };
                (KindFigures { same_sequences, ..scored }, lost, divergence)
            }
            OutputKind::Embedding => {
                let [mean, most] = sums.cosines.apart().unwrap_or_default();
                let figures =
                    KindFigures { cosine: Some(1.0 - mean), least_cosine: Some(1.0 - most), ..KindFigures::default() };
                (figures, mean, mean)
            }
            OutputKind::Boxes => {
                let [found, kept, invented] = boxes.counts();
                let beside = boxes.beside();
                let figures = KindFigures {
                    beside: beside.and_then(decibels),
                    boxes: Some(found),
                    kept: Some(kept),
                    invented: Some(invented),
                    ..KindFigures::default()
                };
                // Where there are none, their numbers still tell a better network from a worse one.
                let distance = if boxes.are_none() { values(sums).1 } else { boxes.lost() + boxes.shifted() };
                let beside = beside.unwrap_or(0.0);
                (figures, boxes.lost().max(beside), distance + beside)
            }
            OutputKind::Values => {
                let (lost, distance) = values(sums);
                (KindFigures::default(), lost, distance)
            }
        }
    }

    /// Whether the sums hold anything that the kind is compared by.
    pub(super) fn is_compared(self, sums: &Sums, boxes: &BoxMatches) -> bool {
        match self.kind {
            OutputKind::Scores if self.spec.is_whole => sums.equality.elements() > 0,
            OutputKind::Scores => sums.rows.rows() > 0 || sums.decisions.elements() > 0,
            OutputKind::Sequence => sums.rows.rows() > 0,
            OutputKind::Embedding => sums.cosines.apart().is_some(),
            OutputKind::Values => sums.channels.elements() > 0,
            OutputKind::Boxes => !boxes.are_none(),
        }
    }

    /// Whether each number decides for itself, and none is the best of a row.
    fn decides_alone(self, sums: &Sums) -> bool {
        let sigmoid = self.spec.head == Head::Sigmoid && !self.labelled;
        sums.decisions.elements() > 0 && (sigmoid || sums.rows.rows() == 0)
    }
}

/// What an output loses that is compared number by number, and its distance.
fn values(sums: &Sums) -> (f64, f64) {
    let found = sums.channels.figures();
    // An output that does not vary shows a loss only where the error is as large as the output itself.
    let lost = if found.varies || found.worst >= 1.0 { found.worst } else { 0.0 };
    // Half the worst channel, since that is what a drop is counted by.
    (lost, f64::midpoint(found.mean, found.worst))
}
