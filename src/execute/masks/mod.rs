//! Positions of sequences that do not count: padding that a mask or lengths among the inputs leave out.
//!
//! What a network computes there is of no use to anybody, so it is left out of statistics, of the errors that solvers
//! minimise, and of every figure. [`Masks::of`] finds the inputs that say so (`source`) and follows their axes through
//! the graph (`axes`); [`Masks::of_sample`] reads them for one sample; [`Kept::of`] says which elements of a value count.
//! Wherever something is not certain, everything counts: an unknown operator, a size that does not fit, a mask with
//! other elements than 0 and 1, a sample without a position left.

mod axes;
mod source;
#[cfg(test)]
mod tests;

use crate::data::{Array, DataError, Dataset};
use axes::{Axes, Part};
use msq_passes::ir::Model;
use source::{Rule, Source};
pub(crate) use source::{masking, with_readers};
use std::collections::HashMap;

/// How far positions may differ that count as equal: squares relative to their own.
const EQUAL: f64 = 1e-2;

/// The masks among a model's inputs, and the axes of values that they reach.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks {
    sources: Vec<Source>,
    axes: HashMap<String, Axes>,
    /// Whether every position counts by the caller's word, so that nothing is guessed either.
    off: bool,
}

impl Masks {
    /// The masks of a model, or none where the caller wants every position to count.
    pub(crate) fn chosen(model: &Model, wanted: bool) -> Self {
        if wanted { Self::of(model) } else { Self { off: true, ..Self::default() } }
    }

    /// The masks of a model.
    pub(crate) fn of(model: &Model) -> Self {
        let sources = source::find(model);
        if sources.is_empty() {
            return Self::default();
        }
        let axes = axes::propagate(model, &sources);
        Self { sources, axes, off: false }
    }

    /// These masks; of a model without any, what repeats at the ends of its sequence is taken for padding, unless every
    /// position counts by the caller's word. That is a guess, good enough for what weights are fitted to, not for figures.
    pub(crate) fn or_repeats(&self, model: &Model) -> Self {
        if self.off || !self.is_empty() {
            return self.clone();
        }
        let sources = source::sequences(model);
        let axes = axes::propagate(model, &sources);
        Self { sources, axes, off: false }
    }

    /// Whether every position counts by the caller's word.
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// Whether nothing masks.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What was taken for a mask, in words: one line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.sources.iter().map(Source::note).collect()
    }

    /// What the inputs of one sample leave out; `None` where that is nothing.
    pub(crate) fn of_inputs(&self, inputs: &[Array]) -> Option<Kept<'_>> {
        let flags: Vec<Option<Flags>> = self.sources.iter().map(|source| source.flags(inputs)).collect();
        let any = flags.iter().flatten().any(Flags::leaves_out);
        any.then_some(Kept { axes: &self.axes, flags })
    }
}

/// The masks of a model, and the data that feeds it.
#[derive(Clone, Debug)]
pub(crate) struct Masked<'a> {
    masks: &'a Masks,
    data: Dataset,
}

impl<'a> Masked<'a> {
    /// Masks with the samples that are read for them when they are asked for.
    pub(crate) fn new(masks: &'a Masks, data: &Dataset) -> Self {
        Self { masks, data: data.clone() }
    }

    /// What a sample leaves out; `None` where that is nothing.
    pub(crate) fn sample(&self, sample: usize) -> Result<Option<Kept<'a>>, DataError> {
        if self.masks.is_empty() {
            return Ok(None);
        }
        Ok(self.masks.of_inputs(&self.data.sample(sample)?.arrays))
    }
}

/// Which positions of each sample of a batch count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flags {
    /// `[batch, positions]`.
    Positions { batch: usize, length: usize, keep: Vec<bool> },
    /// So many of each sample, of however many there are.
    Lengths(Vec<usize>),
}

