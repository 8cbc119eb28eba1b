//! Shapes of values, as far as the file says or the nodes before them show.

use super::super::view::View;
use crate::analysis::quantized::{is_dequantizer, is_quantizer};
use crate::ir::{Node, ValueId};
use crate::ops::{Trait, facts};

/// How far back shapes are looked for.
const DEPTH: usize = 32;

/// The lengths of a value's axes, where their number is known.
pub(super) fn of(view: &View, value: ValueId) -> Option<Vec<Option<usize>>> {
    behind(view, value, DEPTH)
}

fn behind(view: &View, value: ValueId, depth: usize) -> Option<Vec<Option<usize>>> {
    if let Some(shape) = view.graph.value(value).shape() {
        return Some(shape);
    }
    if let Some(shape) = view.shape(value).filter(|_| view.is_constant(value)) {
        return Some(shape.into_iter().map(Some).collect());
    }
    let node = view.producer(value).filter(|_| depth > 0)?;
    let input = |slot: usize| behind(view, node.input(slot)?, depth - 1);
    let keeps = || facts(node.op()).has(Trait::Conversion) || facts(node.op()).has(Trait::Rectifier);
    match node.op() {
        _ if is_quantizer(node) || is_dequantizer(node) => input(0),
        "Sigmoid" | "Tanh" | "Erf" | "Gelu" | "Softmax" | "LayerNormalization" => input(0),
        "Add" | "Sub" | "Mul" | "Div" => Some(broadcast(input(0)?, &input(1).unwrap_or_default())),
        "GlobalAveragePool" => {
            let mut shape = input(0)?;
            shape.iter_mut().skip(2).for_each(|size| *size = Some(1));
            Some(shape)
        }
        "Flatten" => flattened(&input(0)?, node.int_or("axis", 1)),
        "Reshape" => reshaped(view, node),
        "Unsqueeze" => unsqueezed(view, node, input(0)?),
        "MatMul" => product(input(0)?, &input(1)?),
        "Gemm" => gemm(node, &input(0)?, &input(1)?),
        _ if keeps() => input(0),
        _ => None,
    }
}

fn broadcast(a: Vec<Option<usize>>, b: &[Option<usize>]) -> Vec<Option<usize>> {
    let (mut long, short) = if a.len() >= b.len() { (a, b.to_vec()) } else { (b.to_vec(), a) };
    let lead = long.len() - short.len();
    for (wide, narrow) in long.iter_mut().skip(lead).zip(short) {
        if *wide == Some(1) {
            *wide = narrow;
        }
    }
    long
}

fn flattened(shape: &[Option<usize>], axis: i64) -> Option<Vec<Option<usize>>> {
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    let (head, tail) = shape.split_at_checked(axis)?;
    let size = |part: &[Option<usize>]| part.iter().copied().try_fold(1, |product: usize, n| product.checked_mul(n?));
    Some(vec![size(head), size(tail)])
}

fn reshaped(view: &View, node: &Node) -> Option<Vec<Option<usize>>> {
    let shape = view.graph.constant(node.input(1)?)?.to_i64().ok()?;
    Some(shape.into_iter().map(|n| usize::try_from(n).ok().filter(|&n| n > 0)).collect())
}

fn unsqueezed(view: &View, node: &Node, shape: Vec<Option<usize>>) -> Option<Vec<Option<usize>>> {
    let mut axes = view.graph.constant(node.input(1)?)?.to_i64().ok()?;
    let rank = (shape.len() + axes.len()) as i64;
    axes.iter_mut().filter(|axis| **axis < 0).for_each(|axis| *axis += rank);
    axes.sort_unstable();
    let mut shape = shape;
    for axis in axes {
        let at = usize::try_from(axis).ok().filter(|&at| at <= shape.len())?;
        shape.insert(at, Some(1));
    }
    Some(shape)
}

fn product(mut a: Vec<Option<usize>>, b: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
    if b.len() != 2 || a.is_empty() {
        return None;
    }
    *a.last_mut()? = b[1];
    Some(a)
}

fn gemm(node: &Node, a: &[Option<usize>], b: &[Option<usize>]) -> Option<Vec<Option<usize>>> {
    let axis = |name: &str, plain: usize| if node.int_or(name, 0) == 0 { plain } else { 1 - plain };
    Some(vec![*a.get(axis("transA", 0))?, *b.get(axis("transB", 1))?])
}
