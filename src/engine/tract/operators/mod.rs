//! Operators put in the place of tract's: those that tract 0.23 computes otherwise than onnxruntime, or not at all.
//!
//! tract looks operators up by name while it reads a graph, so what is registered here is in force in sub-graphs, in
//! functions and where constants are folded as well. Where tract's own operator is right for what a node asks, the
//! builder hands the node on to it ([`tracts`]).
//!
//! | file | operators | what differs in tract |
//! |---|---|---|
//! | [`through`] | `Equal`, `Sign`, `Mod`, bitwise ones | no booleans, or dimensions for integers of 64 bits |
//! | [`function`] | `Celu`, `Swish`, `BitShift` | alpha is ignored; shifts by the width or more wrap around |
//! | [`cumsum`] | `CumSum` | integers of 64 bits become dimensions, which are not added |
//! | [`einsum`] | `Einsum` | an ellipsis in some operands alone loses axes |
//! | [`extreme`] | `ReduceMax`, `ReduceMin`, `ReduceLogSumExp` | no infinities, no booleans; exponentials overflow |
//! | [`norm`] | `GlobalLpPool` | a mean instead of a sum |
//! | [`recurrent`] | `RNN`, `GRU`, `LSTM` | activations, direction, clip, coupled gates and lengths are ignored or refused |
//! | [`recurrent::dynamic`] | `DynamicQuantizeLSTM` of onnxruntime | not known |
//! | [`resize`] | `Resize`, `Upsample` | crops, aligned corners with scales, operator set 10; `Upsample` is not known |
//! | [`grid_sample`] | `GridSample` | cubic between pixels of the border; a vector for every value |
//! | [`pool`] | `MaxPool`, `AveragePool` | lengths of dilated kernels with `SAME` padding |
//! | [`deconvolution`] | `ConvTranspose` | given output shapes, `SAME` padding with long strides |
//! | [`pad`] | `Pad` | negative pads, wrapping, booleans, values of rank 1 |
//! | [`index`] | `OneHot`, `GatherND`, `ScatterND` | indices out of range or negative |
//! | [`roi_align`] | `RoiAlign` | not known |
//! | [`suppression`] | `NonMaxSuppression` | no boxes, or constant ones |
//! | [`vectors`] | `MatMul` | no product of two vectors |
//! | [`rearrange`] | `Compress`, `ReverseSequence`, `SpaceToDepth` | not run, not known, the order of channels |

mod cumsum;
mod deconvolution;
mod einsum;
mod extreme;
mod function;
mod grid_sample;
mod index;
mod norm;
mod pad;
mod pool;
mod rearrange;
mod recurrent;
mod resize;
mod roi_align;
mod suppression;
mod through;
mod vectors;

use std::fmt::Debug;
use std::sync::LazyLock;
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, OutletId, SpecialOps, TValue, Tensor};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TVec, TractResult, TypedFact, TypedModel, TypedOp, as_op, bail, format_err,
    op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::ops::cast::{cast, wire_cast};
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::internal::Expansion;

/// What a builder gives: the operator, and what it reads of the graph around.
type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Builds an operator from a node.
type Builder = fn(&ParsingContext, &NodeProto) -> Built;

/// The operators that are put in the place of tract's.
const OPERATORS: [(&str, Builder); 36] = [
    ("AveragePool", pool::build),
    ("BitShift", function::bit_shift),
    ("BitwiseAnd", through::build),
    ("BitwiseNot", through::build),
    ("BitwiseOr", through::build),
    ("BitwiseXor", through::build),
    ("Celu", function::celu),
    ("Compress", rearrange::compress),
    ("ConvTranspose", deconvolution::build),
    ("CumSum", cumsum::build),
    ("DynamicQuantizeLSTM", recurrent::dynamic::build),
    ("Einsum", einsum::build),
    ("Equal", through::build),
    ("GRU", recurrent::build),
    ("GatherND", index::indices),
    ("GlobalLpPool", norm::build),
    ("GridSample", grid_sample::build),
    ("LSTM", recurrent::build),
    ("MatMul", vectors::build),
    ("MaxPool", pool::build),
    ("Mod", through::build),
    ("NonMaxSuppression", suppression::build),
    ("OneHot", index::one_hot),
    ("Pad", pad::build),
    ("RNN", recurrent::build),
    ("ReduceLogSumExp", extreme::build),
    ("ReduceMax", extreme::build),
    ("ReduceMin", extreme::build),
    ("Resize", resize::build),
    ("ReverseSequence", rearrange::reverse_sequence),
    ("RoiAlign", roi_align::build),
    ("ScatterND", index::indices),
    ("Sign", through::build),
    ("SpaceToDepth", rearrange::space_to_depth),
    ("Swish", function::swish),
    ("Upsample", resize::build),
];

