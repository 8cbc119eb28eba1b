//! Flags for bits and for the form of the output.

// Doc comments here are help texts, which show backticks as they are.
#![allow(clippy::doc_markdown)]

use super::search::{self, Activations};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use msq_onnx::calibrate::ObserverKind;
use msq_onnx::exchange::Encodings;
use msq_onnx::solve::SolverRow;
use msq_onnx::{
    ActivationBits, BatchNorm, BitPlan, CalibrateOptions, EndBits, Error, Format, LayerPlan, Options, OutputOptions,
    PackingForm, PrepareOptions, RoundingMode, SchemeOptions, SolveOptions, SolverName, WeightBits, WeightGrid,
};
use msq_passes::Profile;
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Bits, and what the output looks like.
#[derive(Args, Debug)]
// Flags, each of its own.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct FormArgs {
    /// How activation ranges are chosen: min-max, moving-average, percentile[:P], entropy, mse or cosine
    #[arg(long, value_name = "NAME", default_value = "mse", help_heading = "Quantization")]
    observer: ObserverKind,
    /// Leave layers float: a name, or a regular expression for whole names; may be given again
    #[arg(long, value_name = "NAME|REGEX", help_heading = "Quantization")]
    skip: Vec<String>,
    /// Leave all nodes of an operator float; may be given again
    #[arg(long, value_name = "OP", help_heading = "Quantization")]
    keep_float: Vec<String>,
    /// Bits of the weights: 2 to 8, ternary or binary [default: 8 without a target]
    #[arg(long, value_name = "BITS", conflicts_with_all = search::FLAGS, help_heading = "Quantization")]
    weight_bits: Option<WeightBits>,
    /// Bits of the activations layers read: 2 to 8, float for weights alone, or same as the weights [default: 8]
    #[arg(long, value_name = "BITS", help_heading = "Quantization")]
    act_bits: Option<Activations>,
    /// Bits of the first and the last layers, weights and activations: 2 to 8, or same for those of all layers [default:
    /// activations of at least 8]
    #[arg(long, value_name = "BITS", help_heading = "Quantization")]
    first_last_bits: Option<EndBits>,
    /// Integers of the weights; full below 8 bits, narrow at 8 unless given
    #[arg(long, value_name = "GRID", conflicts_with_all = search::FLAGS, help_heading = "Quantization")]
    grid: Option<GridArg>,
    /// How weights become integers [default: gram below 8 bits, round at 8]
    #[arg(long, value_name = "NAME", value_parser = solvers(), help_heading = "Quantization")]
    pub(crate) solver: Option<SolverName>,
    /// Every how many positions of an activation gram looks at one; 1 for all
    #[arg(long, value_name = "N", default_value = "8", help_heading = "Quantization")]
    pub(crate) position_step: NonZero<usize>,
    /// Mini-batches adaround and lsq look at for each layer
    #[arg(long, value_name = "N", default_value = "2000", help_heading = "Quantization")]
    pub(crate) solver_steps: NonZero<usize>,
    /// Which integer the solver round takes for a weight between two; stochastic makes it the solver
    #[arg(long, value_name = "MODE", default_value = "nearest", help_heading = "Quantization")]
    pub(crate) rounding: RoundingArg,
    /// A bit plan: bits layer by layer, as --save-plan writes it, or a model that was quantized with it
    #[arg(long, value_name = "PATH", conflicts_with_all = search::FLAGS, help_heading = "Quantization")]
    #[arg(conflicts_with_all = ["weight_bits", "act_bits", "first_last_bits", "grid", "packing"])]
    plan: Option<PathBuf>,
    /// Scales, zero points and bits of tensors in the place of calibrated ones: encodings of AIMET (0.5 to 2), a JSON of
    /// onnxruntime's TensorQuantOverrides, or a TensorRT calibration cache
    #[arg(long, value_name = "PATH", conflicts_with_all = search::FLAGS, help_heading = "Quantization")]
    encodings: Option<PathBuf>,
    /// Write the bit plan that was carried out
    #[arg(long, value_name = "PATH", help_heading = "Quantization")]
    pub(crate) save_plan: Option<PathBuf>,
    /// Whether batch-norms are multiplied into the weights or into their scales
    #[arg(long, value_name = "FORM", default_value = "fold", help_heading = "Quantization")]
    pub(crate) batch_norm: BatchNormArg,
    /// Scale channels between layers to equal ranges; with targets of one scale a tensor this is so anyway
    #[arg(long, help_heading = "Quantization", conflicts_with = "no_equalize")]
    equalize: bool,
    /// Leave the channels as they are, whatever the target
    #[arg(long, help_heading = "Quantization")]
    no_equalize: bool,
    /// Leave biases as they are: do not take back what rounding weights does to the means of outputs
    #[arg(long, help_heading = "Quantization")]
    pub(crate) no_bias_correction: bool,
    /// The target: ort-cpu, ort-arm, tensorrt, openvino, qnn or tract
    #[arg(long, value_name = "NAME", default_value = "ort-cpu", value_parser = profile, help_heading = "Output")]
    pub(crate) profile: Profile,
    /// The operators quantized layers are written as
    #[arg(long, value_name = "FORM", default_value = "qdq", help_heading = "Output")]
    pub(crate) format: FormatArg,
    /// How weights below 8 bits are stored [default: auto]
    #[arg(long, value_name = "FORM", conflicts_with_all = search::FLAGS, help_heading = "Output")]
    packing: Option<PackingArg>,
    /// Unpack weights by functions of the model, for onnxruntime
    #[arg(long, help_heading = "Output")]
    pub(crate) functions: bool,
    /// Round the scales of weights to half precision and store them so; biases too where that moves outputs by less than
    /// a sixteenth of a step
    #[arg(long, help_heading = "Output")]
    pub(crate) half_scales: bool,
}

