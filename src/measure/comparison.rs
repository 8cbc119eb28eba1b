//! Outputs of a network beside those of the float one: how far they are apart, and what that costs.
//!
//! What an output holds is decided when all samples are seen, in this order: the caller's word; whole numbers; boxes, by
//! shape and numbers; a softmax at the end of the branch, or rows that sum to 1; labels; a sigmoid whose numbers are near
//! 0 or 1; rows of length 1; a name that says it; rows that look like logits. Anything else holds values. Until then the
//! sums of every reading that is possible are kept, each of fixed size, so that nothing grows with the samples. The
//! evidence is that of the float network alone: two networks compared with it on the same samples are read alike.

use super::agreement::{Accuracy, Agreement, AgreementFigures, Cosines, Decisions, Equality, RowLayout};
use super::boxes::{BoxForm, BoxMatches, Part};
use super::channels::{ChannelErrors, decibels};
use super::evidence::Evidence;
use super::head::Head;
use super::metrics::{KindFigures, Metrics, OutputMetrics, Quarter};
use super::outputs::{OutputSpec, Outputs, Reading};
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::masks::{Kept, Positions};
use crate::execute::segment::Ran;
use crate::scheme::output_kind::OutputKind;
use std::borrow::Cow;

/// Parts of the samples that are compared with each other.
const QUARTERS: usize = 4;
/// Samples whose rows are looked at side by side, spread over all.
const LOOKED_AT: usize = 64;
/// Rows of such a sample, spread over it.
const ROWS_LOOKED_AT: usize = 4;
/// How many times the rest a quarter loses that is much worse.
const MUCH_WORSE: f64 = 10.0;
/// Samples of the worst quarter that are named.
const NAMED: usize = 3;
/// Samples below which quarters mean nothing.
const FEWEST: usize = 16;

/// An output of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) shape: &'a [usize],
}

/// Sums of one output over some samples, for every reading of it.
#[derive(Clone, Debug, Default)]
struct Sums {
    channels: ChannelErrors,
    rows: Agreement,
    decisions: Decisions,
    equality: Equality,
    cosines: Cosines,
}

impl Sums {
    fn merge(&mut self, other: &Self) {
        self.channels.merge(&other.channels);
        self.rows.merge(&other.rows);
        self.decisions.merge(&other.decisions);
        self.equality.merge(&other.equality);
        self.cosines.merge(&other.cosines);
    }
}

/// One output over all samples.
#[derive(Clone, Debug, Default)]
struct Compared {
    quarters: [Sums; QUARTERS],
    evidence: Evidence,
    /// The shape in the first sample.
    shape: Vec<usize>,
    samples: u64,
    /// Errors of some samples, by groups of channels.
    errors: Vec<(usize, Vec<f64>)>,
    /// Samples in which the two networks' outputs have not the same number of elements.
    uneven: u64,
}

impl Compared {
    fn merge(&mut self, other: &Self) {
        if self.samples == 0 {
            self.shape.clone_from(&other.shape);
        }
        self.quarters.iter_mut().zip(&other.quarters).for_each(|(own, other)| own.merge(other));
        self.evidence.merge(&other.evidence);
        self.errors.extend(other.errors.iter().cloned());
        self.samples += other.samples;
        self.uneven += other.uneven;
    }

    fn total(&self) -> Sums {
        sum(self.quarters.iter())
    }
}

