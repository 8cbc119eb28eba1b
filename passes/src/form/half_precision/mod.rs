//! Pass `half-precision`: what stays float becomes float16.
//!
//! *Weights.* A float constant w of at least 64 elements is stored as h = half(w), rounded to nearest, and read through
//! `Cast(h)`: y = f(x, Cast(h)). Runtimes fold the cast when they load the model, and compute in float32. Scales and
//! biases of quantizers and of nodes on integers are not touched: the integers were chosen for them.
//!
//! In *bfloat16*, w is rounded to 8 bits of precision, an error of 2⁻⁸ of each number at most, and has the range of float:
//! nothing but numbers next to its end is declined. Nothing computes in bfloat16.
//!
//! *Computation.* A node computes in float16 if its operator has float16 in the operator set, and all that it reads and
//! writes is known to fit: constants by their elements, other values by the magnitudes seen in calibration, with a factor
//! of 2 to spare. It reads half(x) and writes half(y). Graph inputs and outputs keep their types, and every value that
//! nodes of both kinds need exists in both types, with one `Cast` between them. A constant of 1e8 or more stands for
//! infinity, usually in a mask: it becomes ±32,768, half the way to the end of float16, so that a sum with a score does not
//! overflow, or ±65,504 as a bound of `Clip`, `Min` or `Max`. Of what is computed from such a constant only the numbers
//! below 1e8 have to fit.
//!
//! Quantizers get float16 scales where `quantizers` says that the target runs them, all of them or none; scales of weights
//! that only nodes in float read get them anyway, from operator set 19 on. Otherwise a node on integers and its quantizers
//! stay as they are, since runtimes look for them.
//!
//! Declined: constants that float16 does not hold (too large, or too small to keep 60 dB); operators without float16, of
//! other domains or with sub-graphs, and those that compute counts, ranks or coordinates; values that are out of range or
//! were not seen; transpositions of the first axis in front of a product, with which onnxruntime does not load.
//!
//! *Simulated*, the same nodes read and write the same rounded numbers, in float32: a value x becomes
//! `Cast(Cast(x, float16), float)`. So the result can be compared where nothing runs float16.

mod eligibility;
mod types;
mod write;

use crate::ir::{DataType, Model, NodeId, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use eligibility::Eligibility;
use half::{bf16, f16};
use indexmap::{IndexMap, IndexSet};
use std::collections::HashSet;

/// Makes float16 of what stays float.
#[allow(clippy::struct_excessive_bools)] // They do not depend on each other.
#[derive(Clone, Debug, Default)]
pub struct HalfPrecision {
    /// Whether nodes compute in float16; otherwise only weights are stored so.
    pub computation: bool,
    /// Whether weights that no node reads in float16 are bfloat16 instead.
    pub bfloat16: bool,
    /// Whether the target runs quantizers with float16 scales.
    pub quantizers: bool,
    /// Names of the nodes that run on integers between quantizers.
    pub on_integers: HashSet<String>,
    /// What was seen of every value of the float network, inputs included, by name.
    pub magnitudes: IndexMap<String, Magnitude>,
    /// Whether the numbers are rounded and the types left.
    pub simulated: bool,
}

/// The largest finite magnitudes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Magnitude {
    /// Of all its elements.
    pub largest: f32,
    /// Of those below [`HalfPrecision::INFINITE`].
    pub below_infinite: f32,
}

impl HalfPrecision {
    /// Constants from here on stand for infinity.
    pub const INFINITE: f32 = 1e8;
    /// The lowest opset whose quantizers take scales of float16.
    pub const QUANTIZERS_OPSET: i64 = 19;
}

/// Shorter constants stay float where they would need a `Cast` of their own, which takes more bytes than are saved.
const SHORTEST: usize = 64;

/// Least signal-to-noise ratio of a constant, as a ratio of squares. Rounding normal numbers leaves 73 dB.
const LEAST_RATIO: f64 = 1e6;

/// What stands for −∞ in float16.
const STAND_IN: f16 = f16::from_bits(0xf800);

impl Pass for HalfPrecision {
    fn name(&self) -> &'static str {
        "half-precision"
    }

    fn about(&self) -> &'static str {
        "what stays float becomes float16: weights behind a Cast, or computation between Casts"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if self.computation {
            let decisions = Eligibility::new(self, model)?.decide()?;
            for (site, reason) in decisions.declined {
                outcome.decline(site, reason);
            }
            outcome.changed += write::computation(model, &decisions.nodes, self.simulated)?;
        }
        self.store_weights(model, &mut outcome)?;
        Ok(outcome)
    }
}

