//! Targets: what each runtime has integer kernels for, how it wants numbers written, what the linter checks for it
//! and what its users have to know, as data. One file per target.
//!
//! Everything else derives from here: where quantizers go ([`analysis`](crate::analysis)), what
//! [`lint`](crate::lint) says, the tables of `docs/profiles.md`. No code outside asks which target it has.

mod blocks;
mod forms;
mod kernel;
mod note;
mod price;
mod rule;

mod openvino;
mod ort_arm;
mod ort_cpu;
mod qnn;
mod tensorrt;
mod tract;

#[cfg(test)]
mod tests;

pub use blocks::Blocks;
pub use forms::Forms;
pub(crate) use forms::needs_constants;
pub use kernel::{Kernel, Limit, Support};
pub use note::{Choice, Note};
pub use price::Prices;
pub(crate) use price::{ConvolutionPrices, Counted, OperatorPrice};
pub use rule::{RuleId, Severity};

/// The integers of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationGrid {
    /// 0 to 255, the zero point follows the range.
    Unsigned,
    /// −128 to 127, the zero point follows the range.
    Signed,
    /// −128 to 127, the zero point is 0.
    Symmetric,
}

/// What a target makes of activations of 16 bits, uint16 or int16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WideActivations {
    /// It does not read them, or computes something else than the file says.
    Refused,
    /// The quantizers run as they stand, and what is between them computes in float.
    Float,
    /// There are kernels for them.
    Kernels,
}

/// How the bias of a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// int32 at input scale × weight scale.
    Int32,
    /// As it is: the runtime rounds it, or adds it in float.
    Float,
}

/// A target.
#[derive(Clone, Copy, Debug, PartialEq)]
// A table of what a target can do, each column a fact of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Profile {
    /// The name on the command line.
    pub name: &'static str,
    /// The runtime in words, with the oldest version the default form of a packed file runs at full speed on.
    pub runtime: &'static str,
    /// The integers of activations.
    pub activations: ActivationGrid,
    /// What becomes of layers and operators between activations of 16 bits.
    pub wide_activations: WideActivations,
    /// Whether weights have one scale per channel rather than one per tensor.
    pub per_channel: bool,
    /// What is run of weights with one scale per block; nothing where none are.
    pub blocks: Option<Blocks>,
    /// How biases are written.
    pub bias: BiasForm,
    /// Whether convolutions with a float bias run on integers all the same, so that the smallest file leaves it float.
    pub rounds_float_bias: bool,
    /// Whether what is not quantized runs elsewhere: operators with integer kernels are quantized although float nodes
    /// compute what they read, layer normalizations and Gelus that are written out become one node, and masked scores get
    /// a bound that a quantizer can hold.
    pub integers_only: bool,
    /// Whether graph outputs are quantized when an integer kernel computes them; never where false.
    pub quantized_outputs: bool,
    /// Whether quantizers may have float16 scales, so that no casts stand around them where the rest computes in float16.
    pub half_quantizers: bool,
    /// Whether INT4 constants may be cast to int8.
    pub int4_cast: bool,
    /// Whether operators on constants are folded when the file is loaded: gathers that decode trellis codes, so that few
    /// bits mean these codes unless something else is asked for, and casts of scales that are stored in half precision.
    pub folds_decoders: bool,
    /// Whether operators on constants are folded in sub-graphs as well, where the constants are those of the graph around,
    /// and kernels there want constants of their own graph.
    pub folds_in_subgraphs: bool,
    /// Whether `QLinearConv` and `QLinearMatMul` are run.
    pub qlinear: bool,
    /// Whether `ConvInteger` and `MatMulInteger` are run.
    pub integer: bool,
    /// Whether products of integers on ranges found at run time are fast: `DynamicQuantizeLinear` and `MatMulInteger`.
    pub dynamic: bool,
    /// Whether functions of the model itself are run.
    pub functions: bool,
    /// Whether operators of the domain `com.microsoft` are run.
    pub contrib: bool,
    /// The highest operator set of the default domain.
    pub highest_opset: i64,
    /// Operators of the default domain with integer kernels, in parts; no operator stands twice.
    pub kernels: &'static [&'static [Kernel]],
    /// Whether a `MatMul` and the `Add` of a vector behind it are joined to a `Gemm` before integers are looked for, so
    /// that the vector has to stand on integers as the bias of a layer does.
    pub joins_sums: bool,
    /// Whether the runtime computes elementwise functions of what a layer writes within the layer, unless quantizers stand in
    /// between.
    pub joins_activations: bool,
    /// Whether the kernel of a layer that may write floats writes integers only where one clamp reads it.
    pub clamps_need_quantizer: bool,
    /// Forms that the target does not take.
    pub forms: Forms,
    /// What operators cost, where that is known: what integers would make slower stays float.
    pub prices: Option<&'static Prices>,
    /// Whether what is slower on integers by these prices stays in float.
    pub leaves_slow: bool,
    /// Rules of the linter that the target adds, or that are stricter for it than elsewhere. Rules for every target
    /// and those that follow from the fields above are not listed.
    pub rules: &'static [(RuleId, Severity)],
    /// What its users have to know, in the order in which it is said.
    pub notes: &'static [Note],
}

impl Profile {
    /// Every target, in the order of the documentation.
    pub const ALL: &'static [Self] =
        &[Self::ORT_CPU, Self::ORT_ARM, Self::TENSORRT, Self::OPENVINO, Self::QNN, Self::TRACT];

    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|profile| profile.name == name)
    }

    /// The names of all profiles, with `", "` between them.
    pub fn names() -> String {
        Self::ALL.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
    }

    /// The rows of the kernel table.
    pub fn all_kernels(&self) -> impl Iterator<Item = &'static Kernel> + use<> {
        self.kernels.iter().copied().flatten()
    }

    /// What the target makes of an operator of the default domain, whoever quantized it.
    pub fn kernel(&self, op: &str) -> Option<&'static Kernel> {
        self.all_kernels().find(|kernel| kernel.op == op)
    }

    /// How an operator of the default domain takes part where quantizers are placed; nothing where none are placed
    /// around it.
    pub fn support(&self, op: &str) -> Option<Support> {
        self.kernel(op).filter(|kernel| kernel.placed).map(|kernel| kernel.support)
    }

    /// The severity that the target gives a rule, where it lists it.
    pub fn listed(&self, rule: RuleId) -> Option<Severity> {
        self.rules.iter().find(|(id, _)| *id == rule).map(|&(_, severity)| severity)
    }

    /// What its users have to know of their choices.
    pub fn notes_about(&self, made: impl Fn(Choice) -> bool) -> impl Iterator<Item = &'static str> {
        self.notes.iter().filter(move |note| made(note.about)).map(|note| note.text)
    }
}
