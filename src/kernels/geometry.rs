//! How a layer reads its input: y = W·x with W `[O, K]` a group and x a column of K input values at each position.
//!
//! * Conv of weight `[O·G, C/G, k…]`: `y[o, p] = Σ_{c,t} W[o, c·T + t] · x[c, p·stride + t·dilation − pad]`, K = C/G·T
//!   with T = Π k taps, and the weight's rows are stored as they are needed;
//! * Gemm and `MatMul` with a constant right operand: `y[p, o] = Σ_k x[p, k] · W[o, k]`, where the weight is stored as
//!   `[K, O]` unless `transB` is set. Everything before the last axis of the input is positions.
//!
//! One- and two-dimensional convolutions are three-dimensional ones with leading dimensions of 1.

use super::KernelError;
use msq_passes::analysis::{Layer, LayerOp};
use msq_passes::ir::Node;

/// Dimensions of space, with leading ones.
pub(super) type Space = [usize; 3];

/// How a layer reads its input, and where its weights stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    groups: usize,
    outputs: usize,
    inputs: usize,
    pub(super) window: Option<Window>,
    /// Whether the weight is stored as `[K, O]`.
    transposed: bool,
}

/// The window of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) rank: usize,
    pub(super) kernel: Space,
    strides: Space,
    dilations: Space,
    padding: Padding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    /// Values in front of and behind each dimension.
    Explicit(Space, Space),
    /// As much as makes ⌈size/stride⌉ outputs, the odd one behind, or in front if `lower`.
    Same { lower: bool },
}

/// A convolution's window over an input of known size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) input: Space,
    pub(super) output: Space,
    kernel: Space,
    strides: Space,
    dilations: Space,
    before: Space,
}

impl Geometry {
    /// The geometry of a layer and its node; an error says what is not supported.
    pub fn new(layer: &Layer, node: &Node) -> Result<Self, KernelError> {
        if layer.weight_slot != 1 {
            return Err(KernelError::unsupported("the weight is the left operand"));
        }
        match layer.op {
            LayerOp::Conv => Self::convolution(layer, node),
            LayerOp::ConvTranspose => Err(KernelError::unsupported("transposed convolutions are not supported")),
            LayerOp::Gemm if node.int_or("transA", 0) != 0 => {
                Err(KernelError::unsupported("the activation is transposed"))
            }
            LayerOp::Gemm => Self::product(layer, node.int_or("transB", 0) == 0),
            LayerOp::MatMul => Self::product(layer, true),
        }
    }

    fn convolution(layer: &Layer, node: &Node) -> Result<Self, KernelError> {
        let groups = usize::try_from(node.int_or("group", 1)).unwrap_or(0);
        let [all_outputs, channels, kernel @ ..] = layer.shape.as_slice() else {
            return Err(KernelError::unsupported("the weight of the convolution has no channels"));
        };
        if layer.shape.contains(&0) || groups == 0 || all_outputs % groups != 0 {
            return Err(KernelError::unsupported(format!(
                "{groups} groups do not divide the weight {:?}",
                layer.shape
            )));
        }
        let window = Window::new(kernel, node)?;
        let inputs = channels * kernel.iter().product::<usize>();
        Ok(Self { groups, outputs: all_outputs / groups, inputs, window: Some(window), transposed: false })
    }

    fn product(layer: &Layer, transposed: bool) -> Result<Self, KernelError> {
        let &[rows, columns] = layer.shape.as_slice() else {
            return Err(KernelError::unsupported(format!("a weight of rank {} is no matrix", layer.shape.len())));
        };
        let (outputs, inputs) = if transposed { (columns, rows) } else { (rows, columns) };
        if outputs == 0 || inputs == 0 {
            return Err(KernelError::unsupported("the weight is empty"));
        }
        Ok(Self { groups: 1, outputs, inputs, window: None, transposed })
    }

    /// Number of groups, G.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether it is a convolution, whose channels are the second axis of what it reads and writes.
    pub(crate) fn is_window(&self) -> bool {
        self.window.is_some()
    }

    /// Output channels of a group, O.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Values in a column of a group, K.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Whether another layer's columns of the same input are the same: it may have other outputs.
    pub(crate) fn same_columns(&self, other: &Self) -> bool {
        (self.groups, self.inputs, &self.window) == (other.groups, other.inputs, &other.window)
    }

    /// Channels of the input, all groups together.
    pub(super) fn channels(&self) -> usize {
        let taps = self.window.as_ref().map_or(1, |window| window.kernel.iter().product());
        self.groups * self.inputs / taps
    }

    /// Where the value for output `row` and input `column` of a group stands in the weight.
    fn place(&self, group: usize, row: usize, column: usize) -> usize {
        if self.transposed { column * self.outputs + row } else { (group * self.outputs + row) * self.inputs + column }
    }

