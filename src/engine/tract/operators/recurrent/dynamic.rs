//! `DynamicQuantizeLSTM` of onnxruntime: an `LSTM` with weights of integers that rounds its input and its state at run time.
//!
//! Input weights are W and R, integers `[D, I, 4·H]` and `[D, H, 4·H]`, with one scale and zero point for each direction,
//! `[D]`, or channel, `[D, 4·H]`. The sums that the gates read are
//!
//! ```text
//! s_x·s_w·Σ (q(x) − z_x)·(W − z_w) + s_h·s_r·Σ (q(h) − z_h)·(R − z_r) + Wb + Rb,    q(a) = clamp(round(a/s) + z, 0, 255)
//! s = (max − min)/255,    z = round(clamp(−min/s, 0, 255)),    of a range that holds 0
//! ```
//!
//! with one range for the input of all steps that the longest sequence has, and one at each step for the states of all
//! sequences of the batch: one value far out makes the steps of all others coarse. onnxruntime with several threads cuts
//! the batch into as many parts, whose states have ranges of their own; computed here is what one thread does.
//!
//! The state of a sequence that has ended counts as it lies in memory: zero where Y is an output, the last one otherwise.

use super::cell::Cell;
use super::kind::Kind;
use super::{Recurrent, Slots};
use crate::engine::tract::operators::{Built, Evaluate, Evaluated, wire_back};
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, OutletId, TValue, Tensor};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedFact, TypedModel, bail, ensure};
use tract_onnx::tract_core::ops::cast::wire_cast;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, expand};

/// The layer.
#[derive(Clone, Debug, PartialEq)]
struct Dynamic {
    own: Recurrent,
    /// The slots of scale and zero point of W and of R among the inputs that are given.
    parameters: [(usize, Option<usize>); 2],
}

pub(in crate::engine::tract::operators) fn build(_: &ParsingContext, node: &NodeProto) -> Built {
    let mut given: Vec<Option<usize>> = optional_inputs(node).take(12).collect();
    given.resize(12, None);
    let (Some(0), Some(1), Some(2), Some(w), Some(r)) = (given[0], given[1], given[2], given[8], given[10]) else {
        bail!("{} has no weights with scales", node.op_type)
    };
    for attribute in ["layout", "input_forget"] {
        ensure!(node.get_attr_opt::<i64>(attribute)?.unwrap_or(0) == 0, "{} knows no {attribute}", node.op_type);
    }
    let inputs = Slots { bias: given[3], lengths: given[4], state: given[5], cell: given[6], peepholes: given[7] };
    let own = Recurrent::of(node, Kind::Lstm, inputs)?;
    Ok((expand(Dynamic { own, parameters: [(w, given[9]), (r, given[11])] }), Vec::new()))
}

