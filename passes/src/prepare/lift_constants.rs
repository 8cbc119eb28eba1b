//! Pass `lift-constants`: a `Constant` node becomes an initializer of the same name.
//!
//! `y = Constant(value = t)` is the initializer `y := t`; nothing is computed. Exporters such as Paddle's keep every
//! weight in a `Constant` node, and later passes look for weights among the initializers. Declined: strings and
//! sparse values, which no pass reads, and a constant that is itself a graph output, which some runtimes refuse as an
//! initializer.
//!
//! Files of IR version 3 must list every initializer among the graph inputs too, although nobody feeds it. Such
//! inputs are dropped and the model becomes IR version 4, the first in which they may be. In later versions an
//! initializer that is an input is a default the caller may override, and stays.

use crate::ir::{Model, Node, TensorProto};
use crate::pass::{Outcome, Pass, PassError};

/// Turns `Constant` nodes into initializers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiftConstants;

impl Pass for LiftConstants {
    fn name(&self) -> &'static str {
        "lift-constants"
    }

    fn about(&self) -> &'static str {
        "Constant nodes become initializers"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        seal_initializers(model, &mut outcome);
        let mut sites = Vec::new();
        for (id, node) in model.graph.nodes().filter(|(_, n)| n.is("Constant")) {
            match site(model, node) {
                Ok(tensor) => sites.push((id, tensor)),
                Err(reason) => outcome.decline(node.label(&model.graph), reason),
            }
        }
        let nodes = sites.iter().map(|&(id, _)| id).collect();
        let outputs: Vec<_> = sites.iter().map(|(id, _)| model.graph.node(*id).output(0)).collect();
        model.graph.remove_nodes(&nodes);
        for ((_, tensor), output) in sites.into_iter().zip(outputs) {
            if let Some(value) = output {
                model.graph.set_initializer(value, tensor);
            }
            outcome.count();
        }
        Ok(outcome)
    }
}

fn seal_initializers(model: &mut Model, outcome: &mut Outcome) {
    if model.ir_version() > 3 {
        return;
    }
    let constants: Vec<_> = model.graph.initializers().map(|(value, _)| value).collect();
    let sealed = constants.into_iter().filter(|&v| model.graph.seal_initializer(v)).count();
    if sealed > 0 {
        model.set_ir_version(4);
        outcome.changed += sealed;
    }
}

fn site(model: &Model, node: &Node) -> Result<TensorProto, &'static str> {
    let Some(output) = node.output(0) else { return Err("its output has no name") };
    if model.graph.is_output(output) {
        return Err("it is a graph output");
    }
    node.constant().ok_or("its value is a string, sparse or missing")
}
