//! Pass `balance-inputs`: inputs of recurrent layers are multiplied by powers of two, columns of their weights divided by them.
//!
//! X·Wᵀ = (X·F)·(W·F⁻¹)ᵀ, F = diag(f), f = 2^⌈log₂ max|w|⌉ over the weights w that multiply an input.
//!
//! A weight stored as integers has one scale per row, for all inputs of a gate. An input in small units has large weights,
//! beside which those of others are rounded to nothing. With a step Δ of a row, Δ ∝ max w/f, and the inputs' mean squares m,
//! a row loses about Δ²/12·Σ m·f²: of all factors that keep the step, those lose least with which the largest weight of every
//! input is alike, whatever the inputs are. What a layer rounds of its input at run time has one range for all inputs, which
//! become alike in what they add to the gates. Powers of two keep every digit of a float.
//!
//! The gain is the mean over inputs of Σ (w − Q(w))²/Σ w², before and after, with 8 bits: each input counts alike, as if its
//! weights made up for its unit.
//!
//! Declined: what does not gain [`BalanceInputs::GAIN`]; weights that are not single precision, not finite, or that another
//! node reads.

use crate::ir::{DataType, Graph, Model, NodeId, TensorProto, ValueId};
use crate::ops::is_recurrent;
use crate::pass::{Outcome, Pass, PassError, shared_with};
use crate::prepare::layer_affine::constant;
use indexmap::IndexSet;

/// The largest integer of 8 bits.
const MOST: f32 = 127.0;
/// Exponents of factors: what is within them stays a normal float.
const EXPONENTS: [i32; 2] = [-60, 60];

/// Multiplies inputs of recurrent layers.
#[derive(Clone, Debug, Default)]
pub struct BalanceInputs {
    /// Names of the nodes whose weights become integers.
    pub nodes: IndexSet<String>,
}

impl BalanceInputs {
    /// How many times smaller the error has to be.
    pub const GAIN: f64 = 4.0;
}

impl Pass for BalanceInputs {
    fn name(&self) -> &'static str {
        "balance-inputs"
    }

    fn about(&self) -> &'static str {
        "inputs of recurrent layers are multiplied by powers of two, columns of their weights divided"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut sites = Vec::new();
        for (id, node) in model.graph.nodes() {
            let label = node.label(&model.graph);
            if !is_recurrent(node.domain(), node.op()) || !self.nodes.contains(label) {
                continue;
            }
            match Site::new(model, id)? {
                Ok(site) => sites.push(site),
                Err(reason) => outcome.decline(label, reason),
            }
        }
        for site in sites {
            site.write(model)?;
            outcome.count();
        }
        Ok(outcome)
    }
}

/// A layer, its input and weight, and one factor for each input.
struct Site {
    node: NodeId,
    input: ValueId,
    weight: ValueId,
    factors: Vec<f32>,
}

impl Site {
    fn new(model: &Model, id: NodeId) -> Result<Result<Self, String>, PassError> {
        let graph = &model.graph;
        let node = graph.node(id);
        let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
            return Ok(Err("it has no input".to_owned()));
        };
        if let Some(reason) = refusal(graph, id, weight) {
            return Ok(Err(reason));
        }
        let Some(tensor) = model.constant(weight).transpose()? else {
            return Ok(Err("its weight is computed".to_owned()));
        };
        let (values, shape) = (tensor.to_f32()?, tensor.shape()?);
        let &[.., inputs] = &shape[..] else { return Ok(Err("its weight has no axes".to_owned())) };
        if inputs == 0 || !values.iter().all(|value| value.is_finite()) {
            return Ok(Err("its weights are not all finite".to_owned()));
        }
        let factors = factors(&values, inputs);
        let divided: Vec<f32> = divided(&values, &factors);
        if lost(&values, inputs) < BalanceInputs::GAIN * lost(&divided, inputs) {
            return Ok(Err("its inputs have weights of about one size".to_owned()));
        }
        Ok(Ok(Self { node: id, input, weight, factors }))
    }

    fn write(self, model: &mut Model) -> Result<(), PassError> {
        let tensor = constant(model, self.weight)?;
        let divided = divided(&tensor.to_f32()?, &self.factors);
        let tensor = tensor.with_f32(&tensor.shape()?, &divided);
        let graph = &mut model.graph;
        graph.set_initializer(self.weight, tensor);
        let name = format!("{}_balanced", graph.value(self.input).name());
        let held = graph.fresh_name(&format!("{name}_factors"));
        let by = graph.add_initializer(TensorProto::from_f32(&held, &[self.factors.len()], &self.factors));
        let ty = graph.value(self.input).ty().cloned();
        let balanced = graph.add_op("Mul", &[Some(self.input), Some(by)], Vec::new(), &name);
        if let Some(ty) = ty {
            graph.set_type(balanced, ty);
        }
        graph.set_input(self.node, 0, Some(balanced));
        Ok(())
    }
}

