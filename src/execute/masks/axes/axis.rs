//! What is known of one axis, and how axes of several values become one.

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// Samples of a batch.
    Batch,
    /// Positions of the sequence that the mask of this number is for.
    Sequence(usize),
    /// Anything else, as many as the size says, where it is known.
    Other(Option<usize>),
}

/// One axis of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Axis {
    pub(in super::super) size: Option<usize>,
    /// What it counts, slowest first; empty where nothing is known of it.
    pub(in super::super) parts: Vec<Part>,
}

impl Axis {
    pub(super) fn plain(size: Option<usize>) -> Self {
        Self { size, parts: Vec::new() }
    }

    pub(super) fn is_marked(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Its parts, itself one of another kind where nothing is known of it.
    pub(super) fn parts(&self) -> Vec<Part> {
        if self.is_marked() { self.parts.clone() } else { vec![Part::Other(self.size)] }
    }
}

/// The axes of a value of known rank.
pub(in super::super) type Axes = Vec<Axis>;

/// Two axes that are added or compared element by element.
pub(super) fn joined(a: Axis, b: Axis) -> Axis {
    if a.size == Some(1) {
        return b;
    }
    if b.size == Some(1) {
        return a;
    }
    let size = a.size.or(b.size);
    let parts = match (a.is_marked(), b.is_marked()) {
        (true, true) if a.parts != b.parts => Vec::new(),
        (true, _) => a.parts,
        _ => b.parts,
    };
    Axis { size, parts }
}

/// The axes of operands that are broadcast to one shape: ranks are aligned at the last axis.
pub(super) fn broadcast(all: Vec<Axes>) -> Axes {
    let mut total: Axes = Vec::new();
    for mut axes in all {
        if axes.len() > total.len() {
            std::mem::swap(&mut axes, &mut total);
        }
        let offset = total.len() - axes.len();
        for (at, axis) in axes.into_iter().enumerate() {
            total[offset + at] = joined(total[offset + at].clone(), axis);
        }
    }
    total
}

/// Operands of one rank, of which each axis is marked where one marks it.
pub(super) fn alike(all: Vec<Axes>) -> Option<Axes> {
    let rank = all.first()?.len();
    if all.iter().any(|axes| axes.len() != rank) { None } else { Some(broadcast(all)) }
}

/// Several axes as one.
pub(super) fn merge(axes: &[Axis]) -> Axis {
    let size = axes.iter().try_fold(1_usize, |size, axis| size.checked_mul(axis.size?));
    let axes: Vec<&Axis> = axes.iter().filter(|axis| axis.size != Some(1) || axis.is_marked()).collect();
    let parts = if axes.iter().any(|axis| axis.is_marked()) {
        axes.iter().flat_map(|axis| axis.parts()).collect()
    } else {
        Vec::new()
    };
    Axis { size, parts }
}

/// An axis counted from the front, where the rank has it.
pub(super) fn positive(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}
