//! What a convolution costs by its shape.

use crate::analysis::Layer;
use crate::ir::Graph;
use crate::target::ConvolutionPrices;

/// Values of columns that a second-level cache does not hold.
const FAR: f64 = 8e6;

/// A convolution in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvolutionShape {
    /// Output positions.
    positions: f64,
    /// Kernel positions.
    taps: usize,
    /// Rows of the kernel: positions but for the last axis.
    rows: usize,
    groups: usize,
    /// Input channels of a group.
    inputs: usize,
    /// Output channels of a group.
    outputs: usize,
    /// Axes of the kernel.
    axes: usize,
    /// Whether its positions are dilated along the last axis.
    dilated: bool,
    /// Whether it moves by several positions along the last axis.
    strided: bool,
}

impl ConvolutionShape {
    pub(super) fn of(graph: &Graph, layer: &Layer, macs: f64) -> Option<Self> {
        let node = graph.node(layer.node);
        let groups = usize::try_from(node.int_or("group", 1)).ok().filter(|&n| n > 0)?;
        let (outputs, inputs) = (*layer.shape.first()?, *layer.shape.get(1)?);
        let taps = layer.shape.iter().skip(2).product();
        let rows = layer.shape.iter().rev().skip(1).take(layer.shape.len().saturating_sub(3)).product();
        let (positions, axes) = (macs / layer.weights().max(1) as f64, layer.shape.len().saturating_sub(2));
        let steps = |name: &str| node.ints(name).last().is_some_and(|&step| step > 1);
        let (dilated, strided) = (steps("dilations"), steps("strides"));
        Some(Self { positions, taps, rows, groups, inputs, outputs: outputs / groups, axes, dilated, strided })
    }

    /// With so many more output and input channels.
    pub(super) fn widened(self, [outputs, inputs]: [usize; 2]) -> Self {
        if self.inputs == 1 && self.outputs == 1 {
            return Self { groups: self.groups + outputs, ..self };
        }
        Self { outputs: self.outputs + outputs, inputs: self.inputs + inputs, ..self }
    }

    /// Nanoseconds of its kernel.
    pub(super) fn price(&self, by: &ConvolutionPrices) -> f64 {
        let round_up = |count: usize, lanes: usize| (count.div_ceil(lanes) * lanes) as f64;
        let [positions, taps, rows] = [self.positions, self.taps as f64, self.rows as f64];
        if self.inputs == 1 && self.outputs == 1 {
            let uneven = !self.groups.is_multiple_of(by.depthwise_multiple);
            let kernel = &by.depthwise[self.axes.clamp(1, 3) - 1][usize::from(uneven)];
            let channels = round_up(self.groups, kernel.lanes);
            return positions * (taps * (kernel.tap + kernel.product * channels) + kernel.output * channels);
        }
        let [least, multiple] = by.direct_inputs;
        let direct = self.groups == 1
            && self.inputs >= least
            && self.inputs.is_multiple_of(multiple)
            && self.outputs >= by.direct_outputs;
        let form = self.axes.clamp(1, 3) - 1;
        let (kernel, lanes) = (&by.kernels[form][usize::from(!direct)], by.lanes[form]);
        let fills = direct && by.fills_inputs && self.axes == 2;
        let inputs = if fills { round_up(self.inputs, lanes) } else { self.inputs as f64 };
        let outputs = round_up(self.outputs, lanes);
        let product = if self.outputs <= lanes { kernel.single_product } else { kernel.product };
        let columns = taps * inputs;
        let pieces = rows * kernel.row + if self.dilated { taps * kernel.dilated_tap } else { 0.0 };
        let far = if positions * columns > FAR { kernel.far_column } else { 0.0 };
        let strided = if self.strided { kernel.strided_column } else { 0.0 };
        let gathered = if self.taps > 1 { pieces + columns * (kernel.column + far + strided) } else { 0.0 };
        let grouped = if self.groups > 1 { by.grouped_position } else { 0.0 };
        let fixed = kernel.position + taps * kernel.tap + grouped;
        self.groups as f64 * positions * (outputs * (columns * product + kernel.output) + gathered + fixed)
    }
}
