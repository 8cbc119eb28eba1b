//! The reader of quantized graphs, told what the engine infers of them.

use crate::engine::{Facts, standard};
use msq_passes::analysis::quantized::{InferredFacts, QuantizedGraph};
use msq_passes::ir::{DataType, Model, TensorProto};

/// A quantized model and its constants, including those that the graph computes.
pub(crate) type Qdq<'a> = QuantizedGraph<'a, Facts>;

/// Reads a quantized model. Of one that the engine does not know, what its file says is used.
pub(crate) fn read(model: &Model) -> Qdq<'_> {
    QuantizedGraph::with_facts(model, standard().infer(model).unwrap_or_default())
}

impl InferredFacts for Facts {
    fn element(&self, value: &str) -> Option<DataType> {
        self.types.get(value)?.element_type()
    }

    fn shape(&self, value: &str) -> Option<Vec<usize>> {
        self.types.get(value)?.shape()?.into_iter().collect()
    }

    fn constant(&self, value: &str) -> Option<&TensorProto> {
        self.constants.get(value)
    }
}