fn sum<'s>(parts: impl Iterator<Item = &'s Sums>) -> Sums {
    parts.fold(Sums::default(), |mut sum, part| {
        sum.merge(part);
        sum
    })
}

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

    /// Adds a sample, given its number: the float network's outputs, those of the network, and labels, one a row, if
    /// there are any. Positions that masks leave out count nowhere.
    pub(crate) fn observe(
        &mut self,
        sample: usize,
        float: &[Vec<f32>],
        network: &[Found],
        labels: Option<&[i64]>,
        kept: Option<&Kept>,
    ) {
        let quarter = (sample * QUARTERS / self.outputs.samples.max(1)).min(QUARTERS - 1);
        self.observe_boxes(quarter, float, network);
        let stride = self.outputs.samples.div_ceil(LOOKED_AT).max(1);
        for ((spec, compared), (float, found)) in
            self.outputs.list.iter().zip(&mut self.compared).zip(float.iter().zip(network))
        {
            if compared.samples == 0 {
                compared.shape = found.shape.to_vec();
            }
            compared.samples += 1;
            if spec.is_whole {
                compared.quarters[quarter].equality.observe(float, found.values);
            } else if float.len() == found.values.len() {
                let positions = kept.and_then(|kept| kept.of(&spec.name, found.shape));
                let look = sample.is_multiple_of(stride);
                observe_output(
                    spec,
                    compared,
                    sample,
                    (quarter, look),
                    [float, found.values],
                    found.shape,
                    positions.as_ref(),
                );
            } else {
                compared.uneven += 1;
            }
        }
        if let (Some(labels), [float, ..], [found, ..]) = (labels, float, network) {
            self.observe_labels(labels, float, *found);
        }
        self.samples += 1;
    }

    fn observe_labels(&mut self, labels: &[i64], float: &[f32], found: Found) {
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

    fn observe_boxes(&mut self, quarter: usize, float: &[Vec<f32>], network: &[Found]) {
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
            parts.push(if is_part { Part { values, shape: &shapes[at] } } else { Part { values: &[], shape: &[] } });
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
            let own: Vec<Part> = network.iter().map(|f| Part { values: f.values, shape: f.shape }).collect();
            self.boxes[quarter].observe(form, &parts, &own);
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
        let found: Vec<Found> =
            values.iter().enumerate().map(|(at, values)| Found { values, shape: ran.shape(at) }).collect();
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

    /// How good the network is.
    pub(crate) fn metrics(&self) -> Metrics {
        let outputs: Vec<OutputMetrics> = (0..self.compared.len()).map(|at| self.output_metrics(at)).collect();
        let scores: Vec<&KindFigures> = outputs.iter().map(|o| &o.figures).filter(|f| f.agreement.is_some()).collect();
        let rows: u64 = scores.iter().filter_map(|figures| figures.rows).sum();
        let same = |figures: &&KindFigures| Some(figures.agreement? * figures.rows? as f64);
        let agreement = (rows > 0).then(|| scores.iter().filter_map(same).sum::<f64>() / rows as f64);
        let accuracies = self.float.share().zip(self.own.share());
        let worst = outputs.iter().map(|output| output.lost).fold(0.0, f64::max);
        Metrics {
            distance: outputs.iter().map(|output| output.distance).sum(),
            agreement,
            accuracy: self.own.share(),
            metric: None,
            lost: accuracies.map_or(worst, |(float, own)| float - own),
            outputs,
        }
    }

    /// All outputs together.
    pub(crate) fn figures(&self) -> AgreementFigures {
        let metrics = self.metrics();
        let scored = || metrics.outputs.iter().filter(|output| output.figures.divergence.is_some());
        let rows: u64 = scored().filter_map(|output| output.figures.rows).sum();
        let weighted = |o: &OutputMetrics| Some(o.figures.divergence? * o.figures.rows? as f64);
        AgreementFigures {
            rows,
            same_argmax: metrics.agreement,
            divergence: (rows > 0).then(|| scored().filter_map(weighted).sum::<f64>() / rows as f64),
            sqnr: self.compared.iter().map(|compared| compared.total().channels.power_ratio()).fold(None, lower),
        }
    }

    /// What an output is read as.
    fn reading(&self, at: usize) -> Reading {
        let (spec, compared) = (&self.outputs.list[at], &self.compared[at]);
        let read = |kind, because| Reading { kind, because: Cow::Borrowed(because) };
        let boxes = self.form.filter(|form| form.outputs().contains(&at) && self.has_boxes());
        match &spec.asked {
            Some(Reading { kind: OutputKind::Boxes, .. }) if boxes.is_none() => {
                let because = format!("shape {:?} and its numbers are no boxes, as was asked", compared.shape);
                return Reading { kind: OutputKind::Values, because: because.into() };
            }
            Some(reading) => return reading.clone(),
            None => {}
        }
        let evidence = &compared.evidence;
        let rank = compared.shape.len();
        let is_sequence = rank == 3 && !is_matrix(&compared.shape);
        let scores = if is_sequence { OutputKind::Sequence } else { OutputKind::Scores };
        let name = spec.name.to_lowercase();
        match spec.head {
            _ if boxes.is_some() => read(OutputKind::Boxes, "by shape and numbers"),
            _ if spec.is_whole => read(OutputKind::Scores, "whole numbers"),
            Head::Softmax(_) => read(scores, "ends in a softmax"),
            _ if evidence.is_probabilities() => read(scores, "rows sum to 1"),
            _ if at == 0 && self.own.samples() > 0 => read(OutputKind::Scores, "the data has labels"),
            Head::Sigmoid if rank == 2 && evidence.is_decided() => {
                read(OutputKind::Scores, "ends in a sigmoid, and its numbers are near 0 or 1")
            }
            Head::Sigmoid => read(OutputKind::Values, "ends in a sigmoid, but its numbers are no decisions"),
            Head::Normalized => read(OutputKind::Embedding, "brought to length 1"),
            _ if evidence.is_normalized() => read(OutputKind::Embedding, "rows have length 1"),
            _ if rank <= 3 && has_rows(spec, &compared.shape) && name.contains("logit") => read(scores, "by its name"),
            _ if rank == 2 && name.contains("embed") => read(OutputKind::Embedding, "by its name"),
            _ if evidence.is_logits() => read(scores, "its numbers look like logits"),
            Head::Open => read(OutputKind::Values, "nothing says otherwise"),
        }
    }

    fn has_boxes(&self) -> bool {
        self.boxes.iter().any(|matches| matches.counts()[0] > 0)
    }

    fn output_metrics(&self, at: usize) -> OutputMetrics {
        let (spec, compared) = (&self.outputs.list[at], &self.compared[at]);
        let Reading { kind, because } = self.reading(at);
        let total = compared.total();
        let channels = total.channels.figures();
        let boxes = self.boxes.iter().fold(BoxMatches::default(), |mut sum, part| {
            sum.merge(part);
            sum
        });
        let judge = Judge { spec, kind, reads_tokens: self.outputs.reads_tokens, labelled: self.own.samples() > 0 };
        let (figures, lost, distance) = judge.figures(&total, &boxes);
        let uneven = compared.uneven as f64 / compared.samples.max(1) as f64;
        let (lost, distance) = match kind {
            OutputKind::Boxes => (lost, distance),
            _ => (lost.max(uneven), distance + uneven),
        };
        // Boxes in several outputs are counted once.
        let first = self.form.is_none_or(|form| form.outputs().first() == Some(&at));
        OutputMetrics {
            name: spec.name.clone(),
            kind,
            because: because.into_owned(),
            lost,
            distance: if kind != OutputKind::Boxes || first { distance } else { 0.0 },
            sqnr: decibels(channels.mean),
            worst_sqnr: decibels(channels.worst),
            worst_channel: channels.worst_channel,
            channels: channels.channels,
            constant_error: channels.constant_error,
            figures,
            worst_quarter: self.worst_quarter(compared, judge),
        }
    }

    /// The quarter of the samples that is much worse than the rest: by far more than chance makes it.
    fn worst_quarter(&self, compared: &Compared, judge: Judge) -> Option<Quarter> {
        if self.samples < FEWEST as u64 {
            return None;
        }
        let total = compared.total();
        let lost = |chosen: &dyn Fn(usize) -> bool| {
            let own = sum(compared.quarters.iter().enumerate().filter(|(q, _)| chosen(*q)).map(|(_, sums)| sums));
            let mut boxes = BoxMatches::default();
            self.boxes.iter().enumerate().filter(|(q, _)| chosen(*q)).for_each(|(_, part)| boxes.merge(part));
            match judge.kind {
                OutputKind::Values => own.channels.share_of(&total.channels),
                _ => judge.figures(&own, &boxes).1,
            }
        };
        let each = (0..QUARTERS).map(|quarter| Quarter {
            quarter: Some(quarter + 1),
            samples: Vec::new(),
            lost: lost(&|q| q == quarter),
            rest: lost(&|q| q != quarter),
        });
        let much_worse = |found: &Quarter| {
            let (lost, rest) = (found.lost, found.rest);
            let is_share = !matches!(judge.kind, OutputKind::Values | OutputKind::Embedding);
            if !is_share {
                return lost > 0.01 && lost > MUCH_WORSE * rest;
            }
            let all = (lost + 3.0 * rest) / 4.0;
            let samples = self.samples as f64 / 4.0;
            let chance = (all * (1.0 - all) / samples * (4.0 / 3.0)).max(0.0).sqrt();
            lost - rest > (3.0 * chance).max(0.05)
        };
        let found = each.filter(much_worse).max_by(|a, b| a.lost.total_cmp(&b.lost));
        found.or_else(|| Self::worst_samples(compared, &total).filter(|_| judge.kind == OutputKind::Values))
    }

    /// The quarter of the samples with the largest errors, wherever they are, if it is much worse than the rest.
    fn worst_samples(compared: &Compared, total: &Sums) -> Option<Quarter> {
        let scales = total.channels.scales();
        let alike = compared.errors.iter().all(|(_, errors)| errors.len() == scales.len());
        if !alike || compared.errors.len() < FEWEST {
            return None;
        }
        let share = |(sample, errors): &(usize, Vec<f64>)| {
            let shares = errors.iter().zip(&scales).map(|(error, scale)| error / scale);
            (*sample, shares.sum::<f64>() / scales.len() as f64)
        };
        let mut samples: Vec<(usize, f64)> = compared.errors.iter().map(share).collect();
        samples.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (worst, rest) = samples.split_at(samples.len() / QUARTERS);
        let mean = |part: &[(usize, f64)]| part.iter().map(|sample| sample.1).sum::<f64>() / part.len() as f64;
        let (lost, others) = (mean(worst), mean(rest));
        // The largest quarter of a few random numbers is large by itself.
        let elements = compared.shape.iter().product::<usize>();
        let times = if elements >= 16 { MUCH_WORSE } else { 3.0 * MUCH_WORSE };
        let samples = worst.iter().take(NAMED).map(|sample| sample.0).collect();
        (lost > 0.01 && lost > times * others).then_some(Quarter { quarter: None, samples, lost, rest: others })
    }
}

/// An output and what it is read as.
#[derive(Clone, Copy)]
struct Judge<'a> {
    spec: &'a OutputSpec,
    kind: OutputKind,
    reads_tokens: bool,
    labelled: bool,
}

