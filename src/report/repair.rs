//! What the guard found of a quantized model, and what it repaired.

use super::numbers::{self, counted};
use super::{Report, StoredReport};
use crate::measure::metrics::Metrics;
use msq_passes::analysis::StoredKind;
use schemars::JsonSchema;
use serde::Serialize;

/// The attempt to repair a loss that was too large.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Repair {
    /// The largest loss that is allowed.
    pub allowed: f64,
    /// Number of samples that repairs were measured on.
    pub samples: usize,
    /// Figures of the network before repairs.
    pub before: Metrics,
    /// Figures of the network with the repairs.
    pub after: Metrics,
    /// Whether the loss is now within what is allowed.
    pub reached: bool,
    /// Number of values whose range is now chosen by another observer.
    pub ranges: usize,
    /// Layers that now read activations of 16 bits.
    pub wide_layers: Vec<String>,
    /// Layers that now compute in float.
    pub float_layers: Vec<String>,
    /// Those of them whose weights are float as well, and weights beside the layers that are float now.
    pub float_weights: Vec<String>,
    /// Layers and weights beside them that now have 8 bits instead of fewer.
    pub eight_bit_weights: Vec<String>,
    /// Recurrent nodes that no longer quantize at run time what they read.
    pub float_recurrent: Vec<String>,
    /// Operators whose nodes now compute in float.
    pub float_operators: Vec<String>,
    /// Share of the network's multiply-accumulates that is now done in float.
    pub float_work: f64,
    /// The repairs that were tried.
    pub trials: Vec<RepairTrial>,
    /// Whether the budget ended before everything that seemed worth trying was tried.
    pub cut_short: bool,
}

/// A repair that was tried.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RepairTrial {
    /// The repair, in words.
    pub what: String,
    /// Loss of the network with it.
    pub lost: f64,
    /// Distance of the network's outputs from the float network's.
    pub distance: f64,
    /// Whether it was kept.
    pub kept: bool,
}

impl Repair {
    /// What was repaired, and at what cost.
    pub fn words(&self, report: &Report) -> String {
        let stored = &report.stored;
        let share = |share: f64| numbers::loss(share, 1);
        let mut done = Vec::new();
        if self.ranges > 0 {
            done.push(format!("other ranges for {}", counted(self.ranges, "value")));
        }
        let layers = self.float_layers.len();
        let wide = self.wide_layers.len();
        if wide > 0 {
            done.push(format!("{} in 16 bits", counted(wide, "layer")));
        }
        done.extend(eight_bits(self, stored));
        done.extend(in_float(self, stored));
        if layers > 0 {
            let is_layer = |name: &&String| self.float_layers.contains(name);
            let weights = match self.float_weights.iter().filter(is_layer).count() {
                0 => String::new(),
                count => format!(" ({count} with float weights)"),
            };
            done.push(format!("{} in float{weights}", counted(layers, "layer")));
        }
        if !self.float_operators.is_empty() {
            done.push(format!("{} in float", self.float_operators.join(", ")));
        }
        let cost = match self.float_work {
            work if work > 0.99 => ", no faster than float".to_owned(),
            work if work > 0.0 => format!(", {} of the work", share(work)),
            _ => String::new(),
        };
        if done.is_empty() && self.reached {
            return self.left_alone(report.quality.as_ref().map_or(0.0, |quality| quality.lost));
        }
        let done = if done.is_empty() { "nothing that was tried helps".to_owned() } else { done.join(", ") + &cost };
        let moved = format!("loss {} → {}", share(self.before.lost), share(self.after.lost));
        let reached =
            if self.reached { String::new() } else { format!("; more than {} is still lost", share(self.allowed)) };
        let (samples, trials) = (counted(self.samples, "sample"), counted(self.trials.len(), "trial"));
        format!("{done}: {moved} on {samples}, {trials}{reached}")
    }

    /// What is said where nothing was changed, of a result that loses so much on all samples it was compared on.
    fn left_alone(&self, lost: f64) -> String {
        let [before, allowed] = [self.before.lost, self.allowed].map(|share| numbers::loss(share, 1));
        let samples = counted(self.samples, "sample");
        if self.before.lost <= self.allowed && lost <= self.allowed {
            return format!("not needed: loss {before} on {samples}");
        }
        format!("none tried: loss {before} on {samples}, too few to tell that more than {allowed} is lost")
    }
}

/// How many of these weights are beside the layers, and what to call them.
fn beside(names: &[String], stored: &[StoredReport]) -> (usize, &'static str) {
    let found: Vec<&StoredReport> = stored.iter().filter(|weight| names.contains(&weight.name)).collect();
    let is_recurrent = found.iter().all(|weight| weight.kind == StoredKind::Recurrent);
    (found.len(), if is_recurrent { "recurrent weight" } else { "stored weight" })
}

/// Recurrent layers that read floats, and weights beside the layers that are float.
fn in_float(repair: &Repair, stored: &[StoredReport]) -> Vec<String> {
    let mut said = Vec::new();
    if !repair.float_recurrent.is_empty() {
        said.push(format!("float activations for {}", counted(repair.float_recurrent.len(), "recurrent layer")));
    }
    let (count, noun) = beside(&repair.float_weights, stored);
    if count > 0 {
        said.push(format!("{} in float", counted(count, noun)));
    }
    said
}

/// Weights that have 8 bits now: beside the layers, and of layers.
fn eight_bits(repair: &Repair, stored: &[StoredReport]) -> Vec<String> {
    let (beside, noun) = beside(&repair.eight_bit_weights, stored);
    let layers = repair.eight_bit_weights.len().saturating_sub(beside);
    let mut said = Vec::new();
    if beside > 0 {
        said.push(format!("8 bits for {}", counted(beside, noun)));
    }
    if layers > 0 {
        said.push(format!("8 bits for the weights of {}", counted(layers, "layer")));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_are_too_few_are_said_to_be() {
        let of = |lost: f64| {
            let before = Metrics { lost, ..Metrics::default() };
            Repair {
                allowed: 0.01,
                samples: 10,
                after: before.clone(),
                before,
                reached: true,
                ranges: 0,
                wide_layers: Vec::new(),
                float_layers: Vec::new(),
                float_weights: Vec::new(),
                eight_bit_weights: Vec::new(),
                float_recurrent: Vec::new(),
                float_operators: Vec::new(),
                float_work: 0.0,
                trials: Vec::new(),
                cut_short: false,
            }
        };
        assert_eq!(of(0.005).left_alone(0.01), "not needed: loss 0.5 % on 10 samples");
        let told =
            |lost| format!("none tried: loss {lost} % on 10 samples, too few to tell that more than 1.0 % is lost");
        assert_eq!(of(0.1).left_alone(0.125), told("10.0"));
        assert_eq!(of(0.0).left_alone(0.1), told("0.0"));
    }
}