impl Expansion for Dynamic {
    fn name(&self) -> StaticName {
        Self::NAME.into()
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
        self.own.rules([2, 1], solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let element = model.outlet_fact(inputs[0])?.datum_type;
        let mut changed = inputs.to_vec();
        for (slot, input) in changed.iter_mut().enumerate() {
            let to = match model.outlet_fact(*input)?.datum_type {
                DatumType::I8 | DatumType::U8 => continue,
                _ if Some(slot) == self.own.inputs.lengths => DatumType::I64,
                _ => DatumType::F32,
            };
            *input = wire_cast(format!("{prefix}.cast.{slot}"), model, &[*input], to)?[0];
        }
        wire_back(prefix, model, Evaluated(self.clone()), &changed, element)
    }
}

/// A weight of one direction: the integers without their zero points, a row for each input, and one scale per column.
struct Rows {
    integers: Vec<i32>,
    scales: Vec<f32>,
}

/// The integers of a tensor.
fn integers(tensor: &TValue) -> TractResult<Vec<i32>> {
    let plain = tensor.try_as_plain_ram()?;
    match tensor.datum_type() {
        DatumType::I8 => Ok(plain.as_slice::<i8>()?.iter().map(|&q| i32::from(q)).collect()),
        DatumType::U8 => Ok(plain.as_slice::<u8>()?.iter().map(|&q| i32::from(q)).collect()),
        other => bail!("weights of {other:?} are no integers of 8 bits"),
    }
}

fn floats(tensor: &TValue) -> TractResult<Vec<f32>> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

/// The parameters of a direction for so many columns: one for all, or one for each.
fn of_columns<T: Copy>(values: &[T], [direction, directions, columns]: [usize; 3]) -> TractResult<Vec<T>> {
    match values.len() {
        count if count == directions => Ok(vec![values[direction]; columns]),
        count if count == directions * columns => Ok(values[direction * columns..][..columns].to_vec()),
        count => bail!("{count} scales or zero points of {directions} directions with {columns} columns"),
    }
}

impl Rows {
    fn new(
        inputs: &[TValue],
        slot: usize,
        (scale, zero_point): (usize, Option<usize>),
        of: [usize; 3],
    ) -> TractResult<Self> {
        let [direction, directions, columns] = of;
        let mut held = integers(&inputs[slot])?;
        let count = held.len() / directions.max(1);
        ensure!(columns > 0 && count.is_multiple_of(columns), "{count} weights for {columns} gates of units");
        held = held[direction * count..][..count].to_vec();
        if let Some(slot) = zero_point {
            let zero_points = of_columns(&integers(&inputs[slot])?, of)?;
            held.chunks_exact_mut(columns).flat_map(|row| row.iter_mut().zip(&zero_points)).for_each(|(q, z)| *q -= z);
        }
        Ok(Self { integers: held, scales: of_columns(&floats(&inputs[scale])?, of)? })
    }

    /// Adds the products of rows of `values`, rounded on one range, to `sums`.
    fn add_products(&self, values: &[f32], sums: &mut [f32]) {
        let columns = self.scales.len();
        let (rounded, scale) = rounded(values);
        let inputs = self.integers.len() / columns;
        if inputs == 0 {
            return;
        }
        let mut whole = vec![0_i32; columns];
        for (values, sums) in rounded.chunks_exact(inputs).zip(sums.chunks_exact_mut(columns)) {
            whole.fill(0);
            for (&value, row) in
                values.iter().zip(self.integers.chunks_exact(columns)).filter(|(value, _)| **value != 0)
            {
                whole.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
            }
            for ((sum, &whole), &own) in sums.iter_mut().zip(&whole).zip(&self.scales) {
                *sum += whole as f32 * (scale * own);
            }
        }
    }
}

/// Values as integers without their zero point, and the scale of these.
fn rounded(values: &[f32]) -> (Vec<i32>, f32) {
    let (min, max) = values.iter().fold((0.0_f32, 0.0_f32), |(min, max), &value| (min.min(value), max.max(value)));
    let scale = if max == min { 1.0 } else { (max - min) / 255.0 };
    let zero_point = (-min / scale).clamp(0.0, 255.0).round_ties_even();
    let round = |value: &f32| (value / scale).max(-zero_point).min(255.0 - zero_point).round_ties_even() as i32;
    (values.iter().map(round).collect(), scale)
}

/// What a direction starts with and what it leaves, a row for each sequence.
struct States {
    state: Vec<f32>,
    cell: Vec<f32>,
}

/// The weights of a direction.
struct Direction<'a> {
    cell: &'a Cell,
    is_backwards: bool,
    input: Rows,
    recurrent: Rows,
    /// Wb + Rb.
    bias: Vec<f32>,
    peepholes: Vec<f32>,
}

