//! What operators cost a runtime in float and on integers, as data.
//!
//! Prices are nanoseconds on one thread of a current CPU, fitted to single nodes of many shapes. They decide where
//! integers do not pay, so what matters is the ratio of two prices and not the processor.

/// Prices of a runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// A node in float, or a quantizer, whatever it does.
    pub node: f64,
    /// A node on integers, whatever it does.
    pub integer_node: f64,
    /// `QuantizeLinear`, per element.
    pub quantize: f64,
    /// `DequantizeLinear`, per element.
    pub dequantize: f64,
    /// `Conv` in float.
    pub float_convolution: ConvolutionPrices,
    /// `Conv` on integers.
    pub integer_convolution: ConvolutionPrices,
    /// `Gemm` and `MatMul` in float.
    pub float_product: ProductPrices,
    /// `Gemm` and `MatMul` on integers.
    pub integer_product: ProductPrices,
    /// Other operators.
    pub operators: &'static [OperatorPrice],
    /// Any operator without a row: it moves elements.
    pub movement: OperatorPrice,
}

/// What the prices of an operator are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Elements of the output.
    Output,
    /// Elements of input 0.
    Input,
    /// Elements of the output times positions of the kernel.
    Windows,
}

/// An operator's prices, in nanoseconds for each of what is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatorPrice {
    /// The operator.
    pub op: &'static str,
    /// What is counted.
    pub counted: Counted,
    /// In float.
    pub float: f64,
    /// On integers.
    pub integer: f64,
}

/// Prices of a convolution with P output positions, T kernel positions, groups of C input and O output channels, where
/// output channels are computed `lanes` at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvolutionPrices {
    /// Output channels computed together.
    pub lanes: usize,
    /// Per product, P·T·C·O for each group, with O rounded up to lanes.
    pub product: f64,
    /// Per position, P for each group.
    pub position: f64,
    /// The same in its place, where the inputs are fewer than the lanes: as they lie, they fill no lanes.
    pub planar_position: f64,
    /// The same, in addition, where there is more than one group.
    pub grouped_position: f64,
    /// Per position and row of the kernel, where columns have to be gathered.
    pub row: f64,
    /// Per element of the gathered columns, P·T·C for each group.
    pub column: f64,
    /// Input channels that a kernel without gathered columns needs a multiple of, where output channels fill its lanes.
    pub direct: Option<usize>,
    /// Per position and kernel position of that kernel, P·T.
    pub direct_tap: f64,
    /// Per kernel position of a depthwise convolution, P·T, whatever the number of channels.
    pub depthwise_position: f64,
    /// Per product of a depthwise convolution, P·T·C, with C rounded up to `depthwise_lanes`.
    pub depthwise_product: f64,
    /// Channels of a depthwise convolution computed together.
    pub depthwise_lanes: usize,
}

/// Prices of a matrix product of M rows with a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductPrices {
    /// Per weight.
    pub weight: f64,
    /// Per weight and row.
    pub product: f64,
}
