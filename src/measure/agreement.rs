//! Rows of scores beside those of the float network: is the answer the same, and how far apart are the two.

pub use super::divergence::argmax;
use super::divergence::divergences;
pub(crate) use super::divergence::{is_probabilities, probabilities};
use crate::quant::lanes::sums;
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;

/// The figures of all outputs together that a report shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct AgreementFigures {
    /// Rows of scores compared: one per sample for a classifier, one per position for a sequence; 0 without scores.
    pub rows: u64,
    /// Share of rows whose largest entry is the same, for outputs that hold scores.
    pub same_argmax: Option<f64>,
    /// Mean Kullback-Leibler divergence KL(reference ‖ model) in nats of the softmax of the rows, for the same outputs.
    pub divergence: Option<f64>,
    /// Power of an output over that of its error in decibels, of the output where that is least; absent when the outputs
    /// are equal. The mean of an output is power too: the ratios about it stand with each output.
    pub sqnr: Option<f64>,
}

/// Where the rows of an output are: `outer` × `width` × `inner` elements, a row for each of the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowLayout {
    pub(crate) width: usize,
    pub(crate) inner: usize,
}

impl RowLayout {
    /// The rows along an axis.
    pub(crate) fn of(shape: &[usize], axis: usize) -> Option<Self> {
        let (&width, behind) = (shape.get(axis)?, shape.get(axis + 1..)?);
        (width > 0).then(|| Self { width, inner: behind.iter().product::<usize>().max(1) })
    }

    /// The number of rows of so many elements.
    pub(crate) fn count(self, elements: usize) -> usize {
        elements / self.width
    }

    /// The first element of a row.
    pub(crate) fn start(self, at: usize) -> usize {
        at / self.inner * self.inner * self.width + at % self.inner
    }

    /// A row.
    pub(crate) fn row(self, values: &[f32], at: usize) -> Cow<'_, [f32]> {
        let (Self { width, inner }, start) = (self, self.start(at));
        if inner == 1 {
            return Cow::Borrowed(&values[start..start + width]);
        }
        Cow::Owned(values[start..].iter().step_by(inner).take(width).copied().collect())
    }
}

/// Agreement of rows of scores, summed over samples; parts merge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Agreement {
    rows: u64,
    same: u64,
    divergence: f64,
    softened: f64,
    sequences: u64,
    /// Sequences with the same answers in a row, runs of one answer counted once, and leaving out the first or the last
    /// class, which may stand for nothing.
    alike: [u64; 3],
    /// Rows whose answer in the float network is the first or the last class.
    blank: [u64; 2],
}

impl Agreement {
    /// Compares the rows of a sample, which has so many sequences. `excluded` says which rows count nowhere.
    pub(crate) fn observe(
        &mut self,
        [float, network]: [&[f32]; 2],
        layout: RowLayout,
        sequences: usize,
        excluded: Option<&dyn Fn(usize) -> bool>,
    ) {
        let rows = layout.count(float.len().min(network.len()));
        let length = (rows / sequences.max(1)).max(1);
        for start in (0..rows).step_by(length) {
            let mut answers: Vec<[usize; 2]> = Vec::with_capacity(length);
            for at in (start..rows.min(start + length)).filter(|&at| excluded.is_none_or(|excluded| !excluded(at))) {
                let (a, b) = (layout.row(float, at), layout.row(network, at));
                let answer = [argmax(&a), argmax(&b)];
                self.rows += 1;
                self.same += u64::from(answer[0] == answer[1]);
                let [divergence, softened] = divergences(&a, &b);
                self.divergence += divergence;
                self.softened += softened;
                self.blank[0] += u64::from(answer[0] == 0);
                self.blank[1] += u64::from(answer[0] == layout.width - 1);
                answers.push(answer);
            }
            if !answers.is_empty() {
                self.compare_sequence(&answers, layout.width);
            }
        }
    }

