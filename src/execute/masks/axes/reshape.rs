//! What reshapes do to marked axes: which axes stay, which are joined to one, and which are taken apart again.

use super::axis::{Axes, Axis, Part, merge, positive};
use msq_passes::ir::{Graph, Node, ValueId};

/// The axes behind a Reshape, Flatten, Unsqueeze or Squeeze.
pub(super) fn reshaped(graph: &Graph, node: &Node, axes: Axes) -> Option<Axes> {
    let listed = || match node.input(1) {
        Some(value) => integers(graph, value),
        None => Some(node.ints("axes").to_vec()),
    };
    match node.op() {
        "Unsqueeze" => unsqueezed(axes, &listed()?),
        "Squeeze" => squeezed(axes, &listed()?),
        "Flatten" => {
            let at = positive(node.int_or("axis", 1), axes.len() + 1)?;
            Some(vec![merge(&axes[..at]), merge(&axes[at..])])
        }
        _ => Some(regrouped(&axes, &sizes(graph, node, &axes)?)),
    }
}

/// The axes behind an Expand: nothing is known of those that it repeats.
pub(super) fn expanded(graph: &Graph, node: &Node, axes: Axes) -> Option<Axes> {
    let missing = declared_rank(graph, node)?.checked_sub(axes.len())?;
    let axes = (0..missing).map(|_| Axis::plain(None)).chain(axes);
    Some(axes.map(|axis| if axis.size == Some(1) { Axis::plain(None) } else { axis }).collect())
}

fn unsqueezed(axes: Axes, added: &[i64]) -> Option<Axes> {
    let rank = axes.len() + added.len();
    let places: Vec<usize> = added.iter().map(|&at| positive(at, rank)).collect::<Option<_>>()?;
    let mut rest = axes.into_iter();
    (0..rank).map(|at| if places.contains(&at) { Some(Axis::plain(Some(1))) } else { rest.next() }).collect()
}

fn squeezed(axes: Axes, listed: &[i64]) -> Option<Axes> {
    let gone: Vec<usize> = listed.iter().map(|&at| positive(at, axes.len())).collect::<Option<_>>()?;
    if gone.is_empty() {
        return None;
    }
    Some(axes.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, axis)| axis).collect())
}

/// The sizes of the axes that a Reshape makes: those the graph declares, else those it asks for, 0 for the input's.
fn sizes(graph: &Graph, node: &Node, axes: &[Axis]) -> Option<Vec<Option<usize>>> {
    let declared = node.output(0).and_then(|value| graph.value(value).shape());
    let asked = target_shape(graph, node);
    let rank = declared.as_ref().map(Vec::len).or(asked.as_ref().map(Vec::len))?;
    let size = |at: usize| {
        let of_declared = declared.as_ref().and_then(|shape| shape.get(at).copied().flatten());
        let of_asked = asked.as_ref().and_then(|shape| shape.get(at).copied().flatten());
        let zero = || axes.get(at).and_then(|axis| axis.size).filter(|_| of_asked == Some(0));
        of_declared.or(of_asked.filter(|&n| n > 0).map(|n| n as usize)).or_else(zero)
    };
    Some((0..rank).map(size).collect())
}

/// The rank of a node's first output, as declared, or as its constant or concatenated shape says.
fn declared_rank(graph: &Graph, node: &Node) -> Option<usize> {
    let declared = node.output(0).and_then(|value| graph.value(value).shape());
    declared.map(|shape| shape.len()).or_else(|| Some(target_shape(graph, node)?.len()))
}

/// The shape that a Reshape or an Expand asks for; lengths that are computed are not known.
fn target_shape(graph: &Graph, node: &Node) -> Option<Vec<Option<i64>>> {
    let value = node.input(1)?;
    if let Some(shape) = integers(graph, value) {
        return Some(shape.into_iter().map(Some).collect());
    }
    let (producer, _) = graph.value(value).producer()?;
    let concat = graph.node(producer);
    if !concat.is("Concat") {
        return None;
    }
    let piece = |value: ValueId| {
        if let Some(numbers) = integers(graph, value) {
            Some(numbers.into_iter().map(Some).collect::<Vec<_>>())
        } else {
            let one = graph.value(value).shape() == Some(vec![Some(1)])
                || graph.value(value).producer().is_some_and(|(node, _)| graph.node(node).is("Unsqueeze"));
            one.then(|| vec![None])
        }
    };
    let pieces: Option<Vec<_>> = concat.inputs().iter().map(|value| piece((*value)?)).collect();
    Some(pieces?.concat())
}

pub(super) fn integers(graph: &Graph, value: ValueId) -> Option<Vec<i64>> {
    graph.constant(value)?.to_i64().ok()
}

