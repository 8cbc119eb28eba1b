//! `RNN`, `GRU` and `LSTM` with whatever attributes the operator set has.
//!
//! tract 0.23 computes every recurrent layer forwards (or both ways) with sigmoid and tanh: it reads neither `activations`
//! with `activation_alpha` and `activation_beta`, nor `direction = "reverse"`, `clip` or `input_forget`, and takes lengths of
//! sequences only where they are all of the whole length. What has none of these is left to it; everything else is computed
//! here, a sequence at a time, with the products of the inputs and of the state as sums of rows (see [`cell`]).
//!
//! Without a direction's own values, the state begins with zeros. A sequence of length l is read forwards from 0 to l − 1, or
//! backwards from l − 1 to 0; Y is zero behind it, and the last state is that of the last step read.

mod activation;
mod cell;
pub(super) mod dynamic;
mod kind;

use super::{Built, Evaluate, Evaluated, tracts_expansion, wire_back};
use activation::Activation;
use cell::{Cell, Weights};
use kind::Kind;
use tract_onnx::model::{ParsingContext, optional_inputs, optional_outputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumExt, DatumType, OutletId, TDim, TValue, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, bail, ensure};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_output_arity, expand};

/// The slot of X, of W, and so on among the inputs that are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    bias: Option<usize>,
    lengths: Option<usize>,
    state: Option<usize>,
    cell: Option<usize>,
    peepholes: Option<usize>,
}

/// A layer before shapes are known, with tract's operator where that computes it.
#[derive(Clone, Debug)]
struct Layer {
    own: Recurrent,
    tracts: Option<Box<dyn Expansion>>,
}

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
struct Recurrent {
    /// The cell of each direction.
    cells: Vec<Cell>,
    /// Which directions read backwards.
    backwards: Vec<bool>,
    /// Whether the batch comes before the time.
    is_batch_first: bool,
    inputs: Slots,
    /// Which of Y, the last state and the last cell are outputs.
    outputs: [bool; 3],
}

/// Whether a function of this name is known.
pub(super) fn knows_activation(name: &str) -> bool {
    Activation::is_known(name)
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let given: Vec<Option<usize>> = optional_inputs(node).take(8).collect();
    let inputs = Slots { bias: given[3], lengths: given[4], state: given[5], cell: given[6], peepholes: given[7] };
    let is_tracts = is_plain(node)? && inputs.lengths.is_none();
    let tracts = if is_tracts { Some(tracts_expansion(context, node)?) } else { None };
    let kind = match node.op_type.as_str() {
        "LSTM" => Kind::Lstm,
        "GRU" => Kind::Gru { is_linear_first: node.get_attr_opt::<i64>("linear_before_reset")?.unwrap_or(0) != 0 },
        _ => Kind::Rnn,
    };
    let own = Recurrent::of(node, kind, inputs)?;
    Ok((expand(Layer { own, tracts }), Vec::new()))
}

/// Whether a layer has no attribute that tract does not read.
fn is_plain(node: &NodeProto) -> TractResult<bool> {
    let is_reverse = node.get_attr_opt::<&str>("direction")?.is_some_and(|given| given == "reverse");
    let is_set = |name: &str| node.attribute.iter().any(|attribute| attribute.name == name);
    let couples = node.get_attr_opt::<i64>("input_forget")?.unwrap_or(0) != 0;
    Ok(!is_reverse && !couples && !["activations", "clip"].iter().any(|name| is_set(name)))
}

