//! Layers and operators in float, as few as it takes.
//!
//! Errors of the parts of a network nearly add up in what the outputs lose, so the loss without the part's quantizers says
//! what the part adds. Parts are stretches of neighbouring layers and the nodes of one operator; those that add most for
//! their work come first. Once they are enough together, halves of stretches go back to integers where that is still
//! enough, the most costly ones first.

use super::{Choice, Guard, Metrics, Unit, loss};
use crate::scheme::bit_plan::WeightBits;
use crate::search::SearchError;
use std::collections::BTreeSet;
use std::ops::Range;

/// Stretches of layers that are tried, at least and at most, and trials that are to be left for each.
const STRETCHES: [usize; 2] = [4, 8];
const EACH: usize = 3;
/// Share of the loss that activations must have for layers in float to be worth it.
const WORTH: f64 = 0.5;

/// A part that may compute in float.
#[derive(Clone, Debug)]
enum Part {
    /// A stretch of layers.
    Layers(Range<usize>),
    /// All nodes of an operator.
    Operator(usize),
}

impl Guard<'_, '_> {
    /// Leaves as little in float as it takes.
    pub(super) fn leave_float(&mut self) -> Result<(), SearchError> {
        let mut all = self.with(&Part::Layers(0..self.units.layers.len()));
        let Some(mut without) = self.metrics_of("all layers in float", &all)? else { return Ok(()) };
        self.note("all layers in float".to_owned(), &without, false);
        if !self.is_met(&without)
            && let Some((choice, metrics)) = self.free_weights(&all, &without)?
        {
            // These layers are in float from here on, whatever else is.
            self.best.layers.extend(choice.weights.iter().copied());
            self.best.weights.clone_from(&choice.weights);
            let (what, best) = ("their activations alone".to_owned(), self.best.clone());
            let Some(own) = self.metrics_of(&what, &best)? else { return Ok(()) };
            self.note(what, &own, true);
            self.keep(best, own);
            (all, without) = (choice, metrics);
            if self.is_met(&self.metrics) {
                return Ok(());
            }
        }
        if !self.is_met(&without) && loss(&without) > WORTH * loss(&self.metrics) {
            // It is the weights that lose.
            return Ok(());
        }
        // Where weights lose too, what activations add is taken away as far as it goes.
        let enough = loss(&without) + 0.1 * (loss(&self.metrics) - loss(&without));
        let reachable = self.is_met(&without);
        let ranked = self.ranked()?;
        let mut enlarged = false;
        for part in ranked {
            let choice = self.with(&part);
            if choice == self.best {
                continue;
            }
            let what = self.words(&part);
            let Some(metrics) = self.metrics_of(&what, &choice)? else { break };
            let kept = loss(&metrics) < loss(&self.metrics);
            self.note(format!("also {what}"), &metrics, kept);
            if kept {
                self.keep(choice, metrics);
                enlarged = true;
            }
            if self.suffices(reachable, enough) {
                break;
            }
        }
        // Where the budget has ended, that parts are not enough is not known: the best so far stays.
        if !self.suffices(reachable, enough) && reachable && !self.trials.cut_short {
            self.keep(all, without);
            enlarged = true;
        }
        if enlarged && self.suffices(reachable, enough) { self.shrink(reachable, enough) } else { Ok(()) }
    }

    /// Whether weights of few bits lose more than activations do.
    pub(super) fn weights_lose(&mut self) -> Result<bool, SearchError> {
        if !self.has_few_bits() {
            return Ok(false);
        }
        let all = self.with(&Part::Layers(0..self.units.layers.len()));
        let Some(without) = self.metrics_of("all layers in float", &all)? else { return Ok(true) };
        let lose = !self.is_met(&without) && loss(&without) > WORTH * loss(&self.metrics);
        if lose {
            self.note("all layers in float".to_owned(), &without, false);
        }
        Ok(lose)
    }

    /// Whether few bits were asked for.
    fn has_few_bits(&self) -> bool {
        let eight = |unit: &Unit| self.base.layer(&unit.name).is_none_or(|plan| plan.weights == WeightBits::whole(8));
        !self.units.layers.iter().all(eight)
    }

    /// The fewest neighbours whose weights of 8 bits are to blame for most of what is lost with all layers in float: `all`
    /// with these weights in float, and its metrics.
    fn free_weights(&mut self, all: &Choice, without: &Metrics) -> Result<Option<(Choice, Metrics)>, SearchError> {
        if self.has_few_bits() {
            return Ok(None);
        }
        let most = WORTH * loss(without);
        let (mut range, mut found) = (0..self.units.layers.len(), None);
        while range.len() > 1 || found.is_none() {
            let length = range.len().div_ceil(self.stretches()).max(1);
            let mut best: Option<(Range<usize>, Choice, Metrics)> = None;
            for start in range.clone().step_by(length) {
                let piece = start..range.end.min(start + length);
                let choice = Choice { weights: piece.clone().collect(), ..all.clone() };
                let what =
                    format!("all layers in float, with float weights: {}", self.words(&Part::Layers(piece.clone())));
                let Some(metrics) = self.metrics_of(&what, &choice)? else { return Ok(found) };
                self.note(what, &metrics, false);
                if best.as_ref().is_none_or(|(.., other)| loss(&metrics) < loss(other)) {
                    best = Some((piece, choice, metrics));
                }
            }
            let Some((piece, choice, metrics)) = best.filter(|(.., metrics)| loss(metrics) <= most) else { break };
            let whole = piece == range;
            (range, found) = (piece, Some((choice, metrics)));
            if whole {
                break;
            }
        }
        Ok(found)
    }