    fn compare_sequence(&mut self, answers: &[[usize; 2]], width: usize) {
        self.sequences += 1;
        let read = |side: usize, blank: Option<usize>| {
            let mut read: Vec<usize> = answers.iter().map(|answer| answer[side]).collect();
            read.dedup();
            read.retain(|&class| Some(class) != blank);
            read
        };
        for (alike, blank) in self.alike.iter_mut().zip([None, Some(0), Some(width - 1)]) {
            *alike += u64::from(read(0, blank) == read(1, blank));
        }
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.same += other.same;
        self.divergence += other.divergence;
        self.softened += other.softened;
        self.sequences += other.sequences;
        self.alike.iter_mut().zip(other.alike).for_each(|(own, other)| *own += other);
        self.blank.iter_mut().zip(other.blank).for_each(|(own, other)| *own += other);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Share of rows with the same answer.
    pub(crate) fn same(&self) -> Option<f64> {
        share(self.same, self.rows)
    }

    /// Mean divergence of the rows.
    pub(crate) fn divergence(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.divergence / self.rows as f64)
    }

    /// Mean softened divergence of the rows.
    pub(crate) fn softened(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.softened / self.rows as f64)
    }

    /// Share of sequences that read the same: runs of one answer count once, and the class that stands for nothing is
    /// left out, which is the first or the last if it is the answer of most rows.
    pub(crate) fn same_sequences(&self) -> Option<f64> {
        let blank = (0..2).find(|&side| 2 * self.blank[side] > self.rows).map_or(0, |side| side + 1);
        share(self.alike[blank], self.sequences)
    }
}

/// Yes or no, element by element: numbers between 0 and 1 that are compared with one half.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decisions {
    elements: u64,
    same: u64,
    /// Elements to which both say yes, and to which either does.
    yes: [u64; 2],
}

impl Decisions {
    /// Adds a sample. `excluded` says which elements count nowhere.
    pub(crate) fn observe(&mut self, [float, network]: [&[f32]; 2], excluded: Option<&dyn Fn(usize) -> bool>) {
        let pairs = float.iter().zip(network).enumerate();
        for (_, (&a, &b)) in pairs.filter(|(at, _)| excluded.is_none_or(|excluded| !excluded(*at))) {
            let (a, b) = (a > 0.5, b > 0.5);
            self.elements += 1;
            self.same += u64::from(a == b);
            self.yes[0] += u64::from(a && b);
            self.yes[1] += u64::from(a || b);
        }
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.elements += other.elements;
        self.same += other.same;
        self.yes.iter_mut().zip(other.yes).for_each(|(own, other)| *own += other);
    }

    pub(crate) fn elements(&self) -> u64 {
        self.elements
    }

    /// Share of the decisions that are alike: of all where a sample has one, else of those where either says yes, since
    /// nearly all labels of a sample are a no.
    pub(crate) fn same(&self, one: bool) -> Option<f64> {
        if one {
            share(self.same, self.elements)
        } else {
            share(self.yes[0], self.yes[1]).or(share(1, self.elements.min(1)))
        }
    }
}

/// Whole numbers, equal or not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Equality {
    elements: u64,
    same: u64,
}

impl Equality {
    /// Adds a sample; elements that only one of the two has are not equal.
    pub(crate) fn observe(&mut self, float: &[f32], network: &[f32]) {
        self.elements += float.len().max(network.len()) as u64;
        self.same += float.iter().zip(network).filter(|(a, b)| a == b).count() as u64;
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.elements += other.elements;
        self.same += other.same;
    }

    pub(crate) fn elements(&self) -> u64 {
        self.elements
    }

    /// Share of equal elements.
    pub(crate) fn same(&self) -> Option<f64> {
        share(self.same, self.elements)
    }
}

/// Cosines between vectors of the two networks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cosines {
    vectors: u64,
    sum: f64,
    /// The largest 1 − cosine.
    most: f64,
}

impl Cosines {
    /// Adds the vectors of a sample. `excluded` says which count nowhere.
    pub(crate) fn observe(
        &mut self,
        [float, network]: [&[f32]; 2],
        layout: RowLayout,
        excluded: Option<&dyn Fn(usize) -> bool>,
    ) {
        let rows = layout.count(float.len().min(network.len()));
        for at in (0..rows).filter(|&at| excluded.is_none_or(|excluded| !excluded(at))) {
            let apart = 1.0 - cosine(&layout.row(float, at), &layout.row(network, at));
            self.vectors += 1;
            self.sum += apart;
            self.most = self.most.max(apart);
        }
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.vectors += other.vectors;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }

    /// Mean of 1 − cosine, and the largest.
    pub(crate) fn apart(&self) -> Option<[f64; 2]> {
        (self.vectors > 0).then(|| [self.sum / self.vectors as f64, self.most])
    }
}