impl Recurrent {
    /// The layer that a node describes.
    fn of(node: &NodeProto, kind: Kind, inputs: Slots) -> TractResult<Self> {
        let backwards = match node.get_attr_opt::<&str>("direction")?.unwrap_or("forward") {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => bail!("direction {other} of {} is not known", node.op_type),
        };
        let functions = Activation::of(node, kind, backwards.len())?;
        let clip: Option<f32> = node.get_attr_opt("clip")?;
        let is_coupled = node.get_attr_opt::<i64>("input_forget")?.unwrap_or(0) != 0;
        let cell = |functions: &[Activation]| Cell { kind, functions: functions.to_vec(), clip, is_coupled };
        let cells = functions.chunks(kind.functions()).map(cell).collect();
        let written: Vec<bool> = optional_outputs(node).take(3).map(|slot| slot.is_some()).collect();
        Ok(Self {
            cells,
            backwards,
            is_batch_first: node.get_attr_opt::<i64>("layout")?.unwrap_or(0) == 1,
            inputs,
            outputs: [written[0], written[1], written[2]],
        })
    }

    /// The axes of time and batch of the inputs.
    fn time_and_batch(&self) -> [usize; 2] {
        if self.is_batch_first { [1, 0] } else { [0, 1] }
    }

    /// The shapes of Y and of a last state.
    fn shapes<D: Clone>(&self, [time, batch, directions, hidden]: [D; 4]) -> [Vec<D>; 2] {
        if self.is_batch_first {
            let y = vec![batch.clone(), time, directions.clone(), hidden.clone()];
            return [y, vec![batch, directions, hidden]];
        }
        let y = vec![time, directions.clone(), batch.clone(), hidden.clone()];
        [y, vec![directions, batch, hidden]]
    }

    /// The places of elements in Y, by time, direction and batch, and in a state, by direction and batch.
    fn place(&self, [time, batch, directions, hidden]: [usize; 4], t: usize, d: usize, b: usize) -> (usize, usize) {
        if self.is_batch_first {
            return (((b * time + t) * directions + d) * hidden, (b * directions + d) * hidden);
        }
        (((t * directions + d) * batch + b) * hidden, (d * batch + b) * hidden)
    }
}

impl Expansion for Layer {
    fn name(&self) -> StaticName {
        Recurrent::NAME.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.own.written())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.own.rules([2, 2], solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?;
        let (element, batch) = (fact.datum_type, fact.shape[self.own.time_and_batch()[1]].clone());
        // tract 0.23 fails on a batch with an LSTM of one direction, and on one that is left open.
        let is_lstm = self.own.backwards.len() == 1 && self.own.cells.iter().all(|cell| cell.kind == Kind::Lstm);
        let is_tracts = if is_lstm { batch == TDim::from(1) } else { batch.to_i64().is_ok() };
        if let (Some(tracts), true) = (&self.tracts, is_tracts) {
            return tracts.wire(prefix, model, inputs);
        }
        let mut changed = inputs.to_vec();
        for (slot, input) in changed.iter_mut().enumerate() {
            let to = if Some(slot) == self.own.inputs.lengths { DatumType::I64 } else { DatumType::F32 };
            *input = wire_cast(format!("{prefix}.cast.{slot}"), model, &[*input], to)?[0];
        }
        wire_back(prefix, model, Evaluated(self.own.clone()), &changed, element)
    }
}

