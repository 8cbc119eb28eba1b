//! Movements that need their quantizer in front, because the target computes one behind them wrong.

use super::Role;
use super::draft::{Draft, UNREAD};
use crate::ir::{NodeId, ValueId};
use crate::ops::facts;
use crate::target::Support;
use std::collections::HashSet;

/// Quantizes what such movements read, where an integer kernel reads what they write or what becomes of it.
pub(super) fn quantize_before(draft: &mut Draft) {
    let read: Vec<ValueId> = draft.quantized.iter().copied().collect();
    let mut search = Search { draft, seen: HashSet::new(), found: Vec::new() };
    for value in read {
        search.walk(value, Vec::new());
    }
    for (first, path) in search.found {
        draft.quantized.insert(first);
        for movement in path.into_iter().rev() {
            draft.quantized.extend(draft.graph.node(movement).outputs().iter().flatten());
            draft.reasons.remove(&movement);
            draft.roles.insert(movement, Role::Movement);
        }
    }
}

struct Search<'d, 'a> {
    draft: &'d Draft<'a>,
    seen: HashSet<ValueId>,
    /// What each such movement reads, and the movements in float from it on, the last one first.
    found: Vec<(ValueId, Vec<NodeId>)>,
}

impl Search<'_, '_> {
    /// Looks for such movements in float above a value. `path` has the movements from there to the quantizer or to the node
    /// that is no movement, the last one first.
    fn walk(&mut self, value: ValueId, mut path: Vec<NodeId>) {
        let draft = self.draft;
        let Some((producer, _)) = draft.graph.value(value).producer() else { return };
        let node = draft.graph.node(producer);
        // What the caller wants in float stays so.
        let is_wanted = draft.reasons.get(&producer).is_some_and(|reason| reason != UNREAD);
        let row = draft.profile.kernel(node.op()).filter(|row| row.support == Support::Movement);
        let in_float = node.domain().is_empty() && !draft.is_on_integers(producer);
        if !in_float || !self.seen.insert(value) {
            return;
        }
        if let Some((row, input)) = row.zip(node.input(0)).filter(|_| !is_wanted) {
            if draft.graph.constant(input).is_none() {
                path.push(producer);
                if row.leads {
                    self.found.push((input, path.clone()));
                }
                self.walk(input, path);
            }
            return;
        }
        // A runtime joins a quantizer to the movement across such nodes too.
        let activations: Vec<ValueId> =
            node.inputs().iter().flatten().copied().filter(|&input| draft.graph.constant(input).is_none()).collect();
        if node.is("Concat") || (activations.len() == 1 && facts(node.op()).float_layer().is_none()) {
            for input in activations {
                self.walk(input, Vec::new());
            }
        }
    }
}
