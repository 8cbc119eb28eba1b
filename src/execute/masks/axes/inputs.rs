//! The axes of a model's inputs: which of them count samples, and which the positions of a mask's sequence.

use super::axis::{Axes, Axis, Part};
use crate::execute::masks::source::Source;
use msq_passes::ir::{DimValue, Graph, TypeValue, ValueId};

/// The axes of an input: positions are counted along the axis whose name or length is that of a mask.
pub(super) fn input_axes(graph: &Graph, input: ValueId, sources: &[Source]) -> Option<Axes> {
    let shape = graph.value(input).shape()?;
    let mut axes: Axes = shape.iter().copied().map(Axis::plain).collect();
    let own = sources.iter().position(|source| source.value == input);
    if let Some(own) = own {
        mark(&mut axes, 0, Part::Batch);
        if !sources[own].is_lengths() {
            mark(&mut axes, sources[own].axis(), Part::Sequence(own));
        }
        return Some(axes);
    }
    let fits: Vec<(usize, usize)> = sources
        .iter()
        .enumerate()
        .filter_map(|(at, source)| Some((at, sequence_axis(graph, input, &shape, source)?)))
        .collect();
    let decodes = |name: &str| name.starts_with("decoder");
    let name = graph.value(input).name();
    let alike: Vec<&(usize, usize)> =
        fits.iter().filter(|(at, _)| decodes(&sources[*at].name) == decodes(name)).collect();
    let chosen = match (&fits[..], &alike[..]) {
        ([one], _) => Some(*one),
        (_, [one]) => Some(**one),
        // Several masks of one sequence: any of them says how long it is.
        ([first, rest @ ..], _)
            if rest.iter().all(|(at, axis)| *axis == first.1 && sources[*at].same(&sources[first.0])) =>
        {
            Some(*first)
        }
        _ => None,
    };
    if let Some((source, axis)) = chosen {
        mark(&mut axes, 0, Part::Batch);
        mark(&mut axes, axis, Part::Sequence(source));
    }
    Some(axes)
}

fn mark(axes: &mut Axes, at: usize, part: Part) {
    if let Some(axis) = axes.get_mut(at) {
        axis.parts = vec![part];
    }
}

/// The axis of an input along which the sequence of a mask lies.
fn sequence_axis(graph: &Graph, input: ValueId, shape: &[Option<usize>], source: &Source) -> Option<usize> {
    if shape.len() < 2 || shape.len() > 3 {
        return None;
    }
    if source.is_lengths() {
        // Channels of a convolution lie on axis 1, its positions behind them.
        let convolved = graph.value(input).uses().iter().any(|u| graph.node(u.node).is("Conv"));
        return Some(if shape.len() == 3 && convolved { 2 } else { 1 });
    }
    let own = symbols(graph, source.value).get(1).cloned().flatten();
    let dims = symbols(graph, input);
    match own {
        Some(wanted) => {
            let mut same = (1..shape.len()).filter(|&axis| dims.get(axis) == Some(&Some(wanted.clone())));
            let first = same.next()?;
            (same.next().is_none() && !matches!(wanted, DimValue::Value(0 | 1))).then_some(first)
        }
        // Without names: tokens and features of tokens; the lengths of the samples decide.
        None => dims.get(1).is_none_or(Option::is_none).then_some(1),
    }
}

/// Names or lengths of the axes that a type declares.
fn symbols(graph: &Graph, value: ValueId) -> Vec<Option<DimValue>> {
    let ty = graph.value(value).ty().and_then(|ty| ty.value.as_ref());
    let Some(TypeValue::Tensor(tensor)) = ty else { return Vec::new() };
    tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.value.clone()).collect()
}