impl Flags {
    fn leaves_out(&self) -> bool {
        match self {
            Self::Positions { keep, .. } => keep.iter().any(|keep| !keep),
            Self::Lengths(_) => true,
        }
    }

    fn batch(&self) -> usize {
        match self {
            Self::Positions { batch, .. } => *batch,
            Self::Lengths(lengths) => lengths.len(),
        }
    }

    fn keeps(&self, sample: usize, position: usize) -> bool {
        match self {
            Self::Positions { length, keep, .. } => keep[sample * length + position],
            Self::Lengths(lengths) => position < lengths[sample],
        }
    }
}

impl Source {
    /// The flags of a sample; none where the elements are not those of a mask, or a row keeps nothing.
    fn flags(&self, inputs: &[Array]) -> Option<Flags> {
        let array = inputs.get(self.input)?;
        let values = array.to_f32();
        if self.rule == Rule::Length {
            let lengths: Vec<usize> = values.iter().map(|&v| v as usize).collect();
            return (array.shape().len() == 1 && lengths.iter().all(|&n| n > 0)).then_some(Flags::Lengths(lengths));
        }
        if let Rule::Repeats { axis } = self.rule {
            // Numbers of tokens are near each other without being alike.
            let tolerance = if array.dtype().is_float() { EQUAL } else { 0.0 };
            return repeats(&values, array.shape(), axis, tolerance);
        }
        let &[batch, length] = array.shape() else { return None };
        let keep: Vec<bool> = match self.rule {
            Rule::Flag { set } if values.iter().all(|&v| v == 0.0 || v == 1.0) => {
                values.iter().map(|&v| (v == 1.0) != set).collect()
            }
            Rule::Number { number, equal } => values.iter().map(|&v| (v == number) != equal).collect(),
            _ => return None,
        };
        let rows = keep.chunks(length.max(1)).all(|row| row.contains(&true));
        rows.then_some(Flags::Positions { batch, length, keep })
    }
}

/// Positions at the ends that are all but equal do not count, if they are three or more; of two the inner one does.
fn repeats(values: &[f32], shape: &[usize], axis: usize, tolerance: f64) -> Option<Flags> {
    let (&batch, &length) = (shape.first()?, shape.get(axis)?);
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[1..axis].iter().product();
    let element = |sample: usize, position: usize, at: usize| {
        values[((sample * outer + at / inner) * length + position) * inner + at % inner]
    };
    let equal = |sample: usize, a: usize, b: usize| {
        let pairs = (0..outer * inner).map(|at| (element(sample, a, at), element(sample, b, at)));
        let (difference, size) = pairs.fold((0.0, 0.0), |(difference, size), (x, y)| {
            (difference + f64::from(x - y).powi(2), size + f64::from(y).powi(2))
        });
        difference <= tolerance * size
    };
    let mut keep = Vec::with_capacity(batch * length);
    for sample in 0..batch {
        let run =
            |end: usize, at: &dyn Fn(usize) -> usize| (1..length).take_while(|&i| equal(sample, at(i), end)).count();
        let last = length.saturating_sub(1);
        let (front, back) = (run(0, &|i| i), run(last, &|i| last - i));
        // Three alike and more are padding, of which nothing is learned; two may be what they are.
        let gone = |alike: usize| if alike >= 2 { alike + 1 } else { alike };
        let all = front + back >= last;
        keep.extend((0..length).map(|at| all || at >= gone(front) && at + gone(back) <= last));
    }
    Some(Flags::Positions { batch, length, keep })
}

/// What one sample leaves out.
#[derive(Clone, Debug)]
pub(crate) struct Kept<'a> {
    axes: &'a HashMap<String, Axes>,
    flags: Vec<Option<Flags>>,
}

