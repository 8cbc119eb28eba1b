//! A plan in one short line without names, for files whose names were shortened: the entries of all layers in the order of the
//! graph.
//!
//! ```text
//! 4//trellis 2 1.75 2 8/4/-
//! ```
//!
//! An entry is `weights/activations/grid/packing/granularity`; what is left out or empty is as for the layer before, at first as for
//! layers that no plan names. `-` is the grid that follows from the bits, or the granularity
//! of the target. An entry before `*` is that of all layers.

use super::{BitPlan, LayerPlan};
use crate::scheme::SchemeError;
use indexmap::IndexMap;
use msq_passes::analysis::layers;
use msq_passes::ir::Model;
use std::str::FromStr;

/// Stands behind the entry of all layers.
const ALL: &str = "*";

/// Stands for the grid that follows from the bits, and for the granularity of the target.
const NONE: &str = "-";

impl BitPlan {
    /// The line; `None` for a plan that speaks of nodes, of values, or of other layers than `order` lists in that order.
    pub(crate) fn to_sequence(&self, order: &[String]) -> Option<String> {
        let others = !self.float.is_empty() || self.observer.is_some() || !self.ranges.is_empty();
        if others || !self.sequence.is_empty() {
            return None;
        }
        if let Some(all) = self.default.filter(|_| self.layers.is_empty()) {
            return Some(format!("{} {ALL}", entry(all, LayerPlan::default())));
        }
        if order.is_empty() || self.layers.len() != order.len() || !self.layers.keys().eq(order) {
            return None;
        }
        let mut before = LayerPlan::default();
        let entries = self.layers.values().map(|&layer| entry(layer, std::mem::replace(&mut before, layer)));
        Some(entries.collect::<Vec<_>>().join(" "))
    }

    /// Reads the line.
    pub(crate) fn parse_sequence(line: &str) -> Result<Self, String> {
        let (entries, all) = match line.strip_suffix(ALL) {
            Some(entry) => (entry, true),
            None => (line, false),
        };
        let mut before = LayerPlan::default();
        let mut sequence = Vec::new();
        for text in entries.split_whitespace() {
            before = read(text, before)?;
            sequence.push(before);
        }
        match (all, &sequence[..]) {
            (true, &[only]) => Ok(Self::uniform(only)),
            (true, _) => Err(format!("`{ALL}` stands behind one entry")),
            (false, []) => Err("it is empty".to_owned()),
            (false, _) => Ok(Self { sequence, ..Self::of_layers(IndexMap::new()) }),
        }
    }

    /// The plan by names, for a model whose layers are those of the sequence.
    pub(crate) fn named(&self, model: &Model) -> Result<Self, SchemeError> {
        if self.sequence.is_empty() {
            return Ok(self.clone());
        }
        let names: Vec<String> = layers(model).into_iter().map(|layer| layer.name).collect();
        self.with_names(&names).ok_or_else(|| SchemeError::PlanLayers { plan: self.sequence.len(), model: names.len() })
    }

    /// The plan with names for the entries of its sequence; `None` where there are not as many.
    pub(crate) fn with_names(&self, names: &[String]) -> Option<Self> {
        let fits = self.sequence.is_empty() || self.sequence.len() == names.len();
        let named = names.iter().cloned().zip(self.sequence.iter().copied());
        let layers = self.layers.iter().map(|(name, &layer)| (name.clone(), layer)).chain(named).collect();
        fits.then(|| Self { layers, sequence: Vec::new(), ..self.clone() })
    }
}

/// What differs from the layer before.
fn entry(layer: LayerPlan, before: LayerPlan) -> String {
    let parts = |layer: LayerPlan| {
        let grid = layer.grid.map_or_else(|| NONE.to_owned(), |grid| grid.to_string());
        let granularity = layer.granularity.map_or_else(|| NONE.to_owned(), |granularity| granularity.to_string());
        [layer.weights.to_string(), layer.activations.to_string(), grid, layer.packing.to_string(), granularity]
    };
    let changed = parts(layer)
        .into_iter()
        .zip(parts(before))
        .map(|(own, before)| if own == before { String::new() } else { own });
    let text = changed.collect::<Vec<_>>().join("/");
    let text = text.trim_end_matches('/');
    // An entry without a part would not be seen.
    if text.is_empty() { layer.weights.to_string() } else { text.to_owned() }
}