impl HalfPrecision {
    /// The nodes of a model that would compute in float16.
    pub fn nodes(&self, model: &Model) -> Result<Vec<NodeId>, PassError> {
        let nodes = self.computation.then(|| Ok(Eligibility::new(self, model)?.decide()?.nodes)).transpose();
        nodes.map(|nodes: Option<IndexSet<NodeId>>| nodes.unwrap_or_default().into_iter().collect())
    }

    /// The float values of a model that are computed or fed, whose magnitudes count.
    pub fn floats(model: &Model) -> Vec<ValueId> {
        let (graph, types) = (&model.graph, types::types(&model.graph));
        let computed = graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten().copied());
        let values = graph.runtime_inputs().chain(computed);
        values.filter(|value| types.get(value) == Some(&DataType::Float)).collect()
    }

    /// Stores what is left of the weights.
    fn store_weights(&self, model: &mut Model, outcome: &mut Outcome) -> Result<(), PassError> {
        let eligibility = Eligibility::new(self, model)?;
        let sites: Vec<_> = model.graph.initializers().map(|(value, _)| value).collect();
        let sites: Vec<_> = sites.into_iter().filter(|&value| eligibility.is_weight(value)).collect();
        for value in sites {
            let Some(tensor) = model.constant(value) else { continue };
            let tensor = tensor?.into_owned();
            let floats = tensor.to_f32()?;
            let rounded = if self.bfloat16 {
                brains(&floats).map(Numbers::Brains)
            } else {
                halves(&floats, Huge::Refused).map(Numbers::Halves)
            };
            match rounded {
                // Rounded before, by a run that simulated.
                Ok(numbers) if self.simulated && same(&numbers.floats(), &floats) => {}
                Ok(numbers) => {
                    write::weight(&mut model.graph, value, &numbers, self.simulated)?;
                    outcome.count();
                }
                Err(reason) => outcome.decline(tensor.name(), reason),
            }
        }
        Ok(())
    }
}

/// Numbers of 16 bits.
enum Numbers {
    /// Of float16.
    Halves(Vec<f16>),
    /// Of bfloat16.
    Brains(Vec<bf16>),
}

impl Numbers {
    fn floats(&self) -> Vec<f32> {
        match self {
            Self::Halves(halves) => halves.iter().map(|half| half.to_f32()).collect(),
            Self::Brains(brains) => brains.iter().map(|brain| brain.to_f32()).collect(),
        }
    }
}

/// What becomes of numbers that stand for infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Huge {
    /// The constant is not converted.
    Refused,
    /// A large number that leaves room for a sum.
    StandIn,
    /// The end of float16.
    End,
}

/// The nearest numbers of float16, or why the constant stays float.
fn halves(values: &[f32], huge: Huge) -> Result<Vec<f16>, String> {
    let (mut signal, mut noise) = (0.0, 0.0);
    let mut converted = Vec::with_capacity(values.len());
    for &value in values {
        let half = f16::from_f32(value);
        if value.is_finite() && half.is_infinite() {
            if huge == Huge::Refused || value.abs() < HalfPrecision::INFINITE {
                return Err(format!("it holds {value:e}, float16 ends at 65504"));
            }
            let magnitude = if huge == Huge::End { f16::MAX } else { -STAND_IN };
            converted.push(if value < 0.0 { -magnitude } else { magnitude });
            continue;
        }
        if value.is_finite() {
            let error = f64::from(value) - f64::from(half.to_f32());
            signal += f64::from(value) * f64::from(value);
            noise += error * error;
        }
        converted.push(half);
    }
    if noise * LEAST_RATIO > signal {
        return Err("its numbers are too small for float16".to_owned());
    }
    Ok(converted)
}

/// The nearest numbers of bfloat16, or why the constant stays float.
fn brains(values: &[f32]) -> Result<Vec<bf16>, String> {
    let converted: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let beyond = |(value, brain): (&f32, &bf16)| (value.is_finite() && brain.is_infinite()).then_some(*value);
    match values.iter().zip(&converted).find_map(beyond) {
        Some(value) => Err(format!("it holds {value:e}, bfloat16 ends at 3.39e38")),
        None => Ok(converted),
    }
}