/// Puts the operators in the place of tract's.
pub(super) fn register(onnx: &mut Onnx) {
    for (name, builder) in OPERATORS {
        onnx.op_register.insert(name, builder);
    }
}

/// Whether an operator of this name is among those put in the place of tract's.
pub(super) fn is_registered(name: &str) -> bool {
    OPERATORS.iter().any(|(own, _)| *own == name)
}

/// Whether recurrent layers have a function of this name.
pub(super) fn knows_activation(name: &str) -> bool {
    recurrent::knows_activation(name)
}

/// tract's own operator for a node.
fn tracts(context: &ParsingContext, node: &NodeProto) -> Built {
    static TRACT: LazyLock<Onnx> = LazyLock::new(tract_onnx::onnx);
    let Some(builder) = TRACT.op_register.0.get(&node.op_type) else { bail!("{} is not known", node.op_type) };
    builder(context, node)
}

/// tract's own operator for a node, with its rules and how it is wired.
fn tracts_expansion(context: &ParsingContext, node: &NodeProto) -> TractResult<Box<dyn Expansion>> {
    let (built, _) = tracts(context, node)?;
    let expansion = built.as_op().downcast_ref::<Box<dyn Expansion>>().cloned();
    expansion.ok_or_else(|| format_err!("{} is no expansion", node.op_type))
}

/// Something that computes tensors from tensors.
trait Evaluate: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The operator's name.
    const NAME: &'static str;

    /// Types and shapes of the outputs.
    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>>;

    /// The outputs.
    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>>;
}

/// The operator that does it.
#[derive(Clone, Debug, PartialEq)]
struct Evaluated<E>(E);

impl<E: Evaluate> Eq for Evaluated<E> {}

impl<E: Evaluate> Op for Evaluated<E> {
    fn name(&self) -> StaticName {
        E::NAME.into()
    }

    op_as_typed_op!();
}

impl<E: Evaluate> EvalOp for Evaluated<E> {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(self.0.evaluate(&inputs)?.into_iter().map(TValue::from).collect())
    }
}

impl<E: Evaluate> TypedOp for Evaluated<E> {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.facts(inputs)
    }
}

/// Wires an operator on floats of 32 bits: inputs of other types are cast before, outputs behind.
fn wire_floats(
    prefix: &str,
    model: &mut TypedModel,
    operator: impl Evaluate,
    inputs: &[OutletId],
    element: DatumType,
) -> TractResult<TVec<OutletId>> {
    let floats = wire_cast(format!("{prefix}.floats"), model, inputs, DatumType::F32)?;
    wire_back(prefix, model, Evaluated(operator), &floats, element)
}

/// Wires an operator whose outputs are cast to another type behind it, where they are not of that type.
fn wire_back(
    prefix: &str,
    model: &mut TypedModel,
    operator: impl Into<Box<dyn TypedOp>>,
    inputs: &[OutletId],
    element: DatumType,
) -> TractResult<TVec<OutletId>> {
    let computed = model.wire_node(prefix, operator, inputs)?;
    let mut outputs = TVec::new();
    for (slot, output) in computed.into_iter().enumerate() {
        let same = model.outlet_fact(output)?.datum_type == element;
        let back = |model: &mut TypedModel| model.wire_node(format!("{prefix}.out.{slot}"), cast(element), &[output]);
        outputs.push(if same { output } else { back(model)?[0] });
    }
    Ok(outputs)
}

/// The elements of a constant of integers, if an input is one.
fn integers(model: &TypedModel, input: OutletId) -> TractResult<Option<Vec<i64>>> {
    let Some(constant) = model.outlet_fact(input)?.konst.clone() else { return Ok(None) };
    let Ok(constant) = constant.cast_to::<i64>() else { return Ok(None) };
    Ok(Some(constant.try_as_plain_ram()?.as_slice::<i64>()?.to_vec()))
}

/// The axis that a number means, from the end where it is negative.
fn axis(number: i64, rank: usize) -> TractResult<usize> {
    let from_the_end = if number < 0 { i64::try_from(rank)? } else { 0 };
    let axis = usize::try_from(number + from_the_end)?;
    if axis >= rank {
        bail!("axis {number} of {rank}");
    }
    Ok(axis)
}

/// The type of numbers that elements of a type are moved as.
fn computed(element: DatumType) -> DatumType {
    match element {
        DatumType::Bool => DatumType::U8,
        DatumType::TDim => DatumType::I64,
        other => other,
    }
}

/// The lengths before an axis, of it, and behind it, each multiplied.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Whether an attribute is given and not this.
fn is_other(node: &NodeProto, name: &str, default: &str) -> TractResult<bool> {
    Ok(node.get_attr_opt::<&str>(name)?.is_some_and(|given| given != default))
}
