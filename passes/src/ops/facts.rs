//! What quantization has to know of an operator beyond its schema.

/// Operators of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub enum LayerOp {
    Conv,
    ConvTranspose,
    Gemm,
    MatMul,
}

impl LayerOp {
    /// The operator's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv => "Conv",
            Self::ConvTranspose => "ConvTranspose",
            Self::Gemm => "Gemm",
            Self::MatMul => "MatMul",
        }
    }

    /// Whether the layer reads images, with channels on axis 1 and spatial axes behind it.
    pub fn is_convolution(self) -> bool {
        let operands = super::facts(self.name()).operands;
        operands.is_some_and(|operands| matches!(operands.layout, WeightLayout::Filter { .. }))
    }
}

/// The facts of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The operator.
    pub name: &'static str,
    /// Its domain; the default domain is empty.
    pub domain: &'static str,
    /// The layer it computes, on floats, or on integers where it has [`Trait::Quantized`].
    pub layer: Option<LayerOp>,
    /// Where a weight and a bias stand.
    pub operands: Option<Operands>,
    /// What it becomes between quantizers.
    pub integer: Option<IntegerForm>,
    /// What else holds of it.
    pub traits: &'static [Trait],
}

/// Where the weight and the bias of an operator stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operands {
    /// Inputs at which a constant weight may stand, the likelier one first.
    pub weight: &'static [usize],
    /// The input at which the bias stands.
    pub bias: Option<usize>,
    /// How the weight is stored.
    pub layout: WeightLayout,
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// Two axes of channels in front of the spatial ones. The spatial ones are the operator's `kernel_shape`.
    Filter {
        /// The axis of output channels.
        output: usize,
        /// The axis of input channels.
        input: usize,
    },
    /// A matrix; an attribute for each of the inputs 0 and 1 says that it is transposed.
    Matrix {
        /// The attributes' names.
        transposed: [&'static str; 2],
    },
    /// Matrices on the last two axes.
    Stack,
}

impl WeightLayout {
    /// The axis of a weight along which output channels lie; nothing where the weight has not enough axes. `slot` is
    /// the input that the weight is, `transposed` says whether the attribute named so is set.
    pub fn output_axis(self, slot: usize, rank: usize, transposed: impl Fn(&str) -> bool) -> Option<usize> {
        // Beside input 0 a matrix is the right operand, its columns are the outputs.
        let right = slot != 0;
        match self {
            Self::Filter { output, .. } => (rank >= 3).then_some(output),
            Self::Matrix { transposed: attributes } if rank == 2 => {
                Some(usize::from(right != transposed(attributes[usize::from(right)])))
            }
            Self::Stack if rank >= 2 => Some(if right { rank - 1 } else { rank - 2 }),
            Self::Matrix { .. } | Self::Stack => None,
        }
    }
}

/// What an operator between quantizers becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerForm {
    /// `QLinearConv`.
    Convolution,
    /// `QLinearMatMul`.
    Product,
    /// `QGemm` of onnxruntime, with or without quantized output.
    Layer,
    /// The operator itself, which moves or selects elements whatever they are, from [`Schema::bytes_since`] on.
    ///
    /// [`Schema::bytes_since`]: super::Schema::bytes_since
    Movement,
    /// The operator itself with the zero point as padding, from [`Schema::bytes_since`] on.
    ///
    /// [`Schema::bytes_since`]: super::Schema::bytes_since
    Padding,
    /// The operator itself where all inputs are on the output's grid, else `QLinearConcat` of onnxruntime.
    Joining,
    /// An operator of onnxruntime with a scale and a zero point behind each operand and the result.
    Arithmetic {
        /// Its name.
        operator: &'static str,
        /// How many operands it has.
        operands: usize,
        /// The attributes it shares with the float operator.
        attributes: &'static [&'static str],
    },
    /// `QLinearSoftmax` of onnxruntime, which wants to be told the opset.
    Softmax,
}

