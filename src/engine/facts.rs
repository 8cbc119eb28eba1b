//! What can be said of a model without running it: types, shapes, constants.

use indexmap::IndexMap;
use msq_passes::ir::{Model, TensorProto, TypeProto};

/// Facts inferred for the values of a model's main graph, in name order.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Type and shape, where both element type and rank are known. Axes that depend on the input are open.
    pub types: IndexMap<String, TypeProto>,
    /// Computed values that are the same for every input.
    pub constants: IndexMap<String, TensorProto>,
}

impl Facts {
    /// States the inferred types in a model, for passes that need ranks. They are not written to its file. Initializers
    /// say themselves what they are; an engine may see some of them widened.
    pub fn annotate(&self, model: &mut Model) {
        for (name, ty) in &self.types {
            if let Some(value) = model.graph.find(name).filter(|&v| model.graph.initializer(v).is_none()) {
                model.graph.set_type(value, ty.clone());
            }
        }
    }
}
