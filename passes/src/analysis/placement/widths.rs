//! Convolutions that are faster with more channels, of zeros (pass `widen-channels`).

use super::Role;
use super::pays::Account;
use crate::analysis::{ChannelSpace, Layer, LayerOp};
use crate::ir::NodeId;
use indexmap::IndexMap;
use std::collections::HashMap;

/// What has to be gained of the price of the layers around, so that the file gets longer for it.
const LEAST_GAIN: f64 = 0.03;
/// The same in nanoseconds.
const LEAST_TIME: f64 = 2_000.0;

/// Channels that layers get.
#[derive(Clone, Debug, Default)]
pub(super) struct Widths {
    /// So many more output and input channels, by convolution.
    more: HashMap<NodeId, [usize; 2]>,
    /// The output channels of layers.
    pub(super) layers: IndexMap<NodeId, usize>,
}

impl Widths {
    /// So many more output and input channels.
    pub(super) fn of(&self, node: NodeId) -> [usize; 2] {
        self.more.get(&node).copied().unwrap_or_default()
    }

    /// Adds the channels of a space, which were found around a layer.
    fn add(&mut self, around: NodeId, space: &ChannelSpace, more: usize) {
        for (node, added) in space.convolutions(more) {
            let [outputs, inputs] = self.more.entry(node).or_default();
            *outputs += added[0];
            *inputs += added[1];
        }
        let inside = space.writers.iter().chain(&space.depthwise);
        self.layers.extend(inside.chain([&around]).map(|&node| (node, space.channels + more)));
    }
}

impl Account<'_> {
    /// The channels with which convolutions on integers take a faster kernel, where that pays for the channels that all
    /// others around have to compute.
    pub(super) fn find_widths(&self) -> Widths {
        let mut widths = Widths::default();
        for (&id, role) in &self.draft.roles {
            let Role::Layer(layer) = role else { continue };
            let Some(wanted) = self.faster_with(layer).filter(|_| !widths.layers.contains_key(&id)) else { continue };
            let weight_shape = |node| self.graph.constant(self.graph.node(node).input(1)?)?.shape().ok();
            let Ok(space) = ChannelSpace::around(self.graph, id, weight_shape) else { continue };
            let more = wanted.saturating_sub(space.channels);
            if self.is_worth(&space, more) == Some(true) {
                widths.add(id, &space, more);
            }
        }
        widths
    }

    /// The output channels with which a convolution takes a faster kernel, if it has fewer: a multiple for depthwise ones,
    /// a least number for others.
    fn faster_with(&self, layer: &Layer) -> Option<usize> {
        let (outputs, inputs) = (*layer.shape.first()?, *layer.shape.get(1)?);
        let groups = usize::try_from(self.graph.node(layer.node).int_or("group", 1)).ok()?;
        let by = &self.prices.integer_convolution;
        let wanted = match groups {
            _ if layer.op != LayerOp::Conv => return None,
            1 => by.direct_outputs,
            _ if groups == outputs && inputs == 1 => outputs.next_multiple_of(by.depthwise_multiple),
            _ => return None,
        };
        (outputs < wanted).then_some(wanted)
    }

    /// Whether the layers around a space become faster by more than its operators become slower.
    fn is_worth(&self, space: &ChannelSpace, more: usize) -> Option<bool> {
        let (mut before, mut after) = (0.0, 0.0);
        for (node, added) in space.convolutions(more) {
            // What is in float has other kernels, in which a few channels make no difference.
            let Some(Role::Layer(layer)) = self.draft.roles.get(&node) else { continue };
            before += self.integer_convolution(layer, [0, 0])?;
            after += self.integer_convolution(layer, added)?;
        }
        for &value in &space.values {
            let Some((id, _)) = self.graph.value(value).producer() else { continue };
            if let Some(Role::Arithmetic | Role::Movement) = self.draft.roles.get(&id) {
                let cost = self.operator(self.graph.node(id))?.integer - self.prices.integer_node;
                after += cost * more as f64 / space.channels as f64;
            }
        }
        Some(before - after > (LEAST_GAIN * before).max(LEAST_TIME))
    }
}
