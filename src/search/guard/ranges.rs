//! How ranges are chosen: by what that does to the outputs, not by the error of the value itself.
//!
//! A range that cuts off a few large values makes the steps of all others smaller, and the least squared error of a value
//! may still be the worst choice: the large values may be what later layers look at. All observers choose from the same
//! statistics, so that trying one costs no calibration.

use super::{BETTER, Choice, Guard, loss};
use crate::calibrate::{DEFAULT_PERCENTILE, ObserverKind};
use crate::search::SearchError;

/// Observers that are tried.
const OBSERVERS: [ObserverKind; 4] = [
    ObserverKind::Percentile(DEFAULT_PERCENTILE),
    ObserverKind::MinMax,
    ObserverKind::Percentile(99.99),
    ObserverKind::Mse,
];
/// Stretches of the network that may have an observer of their own.
const STRETCHES: usize = 8;
/// Trials that are left for layers in float.
const LEFT: usize = 16;

impl Guard<'_, '_> {
    /// One observer for all values, then one for each stretch.
    pub(super) fn choose_ranges(&mut self) -> Result<(), SearchError> {
        let current = self.observer;
        let mut found = Vec::new();
        for observer in OBSERVERS.into_iter().filter(|&observer| observer != current) {
            let choice = Choice { observer: Some(observer), ..self.best.clone() };
            let what = format!("ranges by {observer}");
            let Some(metrics) = self.metrics_of(&what, &choice)? else { break };
            found.push((what, choice, metrics));
        }
        let best = found.iter().map(|(.., metrics)| loss(metrics)).fold(f64::INFINITY, f64::min);
        let better = best < BETTER * loss(&self.metrics);
        for (what, choice, metrics) in found {
            let kept = better && loss(&metrics) == best;
            self.note(what, &metrics, kept);
            if kept {
                self.keep(choice, metrics);
            }
        }
        self.choose_by_stretch()
    }

    /// Another observer for the values of a stretch, stretch after stretch, where that helps.
    fn choose_by_stretch(&mut self) -> Result<(), SearchError> {
        let count = self.units.values.len();
        let length = count.div_ceil(STRETCHES).max(1);
        for start in (0..count).step_by(length) {
            let stretch = start..count.min(start + length);
            for observer in OBSERVERS {
                if self.trials.left() < LEFT || self.is_met(&self.metrics) {
                    return Ok(());
                }
                let mut choice = self.best.clone();
                choice.ranges.extend(stretch.clone().map(|value| (value, observer)));
                if choice == self.best || self.in_force(start) == observer {
                    continue;
                }
                let names = &self.units.values;
                let what =
                    format!("ranges from `{}` to `{}` by {observer}", names[stretch.start], names[stretch.end - 1]);
                let Some(metrics) = self.metrics_of(&what, &choice)? else { return Ok(()) };
                let kept = loss(&metrics) < BETTER * loss(&self.metrics);
                self.note(what, &metrics, kept);
                if kept {
                    self.keep(choice, metrics);
                }
            }
        }
        Ok(())
    }

    /// The observer of a value.
    fn in_force(&self, value: usize) -> ObserverKind {
        self.best.ranges.get(&value).copied().or(self.best.observer).unwrap_or(self.observer)
    }
}
