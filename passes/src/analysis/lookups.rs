//! Embedding tables whose rows take a noticeable part of a run to look up as integers.
//!
//! A lookup in integers takes three nodes more than one in floats: the scales of the rows, a cast, a product. In a network of
//! some 30 µs that is much. Where all lookups together take more than 2 % of what the target's prices say of the network,
//! tables are read through `Mul(Cast(integers), scales)` as a whole, the smallest first, until they do not: the runtime
//! computes that once, when it loads the file, which stays as small. In memory such a table is then as large as in the float
//! model, so that all of them together may have 16 MiB of floats; larger ones are looked up as integers whatever it takes.

use super::placement::Placement;
use super::stored::{StoredKind, StoredWeight};
use crate::ir::{Model, Node};

/// The share of a run that lookups in integers may take.
const SHARE: f64 = 0.02;
/// Nanoseconds of a run below which nothing is chosen: the runtime itself takes as long.
const LEAST: f64 = 10_000.0;
/// Bytes of floats that the runtime may make of tables when it loads the file.
const LOADED: usize = 16 << 20;

/// What lookups in integers cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LookupCost {
    /// The share of a run that the lookups left in integers take.
    pub share: f64,
    /// The share that the others would have taken.
    pub avoided: f64,
}

/// Chooses the tables that the runtime makes floats of when it loads the file. `None` where the target has no prices, or does
/// not go by them.
pub fn choose_lookups(model: &Model, placement: &Placement, stored: &mut [StoredWeight]) -> Option<LookupCost> {
    let run = placement.predicted.filter(|&run| placement.profile.leaves_slow && run >= LEAST)?;
    let costs: Vec<f64> = stored.iter().map(|weight| extra(model, placement, weight)).collect();
    let lookups = costs.iter().sum::<f64>();
    let mut cost = LookupCost { share: lookups / (run + lookups), avoided: 0.0 };
    let mut order: Vec<usize> = (0..stored.len()).filter(|&at| costs[at] > 0.0).collect();
    order.sort_by_key(|&at| stored[at].float_bytes);
    let mut bytes = 0;
    for at in order {
        bytes += stored[at].float_bytes;
        if cost.share <= SHARE || bytes > LOADED {
            break;
        }
        stored[at].at_load = true;
        cost.share -= costs[at] / (run + lookups);
        cost.avoided += costs[at] / (run + lookups);
    }
    Some(cost)
}

/// Nanoseconds that the lookups of a table take more than in floats; 0 where it has another form.
fn extra(model: &Model, placement: &Placement, weight: &StoredWeight) -> f64 {
    let Some(prices) = placement.profile.prices.map(|prices| prices.lookup) else { return 0.0 };
    // Blocks are asked for, and rows in them are looked up as integers. Matrices are far more values.
    if weight.kind != StoredKind::Embedding || (weight.block.is_some() && weight.shape.len() < 3) {
        return 0.0;
    }
    let uses = model.graph.value(weight.value).uses().iter().filter(|reader| reader.slot == 0);
    let lookups = uses.map(|reader| model.graph.node(reader.node)).filter(|node| node.is("Gather"));
    let price = |node: &Node| {
        let shape = node.output(0).and_then(|value| model.sample_shape(value)).unwrap_or_default();
        let values: f64 = shape.iter().map(|&length| length as f64).product();
        // A product with scales takes up one row after another, or one block.
        let length = weight.block.or(shape.last().copied()).unwrap_or(1).max(1);
        let rows = values / length as f64;
        prices.lookup + rows * prices.row + values * prices.value
    };
    lookups.map(price).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::stored_weights;
    use crate::ir::{import, text};
    use crate::target::Profile;

    /// Which of two tables, the first of so many rows, become floats when the file is loaded, with what the lookups cost in a
    /// network that takes so many nanoseconds.
    fn chosen(rows: usize, run: f64, profile: Profile) -> (Vec<bool>, Option<LookupCost>) {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (int64[1,4] i, int64[1,4] j) => (float[1,4,8] y)
             <float[{rows},64] t = {{}}, float[512,64] u = {{}}, float[64,8] w = {{}},
              float[1,4,64] a, float[1,4,64] b, float[1,4,64] c> {{
               a = Gather (t, i)  b = Gather (u, j)  c = Add (a, b)  y = MatMul (c, w) }}"
        );
        let model = import(text::parse(&text).unwrap()).unwrap();
        let mut placement = Placement::new(&model, &profile, |_, _, _| None);
        placement.predicted = placement.predicted.map(|_| run);
        let mut stored = stored_weights(&model);
        stored.retain(|weight| weight.refusal.is_none());
        let cost = choose_lookups(&model, &placement, &mut stored);
        (stored.iter().map(|weight| weight.at_load).collect(), cost)
    }

    #[test]
    fn small_networks_look_floats_up() {
        let (at_load, cost) = chosen(1024, 20_000.0, Profile::ORT_CPU);
        let cost = cost.unwrap();
        assert_eq!(at_load, [true, true]);
        assert!(cost.share.abs() < 1e-9 && cost.avoided > 0.1, "{cost:?}");
    }

    #[test]
    fn large_networks_look_integers_up() {
        let (at_load, cost) = chosen(1024, 1e6, Profile::ORT_CPU);
        assert_eq!(at_load, [false, false]);
        assert!(cost.unwrap().share < SHARE, "{cost:?}");
    }

    /// Of 18 MB in floats: file and memory stay small.
    #[test]
    fn large_tables_stay_integers() {
        let (at_load, cost) = chosen(70_000, 20_000.0, Profile::ORT_CPU);
        assert_eq!(at_load, [false, true]);
        assert!(cost.unwrap().share > SHARE, "{cost:?}");
    }

    #[test]
    fn no_prices_no_choice() {
        assert_eq!(chosen(1024, 20_000.0, Profile::QNN), (vec![false, false], None));
        let all = Profile { leaves_slow: false, ..Profile::ORT_CPU };
        assert_eq!(chosen(1024, 20_000.0, all), (vec![false, false], None));
    }
}