/// The cosine between two vectors; 1 where both are 0, 0 where one is or where it is no number.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let [own, other, both] = sums(a, b, |a, b| {
        let (a, b) = (f64::from(a), f64::from(b));
        [a * a, b * b, a * b]
    });
    match (own == 0.0, other == 0.0) {
        (true, true) => 1.0,
        (false, false) => Some(both / (own * other).sqrt()).filter(|c| c.is_finite()).unwrap_or(0.0).clamp(-1.0, 1.0),
        _ => 0.0,
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

/// How many samples were predicted right; parts merge in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    samples: u64,
    right: u64,
}

impl Accuracy {
    /// Adds a sample: the class predicted, if any was, and its own.
    pub fn observe(&mut self, predicted: Option<usize>, class: usize) {
        self.samples += 1;
        self.right += u64::from(predicted == Some(class));
    }

    /// Adds rows of scores, one a label; the largest entry is the class predicted.
    pub fn observe_rows(&mut self, scores: &[f32], labels: &[i64]) {
        let width = (scores.len() / labels.len().max(1)).max(1);
        for (row, &label) in scores.chunks_exact(width).zip(labels) {
            // A label that is no class is got wrong.
            self.observe(Some(argmax(row)), usize::try_from(label).unwrap_or(usize::MAX));
        }
    }

    /// Adds classes that the network itself decided for, one a label.
    pub(crate) fn observe_classes(&mut self, classes: &[f32], labels: &[i64]) {
        for (&class, &label) in classes.iter().zip(labels) {
            self.samples += 1;
            self.right += u64::from(class as i64 == label);
        }
    }

    /// Adds what another part has seen.
    pub fn merge(&mut self, other: Self) {
        self.samples += other.samples;
        self.right += other.right;
    }

    /// The number of samples.
    pub fn samples(self) -> u64 {
        self.samples
    }

    /// The share predicted right; none before the first sample.
    pub fn share(self) -> Option<f64> {
        share(self.right, self.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(float: &[f32], network: &[f32], width: usize) -> Agreement {
        let mut agreement = Agreement::default();
        agreement.observe([float, network], RowLayout { width, inner: 1 }, 1, None);
        agreement
    }

    #[test]
    fn equal_outputs_agree() {
        let found = agreement(&[1.0, 3.0, 2.0], &[1.0, 3.0, 2.0], 3);
        assert_eq!((found.same(), found.divergence(), found.same_sequences()), (Some(1.0), Some(0.0), Some(1.0)));
    }

    /// One row in ten moves from the blank to its neighbour's symbol: the text stays. One symbol becomes another: it
    /// does not.
    #[test]
    fn sequences_are_compared_as_they_are_read() {
        let rows = |answers: &[usize]| -> Vec<f32> {
            answers.iter().flat_map(|&a| (0..4).map(move |c| if c == a { 5.0 } else { 0.0 })).collect()
        };
        let float = rows(&[0, 0, 1, 0, 0, 2, 2, 0, 3, 0]);
        let same = agreement(&float, &rows(&[0, 1, 1, 0, 0, 2, 2, 0, 3, 0]), 4);
        assert_eq!((same.same(), same.same_sequences()), (Some(0.9), Some(1.0)));
        let other = agreement(&float, &rows(&[0, 0, 1, 0, 0, 2, 2, 0, 1, 0]), 4);
        assert_eq!((other.same(), other.same_sequences()), (Some(0.9), Some(0.0)));
    }

    #[test]
    fn rows_along_another_axis() {
        // Two classes, three positions, channels first.
        let layout = RowLayout::of(&[1, 2, 3], 1).unwrap();
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(layout.count(6), 3);
        assert_eq!(&*layout.row(&values, 1), [1.0, 4.0]);
        let mut cosines = Cosines::default();
        cosines.observe([&values, &values], layout, None);
        assert!(cosines.apart().unwrap().iter().all(|apart| apart.abs() < 1e-12));
    }

    #[test]
    fn cosines_of_vectors_without_length() {
        assert_eq!((cosine(&[0.0, 0.0], &[0.0, 0.0]), cosine(&[0.0, 0.0], &[1.0, 0.0])), (1.0, 0.0));
        assert_eq!(cosine(&[1.0, 0.0], &[f32::NAN, 0.0]), 0.0);
    }
}
