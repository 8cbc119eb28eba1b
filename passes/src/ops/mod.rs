//! One table of the operators, as data: what a pass or an analysis has to know of an operator stands here once.
//!
//! An operator has one row in two halves. Its [`Schema`] is what ONNX defines: operator sets, outputs, types, default
//! attributes. `generated.rs` holds the schemas; `scripts/operators.py` writes it, and no hand changes it. Its
//! [`Facts`] are what quantization adds: where a layer's weight and bias stand, the form on integers, traits that
//! passes ask for. `table.rs` holds the facts, written by hand, also those of onnxruntime's own operators.
//!
//! What a *runtime* can do with an operator is not said here but in `target`.

mod facts;
mod generated;
mod schema;
mod table;

pub use facts::{Facts, IntegerForm, LayerOp, Operands, Trait, WeightLayout};
pub use schema::{Absent, Half, Schema};

/// The schema of an operator of the default domain; nothing for an operator that the format does not have.
pub fn schema(op: &str) -> Option<&'static Schema> {
    let row = generated::SCHEMAS.binary_search_by_key(&op, |schema| schema.name).ok()?;
    generated::SCHEMAS.get(row)
}

/// The facts of an operator of the default domain or of onnxruntime's; all empty for one about which there are none.
/// Names do not repeat across the two domains, so a caller that means one of them checks the node's.
pub fn facts(op: &str) -> &'static Facts {
    let row = table::FACTS.binary_search_by_key(&op, |facts| facts.name).ok();
    row.and_then(|row| table::FACTS.get(row)).unwrap_or(&Facts::NONE)
}

/// Whether an operator of this domain reads nothing of its input but the lengths.
pub fn reads_shape(domain: &str, op: &str) -> bool {
    domain.is_empty() && matches!(op, "Shape" | "Size")
}

/// Whether an operator of this domain is a recurrent layer: `RNN`, `GRU` or `LSTM`.
pub fn is_recurrent(domain: &str, op: &str) -> bool {
    domain.is_empty() && facts(op).has(Trait::Recurrent)
}

/// The first opset of the default domain that has the operator; nothing for an operator that the format does not have.
pub fn first_opset(op: &str) -> Option<i64> {
    schema(op).map(Schema::first_opset)
}

/// The format version released with a default opset.
pub fn ir_version_of_opset(opset: i64) -> i64 {
    generated::IR_OF_OPSET.iter().rev().find(|&&(first, _)| first <= opset).map_or(3, |&(_, ir)| ir)
}

#[cfg(test)]
mod tests;
