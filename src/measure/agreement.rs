//! Rows of scores beside those of the float network: is the answer the same, and how far apart are the two.

use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;

/// The temperature of softened divergences.
const TEMPERATURE: f64 = 2.0;

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
                self.divergence += divergence(&a, &b);
                self.softened += softened(&a, &b);
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
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let (own, other) = (dot(a, a), dot(b, b));
    match (own == 0.0, other == 0.0) {
        (true, true) => 1.0,
        (false, false) => {
            Some(dot(a, b) / (own * other).sqrt()).filter(|c| c.is_finite()).unwrap_or(0.0).clamp(-1.0, 1.0)
        }
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

/// Index of the largest entry; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (1..row.len()).fold(0, better)
}

/// KL(softmax(a) ‖ softmax(b)) in nats; rows that are probabilities already are taken as they are.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    relative_entropy(&probabilities(a), &probabilities(b))
}

/// T²·KL(softmax(a/T) ‖ softmax(b/T)) in nats at the temperature T; for two rows close to each other about the divergence
/// that they would have if the answers were less certain (Hinton, Vinyals, Dean 2015).
fn softened(a: &[f32], b: &[f32]) -> f64 {
    TEMPERATURE.powi(2) * relative_entropy(&flattened(a), &flattened(b))
}

/// The probabilities of a row at the temperature: their 1/T-th powers, normalised.
fn flattened(row: &[f32]) -> Vec<f64> {
    let powers: Vec<f64> = probabilities(row).into_iter().map(|p| p.powf(TEMPERATURE.recip())).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// KL(p ‖ q).
fn relative_entropy(p: &[f64], q: &[f64]) -> f64 {
    let sum: f64 = p.iter().zip(q).map(|(&p, &q)| if p > 0.0 { p * (p / q.max(1e-12)).ln() } else { 0.0 }).sum();
    // Never negative but for rounding.
    sum.max(0.0)
}

/// Whether a row holds probabilities: none negative, their sum 1.
pub(crate) fn is_probabilities(row: &[f32]) -> bool {
    let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
    row.iter().all(|&v| (0.0..=1.0).contains(&v)) && (sum - 1.0).abs() < 1e-2
}

/// A row as probabilities, by softmax unless it holds them already.
pub(crate) fn probabilities(row: &[f32]) -> Vec<f64> {
    if is_probabilities(row) {
        let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
        return row.iter().map(|&v| f64::from(v) / sum).collect();
    }
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&v| f64::from(v - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
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

    #[test]
    fn divergence_of_two_known_rows() {
        let found = divergence(&[0.5, 0.5], &[0.25, 0.75]);
        let expected = 0.5 * 2_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    /// At temperature 2 the powers of {9, 1} are {3, 1}. A row of logits has the same as the row of its probabilities.
    #[test]
    fn softened_divergence_is_that_of_roots() {
        let (a, b) = ([0.9, 0.1], [0.5, 0.5]);
        let expected = 4.0 * (0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln());
        assert!((softened(&a, &b) - expected).abs() < 1e-6, "{} {expected}", softened(&a, &b));
        let logits = |row: [f32; 2]| row.map(|p| p.ln() + 3.0);
        assert!((softened(&logits(a), &logits(b)) - expected).abs() < 1e-5);
        assert_eq!(softened(&a, &a), 0.0);
    }

    /// An error in the logits of a certain row hardly shows in the divergence, and far more in the softened one.
    #[test]
    fn certain_rows_count_when_softened() {
        let of = |row: [f32; 2], moved: [f32; 2]| [divergence(&row, &moved), softened(&row, &moved)];
        let certain = of([12.0, 0.0], [11.0, 0.0]);
        let open = of([0.5, 0.0], [-0.5, 0.0]);
        assert!(certain[1] / certain[0] > 100.0, "{certain:?}");
        assert!((open[1] / open[0] - 1.0).abs() < 0.1, "{open:?}");
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
