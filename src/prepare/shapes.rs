//! Static shapes that contradict each other: no runtime loads such a model.
//!
//! Shapes of inputs and constants count, and those that the engine inferred from them. What a file states of inner values
//! may be stale, and runtimes correct it.

use super::PrepareError;
use msq_passes::ir::{Graph, Model, Node, ValueId};
use std::collections::HashSet;

/// The inner values whose shape the file states.
pub(super) fn stated(model: &Model) -> HashSet<String> {
    let graph = &model.graph;
    let written = graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten());
    let stated = written.map(|&value| graph.value(value)).filter(|value| value.shape().is_some());
    stated.map(|value| value.name().to_owned()).collect()
}

/// Refuses layers whose operands do not fit each other; shapes of the values `stated` are not relied on.
pub(super) fn refuse_contradictions(model: &Model, stated: &HashSet<String>) -> Result<(), PrepareError> {
    let graph = &model.graph;
    for (_, node) in graph.nodes().filter(|(_, node)| node.domain().is_empty()) {
        let shape = |slot: usize| shape(graph, node.input(slot)?, stated);
        let (Some(left), Some(right)) = (shape(0), shape(1)) else { continue };
        if let Some([found, wanted]) = lengths(node, &left, &right).filter(|[found, wanted]| found != wanted) {
            return Err(PrepareError::Shapes {
                node: node.label(graph).to_owned(),
                op: node.op().to_owned(),
                reason: format!("{} meets {}: {found} is not {wanted}", spelled(&left), spelled(&right)),
            });
        }
    }
    Ok(())
}

fn shape(graph: &Graph, value: ValueId, stated: &HashSet<String>) -> Option<Vec<Option<usize>>> {
    if let Some(constant) = graph.constant(value) {
        return Some(constant.shape().ok()?.into_iter().map(Some).collect());
    }
    let value = graph.value(value);
    if stated.contains(value.name()) { None } else { value.shape() }
}

/// The two lengths that have to be equal, where both are known: those that are summed over.
fn lengths(node: &Node, left: &[Option<usize>], right: &[Option<usize>]) -> Option<[usize; 2]> {
    let at = |shape: &[Option<usize>], axis: usize| shape.get(axis).copied().flatten();
    let pair = |a: Option<usize>, b: Option<usize>| Some([a?, b?]);
    match node.op() {
        "MatMul" if !left.is_empty() && !right.is_empty() => {
            pair(at(left, left.len() - 1), at(right, right.len().saturating_sub(2)))
        }
        "Gemm" if left.len() == 2 && right.len() == 2 => {
            let transposed = |name: &str| node.int_or(name, 0) != 0;
            pair(at(left, usize::from(!transposed("transA"))), at(right, usize::from(transposed("transB"))))
        }
        "Conv" if left.len() > 2 => {
            let groups = usize::try_from(node.int_or("group", 1)).ok()?;
            pair(at(left, 1), at(right, 1).and_then(|inputs| inputs.checked_mul(groups)))
        }
        "ConvTranspose" if left.len() > 2 => pair(at(left, 1), at(right, 0)),
        _ => None,
    }
}

/// A shape with `?` for free lengths.
fn spelled(shape: &[Option<usize>]) -> String {
    let lengths = shape.iter().map(|length| length.map_or_else(|| "?".to_owned(), |length| length.to_string()));
    format!("[{}]", lengths.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn refused(inputs: &str, node: &str) -> Option<String> {
        let source = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]> net ({inputs}) => (float y) <float[3,2] w = {{}}, float[4,3,1,1] c = {{}}> {{ [n] {node} }}"
        );
        let model = import(text::parse(&source).unwrap()).unwrap();
        refuse_contradictions(&model, &stated(&model)).err().map(|error| error.to_string())
    }

    #[test]
    fn operands_that_do_not_fit_are_named() {
        for (inputs, node) in [
            ("float[N,4] x", "y = MatMul (x, w)"),
            ("float[4] x", "y = MatMul (x, w)"),
            ("float[N,3] x", "y = Gemm <transB = 1> (x, w)"),
            ("float[2,N] x", "y = Gemm <transA = 1> (x, w)"),
            ("float[N,6,5,5] x", "y = Conv (x, c)"),
            ("float[N,3,5,5] x", "y = Conv <group = 2> (x, c)"),
            ("float[N,3,5,5] x", "y = ConvTranspose (x, c)"),
        ] {
            let said = refused(inputs, node).unwrap_or_else(|| panic!("{inputs}: {node} is taken"));
            assert!(said.contains("node `n`") && said.contains("is not"), "{said}");
        }
    }

    #[test]
    fn operands_that_fit_or_are_not_known_pass() {
        for (inputs, node) in [
            ("float[N,3] x", "y = MatMul (x, w)"),
            ("float[3] x", "y = MatMul (x, w)"),
            ("float[N,M] x", "y = MatMul (x, w)"),
            ("float x", "y = MatMul (x, w)"),
            ("float[N,2] x", "y = Gemm <transB = 1> (x, w)"),
            ("float[3,N] x", "y = Gemm <transA = 1> (x, w)"),
            ("float[N,6,5,5] x", "y = Conv <group = 2> (x, c)"),
            ("float[N,4,5,5] x", "y = ConvTranspose (x, c)"),
        ] {
            assert_eq!(refused(inputs, node), None, "{inputs}: {node}");
        }
    }
}
