//! Layers and operators in float, as few as it takes.
//!
//! Errors of the parts of a network nearly add up in what the outputs lose, so the loss without the part's quantizers says
//! what the part adds, unless errors cancel. How many layers from the front are enough is found by halving: later layers
//! enlarge what the first ones add. Where the budget allows, so is how many parts are enough of those that add most for
//! their work: stretches of neighbouring layers, and the nodes of one operator. Of the choice that does less work in float,
//! halves of stretches go back to integers where that is still enough, the most costly ones first.

use super::{Choice, FEW_WEIGHTS, Guard, Metrics, RUINED, SEVERE, Unit, loses, loss};
use crate::scheme::bit_plan::WeightBits;
use crate::search::SearchError;
use std::collections::BTreeSet;
use std::ops::Range;

/// Stretches of layers that are tried, at least and at most, and trials that are to be left for each.
const STRETCHES: [usize; 2] = [4, 8];
const EACH: usize = 3;
/// Stretches of which the first are tried together.
const FRONT: usize = 8;
/// Trials that are left for parts together.
const HALVINGS: usize = 4;
/// Share of the loss that activations must have for layers in float to be worth it.
const WORTH: f64 = 0.5;

/// A choice and what it was found to lose.
type Measured = (Choice, Metrics);

/// Layers whose weights are freed, the choice, and what it was found to lose.
type Blamed = (BTreeSet<usize>, Choice, Metrics);

/// A part that may compute in float.
#[derive(Clone, Debug)]
enum Part {
    /// A stretch of layers.
    Layers(Range<usize>),
    /// All nodes of an operator.
    Operator(usize),
}

/// What weights become that few bits ruin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freed {
    /// Integers of 8 bits.
    Eight,
    /// Floats.
    Float,
}

impl Choice {
    /// With other weights of these layers.
    fn freeing(mut self, freed: Freed, layers: impl IntoIterator<Item = usize>) -> Self {
        match freed {
            Freed::Eight => self.eight.extend(layers),
            Freed::Float => self.weights.extend(layers),
        }
        self
    }

    /// With one more part in float.
    fn with(mut self, part: &Part) -> Self {
        match part {
            Part::Layers(layers) => self.layers.extend(layers.clone()),
            Part::Operator(operator) => self.operators.extend([*operator]),
        }
        self
    }
}

impl Guard<'_, '_> {
    /// Gives as few layers as it takes 16 bits, if all of them with 16 bits are enough. Says whether they are.
    pub(super) fn widen(&mut self) -> Result<bool, SearchError> {
        if !self.may_widen {
            return Ok(false);
        }
        self.best.wide = true;
        let all = self.with(&Part::Layers(0..self.units.on_integers));
        let without = self.metrics_of("all layers in 16 bits", &all)?;
        let Some(without) = without.filter(|metrics| self.is_met(metrics)) else {
            self.best.wide = false;
            return Ok(false);
        };
        self.note("all layers in 16 bits".to_owned(), &without, false);
        self.relieve(all.clone(), without.clone())?;
        if !self.is_met(&self.metrics) {
            // The budget ended before fewer were found.
            self.keep(all, without);
        }
        Ok(true)
    }

    /// Leaves as little in float as it takes.
    pub(super) fn leave_float(&mut self) -> Result<(), SearchError> {
        let mut all = self.with(&Part::Layers(0..self.units.on_integers));
        let Some(mut without) = self.metrics_of("all layers in float", &all)? else { return Ok(()) };
        self.note("all layers in float".to_owned(), &without, false);
        while !self.is_met(&without)
            && let Some(freed) = self.free_weights(&all, &without)?
        {
            (all, without) = freed;
            if self.is_met(&self.metrics) {
                return Ok(());
            }
        }
        if !self.is_met(&without) && loss(&without) > WORTH * loss(&self.metrics) {
            // It is the weights that lose.
            return Ok(());
        }
        self.relieve(all, without)
    }

