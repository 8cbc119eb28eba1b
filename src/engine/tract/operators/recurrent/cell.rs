//! One step of a recurrent cell.
//!
//! With p = x·Wᵀ + Wb of the input and q = h·Rᵀ + Rb of the state, functions f, g, h, peepholes P, and what a function reads
//! held between −clip and clip:
//!
//! * `RNN`: `h' = f(p + q)`.
//! * `GRU` (update z, reset r, hidden n): `z = f(p_z + q_z)`, `r = f(p_r + q_r)`, `n = g(p_n + r·q_n)` where the product comes
//!   before the reset, else `n = g(p_n + (r·h)·Rᵀ_n + Rb_n)`; `h' = (1 − z)·n + z·h`.
//! * `LSTM` (input i, output o, forget j, cell c): `i = f(p_i + q_i + P_i·c)`, `j = f(p_j + q_j + P_j·c)`, or `1 − i` where
//!   the gates are coupled, `c' = j·c + i·g(p_c + q_c)`, `o = f(p_o + q_o + P_o·c')`, `h' = o·h(c')`.
//!
//! The operator set has gates in the orders z, r, n and i, o, j, c.

use super::activation::Activation;
use super::kind::Kind;
use tract_onnx::tract_core::internal::{TractResult, ensure};

/// The weights of a direction, turned: a row for each input, a column for each gate of each unit.
pub(super) struct Weights {
    hidden: usize,
    input: Vec<f32>,
    state: Vec<f32>,
    input_bias: Vec<f32>,
    state_bias: Vec<f32>,
    peepholes: Vec<f32>,
}

impl Weights {
    /// The weights of one direction, out of those of all.
    pub(super) fn new(
        kind: Kind,
        width: usize,
        hidden: usize,
        direction: usize,
        [input, state]: [&[f32]; 2],
        [bias, peepholes]: [Option<&[f32]>; 2],
    ) -> TractResult<Self> {
        let columns = kind.gates() * hidden;
        let turned = |weights: &[f32], rows: usize| {
            let own = weights.get(direction * columns * rows..(direction + 1) * columns * rows);
            let own = own.unwrap_or_default();
            (0..rows * columns)
                .map(|at| own.get(at % columns * rows + at / columns).copied())
                .collect::<Option<Vec<f32>>>()
        };
        let part = |values: Option<&[f32]>, from: usize, count: usize| match values {
            Some(values) => values.get(from..from + count).map(<[f32]>::to_vec),
            None => Some(vec![0.0; count]),
        };
        let weights = (|| {
            Some(Self {
                hidden,
                input: turned(input, width)?,
                state: turned(state, hidden)?,
                input_bias: part(bias, 2 * direction * columns, columns)?,
                state_bias: part(bias, (2 * direction + 1) * columns, columns)?,
                peepholes: part(peepholes, 3 * direction * hidden, 3 * hidden)?,
            })
        })();
        ensure!(weights.is_some(), "weights of a recurrent layer are too few for {columns} gates of its units");
        weights.ok_or_else(|| tract_onnx::tract_core::internal::format_err!("no weights"))
    }
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) functions: Vec<Activation>,
    pub(super) clip: Option<f32>,
    /// Whether what an input gate lets in is forgotten of the old.
    pub(super) is_coupled: bool,
}

/// Adds the product of a vector with rows to a sum.
fn add_product(sum: &mut [f32], vector: &[f32], rows: &[f32]) {
    for (&factor, row) in vector.iter().zip(rows.chunks_exact(sum.len())) {
        sum.iter_mut().zip(row).for_each(|(sum, weight)| *sum += factor * weight);
    }
}

impl Cell {
    /// A function of what is held within the clip.
    fn function(&self, at: usize, x: f32) -> f32 {
        let held = self.clip.filter(|clip| *clip > 0.0).map_or(x, |clip| x.clamp(-clip, clip));
        self.functions[at].at(held)
    }

    /// Takes an input in: the state, and the cell of an LSTM, become the next.
    pub(super) fn step(&self, weights: &Weights, input: &[f32], [state, cell]: &mut [Vec<f32>; 2]) {
        let hidden = weights.hidden;
        let (mut p, mut q) = (weights.input_bias.clone(), weights.state_bias.clone());
        if p.is_empty() {
            return;
        }
        add_product(&mut p, input, &weights.input);
        add_product(&mut q, state, &weights.state);
        match self.kind {
            Kind::Rnn => {
                for (unit, state) in state.iter_mut().enumerate() {
                    *state = self.function(0, p[unit] + q[unit]);
                }
            }
            Kind::Gru { is_linear_first } => {
                let gate =
                    |gate: usize, unit: usize| self.function(0, p[gate * hidden + unit] + q[gate * hidden + unit]);
                let reset: Vec<f32> = (0..hidden).map(|unit| gate(1, unit)).collect();
                let update: Vec<f32> = (0..hidden).map(|unit| gate(0, unit)).collect();
                if is_linear_first {
                    q[2 * hidden..].iter_mut().zip(&reset).for_each(|(q, reset)| *q *= reset);
                } else {
                    let rest: Vec<f32> = state.iter().zip(&reset).map(|(state, reset)| state * reset).collect();
                    let mut again = weights.state_bias.clone();
                    add_product(&mut again, &rest, &weights.state);
                    q[2 * hidden..].copy_from_slice(&again[2 * hidden..]);
                }
                for (unit, state) in state.iter_mut().enumerate() {
                    let new = self.function(1, p[2 * hidden + unit] + q[2 * hidden + unit]);
                    *state = (1.0 - update[unit]) * new + update[unit] * *state;
                }
            }
            Kind::Lstm => {
                p.iter_mut().zip(&q).for_each(|(p, q)| *p += q);
                self.lstm(&p, &weights.peepholes, state, cell);
            }
        }
    }

    /// The step of an LSTM whose gates read these sums, four times as many as units.
    pub(super) fn lstm(&self, sums: &[f32], peepholes: &[f32], state: &mut [f32], cell: &mut [f32]) {
        let hidden = state.len();
        for unit in 0..hidden {
            let sum = |gate: usize| sums[gate * hidden + unit];
            let peephole = |gate: usize| peepholes[gate * hidden + unit];
            let old = cell[unit];
            let enters = self.function(0, sum(0) + peephole(0) * old);
            let stays = if self.is_coupled { 1.0 - enters } else { self.function(0, sum(2) + peephole(2) * old) };
            let new = stays * old + enters * self.function(1, sum(3));
            let leaves = self.function(0, sum(1) + peephole(1) * new);
            cell[unit] = new;
            state[unit] = leaves * self.functions[2].at(new);
        }
    }
}
