//! The functions of recurrent cells.
//!
//! `activations` names those of each direction in order, `activation_alpha` and `activation_beta` hold the numbers of the
//! functions that have such, in the same order; where the lists end, a function has its own default.

use super::kind::Kind;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{TractResult, bail, ensure};

/// A function with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    Affine(f32, f32),
    Elu(f32),
    HardSigmoid(f32, f32),
    LeakyRelu(f32),
    Relu,
    ScaledTanh(f32, f32),
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu(f32),
}

/// The functions that are known.
const NAMES: [&str; 11] = [
    "affine",
    "elu",
    "hardsigmoid",
    "leakyrelu",
    "relu",
    "scaledtanh",
    "sigmoid",
    "softplus",
    "softsign",
    "tanh",
    "thresholdedrelu",
];

impl Activation {
    /// Whether a function of this name is known.
    pub(super) fn is_known(name: &str) -> bool {
        NAMES.contains(&name.to_ascii_lowercase().as_str())
    }

    /// The functions of a node, direction by direction.
    pub(super) fn of(node: &NodeProto, kind: Kind, directions: usize) -> TractResult<Vec<Self>> {
        let count = kind.functions() * directions;
        let given: Option<Vec<&str>> = node.get_attr_opt_vec("activations")?;
        let names = match given {
            Some(names) if !names.is_empty() => names,
            _ => kind.default_functions().repeat(directions),
        };
        ensure!(names.len() == count, "{} activations of {count}", names.len());
        let numbers = |name: &str| -> TractResult<_> {
            Ok(node.get_attr_opt_slice::<f32>(name)?.unwrap_or_default().to_vec().into_iter())
        };
        let (mut alphas, mut betas) = (numbers("activation_alpha")?, numbers("activation_beta")?);
        let mut alpha = |default| alphas.next().unwrap_or(default);
        let mut beta = |default| betas.next().unwrap_or(default);
        let mut function = |name: &&str| {
            Ok(match name.to_ascii_lowercase().as_str() {
                "affine" => Self::Affine(alpha(1.0), beta(0.0)),
                "elu" => Self::Elu(alpha(1.0)),
                "hardsigmoid" => Self::HardSigmoid(alpha(0.2), beta(0.5)),
                "leakyrelu" => Self::LeakyRelu(alpha(0.01)),
                "relu" => Self::Relu,
                "scaledtanh" => Self::ScaledTanh(alpha(1.0), beta(1.0)),
                "sigmoid" => Self::Sigmoid,
                "softplus" => Self::Softplus,
                "softsign" => Self::Softsign,
                "tanh" => Self::Tanh,
                "thresholdedrelu" => Self::ThresholdedRelu(alpha(1.0)),
                _ => bail!("activation {name} is not known"),
            })
        };
        names.iter().map(&mut function).collect()
    }

    /// The value of the function.
    pub(super) fn at(self, x: f32) -> f32 {
        match self {
            Self::Affine(alpha, beta) => alpha * x + beta,
            Self::Elu(alpha) => {
                if x < 0.0 {
                    alpha * x.exp_m1()
                } else {
                    x
                }
            }
            Self::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Self::LeakyRelu(alpha) => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Self::Relu => x.max(0.0),
            Self::ScaledTanh(alpha, beta) => alpha * (beta * x).tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Tanh => x.tanh(),
            Self::ThresholdedRelu(alpha) => {
                if x > alpha {
                    x
                } else {
                    0.0
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_functions_are_known() {
        assert!(NAMES.is_sorted());
        for name in ["Relu", "HardSigmoid", "TANH", "Softplus"] {
            assert!(Activation::is_known(name), "{name}");
        }
        assert!(!Activation::is_known("Gelu"));
    }
}
