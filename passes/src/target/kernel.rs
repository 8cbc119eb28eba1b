//! The kernel table of a target: which operators it runs on integers, and how.

/// How an operator takes part in an integer region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// A layer with constant weight: always quantized. `float_output`: the kernel can write floats, so the output is
    /// quantized only where an integer kernel reads it.
    Layer {
        /// Whether the kernel can write floats.
        float_output: bool,
    },
    /// Computes new values from quantized inputs: each output has its own parameters.
    Arithmetic,
    /// A sum that a layer's kernel takes in: one operand is what the layer computes, unquantized, the other is
    /// quantized.
    ResidualSum,
    /// Moves or selects elements: the output has the input's parameters.
    Movement,
    /// Finds elements of a quantized input and writes where they are, which nothing has to quantize.
    Index,
    /// A clamp the output's quantizer does by saturating: the node goes, or stays right before the quantizer where zero
    /// points are 0.
    Clamp,
    /// A factor and an offset per channel: right after a layer they go into its scales and bias.
    Affine,
    /// Costs next to nothing in float, or is gone when the model has been loaded: not worth a warning.
    Free,
}

/// A row of a kernel table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Properties of a row that do not depend on each other.
pub struct Kernel {
    /// The operator, of the default domain.
    pub op: &'static str,
    /// How it takes part.
    pub support: Support,
    /// Whether quantizers are placed around it. Where they are not, the row says what the target makes of a model
    /// that another tool quantized.
    pub placed: bool,
    /// Whether the runtime moves quantizers across it, so that a kernel on its other side meets them.
    pub crossed: bool,
    /// Whether quantizing writes the node on the integers themselves rather than between `DequantizeLinear` and
    /// `QuantizeLinear`.
    pub on_integers: bool,
    /// Whether the node runs on integers only where it stands on integers in the file: between `DequantizeLinear` and
    /// `QuantizeLinear` the runtime computes in float.
    pub fused_only: bool,
    /// Whether the kernel of a layer multiplies two activations as well.
    pub two_activations: bool,
    /// Whether quantizers have to stand in front of a movement: the runtime computes one behind it wrong.
    pub leads: bool,
    /// Whether a movement also interpolates linearly between elements, and rounds the result to the input's grid.
    pub interpolates: bool,
    /// What a node must keep to for the kernel to take it.
    pub limits: &'static [Limit],
}

/// A condition under which alone a kernel takes a node. Attributes are given with the value that their absence stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Input 0 has so many axes, at least and at most, where their number is known.
    Axes(usize, usize),
    /// It has so many inputs.
    Inputs(usize),
    /// An input, where there is one, is a constant.
    Constant(usize),
    /// An input is one constant number above 0.
    PositiveNumber(usize),
    /// The attribute `axis`, −1 where absent, is the last axis of input 0.
    LastAxis,
    /// An attribute is this integer, which is also what its absence stands for.
    Integer(&'static str, i64),
    /// An attribute is one of these strings, the first of which its absence stands for.
    Text(&'static str, &'static [&'static str]),
    /// Not all of these attributes have these values: name, value where absent, value.
    Never(&'static [(&'static str, &'static str, &'static str)]),
}

impl Kernel {
    const fn new(op: &'static str, support: Support) -> Self {
        Self {
            op,
            support,
            placed: true,
            crossed: false,
            on_integers: false,
            fused_only: false,
            two_activations: false,
            leads: false,
            interpolates: false,
            limits: &[],
        }
    }

    /// The same row for an operator that quantizers are not placed around.
    pub(super) const fn not_placed(self) -> Self {
        Self { placed: false, ..self }
    }

    /// The same row for an operator that quantizers are moved across.
    pub(super) const fn crossed(self) -> Self {
        Self { crossed: true, ..self }
    }

    /// The same row for an operator that quantizing writes on the integers themselves.
    pub(super) const fn on_integers(self) -> Self {
        Self { on_integers: true, ..self }
    }

    /// The same row for an operator that runs on integers only where it stands on integers in the file.
    pub(super) const fn fused_only(self) -> Self {
        Self { on_integers: true, fused_only: true, ..self }
    }

    /// The same row for a layer whose kernel multiplies two activations as well.
    pub(super) const fn two_activations(self) -> Self {
        Self { two_activations: true, ..self }
    }

    /// The same row for a movement that quantizers have to stand in front of.
    pub(super) const fn leads(self) -> Self {
        Self { leads: true, ..self }
    }

    /// The same row for a movement that also interpolates linearly.
    pub(super) const fn interpolates(self) -> Self {
        Self { interpolates: true, ..self }
    }

    /// The same row for a kernel that takes only nodes that keep to these limits.
    pub(super) const fn within(self, limits: &'static [Limit]) -> Self {
        Self { limits, ..self }
    }

    /// Whether a node of this operator between quantizers runs on integers, or is gone.
    pub fn runs_on_integers(&self) -> bool {
        match self.support {
            Support::Affine | Support::Free => false,
            _ => !self.fused_only,
        }
    }
}

/// A layer whose kernel writes integers only.
pub(super) const fn layer(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Layer { float_output: false })
}

/// A layer whose kernel writes integers or floats.
pub(super) const fn layer_or_float(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Layer { float_output: true })
}

pub(super) const fn arithmetic(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Arithmetic)
}

pub(super) const fn residual_sum(op: &'static str) -> Kernel {
    Kernel::new(op, Support::ResidualSum)
}

pub(super) const fn movement(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Movement)
}

pub(super) const fn index(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Index)
}

/// An operator that is not quantized and costs nothing to speak of.
pub(super) const fn free(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Free).not_placed()
}

const fn clamp(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Clamp)
}

const fn affine(op: &'static str) -> Kernel {
    Kernel::new(op, Support::Affine)
}

/// What quantizers and layers take in on every target.
pub(super) const ABSORBED: &[Kernel] = &[clamp("Relu"), clamp("Clip"), affine("BatchNormalization")];

/// Movements that most runtimes do on 8-bit integers.
pub(super) const MOVEMENTS: &[Kernel] = &[
    movement("MaxPool"),
    movement("Reshape"),
    movement("Flatten"),
    movement("Transpose"),
    movement("Squeeze"),
    movement("Unsqueeze"),
    movement("Slice").on_integers(),
    movement("Pad").on_integers(),
];