/// Why a weight is not changed.
fn refusal(graph: &Graph, id: NodeId, weight: ValueId) -> Option<String> {
    let element = graph.constant(weight).and_then(TensorProto::element_type);
    if element != Some(DataType::Float) {
        return Some("its weight is no constant of single precision".to_owned());
    }
    shared_with(graph, weight, |node| node == id)
}

/// The smallest power of two that is no less than the weights of an input, for each.
fn factors(values: &[f32], inputs: usize) -> Vec<f32> {
    let mut most = vec![0.0_f32; inputs];
    for row in values.chunks_exact(inputs) {
        most.iter_mut().zip(row).for_each(|(most, value)| *most = most.max(value.abs()));
    }
    let exponent = |most: f32| (most.log2().ceil() as i32).clamp(EXPONENTS[0], EXPONENTS[1]);
    most.into_iter().map(|most| if most > 0.0 { 2.0_f32.powi(exponent(most)) } else { 1.0 }).collect()
}

fn divided(values: &[f32], factors: &[f32]) -> Vec<f32> {
    values.iter().zip(factors.iter().cycle()).map(|(value, factor)| value / factor).collect()
}

/// The mean over inputs of what rounding loses of their weights.
fn lost(values: &[f32], inputs: usize) -> f64 {
    let mut sums = vec![[0.0_f64; 2]; inputs];
    for row in values.chunks_exact(inputs) {
        let step = (row.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / MOST).max(f32::MIN_POSITIVE);
        for (sums, value) in sums.iter_mut().zip(row) {
            let error = value - (value / step).round_ties_even() * step;
            sums[0] += f64::from(error).powi(2);
            sums[1] += f64::from(*value).powi(2);
        }
    }
    let shares = sums.iter().filter(|[_, whole]| *whole > 0.0).map(|[error, whole]| error / whole);
    shares.sum::<f64>() / inputs as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{check, import, text};
    use crate::pass::run_pass;

    fn balanced(weight: &str, more: &str) -> (Model, Outcome) {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[3,1,2] x) => (float[3,1,1,1] y)
             <float[1,3,2] w = {{{weight}}}, float[1,3,1] r = {{1.0, 1.0, 1.0}}>
             {{ [a] y = GRU <hidden_size = 1> (x, w, r) {more} }}"
        );
        let mut model = import(text::parse(&text).unwrap()).unwrap();
        let pass = BalanceInputs { nodes: ["a".to_owned()].into() };
        let outcome = run_pass(&pass, &mut model, true).unwrap().outcome;
        check(&model).unwrap();
        (model, outcome)
    }

    #[test]
    fn inputs_with_large_weights_are_multiplied() {
        let (model, outcome) = balanced("3.0, 0.001, -5.0, 0.002, 4.0, -0.0015", "");
        assert_eq!(outcome.changed, 1);
        let node = model.graph.nodes().find(|(_, node)| node.is("Mul")).unwrap().1;
        let held = |value: ValueId| model.graph.constant(value).unwrap().to_f32().unwrap();
        assert_eq!(held(node.input(1).unwrap()), [8.0, 0.003_906_25]);
        let weight = held(model.graph.find("w").unwrap());
        assert_eq!(weight[0], 3.0 / 8.0);
        assert!(weight.iter().all(|value| value.abs() <= 1.0));
    }

    #[test]
    fn others_are_declined() {
        let why = |weight: &str, more: &str| balanced(weight, more).1.declined[0].reason.clone();
        assert_eq!(why("3.0, 1.0, -5.0, 2.0, 4.0, -2.0", ""), "its inputs have weights of about one size");
        let shared = why("3.0, 0.001, -5.0, 0.002, 4.0, -0.0015", "z = GRU <hidden_size = 1> (x, w, r)");
        assert!(shared.contains("`w` is read by"), "{shared}");
    }
}
