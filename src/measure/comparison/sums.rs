//! What is summed up of one output while samples pass: the sums of every reading that is possible, each of fixed size.

use super::PARTS;
use crate::execute::masks::{Kept, Positions};
use crate::measure::agreement::{Agreement, Cosines, Decisions, Equality, RowLayout};
use crate::measure::channels::ChannelErrors;
use crate::measure::evidence::Evidence;
use crate::measure::head::Head;
use crate::measure::outputs::{OutputArray, OutputSpec};
use crate::measure::whole::DistinctNumbers;
use crate::scheme::output_kind::OutputKind;

/// Rows of such a sample, spread over it.
const ROWS_LOOKED_AT: usize = 4;

/// A sample, and where it stands among all.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSlot {
    /// Its number.
    pub(super) sample: usize,
    /// The part that it belongs to.
    pub(super) part: usize,
    /// Whether its rows are looked at side by side.
    pub(super) side_by_side: bool,
}

/// Sums of one output over some samples, for every reading of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) channels: ChannelErrors,
    pub(super) rows: Agreement,
    pub(super) decisions: Decisions,
    pub(super) equality: Equality,
    pub(super) cosines: Cosines,
}

impl Sums {
    pub(super) fn merge(&mut self, other: &Self) {
        self.channels.merge(&other.channels);
        self.rows.merge(&other.rows);
        self.decisions.merge(&other.decisions);
        self.equality.merge(&other.equality);
        self.cosines.merge(&other.cosines);
    }
}

/// One output over all samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Compared {
    pub(super) parts: [Sums; PARTS],
    pub(super) evidence: Evidence,
    /// Of an output of rounded values.
    pub(super) numbers: DistinctNumbers,
    /// The shape in the first sample.
    pub(super) shape: Vec<usize>,
    pub(super) samples: u64,
    /// Errors of some samples, by groups of channels.
    pub(super) errors: Vec<(usize, Vec<f64>)>,
    /// Samples in which the two networks' outputs have not the same number of elements.
    pub(super) uneven: u64,
}

impl Compared {
    /// Adds this output of a sample: the float network's values, and the network's. Positions that masks leave out count
    /// nowhere.
    pub(super) fn observe(
        &mut self,
        spec: &OutputSpec,
        slot: SampleSlot,
        float: &[f32],
        network: OutputArray,
        kept: Option<&Kept>,
    ) {
        if self.samples == 0 {
            self.shape = network.shape.to_vec();
        }
        self.samples += 1;
        if spec.is_whole {
            self.parts[slot.part].equality.observe(float, network.values);
            self.numbers.observe(float);
        }
        // Nothing but equality says anything of answers.
        if spec.holds_answers() {
            return;
        }
        if float.len() == network.values.len() {
            let positions = kept.and_then(|kept| kept.of(&spec.name, network.shape));
            self.observe_floats(spec, slot, [float, network.values], network.shape, positions.as_ref());
        } else {
            self.uneven += 1;
        }
    }

    fn observe_floats(
        &mut self,
        spec: &OutputSpec,
        slot: SampleSlot,
        values: [&[f32]; 2],
        shape: &[usize],
        positions: Option<&Positions>,
    ) {
        let sums = &mut self.parts[slot.part];
        let excluded = |element: usize| positions.is_some_and(|positions| !positions.keeps(element));
        let element = positions.is_some().then_some(&excluded as &dyn Fn(usize) -> bool);
        let channels = ChannelErrors::of(values[0], values[1], spec.channels.layout(shape), element);
        let channels = channels.in_one_unit(spec.is_behind_sigmoid());
        if slot.side_by_side {
            self.errors.push((slot.sample, channels.errors()));
        }
        sums.channels.merge(&channels);
        if spec.head == Head::Sigmoid || spec.kind() == Some(OutputKind::Scores) {
            sums.decisions.observe(values, element);
        }
        let Some(layout) = spec.row_axis(shape).and_then(|axis| RowLayout::of(shape, axis)) else { return };
        if layout.width >= 2 {
            self.observe_rows(spec, slot, values, (layout, shape), positions);
        } else if spec.asked.is_none() {
            self.evidence.observe(values[0], false);
        }
    }

    /// Adds the rows of an output whose rows are two wide or more.
    fn observe_rows(
        &mut self,
        spec: &OutputSpec,
        slot: SampleSlot,
        values: [&[f32]; 2],
        (layout, shape): (RowLayout, &[usize]),
        positions: Option<&Positions>,
    ) {
        let sums = &mut self.parts[slot.part];
        let excluded = |row: usize| positions.is_some_and(|positions| !positions.keeps(layout.start(row)));
        let of_rows = positions.is_some().then_some(&excluded as &dyn Fn(usize) -> bool);
        let may_be = |kind: OutputKind| spec.kind().is_none_or(|asked| asked == kind);
        if may_be(OutputKind::Embedding) {
            sums.cosines.observe(values, layout, of_rows);
        }
        let may_score = may_be(OutputKind::Scores) || may_be(OutputKind::Sequence);
        if may_score && (spec.asked.is_some() || has_rows(spec, shape)) {
            let sequences = match shape {
                [_, 1, _] | [_] | [] => 1,
                [images, ..] => *images,
            };
            sums.rows.observe(values, layout, sequences, of_rows);
        }
        if spec.asked.is_none() && has_rows(spec, shape) {
            let float = values[0];
            let rows = layout.count(float.len());
            let stride = rows.div_ceil(ROWS_LOOKED_AT).max(1);
            for row in (0..rows).filter(|&row| !excluded(row)) {
                self.evidence.observe(&layout.row(float, row), slot.side_by_side && row.is_multiple_of(stride));
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.samples == 0 {
            self.shape.clone_from(&other.shape);
        }
        self.parts.iter_mut().zip(&other.parts).for_each(|(own, other)| own.merge(other));
        self.evidence.merge(&other.evidence);
        self.numbers.merge(other.numbers);
        self.errors.extend(other.errors.iter().cloned());
        self.samples += other.samples;
        self.uneven += other.uneven;
    }

    /// Share of the samples in which the two networks' outputs have not the same number of elements.
    pub(super) fn share_uneven(&self) -> f64 {
        self.uneven as f64 / self.samples.max(1) as f64
    }

    pub(super) fn total(&self) -> Sums {
        sum(self.parts.iter())
    }

    /// The sums without those of a part.
    pub(super) fn without(&self, part: usize) -> Sums {
        sum(self.parts.iter().enumerate().filter(|(at, _)| *at != part).map(|(_, sums)| sums))
    }
}

pub(super) fn sum<'s>(parts: impl Iterator<Item = &'s Sums>) -> Sums {
    parts.fold(Sums::default(), |mut sum, part| {
        sum.merge(part);
        sum
    })
}

/// Whether an output may hold rows of scores: maps only behind a softmax.
pub(super) fn has_rows(spec: &OutputSpec, shape: &[usize]) -> bool {
    let flat = shape.iter().skip(2).all(|&dim| dim == 1);
    let wide = spec.row_axis(shape).is_some_and(|axis| shape[axis] >= 2);
    wide && (matches!(spec.head, Head::Softmax(_)) || shape.len() <= 3 || flat)
}