fn read(text: &str, before: LayerPlan) -> Result<LayerPlan, String> {
    let mut parts = text.split('/');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let layer = LayerPlan {
        weights: part().map_or(Ok(before.weights), FromStr::from_str)?,
        activations: part().map_or(Ok(before.activations), FromStr::from_str)?,
        grid: match part() {
            None => before.grid,
            Some(NONE) => None,
            Some(grid) => Some(grid.parse().map_err(|_| format!("`{grid}` is no grid"))?),
        },
        packing: match part() {
            None => before.packing,
            Some(packing) => packing.parse().map_err(|_| format!("`{packing}` is no packing"))?,
        },
        granularity: match part() {
            None => before.granularity,
            Some(NONE) => None,
            Some(granularity) => Some(granularity.parse()?),
        },
    };
    match parts.next() {
        None => Ok(layer),
        Some(more) => Err(format!("`{text}`: nothing is called `{more}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::bit_plan::{ActivationBits, WeightBits};
    use crate::{PackingForm, WeightGrid};
    use msq_passes::Granularity;

    fn plan() -> (BitPlan, Vec<String>) {
        let four = LayerPlan { grid: Some(WeightGrid::Trellis), weights: WeightBits::whole(4), ..LayerPlan::default() };
        let quarters = LayerPlan { weights: "1.75".parse().unwrap(), ..four };
        let plain = LayerPlan { activations: ActivationBits::Bits(4), ..LayerPlan::default() };
        let narrow = LayerPlan { weights: WeightBits::whole(4), packing: PackingForm::Int4, ..plain };
        let blocks = LayerPlan { granularity: Some(Granularity::Block(32)), ..four };
        let entries = [four, quarters, quarters, plain, narrow, LayerPlan::FLOAT, four, blocks, four];
        let names: Vec<String> = ('a'..'j').map(String::from).collect();
        (BitPlan::of_layers(names.iter().cloned().zip(entries).collect()), names)
    }

    #[test]
    fn a_sequence_is_written_and_read() {
        let (plan, names) = plan();
        let line = plan.to_sequence(&names).unwrap();
        assert_eq!(line, "4//trellis 1.75 1.75 8/4/- 4///int4 float/float//auto 4/8/trellis ////block:32 ////-");
        let read = BitPlan::parse_sequence(&line).unwrap();
        assert!(read.layers.is_empty());
        assert_eq!(read.with_names(&names), Some(plan.clone()));
        assert_eq!(read.with_names(&names[1..]), None);
        // Names that there are take precedence.
        assert_eq!(plan.with_names(&[]), Some(plan));
    }

    #[test]
    fn one_entry_for_all_layers_is_a_default() {
        let uniform = BitPlan::uniform(plan().0.layers[1]);
        let line = uniform.to_sequence(&[]).unwrap();
        assert_eq!((line.as_str(), BitPlan::parse_sequence(&line)), ("1.75//trellis *", Ok(uniform)));
        assert_eq!(BitPlan::default().to_sequence(&[]).unwrap(), "8 *");
    }

    #[test]
    fn what_has_no_sequence_is_not_written_as_one() {
        let (plan, mut names) = plan();
        let float = BitPlan { float: vec!["node".to_owned()], ..plan.clone() };
        assert_eq!(float.to_sequence(&names), None);
        names.swap(0, 1);
        assert_eq!(plan.to_sequence(&names), None);
        assert_eq!(plan.to_sequence(&names[1..]), None);
        assert_eq!(BitPlan::of_layers(IndexMap::new()).to_sequence(&[]), None);
    }

    #[test]
    fn damaged_sequences_are_errors() {
        for (line, part) in [
            ("", "empty"),
            ("4 2 *", "behind one entry"),
            ("4/8/hexagonal", "`hexagonal` is no grid"),
            ("4/8/-/box", "`box` is no packing"),
            ("4/8/-/auto/1", "`1` is none of tensor, channel, block:N"),
            ("4/8/-/auto/-/1", "nothing is called `1`"),
            ("17", "`17` is none"),
        ] {
            let said = BitPlan::parse_sequence(line).unwrap_err();
            assert!(said.contains(part), "{line}: {said}");
        }
    }
}
