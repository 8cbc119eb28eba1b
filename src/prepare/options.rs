//! What a caller can choose about the canonical form.

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
}
