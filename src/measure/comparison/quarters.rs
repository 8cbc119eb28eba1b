//! Parts of the samples that are much worse than the rest: quarters in order, or samples scattered over all.

use super::read_output::ReadOutput;
use super::sums::{Compared, Sums, sum};
use super::{Comparison, PARTS, QUARTERS};
use crate::measure::boxes::BoxMatches;
use crate::measure::metrics::Quarter;
use crate::scheme::output_kind::OutputKind;

/// How many times the rest a quarter loses that is much worse.
const MUCH_WORSE: f64 = 10.0;
/// Samples of the worst quarter that are named.
const NAMED: usize = 3;
/// Samples below which quarters mean nothing.
const FEWEST: usize = 16;

impl Comparison {
    /// The quarter of the samples that is much worse than the rest: by far more than chance makes it.
    pub(super) fn worst_quarter(&self, compared: &Compared, output: ReadOutput) -> Option<Quarter> {
        if self.compared_samples() < FEWEST as u64 {
            return None;
        }
        let total = compared.total();
        let lost = |chosen: &dyn Fn(usize) -> bool| {
            let own = sum(compared
                .parts
                .iter()
                .enumerate()
                .filter(|(part, _)| chosen(part * QUARTERS / PARTS))
                .map(|(_, sums)| sums));
            let mut boxes = BoxMatches::default();
            let parts = self.boxes.iter().enumerate().filter(|(part, _)| chosen(part * QUARTERS / PARTS));
            parts.for_each(|(_, part)| boxes.merge(part));
            match output.kind {
                OutputKind::Values => own.channels.share_of(&total.channels),
                _ => output.figures(&own, &boxes).1,
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
            let is_share = !matches!(output.kind, OutputKind::Values | OutputKind::Embedding);
            if !is_share {
                return lost > 0.01 && lost > MUCH_WORSE * rest;
            }
            let all = (lost + 3.0 * rest) / 4.0;
            let samples = self.compared_samples() as f64 / 4.0;
            let chance = (all * (1.0 - all) / samples * (4.0 / 3.0)).max(0.0).sqrt();
            lost - rest > (3.0 * chance).max(0.05)
        };
        let found = each.filter(much_worse).max_by(|a, b| a.lost.total_cmp(&b.lost));
        found.or_else(|| Self::worst_samples(compared, &total).filter(|_| output.kind == OutputKind::Values))
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