    /// Relieves as few layers as are enough, of `all`, with which the network has the metrics `without`.
    fn relieve(&mut self, all: Choice, without: Metrics) -> Result<(), SearchError> {
        // Where weights lose too, what activations add is taken away as far as it goes: to a tenth, and to no more than that.
        let of_weights = loss(&without);
        let enough = of_weights + (0.1 * (loss(&self.metrics) - of_weights)).min(of_weights);
        let reachable = self.is_met(&without);
        let is_enough = |guard: &Self, metrics: &Metrics| guard.is_enough(metrics, reachable, enough);
        let from_front = self.stretches_of(FRONT);
        let Some(mut found) = self.fewest(&from_front, None, (all, without), &is_enough)? else { return Ok(()) };
        if self.trials.left() >= self.stretches() + self.units.operators.len() + HALVINGS {
            let (parts, alone) = self.ranked()?;
            let ranked = self.fewest(&parts, alone, found.clone(), &is_enough)?;
            // Where the budget ended, the best of these need not be enough.
            let is_less =
                |(choice, metrics): &Measured| is_enough(self, metrics) && self.work(choice) < self.work(&found.0);
            if let Some(less) = ranked.filter(is_less) {
                found = less;
            }
        }
        self.keep(found.0, found.1);
        if self.is_enough(&self.metrics, reachable, enough) { self.shrink(reachable, enough) } else { Ok(()) }
    }

    /// The fewest parts from the front of a list that are enough together, found by halving; `all` layers, which are known
    /// to be enough, where no fewer are. Where the budget ends before that is known, the best that was tried, such as the
    /// best part `alone`.
    fn fewest(
        &mut self,
        parts: &[Part],
        alone: Option<Measured>,
        all: Measured,
        is_enough: &impl Fn(&Self, &Metrics) -> bool,
    ) -> Result<Option<Measured>, SearchError> {
        let (mut too_few, mut enough) = (0, parts.len() + 1);
        let (mut found, mut best) = (None, alone);
        while enough > too_few + 1 {
            let middle = usize::midpoint(too_few, enough);
            let choice = parts[..middle].iter().fold(self.best.clone(), Choice::with);
            let what = joined(&parts[..middle]).iter().map(|part| self.words(part)).collect::<Vec<_>>().join(", ");
            let Some(metrics) = self.metrics_of(&what, &choice)? else { break };
            let kept = is_enough(self, &metrics);
            self.note(what, &metrics, kept);
            if kept {
                (enough, found) = (middle, Some((choice, metrics)));
                continue;
            }
            too_few = middle;
            let least = best.as_ref().map_or(loss(&self.metrics), |(_, metrics)| loss(metrics));
            if loss(&metrics) < least {
                best = Some((choice, metrics));
            }
        }
        Ok(found.or(if self.trials.cut_short { best } else { Some(all) }))
    }

    /// All layers in float, with their weights of few bits, where these lose more than activations do.
    pub(super) fn with_lossy_weights(&mut self) -> Result<Option<Measured>, SearchError> {
        if !self.has_few_bits() {
            return Ok(None);
        }
        let all = self.with(&Part::Layers(0..self.units.on_integers));
        let Some(without) = self.metrics_of("all layers in float", &all)? else { return Ok(None) };
        if self.is_met(&without) || loss(&without) <= WORTH * loss(&self.metrics) {
            return Ok(None);
        }
        self.note("all layers in float".to_owned(), &without, false);
        Ok(Some((all, without)))
    }

    /// Whether few bits were asked for.
    fn has_few_bits(&self) -> bool {
        let eight = |unit: &Unit| self.base.layer(&unit.name).is_none_or(|plan| plan.weights == WeightBits::whole(8));
        !self.units.layers.iter().all(eight)
    }

    /// Gives layers whose weights are to blame 8 bits, where they have fewer and 8 are enough, and leaves them in float
    /// otherwise: from here on, whatever else is. Finds `all` with these weights, and its metrics.
    pub(super) fn free_weights(&mut self, all: &Choice, without: &Metrics) -> Result<Option<Measured>, SearchError> {
        let has_few_bits = self.has_few_bits();
        if has_few_bits && !loses(&without.outputs, SEVERE) {
            return Ok(None);
        }
        let freed = if has_few_bits && self.are_eight_enough(all, without)? { Freed::Eight } else { Freed::Float };
        let Some((layers, choice, metrics)) = self.blamed_weights(freed, all, without)? else { return Ok(None) };
        let all_weights = self.units.layers.iter().map(|layer| layer.weights).sum::<u64>() as f64;
        let weights = layers.iter().map(|&layer| self.units.layers[layer].weights).sum::<u64>() as f64;
        if has_few_bits && weights > FEW_WEIGHTS * all_weights && !loses(&without.outputs, RUINED) {
            return Ok(None);
        }
        let mut best = self.best.clone().freeing(freed, layers.clone());
        if freed == Freed::Float {
            best.layers.extend(layers.into_iter().filter(|&layer| layer < self.units.on_integers));
        }
        let what = match freed {
            Freed::Eight => "their weights alone",
            Freed::Float => "their activations alone",
        };
        let Some(own) = self.metrics_of(what, &best)? else { return Ok(None) };
        self.note(what.to_owned(), &own, true);
        self.keep(best, own);
        Ok(Some((choice, metrics)))
    }

