//! The name of a solver. What solvers there are is in [`crate::solve::registry`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The name of a solver, as `round` or `gram`. A name that no solver has is an error when the solver is made.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SolverName(Cow<'static, str>);

impl SolverName {
    /// Rounding to nearest: the default where all layers have 8 bits.
    pub const ROUND: Self = Self::new("round");
    /// The closed form: the default where a layer has fewer bits.
    pub const GRAM: Self = Self::new("gram");

    /// The closed form after blocks have learned.
    pub const BLOCK: Self = Self::new("block");

    /// The closed form after blocks have learned by the predictions of the network too.
    pub const PD_QUANT: Self = Self::new("pd-quant");

    /// The closed form while the network learns as a whole.
    pub const DISTILL: Self = Self::new("distill");

    /// A name.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SolverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SolverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for SolverName {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(Self(name.to_owned().into()))
    }
}
