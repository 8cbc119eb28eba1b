//! Weights that lie side by side in one value, their pool, cut apart.
//!
//! Weights whose shapes differ in one axis only, the one along which the pool joins them, are brought into shape together:
//!
//! ```text
//! joined  = Reshape(pool, [.., Σ lengths, ..])
//! w1, w2… = Split(joined, lengths)
//! ```
//!
//! instead of a `Reshape` for each.

use super::unpack::{reshape, split};
use crate::ir::{Graph, ValueId};
use indexmap::IndexMap;

/// A weight in a pool.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// How much of the pool it takes.
    pub(super) share: usize,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// The axis of its shape along which the pool joins it to others; `None` where its elements lie in another order.
    pub(super) axis: Option<usize>,
}

impl Piece {
    /// What weights have in common that are brought into shape together.
    fn form(&self) -> (Option<usize>, Vec<usize>) {
        let mut form = self.shape.clone();
        if let Some(axis) = self.axis {
            form[axis] = 0;
        }
        (self.axis, form)
    }
}

/// Weights beside the pieces they take, those that are alike next to each other: the order in which a pool holds them.
pub(super) fn grouped<T>(pieces: impl Iterator<Item = (T, Piece)>) -> Vec<Vec<(T, Piece)>> {
    let mut groups: IndexMap<_, Vec<(T, Piece)>> = IndexMap::new();
    for (weight, piece) in pieces {
        groups.entry(piece.form()).or_default().push((weight, piece));
    }
    groups.into_values().collect()
}

/// From this number on, cutting twice takes fewer bytes than a `Reshape` for each weight.
const WORTH: usize = 5;

/// Whether the pool is one group and can be brought into shape as it is.
pub(super) fn is_one<T>(groups: &[Vec<(T, Piece)>], padding: usize) -> bool {
    matches!(groups, [only] if padding == 0 && (only.len() == 1 || only[0].1.axis.is_some()))
}

/// Cuts a pool along an axis, with what fills it up at its end. Weights that are alone are brought into shape by `alone`.
pub(super) fn deal<T>(
    graph: &mut Graph,
    (pool, axis): (ValueId, i64),
    groups: &[Vec<(T, Piece)>],
    padding: usize,
    mut alone: impl FnMut(&mut Graph, &T, ValueId) -> ValueId,
) -> Vec<ValueId> {
    let least = if is_one(groups, padding) { 2 } else { WORTH };
    let joined = |group: &[(T, Piece)]| group.len() >= least && group[0].1.axis.is_some();
    let shares = groups.iter().flat_map(|group| {
        let shares: Vec<i64> = group.iter().map(|(_, piece)| piece.share as i64).collect();
        if joined(group) { vec![shares.iter().sum()] } else { shares }
    });
    let shares: Vec<i64> = shares.chain((padding > 0).then_some(padding as i64)).collect();
    let cut = if let [_] = shares[..] { vec![pool] } else { split(graph, pool, &shares, axis) };
    let mut cut = cut.into_iter();
    let mut dealt = Vec::new();
    for group in groups {
        let Some(axis) = group[0].1.axis.filter(|_| joined(group)) else {
            dealt.extend(group.iter().zip(&mut cut).map(|((weight, _), value)| alone(graph, weight, value)));
            continue;
        };
        let lengths: Vec<i64> = group.iter().map(|(_, piece)| piece.shape[axis] as i64).collect();
        let mut shape: Vec<i64> = group[0].1.shape.iter().map(|&n| n as i64).collect();
        shape[axis] = lengths.iter().sum();
        let whole = cut.next().map(|value| reshape(graph, value, &shape, "integers"));
        dealt.extend(whole.into_iter().flat_map(|whole| split(graph, whole, &lengths, axis as i64)));
    }
    dealt
}