impl IntegerForm {
    /// The operator of onnxruntime's domain that the form always needs.
    pub fn contrib(self) -> Option<&'static str> {
        match self {
            Self::Layer => Some("QGemm"),
            Self::Arithmetic { operator, .. } => Some(operator),
            Self::Softmax => Some("QLinearSoftmax"),
            Self::Convolution | Self::Product | Self::Movement | Self::Padding | Self::Joining => None,
        }
    }
}

/// A property of an operator that passes and analyses ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trait {
    /// Adds, subtracts, multiplies or divides two operands, element by element with broadcasting.
    Arithmetic,
    /// Is the input between two bounds and the nearer bound outside.
    Clamp,
    /// Writes each element in its place, as another type or grid.
    Conversion,
    /// Computes a layer together with what onnxruntime fused into it; the weight is input 1.
    FusedLayer,
    /// f(c·x) = c·f(x) for each channel and every c > 0, where input 0 is x.
    Homogeneous,
    /// With one operand, writes that operand.
    IdentityOfOne,
    /// Normalizes input 0, multiplies with input 1 and adds input 2, both per channel.
    Normalization,
    /// Only input 0 is data; inputs behind it are bounds, axes and the like.
    OneOperand,
    /// Reads or writes the integers of quantized values, with their scales.
    Quantized,
    /// What it writes is drawn at random.
    Random,
    /// Writes each element of input 0 once, in its place or elsewhere, as the same type or another.
    Rearrangement,
    /// Runs over a sequence. The weights of its input and of its state are inputs 1 and 2, `[directions, gates, …]`.
    Recurrent,
    /// Is the input where this is positive, up to a bound: an activation function behind a layer.
    Rectifier,
    /// Chooses between inputs 1 and 2, element by element, by the condition at input 0.
    Selection,
    /// Computes shapes, indices and masks more often than values: no user asks why it stays float.
    ShapeArithmetic,
    /// Computes counts, ranks or coordinates, which float16 rounds although it may hold them.
    SinglePrecision,
    /// Reduces spatial axes of an image within each channel.
    Pooling,
    /// Computes each element from the one in its place at input 0; other inputs are numbers.
    Unary,
    /// Computes each element from those in its place in two inputs or more, which are broadcast.
    Binary,
}

impl Facts {
    /// What a row leaves out.
    pub(super) const NONE: Self =
        Self { name: "", domain: "", layer: None, operands: None, integer: None, traits: &[] };

    /// Whether the operator has a property.
    pub fn has(&self, property: Trait) -> bool {
        self.traits.contains(&property)
    }

    /// Whether an input is data that a kernel on integers reads like an activation. Conditions of selections, bounds and
    /// axes are not, nor what a normalization adds, which is written like the bias of a layer.
    pub fn is_data(&self, slot: usize) -> bool {
        let from = usize::from(self.has(Trait::Selection));
        let until = match (self.has(Trait::OneOperand), self.has(Trait::Normalization)) {
            (true, _) => 1,
            (_, true) => 2,
            _ => usize::MAX,
        };
        (from..until).contains(&slot)
    }

    /// The layer that the operator computes on floats.
    pub fn float_layer(&self) -> Option<LayerOp> {
        self.layer.filter(|_| !self.has(Trait::Quantized))
    }

    /// Whether the operator adds a bias, where one is given.
    pub fn takes_bias(&self) -> bool {
        self.operands.is_some_and(|operands| operands.bias.is_some())
    }

    /// The layer that the operator computes on integers, and the input that its weight is.
    pub fn integer_layer(&self) -> Option<(LayerOp, usize)> {
        let layer = self.layer.filter(|_| self.has(Trait::Quantized))?;
        Some((layer, *self.operands?.weight.first()?))
    }

    /// Whether the operator moves or selects elements, or adds padding to them, so that its output is on the input's
    /// grid.
    pub fn is_movement(&self) -> bool {
        matches!(self.integer, Some(IntegerForm::Movement | IntegerForm::Padding))
    }

    /// The input whose spatial axes are the operator's `kernel_shape`.
    pub fn kernel_slot(&self) -> Option<usize> {
        let operands = self.operands.filter(|o| matches!(o.layout, WeightLayout::Filter { .. }))?;
        operands.weight.first().copied()
    }
}
