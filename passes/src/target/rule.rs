//! The names of the linter's rules, by which a target says which of them it adds. Their checks are in `lint`.

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The target refuses the model, or computes something else than it says.
    Error,
    /// The model runs, but slower or less exact than it could.
    Warning,
}

impl Severity {
    /// The word in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A rule whose severity the fields of a profile do not settle: a target lists it to add it, or to make a warning of
/// every target an error of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleId {
    /// Every axis of every input has to be stated.
    DynamicShape,
    /// Activations have to be of the type that the profile names.
    ActivationType,
    /// Activations have to have one scale.
    ActivationPerChannel,
    /// Zero points have to be written out, also those that are 0.
    ZeroPointMissing,
    /// Weights have to be int8.
    WeightType,
    /// Weights have to have the zero point 0.
    WeightZeroPoint,
    /// `DequantizeLinear` of 4-bit constants is not folded.
    LowBitWeight,
    /// `DequantizeLinear` of 2-bit integers fails.
    TwoBitWeight,
    /// INT4 weights need one scale per block and a float activation.
    Int4NotBlocked,
    /// An operator with an integer kernel runs in float when one operand is float.
    FloatOperand,
    /// What is not quantized does not run on the accelerator.
    FloatOperator,
    /// The target matches patterns as onnxruntime does: the linter predicts which nodes it leaves in float.
    StaysFloat,
    /// The target puts another operator in a node's place, or moves layouts across it, and then fails.
    OperatorRefused,
    /// Weights of `LSTM`, `GRU` and bodies of `Scan` have to be constants.
    DecodedWeight,
    /// An `AveragePool` that counts its padding pads integers with 0.
    PaddedAverage,
    /// A bias of a convolution is added wrongly where shapes are open and read.
    OpenShapeBias,
    /// A weight on the left of a product with a vector has to be a constant.
    DecodedByVector,
    /// Inputs of type double that quantizers or arithmetic with constants read are refused.
    DoubleValue,
}
