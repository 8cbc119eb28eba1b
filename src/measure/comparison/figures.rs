//! The figures of a network: output by output, and all outputs together.

use super::Comparison;
use super::read_output::ReadOutput;
use crate::measure::agreement::AgreementFigures;
use crate::measure::channels::{ChannelErrors, decibels};
use crate::measure::metrics::{KindFigures, Metrics, OutputMetrics};
use crate::measure::outputs::Reading;
use crate::scheme::output_kind::OutputKind;

impl Comparison {
    /// How good the network is.
    pub(crate) fn metrics(&self) -> Metrics {
        let outputs: Vec<OutputMetrics> = (0..self.compared.len()).map(|at| self.output_metrics(at)).collect();
        let scores: Vec<&KindFigures> = outputs.iter().map(|o| &o.figures).filter(|f| f.agreement.is_some()).collect();
        let rows: u64 = scores.iter().filter_map(|figures| figures.rows).sum();
        let same = |figures: &&KindFigures| Some(figures.agreement? * figures.rows? as f64);
        let agreement = (rows > 0).then(|| scores.iter().filter_map(same).sum::<f64>() / rows as f64);
        let [own, float] = self.accuracies(None);
        let accuracies = float.share().zip(own.share());
        let worst = outputs.iter().map(|output| output.lost).fold(0.0, f64::max);
        Metrics {
            distance: outputs.iter().map(|output| output.distance).sum(),
            agreement,
            accuracy: own.share(),
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
            sqnr: (0..self.compared.len()).map(|at| self.channels(at).power_ratio()).fold(None, lower),
        }
    }

    /// Errors of an output by channels; none of answers, whose distance says nothing.
    fn channels(&self, at: usize) -> ChannelErrors {
        let answers = self.outputs.list[at].is_whole && self.reading(at).kind == OutputKind::Scores;
        if answers { ChannelErrors::default() } else { self.compared[at].total().channels }
    }

    /// An output and what it is read as.
    pub(super) fn read_output(&self, at: usize, kind: OutputKind) -> ReadOutput<'_> {
        let labelled = self.accuracies(None)[0].samples() > 0;
        ReadOutput { spec: &self.outputs.list[at], kind, reads_tokens: self.outputs.reads_tokens, labelled }
    }

    /// Whether the samples hold anything that an output is compared by, as what it is read as.
    pub(super) fn is_compared(&self, at: usize, kind: OutputKind) -> bool {
        let compared = &self.compared[at];
        compared.uneven > 0 || self.read_output(at, kind).is_compared(&compared.total(), &self.matches(None))
    }

    /// How far one output is from the float network's.
    fn output_metrics(&self, at: usize) -> OutputMetrics {
        let (spec, compared) = (&self.outputs.list[at], &self.compared[at]);
        let Reading { kind, because } = self.reading(at);
        let total = compared.total();
        let channels = self.channels(at).figures();
        let output = self.read_output(at, kind);
        let (figures, lost, distance) = output.figures(&total, &self.matches(None));
        let uneven = compared.share_uneven();
        let (lost, distance) = match kind {
            OutputKind::Boxes => (lost, distance),
            _ => (lost.max(uneven), distance + uneven),
        };
        // A ratio to a variance that is rounding says nothing.
        let ratio = |share: f64| decibels(share).filter(|_| channels.varies);
        // Boxes in several outputs are counted once.
        let first = self.form().is_none_or(|form| form.outputs().first() == Some(&at));
        OutputMetrics {
            name: spec.name.clone(),
            kind,
            because: because.into_owned(),
            state: spec.is_state,
            compared: self.is_compared(at, kind),
            lost,
            distance: if kind != OutputKind::Boxes || first { distance } else { 0.0 },
            sqnr: ratio(channels.mean),
            worst_sqnr: ratio(channels.worst),
            worst_channel: channels.worst_channel.filter(|_| channels.varies),
            channels: channels.channels,
            constant_error: channels.constant_error,
            figures,
            worst_quarter: self
                .worst_quarter(compared, output)
                .filter(|_| channels.varies || kind != OutputKind::Values),
        }
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
