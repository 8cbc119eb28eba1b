//! Pass `normalize-reshape`: a `Reshape` to a shape computed from that of its input gets a constant shape.
//!
//! ```text
//! y = Reshape(x, Concat(Unsqueeze(Gather(Shape(x), 0)), [−1]))   becomes   y = Reshape(x, [0, −1])
//! ```
//!
//! In a shape, 0 stands for the length of the input at the same place. Exporters write the computed form for `flatten`, and no
//! runtime folds it where the batch size is free: five small operators that run at every inference.
//!
//! Declined: a length of the input that stands at another place than in the input. Not changed: shapes of other values, and
//! `allowzero`, with which 0 is a length.

use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Writes shapes that copy lengths of the input as constants.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalizeReshape;

impl Pass for NormalizeReshape {
    fn name(&self) -> &'static str {
        "normalize-reshape"
    }

    fn about(&self) -> &'static str {
        "shapes computed from that of the reshaped value become constants"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let graph = &model.graph;
        let mut sites: Vec<(NodeId, ValueId, Vec<i64>)> = Vec::new();
        for (id, node) in graph.nodes() {
            match site(graph, node) {
                Ok(Some((shape, lengths))) => sites.push((id, shape, lengths)),
                Ok(None) => {}
                Err(reason) => outcome.decline(node.label(graph), reason),
            }
        }
        for (id, shape, lengths) in sites {
            let name = model.graph.value(shape).name().to_owned();
            let tensor = TensorProto::from_i64(&format!("{name}_constant"), &[lengths.len()], &lengths);
            let constant = model.graph.add_initializer(tensor);
            model.graph.set_input(id, 1, Some(constant));
            outcome.count();
        }
        Ok(outcome)
    }
}

/// The computed shape of a `Reshape` and the constant one.
fn site(graph: &Graph, node: &Node) -> Result<Option<(ValueId, Vec<i64>)>, &'static str> {
    let (Some(input), Some(shape)) = (node.input(0), node.input(1)) else { return Ok(None) };
    if !node.is("Reshape") || node.int_or("allowzero", 0) != 0 {
        return Ok(None);
    }
    let Some(concat) = made(graph, shape).filter(|made| made.is("Concat")) else { return Ok(None) };
    let mut lengths = Vec::new();
    for &piece in concat.inputs() {
        let Some(piece) = piece else { return Ok(None) };
        if let Some(constant) = graph.constant(piece) {
            let Ok(values) = constant.to_i64() else { return Ok(None) };
            lengths.extend(values);
        } else {
            match length_of(graph, piece, input) {
                Some(at) if at == lengths.len() as i64 => lengths.push(0),
                Some(_) => return Err("a length of its input moves to another place"),
                None => return Ok(None),
            }
        }
    }
    Ok(Some((shape, lengths)))
}

fn made(graph: &Graph, value: ValueId) -> Option<&Node> {
    let (id, _) = graph.value(value).producer()?;
    Some(graph.node(id)).filter(|node| node.domain().is_empty())
}

/// Which of the lengths of `input` a vector of one number is.
fn length_of(graph: &Graph, value: ValueId, input: ValueId) -> Option<i64> {
    let mut node = made(graph, value)?;
    let mut rank = 1;
    if node.is("Unsqueeze") {
        node = made(graph, node.input(0)?)?;
        rank = 0;
    }
    let shape = made(graph, node.input(0)?).filter(|shape| shape.is("Shape") && shape.input(0) == Some(input))?;
    let whole = shape.attribute("start").is_none() && shape.attribute("end").is_none();
    let places = graph.constant(node.input(1)?)?;
    let one = places.to_i64().ok().filter(|places| places.len() == 1 && places[0] >= 0)?;
    (node.is("Gather") && node.int_or("axis", 0) == 0 && whole && places.dims.len() == rank).then_some(one[0])
}