    /// Whether 8 bits for all weights take most of what is lost with all layers in float.
    fn are_eight_enough(&mut self, all: &Choice, without: &Metrics) -> Result<bool, SearchError> {
        let what = "all layers in float, with weights of 8 bits";
        let choice = all.clone().freeing(Freed::Eight, 0..self.units.layers.len());
        let Some(metrics) = self.metrics_of(what, &choice)? else { return Ok(false) };
        self.note(what.to_owned(), &metrics, false);
        Ok(loss(&metrics) <= WORTH * loss(without))
    }

    /// The fewest layers whose weights are to blame for most of what is lost with all layers in float: these, `all` with
    /// their weights freed, and its metrics. Neighbours, where some are enough; else as many stretches as it takes.
    fn blamed_weights(&mut self, freed: Freed, all: &Choice, without: &Metrics) -> Result<Option<Blamed>, SearchError> {
        let most = WORTH * loss(without);
        let (mut range, mut found) = (0..self.units.layers.len(), None);
        while range.len() > 1 || found.is_none() {
            let length = range.len().div_ceil(self.stretches()).max(1);
            let mut pieces = Vec::new();
            for start in range.clone().step_by(length) {
                let piece = start..range.end.min(start + length);
                match self.with_freed(freed, all, std::slice::from_ref(&piece))? {
                    Some(tried) => pieces.push((piece, tried)),
                    None if self.trials.cut_short => return Ok(found),
                    // Nothing would be left to quantize.
                    None => {}
                }
            }
            pieces.sort_by(|(_, (.., a)), (_, (.., b))| loss(a).total_cmp(&loss(b)));
            let Some((piece, least)) = pieces.first().cloned().filter(|(_, (.., metrics))| loss(metrics) <= most)
            else {
                let mut pieces: Vec<Range<usize>> = pieces.into_iter().map(|(piece, _)| piece).collect();
                pieces.sort_by_key(|piece| piece.start);
                return if found.is_none() { self.blamed_together(freed, all, most, &pieces) } else { Ok(found) };
            };
            found = Some(least);
            if piece == range {
                break;
            }
            range = piece;
        }
        Ok(found)
    }

    /// As few of these stretches as it takes to meet the goal, or else to lose no more than `most`: all but those whose weights
    /// lose least where all others are freed. Where few bits were asked for, half of the stretches at most.
    fn blamed_together(
        &mut self,
        freed: Freed,
        all: &Choice,
        most: f64,
        pieces: &[Range<usize>],
    ) -> Result<Option<Blamed>, SearchError> {
        let mut alone = Vec::new();
        for piece in pieces {
            let others: Vec<Range<usize>> = pieces.iter().filter(|other| *other != piece).cloned().collect();
            match self.with_freed(freed, all, &others)? {
                Some(tried) => alone.push((piece.start, tried)),
                None if self.trials.cut_short => return Ok(None),
                None => {}
            }
        }
        alone.sort_by(|(_, (.., a)), (_, (.., b))| loss(a).total_cmp(&loss(b)));
        let (kept, tried): (Vec<usize>, Vec<Blamed>) = alone.into_iter().unzip();
        let (mut first, mut found) = (tried.into_iter().next(), None);
        for count in 1..kept.len() {
            let others = pieces.iter().filter(|piece| !kept[..count].contains(&piece.start)).cloned();
            let others: Vec<Range<usize>> = others.collect();
            let tried = match first.take() {
                Some(tried) => Some(tried),
                None => self.with_freed(freed, all, &others)?,
            };
            let Some(tried) = tried else { break };
            let was_met = found.as_ref().is_some_and(|(.., metrics): &Blamed| self.is_met(metrics));
            if !self.is_met(&tried.2) && (was_met || loss(&tried.2) > most) {
                break;
            }
            found = Some(tried).filter(|_| !self.has_few_bits() || others.len() <= pieces.len() / 2);
        }
        Ok(found)
    }