/// Axes after a Reshape to these sizes: equal ends stay, what lies between is joined, or taken apart again.
fn regrouped(axes: &[Axis], sizes: &[Option<usize>]) -> Axes {
    let (mut from, mut to) = (axes, sizes);
    let mut behind: Vec<Axis> = Vec::new();
    // From the end: an axis that stays, or a known length taken apart or joined.
    while let ([.., axis], [.., size]) = (from, to) {
        let alone = from.len() == 1 || to.len() == 1;
        if axis.size == *size && (axis.size.is_some() || !alone || from.len() == to.len()) {
            behind.push(axis.clone());
            (from, to) = (&from[..from.len() - 1], &to[..to.len() - 1]);
        } else if let Some((taken, made)) = run(from, to) {
            let (old, new) = (&from[from.len() - taken..], &to[to.len() - made..]);
            behind.extend(split(old, new).into_iter().rev());
            (from, to) = (&from[..from.len() - taken], &to[..to.len() - made]);
        } else {
            break;
        }
    }
    // From the front, where something between is not understood.
    let mut front: Vec<Axis> = Vec::new();
    while let ([axis, ..], [size, ..]) = (from, to) {
        if from.len() < 2 || to.len() < 2 || axis.size != *size || axis.size.is_none() {
            break;
        }
        front.push(axis.clone());
        (from, to) = (&from[1..], &to[1..]);
    }
    front.extend(split(from, to));
    front.extend(behind.into_iter().rev());
    front
}

/// How many axes at the end have the product of how many sizes there, all of them known.
fn run(from: &[Axis], to: &[Option<usize>]) -> Option<(usize, usize)> {
    let (mut taken, mut made) = (1, 1);
    let (mut old, mut new) = (from.last()?.size?, (*to.last()?)?);
    while old != new {
        if old < new {
            taken += 1;
            old = old.checked_mul(from.get(from.len().checked_sub(taken)?)?.size?)?;
        } else {
            made += 1;
            new = new.checked_mul((*to.get(to.len().checked_sub(made)?)?)?)?;
        }
    }
    Some((taken, made))
}

/// Axes that become others of the same number of elements.
fn split(from: &[Axis], to: &[Option<usize>]) -> Axes {
    if let [size] = to {
        return vec![Axis { size: *size, ..merge(from) }];
    }
    let parts: Vec<Part> = from.iter().flat_map(Axis::parts).collect();
    // Each part becomes an axis again; lengths of 1 are in no part.
    let places: Vec<usize> = (0..to.len()).filter(|&at| to[at] != Some(1)).collect();
    let marked = from.iter().any(Axis::is_marked);
    let fits = |(&place, part): (&usize, &Part)| match (to[place], part) {
        (Some(size), Part::Other(Some(known))) => size == *known,
        _ => true,
    };
    if !marked || parts.len() != places.len() || !places.iter().zip(&parts).all(fits) {
        return to.iter().copied().map(Axis::plain).collect();
    }
    let mut axes: Axes = to.iter().copied().map(Axis::plain).collect();
    for (place, part) in places.into_iter().zip(parts) {
        if !matches!(part, Part::Other(_)) {
            axes[place].parts = vec![part];
        }
    }
    axes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(list: &[(Option<usize>, &[Part])]) -> Axes {
        list.iter().map(|&(size, parts)| Axis { size, parts: parts.to_vec() }).collect()
    }

    const B: Part = Part::Batch;
    const T: Part = Part::Sequence(0);

    fn parts(axes: &Axes) -> Vec<Vec<Part>> {
        axes.iter().map(|axis| axis.parts.clone()).collect()
    }

    #[test]
    fn reshapes_of_heads_and_rows() {
        let tokens = axes(&[(None, &[B]), (None, &[T]), (Some(384), &[])]);
        let heads = regrouped(&tokens, &[None, None, Some(12), Some(32)]);
        assert_eq!(parts(&heads), [vec![B], vec![T], vec![], vec![]]);
        assert_eq!(parts(&regrouped(&heads, &[None, None, Some(384)])), [vec![B], vec![T], vec![]]);
        let rows = regrouped(&tokens, &[None, Some(384)]);
        assert_eq!(parts(&rows), [vec![B, T], vec![]]);
        assert_eq!(parts(&regrouped(&rows, &[None, None, Some(12), Some(32)])), [vec![B], vec![T], vec![], vec![]]);
        // [N, H, T, D] to [N·H, T, D] and back.
        let scores = axes(&[(None, &[B]), (Some(12), &[]), (None, &[T]), (Some(32), &[])]);
        let flat = regrouped(&scores, &[None, None, Some(32)]);
        assert_eq!(parts(&flat), [vec![B, Part::Other(Some(12))], vec![T], vec![]]);
        assert_eq!(parts(&regrouped(&flat, &[None, Some(12), None, Some(32)])), [vec![B], vec![], vec![T], vec![]]);
        // All lengths known.
        let known = axes(&[(Some(2), &[B]), (Some(64), &[T]), (Some(96), &[])]);
        assert_eq!(
            parts(&regrouped(&known, &[Some(2), Some(64), Some(4), Some(24)])),
            [vec![B], vec![T], vec![], vec![]]
        );
        assert_eq!(parts(&regrouped(&known, &[Some(128), Some(96)])), [vec![B, T], vec![]]);
        // Positions and features in one axis, taken apart otherwise: nothing is known of the parts.
        let mixed = regrouped(&known, &[Some(2), Some(6144)]);
        assert_eq!(parts(&mixed), [vec![B], vec![T, Part::Other(Some(96))]]);
        assert_eq!(parts(&regrouped(&mixed, &[Some(2), Some(32), Some(192)])), [vec![B], vec![], vec![]]);
    }
}