impl Direction<'_> {
    /// Runs over the sequences of a batch, which have so many steps; `write` takes the state of each step and sequence.
    fn run(
        &self,
        x: &[f32],
        lengths: &[usize],
        keeps_ended: bool,
        states: &mut States,
        mut write: impl FnMut(usize, usize, &[f32]),
    ) {
        let (batch, columns) = (lengths.len(), self.input.scales.len());
        let (hidden, width) = (columns / 4, self.input.integers.len() / columns);
        let steps = lengths.iter().copied().max().unwrap_or(0);
        let mut gates = vec![0.0_f32; steps * batch * columns];
        self.input.add_products(&x[..steps * batch * width], &mut gates);
        let mut seen = states.state.clone();
        let mut of_state = vec![0.0_f32; batch * columns];
        for step in 0..steps {
            of_state.fill(0.0);
            self.recurrent.add_products(&seen, &mut of_state);
            for (b, &length) in lengths.iter().enumerate() {
                let own = b * hidden..(b + 1) * hidden;
                if step >= length {
                    if !keeps_ended {
                        seen[own].fill(0.0);
                    }
                    continue;
                }
                let t = if self.is_backwards { length - 1 - step } else { step };
                let sums = &mut gates[(t * batch + b) * columns..][..columns];
                for ((sum, of_state), bias) in sums.iter_mut().zip(&of_state[b * columns..]).zip(&self.bias) {
                    *sum += of_state + bias;
                }
                let state = &mut states.state[own.clone()];
                self.cell.lstm(sums, &self.peepholes, state, &mut states.cell[own.clone()]);
                seen[own].copy_from_slice(state);
                write(t, b, state);
            }
        }
    }
}

impl Evaluate for Dynamic {
    const NAME: &'static str = "DynamicQuantizeLstm";

