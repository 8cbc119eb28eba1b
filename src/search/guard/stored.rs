//! Weights beside the layers, such as recurrent ones: 8 bits where fewer leave hardly anything of the outputs.
//!
//! They are rounded to nearest, since no solver makes up for their errors, and a recurrent operator reads at every step what
//! it computed at the step before, errors included. First all of them get 8 bits. Where that takes away enough of the loss,
//! the few bits that were asked for come back weight by weight, the largest first, where that costs little.

use super::{Guard, SEVERE, loses, loss};
use crate::search::SearchError;

/// Share of the loss that 8 bits have to take away.
const WORTH: f64 = 0.2;
/// Share of what 8 bits gain that may be lost again with fewer bits for some of the weights.
const SLACK: f64 = 0.1;
/// Weights that are tried with few bits again.
const LARGEST: usize = 6;

impl Guard<'_, '_> {
    /// Gives weights beside the layers 8 bits, where they have fewer and these are to blame.
    pub(super) fn widen_stored(&mut self) -> Result<(), SearchError> {
        let count = self.units.stored.len();
        if count == 0 || !loses(&self.metrics.outputs, SEVERE) {
            return Ok(());
        }
        let mut choice = self.best.clone();
        choice.stored.extend(0..count);
        let what = "8 bits for all weights beside the layers";
        let Some(metrics) = self.metrics_of(what, &choice)? else { return Ok(()) };
        let gain = loss(&self.metrics) - loss(&metrics);
        let is_worth = gain >= WORTH * loss(&self.metrics);
        self.note(what.to_owned(), &metrics, is_worth);
        if !is_worth {
            return Ok(());
        }
        let (reachable, enough) = (self.is_met(&metrics), loss(&metrics) + SLACK * gain);
        self.keep(choice, metrics);
        for weight in 0..count.min(LARGEST) {
            let mut fewer = self.best.clone();
            fewer.stored.remove(&weight);
            if fewer.stored.is_empty() {
                break;
            }
            let what = format!("`{}` with few bits again", self.units.stored[weight].name);
            let Some(metrics) = self.metrics_of(&what, &fewer)? else { break };
            let kept = self.is_enough(&metrics, reachable, enough);
            self.note(what, &metrics, kept);
            if kept {
                self.keep(fewer, metrics);
            }
        }
        Ok(())
    }
}
