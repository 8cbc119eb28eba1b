//! What the rules look at: a quantized graph and the target.

use crate::analysis::quantized::QuantizedGraph;
use crate::ir::{Model, NodeId, ValueId};
use crate::target::Profile;
use std::ops::Deref;

/// A model under inspection. All that the reader of quantized graphs knows of the model can be asked of it.
pub(super) struct View<'a> {
    reader: QuantizedGraph<'a>,
    pub(super) profile: &'a Profile,
}

impl<'a> View<'a> {
    pub(super) fn new(model: &'a Model, profile: &'a Profile) -> Self {
        View { reader: QuantizedGraph::new(model), profile }
    }

    /// The name of a value, as findings state it.
    pub(super) fn name(&self, value: ValueId) -> String {
        self.reader.name(value).to_owned()
    }

    /// The name of a node, as findings state it.
    pub(super) fn label(&self, node: NodeId) -> String {
        self.reader.graph.node(node).label(self.reader.graph).to_owned()
    }
}

impl<'a> Deref for View<'a> {
    type Target = QuantizedGraph<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}