impl Judge<'_> {
    /// The figures of the kind, the loss and the distance.
    fn figures(self, sums: &Sums, boxes: &BoxMatches) -> (KindFigures, f64, f64) {
        let rows = &sums.rows;
        let divergence = rows.divergence().unwrap_or(0.0);
        let scored = KindFigures {
            rows: Some(rows.rows()),
            agreement: rows.same(),
            divergence: rows.divergence(),
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
                let figures = KindFigures {
                    boxes: Some(found),
                    kept: Some(kept),
                    invented: Some(invented),
                    ..KindFigures::default()
                };
                (figures, boxes.lost(), boxes.lost() + boxes.shifted())
            }
            OutputKind::Values => {
                let found = sums.channels.figures();
                // Half the worst channel, since that is what a drop is counted by.
                (KindFigures::default(), found.worst, f64::midpoint(found.mean, found.worst))
            }
        }
    }

    /// Whether each number decides for itself, and none is the best of a row.
    fn decides_alone(self, sums: &Sums) -> bool {
        let sigmoid = self.spec.head == Head::Sigmoid && !self.labelled;
        sums.decisions.elements() > 0 && (sigmoid || sums.rows.rows() == 0)
    }
}

/// The lower of two ratios in decibels, the second not in decibels yet.
fn lower(least: Option<f64>, ratio: f64) -> Option<f64> {
    let decibels = Some(10.0 * ratio.log10()).filter(|_| ratio.is_finite());
    match (least, decibels) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Adds an output of a sample to the sums of every reading it may have. `look` says whether its rows are looked at side by
/// side.
fn observe_output(
    spec: &OutputSpec,
    compared: &mut Compared,
    sample: usize,
    (quarter, look): (usize, bool),
    [float, values]: [&[f32]; 2],
    shape: &[usize],
    positions: Option<&Positions>,
) {
    let sums = &mut compared.quarters[quarter];
    let excluded = |element: usize| positions.is_some_and(|positions| !positions.keeps(element));
    let element = positions.is_some().then_some(&excluded as &dyn Fn(usize) -> bool);
    let channels = ChannelErrors::of(float, values, spec.channels.layout(shape), element);
    if look {
        compared.errors.push((sample, channels.errors()));
    }
    sums.channels.merge(&channels);
    let may_be = |kind: OutputKind| spec.kind().is_none_or(|asked| asked == kind);
    if spec.head == Head::Sigmoid || spec.kind() == Some(OutputKind::Scores) {
        sums.decisions.observe([float, values], element);
    }
    let Some(layout) = row_axis(spec, shape).and_then(|axis| RowLayout::of(shape, axis)) else { return };
    if layout.width < 2 {
        if spec.asked.is_none() {
            compared.evidence.observe(float, false);
        }
        return;
    }
    let excluded = |row: usize| excluded(layout.start(row));
    let of_rows = positions.is_some().then_some(&excluded as &dyn Fn(usize) -> bool);
    if may_be(OutputKind::Embedding) {
        sums.cosines.observe([float, values], layout, of_rows);
    }
    if (may_be(OutputKind::Scores) || may_be(OutputKind::Sequence)) && (spec.asked.is_some() || has_rows(spec, shape)) {
        let sequences = match shape {
            [_, 1, _] | [_] | [] => 1,
            [images, ..] => *images,
        };
        sums.rows.observe([float, values], layout, sequences, of_rows);
    }
    if spec.asked.is_none() && has_rows(spec, shape) {
        let rows = layout.count(float.len());
        let stride = rows.div_ceil(ROWS_LOOKED_AT).max(1);
        for row in (0..rows).filter(|&row| !excluded(row)) {
            compared.evidence.observe(&layout.row(float, row), look && row.is_multiple_of(stride));
        }
    }
}

/// The axis that rows of scores or vectors lie along.
fn row_axis(spec: &OutputSpec, shape: &[usize]) -> Option<usize> {
    match (spec.head, shape.len()) {
        (_, 0 | 1) => None,
        (Head::Softmax(Some(axis)), rank) if axis < rank => Some(axis),
        (Head::Softmax(None), rank @ 2..=3) => Some(rank - 1),
        (_, 2) => Some(1),
        (_, rank) => spec.channels.of_rank(rank).or(Some(rank - 1)),
    }
}

/// Whether an output may hold rows of scores: maps only behind a softmax.
fn has_rows(spec: &OutputSpec, shape: &[usize]) -> bool {
    let flat = shape.iter().skip(2).all(|&dim| dim == 1);
    let wide = row_axis(spec, shape).is_some_and(|axis| shape[axis] >= 2);
    wide && (matches!(spec.head, Head::Softmax(_)) || shape.len() <= 3 || flat)
}

/// Whether a shape is `[N, C]`, with axes of length one behind.
fn is_matrix(shape: &[usize]) -> bool {
    shape.len() >= 2 && shape[1] >= 2 && shape.iter().skip(2).all(|&dim| dim == 1)
}

/// The shape of the float network's output, which may have another number of rows than the network's.
fn shape_of<'a>(elements: usize, found: &Found<'a>) -> Cow<'a, [usize]> {
    if elements == found.values.len() || found.shape.is_empty() {
        return Cow::Borrowed(found.shape);
    }
    let at = found.shape.len().saturating_sub(2);
    let others: usize = found.shape.iter().enumerate().filter(|(axis, _)| *axis != at).map(|(_, &dim)| dim).product();
    let mut shape = found.shape.to_vec();
    shape[at] = elements / others.max(1);
    Cow::Owned(shape)
}

#[cfg(test)]
mod tests;
