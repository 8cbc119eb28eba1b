//! How many bits the integers of every value have.
//!
//! A value has the bits of the reader that wants most: a layer wants those of the plan, everything else 8. A layer that
//! wants fewer has a quantizer of its own (per-consumer requantization).
//!
//! 16 bits are another type, and kernels read and write one type. So a kernel is *wide* where one of the values around it
//! is:
//!
//! * a layer whose plan says 16, or whose output somebody reads with 16 bits. It writes 16 bits; where the value that it
//!   reads has fewer, a quantizer of its own turns these into 16.
//! * any other operator with a wide operand or result. All its operands and results are wide then, so that no quantizer
//!   stands between what it adds: the residual stream of a network is wide as a whole.

use super::bit_plan::{ActivationBits, LayerPlan};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement, Role};
use msq_passes::ir::{Graph, NodeId, ValueId};
use msq_passes::ops::{Trait, facts};
use std::collections::HashMap;

/// Bits of the integers of wide kernels.
pub(crate) const WIDE: u8 = 16;

/// Bits of values and of what layers read.
#[derive(Clone, Debug, Default)]
pub(super) struct Widths {
    /// Bits of the values that have parameters of their own.
    pub(super) values: HashMap<ValueId, u8>,
    /// Bits to which a layer quantizes its input again, by name of the layer.
    pub(super) requantized: IndexMap<String, u8>,
    /// Bits that each layer reads, by name.
    pub(super) read: HashMap<String, u8>,
}

impl Widths {
    /// Of a placement, where the bits of some values are given, whatever reads them.
    pub(super) fn new(
        graph: &Graph,
        placement: &Placement,
        plan: impl Fn(&str) -> LayerPlan,
        given: &[(ValueId, u8)],
    ) -> Self {
        let planned = |layer: &Layer| match plan(&layer.name).activations {
            ActivationBits::Bits(bits) => Some(bits),
            ActivationBits::Float | ActivationBits::Dynamic => None,
        };
        let mut values = wanted(graph, placement, planned);
        values.extend(given.iter().copied());
        widen(graph, placement, &mut values, planned);
        values.extend(given.iter().copied());
        let mut widths = Self { values, ..Self::default() };
        for layer in placement.layers() {
            let Some(bits) = planned(layer) else { continue };
            let wide = bits > 8 || widths.is_wide(placement, placement.written_by(graph, layer));
            let read = if wide { WIDE } else { bits };
            let most = widths.values.get(&placement.root(layer.input)).copied().unwrap_or(8);
            if read < most || (wide && most < WIDE) {
                widths.requantized.insert(layer.name.clone(), read);
            }
            widths.read.insert(layer.name.clone(), read);
        }
        widths
    }

    fn is_wide(&self, placement: &Placement, value: ValueId) -> bool {
        is_wide(&self.values, placement, value)
    }
}

fn is_wide(values: &HashMap<ValueId, u8>, placement: &Placement, value: ValueId) -> bool {
    placement.values.contains_key(&value) && values.get(&placement.root(value)).is_some_and(|&bits| bits > 8)
}

/// The most bits that any reader wants of a value with its own parameters.
fn wanted(graph: &Graph, placement: &Placement, planned: impl Fn(&Layer) -> Option<u8>) -> HashMap<ValueId, u8> {
    let mut bits: HashMap<ValueId, u8> = HashMap::new();
    let mut want = |value, wanted: u8| {
        let most = bits.entry(placement.root(value)).or_insert(wanted);
        *most = wanted.max(*most);
    };
    for layer in placement.layers() {
        if let Some(wanted) = planned(layer) {
            want(layer.input, wanted);
        }
    }
    for &value in placement.values.keys().filter(|&&value| placement.is_read_in_full(graph, value)) {
        want(value, 8);
    }
    bits
}

/// Makes values wide until no kernel reads or writes wide values beside others.
fn widen(
    graph: &Graph,
    placement: &Placement,
    values: &mut HashMap<ValueId, u8>,
    planned: impl Fn(&Layer) -> Option<u8>,
) {
    loop {
        let mut added = Vec::new();
        for (&node, role) in &placement.nodes {
            let (wide, around) = match role {
                Role::Layer(layer) => {
                    let wide = planned(layer).is_some_and(|bits| bits > 8);
                    (wide, vec![placement.written_by(graph, layer)])
                }
                Role::Movement | Role::Index => continue,
                Role::Arithmetic | Role::Product | Role::ResidualSum { .. } => {
                    let around = around(graph, placement, node);
                    (around.iter().any(|&value| is_wide(values, placement, value)), around)
                }
            };
            let quantized = around.into_iter().filter(|value| placement.values.contains_key(value));
            added.extend(quantized.filter(|&value| wide && !is_wide(values, placement, value)));
        }
        if added.is_empty() {
            return;
        }
        values.extend(added.into_iter().map(|value| (placement.root(value), WIDE)));
    }
}

/// What a node reads and what its kernel writes. What a normalization multiplies with is a weight, which has 8 bits beside
/// any activation.
fn around(graph: &Graph, placement: &Placement, node: NodeId) -> Vec<ValueId> {
    let entry = graph.node(node);
    let written = entry.outputs().iter().flatten().map(|&value| placement.written_behind(graph, value));
    let operands = if facts(entry.op()).has(Trait::Normalization) { 1 } else { usize::MAX };
    entry.inputs().iter().take(operands).flatten().copied().chain(written).collect()
}