impl Evaluate for Recurrent {
    const NAME: &'static str = "Recurrent";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.facts_of(inputs, inputs[2].shape[2].clone()))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let [time, batch] = self.time_and_batch().map(|axis| inputs[0].shape()[axis]);
        let (width, hidden, directions) = (inputs[0].shape()[2], inputs[2].shape()[2], self.backwards.len());
        let lengths = [time, batch, directions, hidden];
        let floats =
            |slot: usize| -> TractResult<Vec<f32>> { Ok(inputs[slot].try_as_plain_ram()?.as_slice::<f32>()?.to_vec()) };
        let optional = |slot: Option<usize>| slot.map(&floats).transpose();
        let (x, w, r) = (floats(0)?, floats(1)?, floats(2)?);
        let (bias, peepholes) = (optional(self.inputs.bias)?, optional(self.inputs.peepholes)?);
        let (first, first_cell) = (optional(self.inputs.state)?, optional(self.inputs.cell)?);
        let read = self.sequence_lengths(inputs, time, batch)?;
        let [y_shape, state_shape] = self.shapes(lengths);
        let zeros = |shape: &[usize]| vec![0.0_f32; shape.iter().product()];
        let (mut y, mut last, mut last_cell) = (zeros(&y_shape), zeros(&state_shape), zeros(&state_shape));
        for (d, (cell, &is_backwards)) in self.cells.iter().zip(&self.backwards).enumerate() {
            let weights = Weights::new(cell.kind, width, hidden, d, [&w, &r], [bias.as_deref(), peepholes.as_deref()])?;
            for (b, &read) in read.iter().enumerate() {
                let (_, at) = self.place(lengths, 0, d, b);
                let begin = |values: &Option<Vec<f32>>| match values {
                    Some(values) => values[at..at + hidden].to_vec(),
                    None => vec![0.0; hidden],
                };
                let mut state = [begin(&first), begin(&first_cell)];
                for step in 0..read {
                    let t = if is_backwards { read - 1 - step } else { step };
                    let from = if self.is_batch_first { b * time + t } else { t * batch + b } * width;
                    cell.step(&weights, &x[from..from + width], &mut state);
                    let (to, _) = self.place(lengths, t, d, b);
                    y[to..to + hidden].copy_from_slice(&state[0]);
                }
                last[at..at + hidden].copy_from_slice(&state[0]);
                last_cell[at..at + hidden].copy_from_slice(&state[1]);
            }
        }
        self.results([(&y_shape, y), (&state_shape, last), (&state_shape, last_cell)])
    }
}

impl Recurrent {
    /// How many outputs are written.
    fn written(&self) -> usize {
        self.outputs.iter().filter(|&&is_written| is_written).count()
    }

