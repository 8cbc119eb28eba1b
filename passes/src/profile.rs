//! Target profiles: what a runtime has integer kernels for, as data.

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
    /// Moves or selects elements: the output has the input's parameters.
    Movement,
    /// A clamp the output's quantizer does by saturating: the node goes.
    Clamp,
}

/// A target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// The name on the command line.
    pub name: &'static str,
    /// Whether activations are signed 8-bit rather than unsigned.
    pub signed_activations: bool,
    /// Whether weights have one scale a channel rather than one a tensor.
    pub per_channel: bool,
    /// Operators of the default domain with integer kernels.
    pub ops: &'static [(&'static str, Support)],
}

impl Profile {
    /// onnxruntime on x86 CPUs with VNNI or AVX: unsigned activations, signed weights with a scale a channel.
    pub const ORT_CPU: Self = Self {
        name: "ort-cpu",
        signed_activations: false,
        per_channel: true,
        ops: &[
            ("Conv", Support::Layer { float_output: false }),
            ("Gemm", Support::Layer { float_output: true }),
            ("MatMul", Support::Layer { float_output: true }),
            ("Add", Support::Arithmetic),
            ("Mul", Support::Arithmetic),
            ("Sigmoid", Support::Arithmetic),
            ("LeakyRelu", Support::Arithmetic),
            ("GlobalAveragePool", Support::Arithmetic),
            ("AveragePool", Support::Arithmetic),
            ("Concat", Support::Arithmetic),
            ("MaxPool", Support::Movement),
            ("Reshape", Support::Movement),
            ("Flatten", Support::Movement),
            ("Transpose", Support::Movement),
            ("Squeeze", Support::Movement),
            ("Unsqueeze", Support::Movement),
            ("Slice", Support::Movement),
            ("Pad", Support::Movement),
            ("Relu", Support::Clamp),
            ("Clip", Support::Clamp),
        ],
    };

    /// What the target can do with an operator of the default domain.
    pub fn support(&self, op: &str) -> Option<Support> {
        self.ops.iter().find(|(name, _)| *name == op).map(|&(_, support)| support)
    }
}