    /// The rows `[O, K]` of a group, out of a weight (or its integers) as stored.
    pub fn rows<T: Copy>(&self, weight: &[T], group: usize) -> Vec<T> {
        let row = |row| (0..self.inputs).map(move |column| weight[self.place(group, row, column)]);
        (0..self.outputs).flat_map(row).collect()
    }

    /// Puts the rows `[O, K]` of a group where they stand in a weight as stored.
    pub fn put_rows<T: Copy>(&self, rows: &[T], group: usize, weight: &mut [T]) {
        for (row, values) in rows.chunks(self.inputs).enumerate() {
            for (column, &value) in values.iter().enumerate() {
                weight[self.place(group, row, column)] = value;
            }
        }
    }
}

/// The list as three dimensions, the missing leading ones `filler`.
fn space(list: &[i64], rank: usize, filler: usize) -> Option<Space> {
    let mut space = [filler; 3];
    if list.is_empty() {
        return Some(space);
    }
    if list.len() != rank {
        return None;
    }
    for (to, &from) in space[3 - rank..].iter_mut().zip(list) {
        // Beyond that, sizes computed from them could overflow.
        *to = usize::try_from(from).ok().filter(|&size| size < 1 << 31)?;
    }
    Some(space)
}

impl Window {
    fn new(kernel: &[usize], node: &Node) -> Result<Self, KernelError> {
        let rank = kernel.len();
        if !(1..=3).contains(&rank) {
            return Err(KernelError::unsupported(format!("a convolution over {rank} dimensions")));
        }
        let odd = |what: &str| KernelError::unsupported(format!("{what} of the convolution do not fit"));
        let mut sizes = [1; 3];
        sizes[3 - rank..].copy_from_slice(kernel);
        let strides = space(node.ints("strides"), rank, 1).filter(|s| !s.contains(&0)).ok_or_else(|| odd("strides"))?;
        let dilations =
            space(node.ints("dilations"), rank, 1).filter(|d| !d.contains(&0)).ok_or_else(|| odd("dilations"))?;
        let padding = match node.string("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" => Padding::Same { lower: false },
            "SAME_LOWER" => Padding::Same { lower: true },
            "VALID" => Padding::Explicit([0; 3], [0; 3]),
            _ => {
                let pads = node.ints("pads");
                let (before, after) = pads.split_at(pads.len() / 2);
                let both = space(before, rank, 0).zip(space(after, rank, 0));
                both.map(|(before, after)| Padding::Explicit(before, after)).ok_or_else(|| odd("pads"))?
            }
        };
        Ok(Self { rank, kernel: sizes, strides, dilations, padding })
    }

    /// The window over an input of the given size; none if it does not fit once.
    pub(super) fn over(&self, spatial: &[usize]) -> Option<Walk> {
        let mut input = [1; 3];
        if spatial.len() != self.rank {
            return None;
        }
        input[3 - self.rank..].copy_from_slice(spatial);
        let (mut before, mut output) = ([0; 3], [0; 3]);
        for axis in 0..3 {
            let reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            let stride = self.strides[axis];
            let all = match self.padding {
                Padding::Explicit(front, behind) => {
                    before[axis] = front[axis];
                    front[axis] + behind[axis]
                }
                Padding::Same { lower } => {
                    let wanted = input[axis].div_ceil(stride).saturating_sub(1) * stride + reach;
                    let all = wanted.saturating_sub(input[axis]);
                    before[axis] = if lower { all.div_ceil(2) } else { all / 2 };
                    all
                }
            };
            output[axis] = (input[axis] + all).checked_sub(reach)? / stride + 1;
        }
        let Self { kernel, strides, dilations, .. } = *self;
        Some(Walk { input, output, kernel, strides, dilations, before })
    }
}

impl Walk {
    /// Number of positions.
    pub(super) fn positions(&self) -> usize {
        self.output.iter().product()
    }

    /// Number of taps.
    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Where in a channel's plane `tap` reads at `position`; none in the padding.
    pub(super) fn index(&self, position: usize, tap: usize) -> Option<usize> {
        let (at, tap) = (split(position, self.output), split(tap, self.kernel));
        let mut index = 0;
        for axis in 0..3 {
            let place = at[axis] * self.strides[axis] + tap[axis] * self.dilations[axis];
            let place = place.checked_sub(self.before[axis]).filter(|&p| p < self.input[axis])?;
            index = index * self.input[axis] + place;
        }
        Some(index)
    }
}

/// The coordinates of an index in row-major order.
fn split(index: usize, [_, height, width]: Space) -> Space {
    [index / (height * width), index / width % height, index % width]
}