    fn facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(self.own.facts_of(inputs, inputs[2].shape[1].clone()))
    }

    fn evaluate(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let own = &self.own;
        let (x, directions) = (floats(&inputs[0])?, own.cells.len());
        let &[time, batch, width] = inputs[0].shape() else { bail!("an input of three axes is expected") };
        let &[_, hidden, columns] = inputs[2].shape() else { bail!("a weight of three axes is expected") };
        ensure!(columns == 4 * hidden && inputs[1].shape() == [directions, width, columns], "weights do not fit");
        ensure!(inputs[2].shape() == [directions, hidden, columns], "weights do not fit {directions} directions");
        let lengths = own.sequence_lengths(inputs, time, batch)?;
        let part = |slot: Option<usize>, direction: usize, count: usize| match slot {
            Some(slot) => {
                let values = floats(&inputs[slot])?;
                ensure!(values.len() == directions * count, "{} values of {directions} times {count}", values.len());
                Ok(values[direction * count..][..count].to_vec())
            }
            None => Ok(vec![0.0; count]),
        };
        let of = [time, batch, directions, hidden];
        let [y_shape, state_shape] = own.shapes(of);
        let mut y = vec![0.0_f32; y_shape.iter().product()];
        let (mut last, mut last_cell) = (Vec::new(), Vec::new());
        for (d, (cell, &is_backwards)) in own.cells.iter().zip(&own.backwards).enumerate() {
            let biases = part(own.inputs.bias, d, 2 * columns)?;
            let direction = Direction {
                cell,
                is_backwards,
                input: Rows::new(inputs, 1, self.parameters[0], [d, directions, columns])?,
                recurrent: Rows::new(inputs, 2, self.parameters[1], [d, directions, columns])?,
                bias: biases[..columns].iter().zip(&biases[columns..]).map(|(w, r)| w + r).collect(),
                peepholes: part(own.inputs.peepholes, d, 3 * hidden)?,
            };
            let mut states = States {
                state: part(own.inputs.state, d, batch * hidden)?,
                cell: part(own.inputs.cell, d, batch * hidden)?,
            };
            direction.run(&x, &lengths, !own.outputs[0], &mut states, |t, b, state| {
                let (to, _) = own.place(of, t, d, b);
                y[to..to + hidden].copy_from_slice(state);
            });
            // As in onnxruntime, what is left of a sequence without steps is zero.
            for (b, _) in lengths.iter().enumerate().filter(|(_, length)| **length == 0) {
                states.state[b * hidden..(b + 1) * hidden].fill(0.0);
                states.cell[b * hidden..(b + 1) * hidden].fill(0.0);
            }
            last.extend(states.state);
            last_cell.extend(states.cell);
        }
        own.results([(&y_shape, y), (&state_shape, last), (&state_shape, last_cell)])
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;
    use crate::engine::tract::testing::{assert_close, run};

    const WEIGHTS: &str =
        "int8[1,1,4] w = {1, 1, 1, 2}, int8[1,1,4] r = {0, 0, 0, 1}, float[1] s = {0.5}, int8[1] z = {0},
        float[1,4] e = {0.5, 0.5, 0.5, 0.25}, int8[1,4] n = {0, 0, 0, 0}, uint8[1,1,4] u = {129, 129, 129, 130},
        uint8[1] m = {128}, int32[1] one = {1}, float[1,3] p = {1.0, 2.0, 3.0}, float[1,1,1] c = {0.5}";

    fn lstm(attributes: &str, inputs: &str, x: &[f32]) -> Vec<f32> {
        let node = format!("y = com.microsoft.DynamicQuantizeLSTM <hidden_size = 1{attributes}> (x, {inputs})");
        run(&format!("float[{},1,1] x", x.len()), WEIGHTS, &node, &[(&[x.len(), 1, 1], x)])
    }

    #[test]
    fn values_are_rounded_on_a_range_that_holds_zero() {
        assert_eq!(rounded(&[0.0, 255.0, 0.5, 1.5]), (vec![0, 255, 0, 2], 1.0));
        assert_eq!(rounded(&[-1.0, 254.0, 3.2]), (vec![-1, 254, 3], 1.0));
        assert_eq!(rounded(&[0.0, 0.0]), (vec![0, 0], 1.0));
        assert_eq!(rounded(&[]), (vec![], 1.0));
    }

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    /// The input 1.4 is 1 on the steps of 255.
    #[test]
    fn the_input_is_rounded() {
        let step = |x: f32, [h, c]: [f32; 2], candidate: f32| {
            let cell = sigmoid(0.5 * x) * c + sigmoid(0.5 * x) * (candidate * x + 0.5 * h).tanh();
            [sigmoid(0.5 * x) * cell.tanh(), cell]
        };
        let first = step(1.0, [0.0, 0.0], 1.0);
        let [second, _] = step(255.0, first, 1.0);
        let expected = [first[0], second];
        assert_close(&lstm("", "w, r, , , , , , s, z, s, z", &[1.4, 255.0]), &expected);
        assert_close(&lstm("", "u, r, , , , , , s, m, s, z", &[1.4, 255.0]), &expected);
        assert_close(&lstm("", "w, r, , , , , , s, , s", &[1.4, 255.0]), &expected);
        let [first, _] = step(1.0, [0.0, 0.0], 0.5);
        assert_close(&lstm("", "w, r, , , , , , e, n, s, z", &[1.4, 255.0])[..1], &[first]);
        let backwards = lstm(", direction = \"reverse\"", "w, r, , , , , , s, z, s, z", &[255.0, 1.4]);
        assert_close(&backwards, &[expected[1], expected[0]]);
    }

    #[test]
    fn what_an_lstm_may_have() {
        // A sequence of one step, an initial cell and peepholes.
        let y = lstm("", "w, r, , one, , c, p, s, z, s, z", &[1.0, 255.0]);
        let cell = sigmoid(0.5 + 3.0 * 0.5) * 0.5 + sigmoid(0.5 + 0.5) * 1.0_f32.tanh();
        assert_close(&y, &[sigmoid(0.5 + 2.0 * cell) * cell.tanh(), 0.0]);
        let clipped = lstm(", clip = 0.25", "w, r, , , , , , s, z, s, z", &[1.0]);
        assert_close(&clipped, &[sigmoid(0.25) * (sigmoid(0.25) * 0.25_f32.tanh()).tanh()]);
        let relu = lstm(", activations = [\"Relu\", \"Relu\", \"Relu\"]", "w, r, , , , , , s, z, s, z", &[1.0]);
        assert_close(&relu, &[0.25]);
    }
}
