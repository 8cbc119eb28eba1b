//! What a caller can choose about the canonical form.

use super::FixedInput;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a batch-norm behind a layer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// Multiplied into the weights before these are rounded.
    #[default]
    Fold,
    /// Multiplied into the scales of weights that are rounded as they are.
    Affine,
}

/// Which initializers that are graph inputs as well, so that a caller may override them, become constants.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum FreezeInitializers {
    /// Weights; all where the file lists every initializer among its inputs.
    #[default]
    Weights,
    /// All.
    All,
    /// None: layers whose weights a caller may override stay in float.
    None,
}

impl From<FreezeInitializers> for msq_passes::Freeze {
    fn from(which: FreezeInitializers) -> Self {
        match which {
            FreezeInitializers::Weights => Self::Weights,
            FreezeInitializers::All => Self::All,
            FreezeInitializers::None => Self::Nothing,
        }
    }
}

/// How the float graph is brought into its canonical form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PrepareOptions {
    /// What becomes of batch-norms.
    #[cfg_attr(feature = "cli", arg(long, value_name = "FORM", default_value_t))]
    pub batch_norm: BatchNorm,
    /// Whether channels between two layers are scaled to equal ranges; where `None`, only for targets whose weights have
    /// one scale per tensor.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub equalize: Option<bool>,
    /// Which initializers that are inputs as well become constants.
    #[cfg_attr(feature = "cli", arg(long, value_name = "WHICH", default_value_t))]
    pub freeze_initializers: FreezeInitializers,
    /// Make a constant of an input, with one value for all its elements or one for each, separated by commas: what it
    /// decides, as the branch that an If takes, is decided then, and the input is gone from the written model; may be given
    /// again.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME=VALUE"))]
    pub fix_input: Vec<FixedInput>,
}