/// A choice on the command line that stands for one in the library.
macro_rules! choices {
    ($($(#[$doc:meta])* $arg:ident => $target:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(clap::ValueEnum, Clone, Copy, Debug)]
            pub(crate) enum $arg { $($(#[$variant_doc])* $variant),* }

            impl From<$arg> for $target {
                fn from(arg: $arg) -> Self {
                    match arg { $($arg::$variant => Self::$variant),* }
                }
            }
        )*
    };
}
pub(crate) use choices;

choices! {
    GridArg => WeightGrid {
        /// −(2^(b−1) − 1) to 2^(b−1) − 1
        Narrow,
        /// −2^(b−1) to 2^(b−1) − 1
        Full,
        /// The full ones on scales 2^−FL: fixed point
        FixedPoint,
        /// The narrow ones on scales 2^(1−b) times a power of two
        Wage,
        /// −1 and 1, for binary weights
        Sign,
        /// 0, ±1, ±2, ±4 and so on, for 2 to 4 bits
        PowerOfTwo,
        /// Sums of b factors with either sign chosen for the layer, for 2 to 6 bits
        BinaryBases,
        /// 2^b integers of 8 bits chosen for the layer, for 2 to 7 bits
        Codebook,
    }
    PackingArg => PackingForm {
        /// Digits in bytes and a table, which runs everywhere
        Auto,
        /// A byte each
        None,
        /// INT4 tensors, for 4 bits; opset 21
        Int4,
        /// INT2 tensors, for 2 bits; opset 25, for the few runtimes that take it
        Int2,
    }
    RoundingArg => RoundingMode {
        /// The nearer one
        Nearest,
        /// Either by chance, by --seed, so that the mean is the weight
        Stochastic,
    }
    FormatArg => Format {
        /// Float operators between DequantizeLinear and QuantizeLinear
        Qdq,
        /// QLinearConv, QLinearMatMul and their kin
        Qlinear,
        /// ConvInteger and MatMulInteger, scales and offsets in float; slow in onnxruntime
        Integer,
    }
    BatchNormArg => BatchNorm {
        /// Into the weights, which are rounded then
        Fold,
        /// Into the scales of weights rounded as they are
        Affine,
    }
}

/// The solvers by name, with their help.
fn solvers() -> impl TypedValueParser<Value = SolverName> {
    let values = SolverRow::all().map(|row| PossibleValue::new(row.name).help(row.help));
    PossibleValuesParser::new(values).try_map(|name| name.parse())
}

fn profile(name: &str) -> Result<Profile, String> {
    let names = || Profile::ALL.map(|profile| profile.name).join(", ");
    Profile::by_name(name).ok_or_else(|| format!("the profiles are {}", names()))
}

impl FormArgs {
    /// A plan from a file says all there is to say.
    pub(crate) fn ends(&self) -> EndBits {
        if self.plan.is_some() { EndBits::Same } else { self.first_last_bits.unwrap_or_default() }
    }

    pub(crate) fn equalize(&self) -> Option<bool> {
        (self.equalize || self.no_equalize).then_some(self.equalize)
    }

    pub(crate) fn plan(&self) -> Result<BitPlan, Error> {
        if let Some(path) = &self.plan {
            return Ok(BitPlan::load(path)?);
        }
        let weights = self.weight_bits.unwrap_or(WeightBits::Bits(8));
        let activations = match (self.act_bits, weights) {
            (Some(Activations::Same), _) | (None, WeightBits::Float) => weights.same_of_activations(),
            (Some(Activations::Fixed(bits)), _) => bits,
            (None, _) => ActivationBits::Bits(8),
        };
        Ok(BitPlan::uniform(LayerPlan {
            weights,
            activations,
            grid: self.grid.map(Into::into),
            packing: self.packing.map(Into::into).unwrap_or_default(),
        }))
    }

    /// The files it names to be read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.plan.iter().chain(&self.encodings).map(PathBuf::as_path)
    }

    /// The flag that says what weights become, if one does.
    pub(crate) fn fixes_bits(&self) -> Option<&'static str> {
        let given = [
            (self.weight_bits.is_some(), "--weight-bits"),
            (self.plan.is_some(), "--plan"),
            (self.encodings.is_some(), "--encodings"),
            (self.grid.is_some(), "--grid"),
            (self.packing.is_some(), "--packing"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// Bits of activations while bits of weights are searched for; nothing where they go with the weights.
    pub(crate) fn activations(&self) -> Option<ActivationBits> {
        match self.act_bits {
            Some(Activations::Same) => None,
            Some(Activations::Fixed(bits)) => Some(bits),
            None => Some(ActivationBits::Bits(8)),
        }
    }

    /// What the flags here choose.
    pub(crate) fn options(&self) -> Result<Options, Error> {
        Ok(Options {
            prepare: PrepareOptions { batch_norm: self.batch_norm.into(), equalize: self.equalize() },
            scheme: SchemeOptions {
                profile: self.profile,
                plan: self.plan()?,
                first_last_bits: self.ends(),
                encodings: self.encodings.as_deref().map(Encodings::load).transpose()?.unwrap_or_default().into(),
                skip: self.skip.clone(),
                keep_float: self.keep_float.clone(),
            },
            calibrate: CalibrateOptions { observer: self.observer },
            solve: SolveOptions {
                solver: self.solver.clone(),
                rounding: self.rounding.into(),
                bias_correction: !self.no_bias_correction,
                position_step: self.position_step.get(),
                solver_steps: self.solver_steps.get(),
            },
            output: OutputOptions {
                format: self.format.into(),
                functions: self.functions,
                half_scales: self.half_scales,
                ..OutputOptions::default()
            },
            ..Options::default()
        })
    }
}
