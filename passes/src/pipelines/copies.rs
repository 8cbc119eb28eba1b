//! Lists of passes that run on copies of a model, which are not written.

use crate::gradient::Differentiate;
use crate::ir::TypeProto;
use crate::partition::{ExtractSegment, InsertTaps};
use crate::pass::Pipeline;
use crate::prepare::{InlineFunctions, LiftConstants};

/// Makes values outputs.
pub fn tap<'a>(values: Vec<String>) -> Pipeline<'a> {
    Pipeline::new("tap", "on a copy: a run shows inner values")
        .with(InsertTaps { values }, "alone, and before the engine optimizes: it keeps outputs whatever it fuses")
}

/// Cuts out what lies between values.
pub fn extract<'a>(inputs: Vec<(String, TypeProto)>, outputs: Vec<String>) -> Pipeline<'a> {
    Pipeline::new("extract", "on a copy: a part of the model runs on stored values")
        .with(ExtractSegment { inputs, outputs }, "alone: values are found by the names they have in the model")
}

/// Writes gradients into the graph.
pub fn differentiate<'a>(seeds: Vec<String>, wanted: Vec<String>) -> Pipeline<'a> {
    Pipeline::new("differentiate", "on a copy: gradients of inner values")
        .with(Differentiate { seeds, wanted }, "alone: rules exist for the operators of a prepared model")
}

/// Makes constants readable in a model that is not prepared.
pub fn examine<'a>() -> Pipeline<'a> {
    Pipeline::new("examine", "on a copy of the model as it comes: what synthetic inputs have to look like")
        .with(InlineFunctions, "before `lift-constants`: constants in functions are constants")
        .with(LiftConstants, "last: nothing but the constants is looked at")
}