    /// How many stretches to cut layers into.
    fn stretches(&self) -> usize {
        (self.trials.left() / EACH).clamp(STRETCHES[0], STRETCHES[1])
    }

    fn suffices(&self, reachable: bool, enough: f64) -> bool {
        self.is_enough(&self.metrics, reachable, enough)
    }

    fn is_enough(&self, metrics: &Metrics, reachable: bool, enough: f64) -> bool {
        if reachable { self.is_met(metrics) } else { loss(metrics) <= enough }
    }

    /// The parts that help, by gain per work.
    fn ranked(&mut self) -> Result<Vec<Part>, SearchError> {
        let count = self.units.layers.len();
        let length = count.div_ceil(self.stretches()).max(1);
        let stretches = (0..count).step_by(length).map(|start| Part::Layers(start..count.min(start + length)));
        let parts: Vec<Part> = stretches.chain((0..self.units.operators.len()).map(Part::Operator)).collect();
        let mut ranked = Vec::new();
        for part in parts {
            let choice = self.with(&part);
            let what = self.words(&part);
            let Some(metrics) = self.metrics_of(&what, &choice)? else { break };
            self.note(what, &metrics, false);
            let gain = loss(&self.metrics) - loss(&metrics);
            let work = self.work(&choice) - self.work(&self.best);
            if gain > 0.0 {
                ranked.push((gain / work.max(1e-6), part));
            }
        }
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(ranked.into_iter().map(|(_, part)| part).collect())
    }

    /// Puts parts of what is in float back on integers.
    fn shrink(&mut self, reachable: bool, enough: f64) -> Result<(), SearchError> {
        for operator in self.best.operators.clone() {
            let mut choice = self.best.clone();
            choice.operators.remove(&operator);
            self.put_back(
                choice,
                reachable,
                enough,
                &format!("{} on integers again", self.units.operators[operator].name),
            )?;
        }
        let longest = stretches(&self.best.layers, usize::MAX).iter().map(Range::len).max().unwrap_or(0);
        let mut length = longest.div_ceil(2);
        while length > 0 {
            let mut pieces = stretches(&self.best.layers, length);
            let work =
                |piece: &Range<usize>| self.units.layers[piece.clone()].iter().map(|unit| unit.work).sum::<u64>();
            pieces.sort_by_key(|piece| std::cmp::Reverse(work(piece)));
            for piece in pieces {
                let mut choice = self.best.clone();
                let weights = choice.weights.clone();
                choice.layers.retain(|layer| !piece.contains(layer) || weights.contains(layer));
                if choice == self.best {
                    continue;
                }
                let what =
                    format!("{} on integers again", self.words(&Part::Layers(piece)).trim_end_matches(" in float"));
                self.put_back(choice, reachable, enough, &what)?;
            }
            if self.trials.cut_short || length == 1 {
                break;
            }
            length = length.div_ceil(2);
        }
        Ok(())
    }

    fn put_back(&mut self, choice: Choice, reachable: bool, enough: f64, what: &str) -> Result<(), SearchError> {
        let Some(metrics) = self.metrics_of(what, &choice)? else { return Ok(()) };
        let kept = self.is_enough(&metrics, reachable, enough);
        self.note(what.to_owned(), &metrics, kept);
        if kept {
            self.keep(choice, metrics);
        }
        Ok(())
    }

    /// The best choice with one more part in float.
    fn with(&self, part: &Part) -> Choice {
        let mut choice = self.best.clone();
        match part {
            Part::Layers(layers) => choice.layers.extend(layers.clone()),
            Part::Operator(operator) => choice.operators.extend([*operator]),
        }
        choice
    }

    fn words(&self, part: &Part) -> String {
        match part {
            Part::Layers(layers) => {
                let names = &self.units.layers;
                match layers.len() {
                    1 => format!("layer `{}` in float", names[layers.start].name),
                    _ => format!("layers `{}` to `{}` in float", names[layers.start].name, names[layers.end - 1].name),
                }
            }
            Part::Operator(operator) => format!("every {} in float", self.units.operators[*operator].name),
        }
    }
}

/// The runs of neighbours in a set, in pieces of at most `length`.
fn stretches(set: &BTreeSet<usize>, length: usize) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for &at in set {
        match found.last_mut() {
            Some(last) if last.end == at && last.len() < length => last.end += 1,
            _ => found.push(at..at + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_grouped() {
        let set = BTreeSet::from([0, 1, 2, 5, 6, 9]);
        assert_eq!(stretches(&set, usize::MAX), [0..3, 5..7, 9..10]);
        assert_eq!(stretches(&set, 2), [0..2, 2..3, 5..7, 9..10]);
    }
}