impl Kept<'_> {
    /// Which elements of a value of this shape count; `None` where all do, or where it is not known.
    pub(crate) fn of(&self, value: &str, shape: &[usize]) -> Option<Positions> {
        let axes = self.axes.get(value)?;
        if axes.len() != shape.len() {
            return None;
        }
        let factors: Vec<Vec<Factor>> =
            axes.iter().zip(shape).map(|(axis, &size)| self.factors(&axis.parts, size)).collect::<Option<_>>()?;
        let several = self.flags.iter().flatten().any(|flags| flags.batch() > 1);
        let places = |factor: &Factor| factor.source.is_some() || (several && factor.batch);
        let last = factors.iter().rposition(|axis| axis.iter().any(places))?;
        if several && !factors.iter().flatten().any(|factor| factor.batch) {
            return None;
        }
        let inner = shape[last + 1..].iter().product::<usize>().max(1);
        let flat: Vec<Factor> = factors[..=last].concat();
        let count: usize = flat.iter().map(|factor| factor.size).product();
        let keep: Vec<bool> = (0..count).map(|index| self.keeps(&flat, index)).collect();
        let some = keep.iter().any(|keep| !keep) && keep.contains(&true);
        some.then_some(Positions { inner, keep })
    }

    /// The factors of an axis of this size: sizes of all of them, and what they count.
    fn factors(&self, parts: &[Part], size: usize) -> Option<Vec<Factor>> {
        let batch = self.flags.iter().flatten().next().map(Flags::batch)?;
        let length = |source: usize| match self.flags.get(source)?.as_ref()? {
            Flags::Positions { length, .. } => Some(*length),
            Flags::Lengths(_) => None,
        };
        let mut found: Vec<Factor> = Vec::new();
        let mut open = None;
        for part in parts {
            let (known, source, counts) = match *part {
                Part::Batch => (Some(batch), None, true),
                // A mask that says nothing of this sample.
                Part::Sequence(source) if self.flags.get(source)?.is_none() => (None, None, false),
                Part::Sequence(source) => (length(source), Some(source), false),
                Part::Other(known) => (known, None, false),
            };
            if known.is_none() && open.replace(found.len()).is_some() {
                return None;
            }
            found.push(Factor { size: known.unwrap_or(1), source, batch: counts });
        }
        if parts.is_empty() {
            return Some(vec![Factor { size, source: None, batch: false }]);
        }
        let product: usize = found.iter().map(|factor| factor.size).product();
        if let Some(open) = open {
            if product == 0 || !size.is_multiple_of(product) {
                return None;
            }
            found[open].size = size / product;
        } else if product != size {
            return None;
        }
        Some(found)
    }

    /// Whether an element counts, given its index over the factors.
    fn keeps(&self, factors: &[Factor], mut index: usize) -> bool {
        let mut sample = 0;
        let mut positions = Vec::new();
        for factor in factors.iter().rev() {
            let at = index % factor.size;
            index /= factor.size;
            if factor.batch {
                sample = at;
            }
            positions.extend(factor.source.map(|source| (source, at)));
        }
        let counts = |(source, at): (usize, usize)| {
            let Some(flags) = self.flags[source].as_ref() else { return true };
            sample >= flags.batch() || flags.keeps(sample, at)
        };
        positions.into_iter().all(counts)
    }
}

/// A factor of an axis.
#[derive(Clone, Copy, Debug)]
struct Factor {
    size: usize,
    /// The mask whose positions it counts.
    source: Option<usize>,
    /// Whether it counts samples.
    batch: bool,
}

/// Which elements of a value count: of each run of `inner` elements all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Elements of a run.
    pub inner: usize,
    /// Whether each run counts.
    pub keep: Vec<bool>,
}

impl Positions {
    /// Whether an element counts.
    pub(crate) fn keeps(&self, element: usize) -> bool {
        self.keep.get(element / self.inner).copied().unwrap_or(true)
    }

    /// The elements that count, in order.
    pub(crate) fn retain<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let runs = values.chunks(self.inner).zip(&self.keep);
        runs.filter(|(_, keep)| **keep).flat_map(|(run, _)| run).copied().collect()
    }
}