    /// `all` with the weights of stretches freed: the layers, the choice and its metrics.
    fn with_freed(
        &mut self,
        freed: Freed,
        all: &Choice,
        pieces: &[Range<usize>],
    ) -> Result<Option<Blamed>, SearchError> {
        let layers: BTreeSet<usize> = pieces.iter().cloned().flatten().collect();
        let choice = all.clone().freeing(freed, layers.clone());
        let weights = match freed {
            Freed::Eight => "weights of 8 bits",
            Freed::Float => "float weights",
        };
        let named: Vec<Part> = pieces.iter().cloned().map(Part::Layers).collect();
        let named: Vec<String> = joined(&named).iter().map(|part| self.words(part)).collect();
        let what = format!("all layers in float, with {weights}: {}", named.join(", "));
        let Some(metrics) = self.metrics_of(&what, &choice)? else { return Ok(None) };
        self.note(what, &metrics, false);
        Ok(Some((layers, choice, metrics)))
    }

    /// How many stretches to cut layers into.
    fn stretches(&self) -> usize {
        (self.trials.left() / EACH).clamp(STRETCHES[0], STRETCHES[1])
    }

    /// All layers in so many stretches, in graph order.
    fn stretches_of(&self, pieces: usize) -> Vec<Part> {
        let count = self.units.on_integers;
        let length = count.div_ceil(pieces).max(1);
        (0..count).step_by(length).map(|start| Part::Layers(start..count.min(start + length))).collect()
    }

    /// Whether the loss is met, where that is reachable, or is small enough.
    pub(super) fn is_enough(&self, metrics: &Metrics, reachable: bool, enough: f64) -> bool {
        if reachable { self.is_met_again(metrics) } else { loss(metrics) <= enough }
    }

    /// The parts in the order of what each gains per work, alone; operators that gain nothing are left out, but not
    /// stretches: where errors cancel, what a part adds shows only beside others. With them comes the part that gains most.
    fn ranked(&mut self) -> Result<(Vec<Part>, Option<Measured>), SearchError> {
        let stretches = self.stretches_of(self.stretches()).into_iter();
        // What has 16 bits around an operator follows from the layers.
        let operators = if self.best.wide { 0 } else { self.units.operators.len() };
        let parts: Vec<Part> = stretches.chain((0..operators).map(Part::Operator)).collect();
        let (mut ranked, mut best) = (Vec::new(), None);
        for part in parts {
            if matches!(part, Part::Operator(_)) && self.trials.left() <= HALVINGS {
                break;
            }
            let choice = self.with(&part);
            let what = self.words(&part);
            let Some(metrics) = self.metrics_of(&what, &choice)? else { break };
            self.note(what, &metrics, false);
            let gain = loss(&self.metrics) - loss(&metrics);
            let work = self.work(&choice) - self.work(&self.best);
            if gain > 0.0 || matches!(part, Part::Layers(_)) {
                ranked.push((gain / work.max(1e-6), part));
            }
            if loss(&metrics) < best.as_ref().map_or(loss(&self.metrics), |(_, metrics)| loss(metrics)) {
                best = Some((choice, metrics));
            }
        }
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok((ranked.into_iter().map(|(_, part)| part).collect(), best))
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
        let again = if self.best.wide { "with 8 bits again" } else { "on integers again" };
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
                let what = format!("{} {again}", self.words(&Part::Layers(piece)).trim_end_matches(&self.relief()));
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
        self.best.clone().with(part)
    }

    /// What becomes of layers that lose too much.
    fn relief(&self) -> String {
        if self.best.wide { " in 16 bits" } else { " in float" }.to_owned()
    }

    fn words(&self, part: &Part) -> String {
        match part {
            Part::Layers(layers) => {
                let names = &self.units.layers;
                let (first, last) = (&names[layers.start].name, &names[layers.end - 1].name);
                let relief = self.relief();
                if layers.len() == 1 {
                    format!("layer `{first}`{relief}")
                } else {
                    format!("layers `{first}` to `{last}`{relief}")
                }
            }
            Part::Operator(operator) => format!("every {} in float", self.units.operators[*operator].name),
        }
    }
}

/// Parts, of which stretches that follow one another are one.
fn joined(parts: &[Part]) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    for part in parts {
        match (found.last_mut(), part) {
            (Some(Part::Layers(last)), Part::Layers(next)) if last.end == next.start => last.end = next.end,
            _ => found.push(part.clone()),
        }
    }
    found
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
