//! Weights beside the layers, such as recurrent ones, and what recurrent layers quantize at run time.
//!
//! These weights are rounded to nearest, since no solver makes up for their errors, and a recurrent operator reads at every
//! step what it computed at the step before, errors included.
//!
//! * Where few bits leave hardly anything of the outputs, all of them get 8.
//! * Recurrent layers that quantize at run time what they read have one range for a whole input, and one at each step for all
//!   states: a few large values make it coarse. They read floats, with the same integers as weights.
//! * Weights of 8 bits become floats, such as those of inputs that differ in size by far.
//!
//! Each is tried on all together. Where that takes away enough of the loss, integers come back one by one, of the largest
//! weights first, where that costs little.

use super::units::Units;
use super::{Choice, Guard, SEVERE, loses, loss};
use crate::scheme::bit_plan::{ActivationBits, LayerPlan};
use crate::search::SearchError;
use std::collections::BTreeMap;

/// Share of the loss that 8 bits have to take away.
const WORTH: f64 = 0.2;
/// The same of floats, which cost more.
const WORTH_OF_FLOATS: f64 = 0.5;
/// Share of what is gained that may be lost again with integers for some of the weights.
const SLACK: f64 = 0.1;
/// Weights, or layers, that are tried as before again.
const LARGEST: usize = 12;

impl Choice {
    /// Entries of the plan for weights beside the layers.
    pub(super) fn stored_plans(&self, units: &Units) -> BTreeMap<String, LayerPlan> {
        let mut plans = BTreeMap::new();
        let name = |weight: usize| units.stored[weight].name.clone();
        for &weight in &self.stored {
            plans.insert(name(weight), LayerPlan { activations: ActivationBits::Float, ..LayerPlan::default() });
        }
        for &weight in self.recurrent.iter().flat_map(|&node| &units.recurrent[node].weights) {
            plans.entry(name(weight)).or_insert(units.stored[weight].plan).activations = ActivationBits::Float;
        }
        plans.extend(self.floats.iter().map(|&weight| (name(weight), LayerPlan::FLOAT)));
        plans
    }
}

impl Guard<'_, '_> {
    /// Gives weights beside the layers 8 bits, where they have fewer and these are to blame.
    pub(super) fn widen_stored(&mut self) -> Result<(), SearchError> {
        let few: Vec<usize> = (0..self.units.stored.len()).filter(|&at| self.units.stored[at].has_few_bits()).collect();
        if few.is_empty() || !loses(&self.metrics.outputs, SEVERE) {
            return Ok(());
        }
        let mut choice = self.best.clone();
        choice.stored.extend(&few);
        let what = "8 bits for all weights beside the layers";
        let Some(gain) = self.try_all(what, choice, WORTH)? else { return Ok(()) };
        self.return_integers(few, gain, "with few bits again", |choice, weight| choice.stored.remove(&weight))
    }

    /// Lets recurrent layers read floats and leaves weights of 8 bits in float, where these are to blame.
    pub(super) fn relieve_stored(&mut self) -> Result<(), SearchError> {
        let recurrent: Vec<usize> = (0..self.units.recurrent.len()).collect();
        let mut gained = None;
        if !recurrent.is_empty() && !self.is_met(&self.metrics) {
            let mut choice = self.best.clone();
            choice.recurrent.extend(&recurrent);
            gained = self.try_all("float activations for all recurrent layers", choice, WORTH)?;
        }
        let is_eight = |&at: &usize| !self.units.stored[at].has_few_bits() || self.best.stored.contains(&at);
        let eight: Vec<usize> = (0..self.units.stored.len()).filter(is_eight).collect();
        let smaller: Vec<usize> = eight.iter().copied().skip(1).collect();
        // Of a model that holds nothing else, something has to be integers.
        for (what, floats) in [("all weights beside the layers", eight), ("all of them but the largest", smaller)] {
            if floats.is_empty() || self.is_met(&self.metrics) {
                continue;
            }
            let mut choice = self.best.clone();
            choice.floats.extend(&floats);
            if let Some(gain) = self.try_all(&format!("floats for {what}"), choice, WORTH_OF_FLOATS)? {
                self.return_integers(floats, gain, "with 8 bits again", |choice, weight| {
                    choice.floats.remove(&weight)
                })?;
                break;
            }
        }
        let Some(gain) = gained else { return Ok(()) };
        self.return_integers(recurrent, gain, "with activations quantized again", |choice, node| {
            choice.recurrent.remove(&node)
        })
    }

    /// Takes a choice over where it takes away so large a share of the loss; returns what it gains.
    fn try_all(&mut self, what: &str, choice: Choice, worth: f64) -> Result<Option<f64>, SearchError> {
        let Some(metrics) = self.metrics_of(what, &choice)? else { return Ok(None) };
        let gain = loss(&self.metrics) - loss(&metrics);
        let is_worth = gain >= worth * loss(&self.metrics);
        self.note(what.to_owned(), &metrics, is_worth);
        if is_worth {
            self.keep(choice, metrics);
        }
        Ok(is_worth.then_some(gain))
    }

    /// Makes weights or layers what they were, one after the other, where that costs little of what was gained.
    fn return_integers(
        &mut self,
        all: Vec<usize>,
        gain: f64,
        as_before: &str,
        remove: impl Fn(&mut Choice, usize) -> bool,
    ) -> Result<(), SearchError> {
        let (reachable, enough) = (self.is_met(&self.metrics), loss(&self.metrics) + SLACK * gain);
        let mut left = all.len();
        for at in all.into_iter().take(LARGEST) {
            let mut fewer = self.best.clone();
            if left == 1 || !remove(&mut fewer, at) {
                break;
            }
            let names = if fewer.recurrent == self.best.recurrent {
                &self.units.stored[at].name
            } else {
                &self.units.recurrent[at].name
            };
            let what = format!("`{names}` {as_before}");
            let Some(metrics) = self.metrics_of(&what, &fewer)? else { break };
            let kept = self.is_enough(&metrics, reachable, enough);
            self.note(what, &metrics, kept);
            if kept {
                left -= 1;
                self.keep(fewer, metrics);
            }
        }
        Ok(())
    }
}