    /// Types and shapes of the outputs; how many units there are says axis `axis` of input `slot`.
    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        [slot, axis]: [usize; 2],
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, self.written())?;
        for output in outputs {
            solver.equals(&inputs[0].datum_type, &output.datum_type)?;
        }
        solver.given_2(&inputs[0].shape, &inputs[slot].shape, move |solver, x, r| {
            ensure!(x.len() == 3 && r.len() == 3, "inputs of a recurrent layer have three axes");
            let [time, batch] = self.time_and_batch().map(|axis| x[axis].clone());
            let [y, state] = self.shapes([time, batch, TDim::from(self.backwards.len()), r[axis].clone()]);
            let shapes = [&y, &state, &state].into_iter().zip(self.outputs);
            let written = shapes.filter(|(_, is_written)| *is_written).map(|(shape, _)| shape);
            for (output, shape) in outputs.iter().zip(written) {
                for (axis, length) in shape.iter().enumerate() {
                    solver.equals(&output.shape[axis], length.clone())?;
                }
                solver.equals(&output.rank, shape.len() as i64)?;
            }
            Ok(())
        })
    }

    /// The same of outputs with so many units.
    fn facts_of(&self, inputs: &[&TypedFact], hidden: TDim) -> TVec<TypedFact> {
        let [time, batch] = self.time_and_batch().map(|axis| inputs[0].shape[axis].clone());
        let [y, state] = self.shapes([time, batch, TDim::from(self.backwards.len()), hidden]);
        let shapes = [&y, &state, &state].into_iter().zip(self.outputs);
        shapes.filter(|(_, is_written)| *is_written).map(|(shape, _)| f32::fact(shape)).collect()
    }

    /// Those of Y, the last state and the last cell that are outputs.
    fn results(&self, results: [(&[usize], Vec<f32>); 3]) -> TractResult<TVec<Tensor>> {
        let written = results.into_iter().zip(self.outputs).filter(|(_, is_written)| *is_written);
        written.map(|((shape, values), _)| Tensor::from_shape(shape, &values)).collect()
    }

    /// How many steps of each sequence are read.
    fn sequence_lengths(&self, inputs: &[TValue], time: usize, batch: usize) -> TractResult<Vec<usize>> {
        let Some(slot) = self.inputs.lengths else { return Ok(vec![time; batch]) };
        let plain = inputs[slot].try_as_plain_ram()?;
        let given = plain.as_slice::<i64>()?;
        ensure!(given.len() == batch, "{} lengths of {batch} sequences", given.len());
        let checked = |&length: &i64| {
            let length = usize::try_from(length).ok().filter(|&length| length <= time);
            length.ok_or_else(|| tract_onnx::tract_core::internal::format_err!("a sequence is not longer than {time}"))
        };
        given.iter().map(checked).collect::<TractResult<TVec<usize>>>().map(|lengths| lengths.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::{assert_close, run, run_shaped};

    /// Three steps of a sequence of one number, with a weight of 1 for the input and of 0.5 for the state.
    const X: [f32; 3] = [1.0, -2.0, 3.0];
    const WEIGHTS: &str = "float[1,1,1] w = {1.0}, float[1,1,1] r = {0.5}, int32[1] two = {2}";

    fn rnn(attributes: &str, inputs: &str) -> Vec<f32> {
        let node = format!("y = RNN <hidden_size = 1, {attributes}> (x, w, r{inputs})");
        run("float[3,1,1] x", WEIGHTS, &node, &[(&[3, 1, 1], &X)])
    }

    #[test]
    fn activations_count() {
        assert_close(&rnn("activations = [\"Relu\"]", ""), &[1.0, 0.0, 3.0]);
        assert_close(
            &rnn("activations = [\"Affine\"], activation_alpha = [2.0], activation_beta = [1.0]", ""),
            &[3.0, 0.0, 7.0],
        );
        assert_close(&rnn("activations = [\"LeakyRelu\"], activation_alpha = [0.5]", ""), &[1.0, -0.75, 2.625]);
    }

    #[test]
    fn directions_and_lengths_count() {
        let relu = "activations = [\"Relu\"]";
        assert_close(&rnn(&format!("{relu}, direction = \"reverse\""), ""), &[1.0, 0.0, 3.0]);
        let affine = "activations = [\"Affine\"], activation_alpha = [1.0], direction = \"reverse\"";
        assert_close(&rnn(affine, ""), &[0.75, -0.5, 3.0]);
        assert_close(&rnn(affine, ", , two"), &[0.0, -2.0, 0.0]);
        assert_close(&rnn(&format!("{relu}, clip = 0.5"), ""), &[0.5, 0.0, 0.5]);
    }

    #[test]
    fn coupled_gates() {
        // All gates see the input alone: i = σ(x), f = 1 − i, c = i·tanh(x), h = i·tanh(c).
        let weights = "float[1,4,1] w = {1.0, 1.0, 1.0, 1.0}, float[1,4,1] r = {0.0, 0.0, 0.0, 0.0}";
        let node = "h, y = LSTM <hidden_size = 1, input_forget = 1> (x, w, r)";
        let (shape, y) = run_shaped("float[2,1,1] x", weights, node, &[(&[2, 1, 1], &[1.0, 2.0])]);
        let gate = |x: f32| 1.0 / (1.0 + (-x).exp());
        let first = gate(1.0) * 1.0_f32.tanh();
        let second = (1.0 - gate(2.0)) * first + gate(2.0) * 2.0_f32.tanh();
        assert_eq!(shape, [1, 1, 1]);
        assert_close(&y, &[gate(2.0) * second.tanh()]);
    }

    #[test]
    fn gates_of_other_functions() {
        let weights = "float[1,3,1] w = {0.0, 0.0, 1.0}, float[1,3,1] r = {0.0, 0.0, 0.0}";
        let node = "y = GRU <hidden_size = 1, activations = [\"HardSigmoid\", \"Relu\"]> (x, w, r)";
        // z is 0.5: half of the old state, half of the new.
        assert_close(&run("float[3,1,1] x", weights, node, &[(&[3, 1, 1], &X)]), &[0.5, 0.25, 1.625]);
    }
}
