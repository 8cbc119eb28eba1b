//! Movements that need their quantizer in front, because the target computes one behind them wrong.

use super::Role;
use super::draft::{Draft, UNREAD};
use crate::ir::{NodeId, ValueId};
use crate::target::Support;

/// Quantizes what such movements read, where an integer kernel reads what they write.
pub(super) fn quantize_before(draft: &mut Draft) {
    let read: Vec<ValueId> = draft.quantized.iter().copied().collect();
    for value in read {
        let Some((first, path)) = path_to_leading(draft, value) else { continue };
        draft.quantized.insert(first);
        for movement in path.into_iter().rev() {
            draft.quantized.extend(draft.graph.node(movement).outputs().iter().flatten());
            draft.reasons.remove(&movement);
            draft.roles.insert(movement, Role::Movement);
        }
    }
}

/// The movements in float behind which a value is quantized, the last one first, from one on that needs its quantizer in front;
/// and what that one reads.
fn path_to_leading(draft: &Draft, mut value: ValueId) -> Option<(ValueId, Vec<NodeId>)> {
    let (mut path, mut found) = (Vec::new(), None);
    while let Some((producer, _)) = draft.graph.value(value).producer() {
        let node = draft.graph.node(producer);
        let row = draft.profile.kernel(node.op()).filter(|row| row.support == Support::Movement);
        let Some((row, input)) = row.zip(node.input(0)).filter(|_| node.domain().is_empty()) else { break };
        // What the caller wants in float stays so.
        let is_wanted = draft.reasons.get(&producer).is_some_and(|reason| reason != UNREAD);
        if is_wanted || draft.is_on_integers(producer) || draft.graph.constant(input).is_some() {
            break;
        }
        path.push(producer);
        if row.leads {
            found = Some((input, path.len()));
        }
        value = input;
    }
    let (first, length) = found?;
    path.truncate(length);
    Some((first, path))
}
