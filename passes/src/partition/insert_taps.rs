//! Pass `insert-taps`: makes values graph outputs, so that a run returns them.
//!
//! The model's own outputs come first, in their order; the taps follow in the given order, each value once. The pass is
//! meant for a clone of the model: the written model never has taps.

use crate::ir::Model;
use crate::pass::{Outcome, Pass, PassError};

/// Adds graph outputs.
#[derive(Clone, Debug, Default)]
pub struct InsertTaps {
    /// Names of the values to return.
    pub values: Vec<String>,
}

impl Pass for InsertTaps {
    fn name(&self) -> &'static str {
        "insert-taps"
    }

    fn about(&self) -> &'static str {
        "given values become graph outputs, so that a run shows them"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for name in &self.values {
            let Some(value) = model.graph.find(name) else {
                return Err(PassError::Input(format!("there is no value `{name}` to tap")));
            };
            if model.graph.is_output(value) {
                continue;
            }
            model.graph.add_output(value);
            outcome.count();
        }
        Ok(outcome)
    }
}