/// Whether these are the same numbers.
fn same(rounded: &[f32], values: &[f32]) -> bool {
    rounded.iter().zip(values).all(|(rounded, value)| rounded.to_bits() == value.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};
    use crate::pass::run_pass;

    #[test]
    fn constants_that_float16_does_not_hold_are_refused() {
        assert_eq!(STAND_IN.to_f32(), -32_768.0);
        let rounded =
            |values: &[f32], huge| halves(values, huge).map(|h| h.iter().map(|h| h.to_f32()).collect::<Vec<_>>());
        assert_eq!(rounded(&[0.5, -0.0, 1e-9], Huge::Refused).unwrap(), [0.5, 0.0, 0.0]);
        assert!(rounded(&[1e5], Huge::StandIn).unwrap_err().contains("1e5"));
        assert!(rounded(&[-3e38], Huge::Refused).is_err());
        assert_eq!(rounded(&[-3e38, 0.0], Huge::StandIn).unwrap(), [-32_768.0, 0.0]);
        assert_eq!(rounded(&[3e38, f32::NEG_INFINITY], Huge::End).unwrap(), [65_504.0, f32::NEG_INFINITY]);
        // An epsilon of a normalization.
        for small in [1e-12, 3.1e-7] {
            assert!(rounded(&[small], Huge::Refused).unwrap_err().contains("too small"), "{small}");
        }
        let normal: Vec<f32> = (1..2000).map(|i| i as f32 * 1.000_7e-4).collect();
        assert!(rounded(&normal, Huge::Refused).is_ok());
    }

    #[test]
    fn bfloat16_holds_what_float_holds() {
        let rounded = |values: &[f32]| brains(values).map(|b| b.iter().map(|b| b.to_f32()).collect::<Vec<_>>());
        assert_eq!(rounded(&[1e-30, -1e30, 0.0, 1.0]).unwrap()[2..], [0.0, 1.0]);
        assert!(rounded(&[f32::MAX]).unwrap_err().contains("bfloat16 ends at"));
        for value in (1..2000).map(|i| i as f32 * 1.000_7e-4) {
            let error = (rounded(&[value]).unwrap()[0] - value).abs();
            assert!(error <= value * 2_f32.powi(-8), "{value}: {error}");
        }
    }

    #[test]
    fn weights_become_bfloat16_behind_a_cast() {
        let weights = (0..64).map(|i| format!("{}", 1.0 + i as f32 / 100.0)).collect::<Vec<_>>().join(", ");
        let text = format!(
            "<ir_version: 9, opset_import: [\"\": 17]> g (float[1,8] x) => (float[1,8] y)
             <float[8,8] w = {{{weights}}}> {{ y = MatMul (x, w) }}"
        );
        for simulated in [false, true] {
            let mut model = import(text::parse(&text).unwrap()).unwrap();
            let pass = HalfPrecision { bfloat16: true, simulated, ..HalfPrecision::default() };
            assert_eq!(run_pass(&pass, &mut model, true).unwrap().outcome.changed, 1);
            let (_, tensor) = model.graph.initializers().next().unwrap();
            let element = if simulated { DataType::Float } else { DataType::Bfloat16 };
            assert_eq!((tensor.element_type(), tensor.to_f32().unwrap()[1]), (Some(element), 1.007_812_5));
            let casts = model.graph.nodes().filter(|(_, node)| node.is("Cast")).count();
            assert_eq!(casts, usize::from(!simulated));
        }
    }

    /// An engine that computes in float32 sees the numbers of float16: those of constants, of inputs and of results.
    #[test]
    fn simulated_numbers_are_rounded_and_types_stay() {
        let text = "<ir_version: 9, opset_import: [\"\": 19]> g (float[1,2] x) => (float[1,2] y)
            <float[2,2] w = {0.1, 0.2, 0.3, 1.0}> { t = MatMul (x, w) y = Relu (t) }";
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let seen = |name: &str| (name.to_owned(), Magnitude { largest: 2.0, below_infinite: 2.0 });
        let magnitudes = ["x", "t", "y"].map(seen).into_iter().collect();
        let pass = HalfPrecision { computation: true, magnitudes, simulated: true, ..HalfPrecision::default() };
        assert_eq!(pass.nodes(&model).unwrap().len(), 2);
        run_pass(&pass, &mut model, true).unwrap();
        let graph = &model.graph;
        let weight = graph.initializer(graph.find("w").unwrap()).unwrap();
        assert_eq!(weight.element_type(), Some(DataType::Float));
        assert_eq!(weight.to_f32().unwrap(), [0.1, 0.2, 0.3, 1.0].map(|w| f16::from_f32(w).to_f32()));
        let to = |node: &crate::ir::Node| (node.is("Cast")).then(|| node.int("to")).flatten();
        let casts: Vec<i64> = graph.nodes().filter_map(|(_, node)| to(node)).collect();
        assert_eq!(casts, [10, 1, 10, 1, 10, 1], "one pair each for x, t and y");
        assert!(graph.outputs().all(|y| graph.value(y).element_type() == Some(DataType::Float)));
    }
}
