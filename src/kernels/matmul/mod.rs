//! Float products of two tensors over any axes: `y[b, m, n] = f(bias + Σ_k l[b, m, k]·r[b, k, n])`, each index standing
//! for any number of axes in any order, with broadcasting.
//!
//! An operand that is constant is packed once. Bits are those of one chain of fused multiply-adds over the summed axes in
//! their order, whatever the processor's vectors.

mod layout;

#[cfg(test)]
mod tests;

pub(crate) use layout::Axis;

use super::product::{Activation, Bias, Dense, pack_columns, pack_rows, tile_offsets, tile_width};
use layout::{Layout, Place, places};
use pulp::Arch;
use std::sync::Arc;

/// Values of the rows that are packed at once: half of a second-level cache.
const ROWS_IN_CACHE: usize = 1 << 16;

/// Room that a product works in, to be used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

/// A product of two tensors.
#[derive(Clone, Debug)]
pub(crate) struct MatMul {
    layout: Layout,
    /// Where the terms lie in a tile of columns.
    offsets: Vec<usize>,
    /// Rows packed at once.
    rows_at_once: usize,
    /// Packed rows of a constant left operand by where they start; shared by copies.
    rows: Option<Arc<Packed>>,
    /// The same of a constant right operand.
    columns: Option<Arc<Packed>>,
    bias: Option<Bias>,
    activation: Activation,
}

/// Packed matrices of a constant, each with where it starts.
type Packed = Vec<(usize, Vec<f32>)>;

/// A tensor that is added to an output: its elements and its stride along each axis of the product, 0 where it is the
/// same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addend<'a> {
    /// Elements.
    pub(crate) values: &'a [f32],
    /// By the output stride of an axis, its stride in the addend.
    pub(crate) strides: &'a [(usize, usize)],
}

impl MatMul {
    /// A product over the given axes, of constants where they are given; `None` where it is not one of matrices.
    pub(crate) fn new(axes: &[Axis], constants: [Option<&[f32]>; 2]) -> Option<Self> {
        let layout = Layout::new(axes)?;
        let [left, right] = if layout.swapped { [constants[1], constants[0]] } else { constants };
        let starts = |of: fn(&Place) -> usize| {
            let mut starts: Vec<usize> = layout.places.iter().map(of).collect();
            starts.sort_unstable();
            starts.dedup();
            starts
        };
        let rows = left.map(|values| {
            let pack = |start: usize| {
                let mut packed = Vec::new();
                pack_rows(&values[start..], &layout.depth[0], &layout.rows, &mut packed);
                (start, packed)
            };
            Arc::new(starts(|place| place.left).into_iter().map(pack).collect())
        });
        let columns = right.map(|values| {
            let pack = |start: usize| {
                let mut packed = Vec::new();
                pack_columns(&values[start..], &layout.depth[1], &layout.columns, &mut packed);
                (start, packed)
            };
            Arc::new(starts(|place| place.right).into_iter().map(pack).collect())
        });
        let depth = layout.depth[0].len();
        let blocks = (ROWS_IN_CACHE / (depth * super::product::ROWS)).max(1);
        Some(Self {
            offsets: tile_offsets(depth),
            rows_at_once: blocks * super::product::ROWS,
            layout,
            rows,
            columns,
            bias: None,
            activation: Activation::Identity,
        })
    }

    /// The product with a constant added to every output; `None` where the constant differs along other axes than either
    /// rows or columns, or something is added or applied already.
    pub(crate) fn with_bias(mut self, addend: Addend) -> Option<Self> {
        if self.bias.is_some() || self.activation != Activation::Identity {
            return None;
        }
        let stride =
            |axis: &Axis| addend.strides.iter().find(|(output, _)| *output == axis.output).map(|found| found.1);
        let [rows, columns] = &self.layout.axes;
        let varies = |axes: &[Axis]| axes.iter().any(|axis| stride(axis).is_some_and(|stride| stride > 0));
        let known = rows.iter().chain(columns).map(|axis| axis.output);
        let elsewhere =
            addend.strides.iter().any(|(output, stride)| *stride > 0 && !known.clone().any(|o| o == *output));
        let values = |axes: &[Axis]| -> Vec<f32> {
            places(axes, |axis| stride(axis).unwrap_or(0)).into_iter().map(|place| addend.values[place]).collect()
        };
        self.bias = Some(match (varies(rows), varies(columns)) {
            _ if elsewhere => return None,
            (true, true) => return None,
            (_, false) => Bias::Rows(values(rows)),
            (false, true) => {
                let mut values = values(columns);
                values.resize(values.len().next_multiple_of(tile_width()), 0.0);
                Bias::Columns(values)
            }
        });
        Some(self)
    }

    /// The product with a function of every output.
    pub(crate) fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The function of every output.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Computes the output from operands, of which a constant one is not looked at.
    pub(crate) fn run(&self, operands: [&[f32]; 2], output: &mut [f32], scratch: &mut Scratch) {
        let layout = &self.layout;
        let [left, right] = if layout.swapped { [operands[1], operands[0]] } else { operands };
        let mut ready = None;
        for place in &layout.places {
            let columns = if let Some(packed) = &self.columns {
                find(packed, place.right)
            } else {
                if ready != Some(place.right) {
                    pack_columns(&right[place.right..], &layout.depth[1], &layout.columns, &mut scratch.columns);
                    ready = Some(place.right);
                }
                &scratch.columns[..]
            };
            let output = &mut output[place.output..];
            match &self.rows {
                Some(packed) => self.compute(find(packed, place.left), columns, 0, layout.rows.len(), output),
                None => {
                    for (at, rows) in layout.rows.chunks(self.rows_at_once).enumerate() {
                        pack_rows(&left[place.left..], &layout.depth[0], rows, &mut scratch.rows);
                        self.compute(&scratch.rows, columns, at * self.rows_at_once, rows.len(), output);
                    }
                }
            }
        }
    }

    fn compute(&self, panels: &[f32], columns: &[f32], first: usize, rows: usize, output: &mut [f32]) {
        Arch::new().dispatch(Dense {
            panels,
            rows,
            depth: self.layout.depth[0].len(),
            columns,
            offsets: &self.offsets,
            width: self.layout.columns.len(),
            bias: self.bias.as_ref(),
            first,
            activation: self.activation,
            output: &mut output[first * self.layout.stride..],
            stride: self.layout.stride,
        });
    }
}

fn find(packed: &Packed, start: usize) -> &[f32] {
    packed.iter().find(|(at, _)| *at == start).map_or(&[], |(_, values)| values)
}
