//! What a repair changes, and the bit plan that says so.

use super::units::Units;
use crate::calibrate::ObserverKind;
use crate::scheme::WIDE;
use crate::scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan};
use std::collections::{BTreeMap, BTreeSet};

/// What is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// How ranges are chosen.
    pub(super) observer: Option<ObserverKind>,
    /// The same for single values.
    pub(super) ranges: BTreeMap<usize, ObserverKind>,
    /// Layers that compute in float, or read activations of 16 bits.
    pub(super) layers: BTreeSet<usize>,
    /// Whether these layers read 16 bits instead.
    pub(super) wide: bool,
    /// Layers whose weights stay float: some of those in float, and of those that only store integers.
    pub(super) weights: BTreeSet<usize>,
    /// Layers whose weights have 8 bits instead of fewer.
    pub(super) eight: BTreeSet<usize>,
    /// Weights beside the layers that have 8 bits instead of fewer.
    pub(super) stored: BTreeSet<usize>,
    /// Weights beside the layers that are floats.
    pub(super) floats: BTreeSet<usize>,
    /// Recurrent nodes that read floats instead of quantizing them at run time.
    pub(super) recurrent: BTreeSet<usize>,
    /// Operators whose nodes compute in float.
    pub(super) operators: BTreeSet<usize>,
}

impl Choice {
    /// The plan of a network with these changes. Layers that stay float without being asked to do so in every other plan too:
    /// what is changed can make integers worth their price there, where no ranges are known.
    pub(super) fn plan(&self, base: &BitPlan, units: &Units) -> BitPlan {
        let mut plan = base.clone();
        if *self == Self::default() {
            return plan;
        }
        for name in &units.stay_float {
            let own = base.layer(name).unwrap_or_default();
            plan.layers.insert(name.clone(), LayerPlan { activations: ActivationBits::Float, ..own });
        }
        plan.observer = self.observer.or(plan.observer);
        for (&value, &observer) in &self.ranges {
            plan.ranges.insert(units.values[value].clone(), observer);
        }
        for &layer in &self.eight {
            let name = &units.layers[layer].name;
            let LayerPlan { activations, .. } = plan.layer(name).unwrap_or_default();
            plan.layers.insert(name.clone(), LayerPlan { activations, ..LayerPlan::default() });
        }
        plan.layers.extend(self.stored_plans(units));
        for &layer in self.layers.union(&self.weights) {
            let name = &units.layers[layer].name;
            let own = plan.layer(name).unwrap_or_default();
            let activations = if self.wide { ActivationBits::Bits(WIDE) } else { ActivationBits::Float };
            let stored = LayerPlan { activations, ..own };
            let entry = if self.weights.contains(&layer) { LayerPlan::FLOAT } else { stored };
            plan.layers.insert(name.clone(), entry);
        }
        for &operator in &self.operators {
            plan.float.extend(units.operators[operator].nodes.iter().cloned());
        }
        plan
    }
}
