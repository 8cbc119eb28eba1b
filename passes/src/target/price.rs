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
    /// Weights in float that are far from the processor.
    pub far: FarPrices,
    /// `Gemm` on integers.
    pub integer_gemm: IntegerProductPrices,
    /// `MatMul` on integers.
    pub integer_product: IntegerProductPrices,
    /// Whether a convolution in float over one column takes longer where it pads that column than behind a `Pad`.
    pub padded_columns: bool,
    /// Whether quantizers are moved in front of pools and what only moves elements when a file is loaded.
    pub moves_quantizers: bool,
    /// Whether a `PRelu` takes longer than the product and the maximum that are the same.
    pub splits_slopes: bool,
    /// A product or sum on integers where one operand is repeated for every row of the last axis, or, on integers that lie
    /// channels together, has one value per channel: per row or position.
    pub repeated: f64,
    /// A `Transpose` of integers that lie channels together and whose channels are on several axes, per element: it becomes
    /// one with the change of the layout, and moves single bytes.
    pub scattered: f64,
    /// A linear `Resize` in float, per element that it writes, more where it reads what a convolution on integers writes:
    /// convolutions in float leave channels as its faster kernel wants them.
    pub planar_resize: f64,
    /// A hard swish that a convolution in float takes in, per element.
    pub hard_swish: f64,
    /// Rows looked up in a table of integers.
    pub lookup: LookupPrices,
    /// Other operators.
    pub operators: &'static [OperatorPrice],
    /// Any operator without a row: it moves elements.
    pub movement: OperatorPrice,
}

/// What weights take more where a network has more of them than stay near the processor from one run to the next. Integers
/// are a quarter as many bytes, and products do not read them faster than they multiply them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FarPrices {
    /// Bytes of the weights of all layers that stay near.
    pub near_bytes: f64,
    /// Per weight in float that is read: K·N of a product, T·C·O of a convolution.
    pub weight: f64,
    /// Per weight of a convolution on integers.
    pub integer: f64,
}

/// What it takes more to look rows up in a table of integers with one scale per row, and to make floats of them, than in one
/// of floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookupPrices {
    /// Per lookup: nodes for the scales, for a cast and for a product.
    pub lookup: f64,
    /// Per row that is looked up.
    pub row: f64,
    /// Per value that is looked up.
    pub value: f64,
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
    /// In float on what lies channel by channel, not in the blocks of channels that convolutions in float write.
    pub float_planar: f64,
    /// On integers.
    pub integer: f64,
    /// On integers that lie channel by channel, not channels together as convolutions on integers write them.
    pub planar: f64,
    /// On integers that lie channels together, per position of the output.
    pub position: f64,
}

/// Prices of a convolution with P output positions, T kernel positions, groups of C input and O output channels, where
/// output channels are computed `lanes` at a time. `bench/prices.py` fits them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvolutionPrices {
    /// Output channels computed together, by the axes of the weight's kernel, one, two, three or more.
    pub lanes: [usize; 3],
    /// By the axes of the weight's kernel, one, two, three or more: of the runtime's kernel that reads its input where it
    /// lies, and of the one that gathers columns of it first and takes all others.
    pub kernels: [[KernelPrices; 2]; 3],
    /// Input channels that the first of them needs at least, and a multiple of which it needs.
    pub direct_inputs: [usize; 2],
    /// Output channels that it needs at least.
    pub direct_outputs: usize,
    /// Whether it fills input channels up to lanes, with a kernel of two axes.
    pub fills_inputs: bool,
    /// Whether kernel positions outside of the image are left out, with a kernel of two axes: of an image of one position, one
    /// of the nine that a kernel of 3×3 has is left.
    pub skips_padding: bool,
    /// Per weight that any position meets.
    pub weight: f64,
    /// By the axes of the weight's kernel, one, two, three or more: of several groups whose input and output channels are each
    /// a multiple of the lanes, and of all others that are not depthwise.
    pub grouped: [[GroupedPrices; 2]; 3],
    /// By the axes of the weight's kernel, one, two, three or more: of depthwise convolutions whose channels are a multiple of
    /// `depthwise_multiple`, and of all others.
    pub depthwise: [[DepthwisePrices; 2]; 3],
    /// Channels a multiple of which the faster kernel for depthwise convolutions needs.
    pub depthwise_multiple: usize,
}

/// What a convolution of several groups takes, for each of them: the runtime gathers columns for every group and multiplies
/// small matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupedPrices {
    /// Output channels computed together.
    pub lanes: usize,
    /// Whatever its size.
    pub group: f64,
    /// Per product, P·T·C·O with O rounded up to lanes.
    pub product: f64,
    /// Per value of the columns of a kernel of several positions, P·T·C.
    pub column: f64,
    /// Per position and row of a kernel of several positions.
    pub row: f64,
    /// Per value written, P·O with O rounded up to lanes.
    pub output: f64,
}

/// What one kernel for depthwise convolutions takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthwisePrices {
    /// Channels computed together.
    pub lanes: usize,
    /// Per position and kernel position, P·T, whatever the number of channels.
    pub tap: f64,
    /// Per product, P·T·C with C rounded up to lanes.
    pub product: f64,
    /// Per value written, P·C with C rounded up to lanes.
    pub output: f64,
    /// Per weight, T·C.
    pub weight: f64,
}

/// What one kernel for convolutions of one group takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelPrices {
    /// Per product, P·T·C·O with O rounded up to lanes.
    pub product: f64,
    /// The same in its place, where the output channels are one vector of lanes.
    pub single_product: f64,
    /// Per position, P.
    pub position: f64,
    /// Per value written, P·O with O rounded up to lanes.
    pub output: f64,
    /// Per position and row of a kernel of several positions.
    pub row: f64,
    /// Per position and kernel position, P·T, more where these are dilated along the last axis: then no row lies in one piece.
    pub dilated_tap: f64,
    /// Per position and kernel position, P·T.
    pub tap: f64,
    /// Per value of the columns of a kernel of several positions, P·T·C.
    pub column: f64,
    /// The same more where the kernel moves by several positions along the last axis.
    pub strided_column: f64,
    /// The same more where all columns together are more than a second-level cache holds.
    pub far_column: f64,
}

/// Prices of a matrix product of M rows of K values with a weight of K rows and N columns. `bench/node_prices.py` fits them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductPrices {
    /// Beside what any node takes.
    pub node: f64,
    /// Per column, N: of a scale that is computed in every run.
    pub column: f64,
    /// Per weight, K·N.
    pub weight: f64,
    /// Per weight and row, M·K·N.
    pub product: f64,
    /// Per value read, M·K.
    pub input: f64,
    /// Per value written, M·N.
    pub output: f64,
}

impl ProductPrices {
    /// The price of a product, beside that of any node.
    pub(crate) fn of(&self, [rows, inputs, columns]: [f64; 3]) -> f64 {
        let weights = inputs * columns;
        self.node
            + columns * self.column
            + weights * (self.weight + rows * self.product)
            + rows * (inputs * self.input + columns * self.output)
    }
}

/// Prices of a matrix product on integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntegerProductPrices {
    /// Where it writes floats.
    pub floats: ProductPrices,
    /// Where it writes integers.
    pub integers: ProductPrices,
}
