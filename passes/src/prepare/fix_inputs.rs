//! Pass `fix-inputs`: inputs that get a value once and for all become constants.
//!
//! A file may hold several networks and an input that says which is meant: a sampling rate, whether there is a past, whether
//! the network is in training. With a constant in its place the engine finds which conditions are constant, and
//! `inline-branches` takes in what they decide. The function is that of the model fed with these values; the inputs are gone
//! from its interface. A default that a caller may override is replaced.
//!
//! Declined: a name that is no input of the graph.

use crate::ir::{Model, TensorProto};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;

/// Makes constants of inputs.
#[derive(Clone, Debug, Default)]
pub struct FixInputs {
    /// The values, by the names of the inputs.
    pub values: IndexMap<String, TensorProto>,
}

impl Pass for FixInputs {
    fn name(&self) -> &'static str {
        "fix-inputs"
    }

    fn about(&self) -> &'static str {
        "inputs that get a value once and for all become constants"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        // Files of IR version 3 list initializers among the inputs, until `lift-constants` ends that.
        let is_listed = model.ir_version() <= 3;
        let graph = &mut model.graph;
        for (name, tensor) in &self.values {
            let Some(value) = graph.find(name).filter(|&value| graph.is_input(value)) else {
                outcome.decline(name, "it is no input of the graph");
                continue;
            };
            graph.set_initializer(value, tensor.clone());
            if !is_listed {
                graph.seal_initializer(value);
            }
            outcome.count();
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{check, import, text};

    const MODEL: &str = "<ir_version: 8, opset_import: [\"\": 17]>
        g (float[N,2] x, bool[1] twice, float gain) => (float[N,2] y) <float gain = {1.0}>
        {
            h = Mul (x, gain)
            y = If (twice) <
                then_branch = a () => (float[N,2] p) { p = Add (h, x) },
                else_branch = b () => (float[N,2] q) { q = Identity (h) }
            >
        }";

    fn fixed(text: &str, values: Vec<TensorProto>) -> (Model, Outcome) {
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let values = values.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)).collect();
        let outcome = FixInputs { values }.run(&mut model).unwrap();
        check(&model).unwrap();
        (model, outcome)
    }

    #[test]
    fn inputs_and_defaults_become_constants() {
        let twice = TensorProto::from_raw("twice", crate::ir::DataType::Bool, &[1], vec![1_u8]);
        let (model, outcome) = fixed(MODEL, vec![twice, TensorProto::from_f32("gain", &[], &[3.0])]);
        assert_eq!(outcome.changed, 2);
        let graph = &model.graph;
        let inputs: Vec<&str> = graph.inputs().map(|value| graph.value(value).name()).collect();
        assert_eq!(inputs, ["x"]);
        let gain = graph.initializer(graph.find("gain").unwrap()).unwrap();
        assert_eq!(gain.to_f32().unwrap(), [3.0]);
        assert_eq!(graph.initializer(graph.find("twice").unwrap()).unwrap().to_i64().unwrap(), [1]);
    }

    #[test]
    fn other_names_are_declined() {
        let (model, outcome) = fixed(MODEL, vec![TensorProto::from_f32("h", &[], &[3.0])]);
        assert_eq!((outcome.changed, outcome.declined.len()), (0, 1));
        assert_eq!(model.graph.inputs().len(), 3);
    }

    #[test]
    fn files_of_version_3_list_what_is_constant() {
        let old = "<ir_version: 3, opset_import: [\"\": 7]>
            g (float[2] x, float[2] w) => (float[2] y) { y = Mul (x, w) }";
        let (model, outcome) = fixed(old, vec![TensorProto::from_f32("w", &[2], &[3.0, 4.0])]);
        assert_eq!(outcome.changed, 1);
        assert_eq!((model.graph.inputs().len(), model.graph.runtime_inputs().count()), (2, 1));
    }
}
