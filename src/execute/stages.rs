//! Policy: models too large for the engine are run in stages.
//!
//! The engine holds a model about four times while it loads it. Where that is too much, the nodes, in graph order, are
//! dealt out to stages whose weights fit a limit. One stage after another is loaded and run on all samples, and hands the
//! next the values that are live at the cut ([`Partition`]). A cut goes where little is handed on, and where it is floats,
//! or integers between quantizers: shapes have to be computed where they are used. Where the values handed on of all
//! samples take too much, samples go through all stages a few shards at a time, which changes no result.

use super::ExecuteError;
use super::fold::{HELD, Pool, SHARD, fold_pair};
use super::partition::Partition;
use super::segment::{Ran, Segment, inputs};
use crate::data::{Dataset, Sample};
use crate::engine::EngineError;
use crate::runtime::Runtime;
use msq_passes::ir::{DataType, Graph, Model, TensorProto, ValueId};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

/// Bytes of external weights that are loaded at once where no limit on memory is given.
const AT_ONCE: u64 = 1 << 30;
/// The engine's share of the memory allowed is one in this many: what it makes is held beside it.
const SHARE: u64 = 3;
/// Bytes that the values handed from one stage to the next may take, over all samples, where no limit on memory is given.
const HANDED: u64 = 256 << 20;

/// What a stage may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Bytes of weights, as floats.
    most: u64,
    /// Whether somebody asked for it. Otherwise a model that cannot be cut runs whole.
    asked: bool,
}

impl Limit {
    /// Of stages of a model, where the engine is not to hold all of its weights that are in other files.
    pub(crate) fn of(model: &Model, memory: Option<u64>) -> Option<Self> {
        Self::for_weights(model.external_bytes(), memory)
    }

    /// The limit for a model whose weights count wherever they are stored, as the floats that the engine makes of them: for
    /// quantized models, whose files are small.
    pub(crate) fn of_all_weights(model: &Model, memory: Option<u64>) -> Option<Self> {
        let all = || model.graph.initializers().map(|(_, tensor)| as_floats(tensor)).sum();
        Self::for_weights(if memory.is_some() { all() } else { model.external_bytes() }, memory)
    }

    fn for_weights(bytes: u64, memory: Option<u64>) -> Option<Self> {
        let whole = memory.map_or(AT_ONCE, |memory| memory / HELD);
        let most = memory.map_or(AT_ONCE, |memory| memory / HELD / SHARE);
        (bytes > whole).then_some(Self { most, asked: memory.is_some() })
    }

    /// Of stages of the same model once it is quantized: scales and zero points come on top of the weights.
    pub(crate) fn quantized(self) -> Self {
        Self { most: self.most + self.most / 4, ..self }
    }
}

/// A segment and where it is cut.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    segment: &'a Segment,
    /// Names of the values that each stage but the last hands on.
    handed: Vec<Vec<String>>,
    /// How many nodes of the segment are in front of each cut.
    ends: Vec<usize>,
    /// What runs the segment where there is one stage: every run takes its plans.
    whole: OnceLock<Pool<'a>>,
}

impl<'a> Stages<'a> {
    /// Splits a segment into the fewest stages whose weights fit the limit; without a limit, one stage. Says why, where
    /// there is no place to cut.
    pub(crate) fn new(segment: &'a Segment, limit: Option<Limit>) -> Result<Self, EngineError> {
        let cut = |limit: Limit| match Cuts::new(segment, limit.most).all() {
            Err(reason) if limit.asked => Err(EngineError::Load { reason }),
            cuts => Ok(cuts.unwrap_or_default()),
        };
        let (ends, handed) = limit.map_or(Ok(Vec::new()), cut)?.into_iter().unzip();
        Ok(Self { segment, handed, ends, whole: OnceLock::new() })
    }

    /// How many nodes of the segment are in front of each cut.
    pub(crate) fn ends(&self) -> Vec<usize> {
        self.ends.clone()
    }

    /// How many stages there are, at least one.
    pub(crate) fn len(&self) -> usize {
        self.handed.len() + 1
    }

    /// A stage that is fed with what the stage before handed on, of which a sample is given. What is wanted of it is what
    /// it hands on; of the last, what is wanted of the whole.
    pub(crate) fn stage(&self, at: usize, fed: &Sample) -> Result<Cow<'a, Segment>, ExecuteError> {
        if self.len() == 1 {
            return Ok(Cow::Borrowed(self.segment));
        }
        let names = if at == 0 { inputs(&self.segment.model) } else { self.handed[at - 1].clone() };
        let wanted = self.handed.get(at).unwrap_or(&self.segment.names);
        Segment::between(&self.segment.model, &names, fed, wanted).map(Cow::Owned)
    }

    /// Runs every sample through all stages; otherwise as [`Pool::fold`].
    pub(crate) fn fold<S: Send, E: Send + From<ExecuteError>>(
        &self,
        data: &Dataset,
        runtime: &Runtime,
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, Ran) -> Result<(), E> + Sync,
        mut merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        for part in parts(data.len(), self.at_once(data, runtime)?) {
            let (last, fed) = self.approach(&data.range(part.start, part.end), runtime)?;
            let visit = |sum: &mut S, index: usize, ran: Ran| visit(sum, part.start + index, ran);
            self.pool(&Pool::new(&last, runtime), runtime).fold(&fed, runtime, &begin, visit, &mut merge)?;
        }
        Ok(())
    }

    /// What runs the last stage: where it is the only one, always the same pool, so that a plan is built once.
    fn pool<'p>(&'p self, last: &'p Pool<'p>, runtime: &Runtime) -> &'p Pool<'p> {
        if self.len() == 1 { self.whole.get_or_init(|| Pool::new(self.segment, runtime)) } else { last }
    }

    /// Runs every sample through all stages, and looks at some values in whichever stage they are found: `visit` gets
    /// their numbers in `taps` and what was run, whose values are those, in this order. `begin` and `merge` get the
    /// numbers too. Names that are not there are passed over.
    pub(crate) fn fold_taps<S: Send, E: Send + From<ExecuteError>>(
        &self,
        taps: &[String],
        data: &Dataset,
        runtime: &Runtime,
        begin: impl Fn(&[usize]) -> S + Sync,
        visit: impl Fn(&mut S, &[usize], usize, Ran) -> Result<(), E> + Sync,
        mut merge: impl FnMut(&[usize], S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        for part in parts(data.len(), self.at_once(data, runtime)?) {
            let mut fed = data.range(part.start, part.end);
            let mut left: Vec<usize> = (0..taps.len()).collect();
            for at in 0..self.len() {
                let last = at + 1 == self.len();
                let stage = self.stage(at, &fed.sample(0).map_err(ExecuteError::from)?)?;
                let here: Vec<usize> = left.extract_if(.., |tap| stage.has(&taps[*tap])).collect();
                let handed = stage.names.len();
                let stage =
                    stage.into_owned().and_taps(&here.iter().map(|&tap| taps[tap].clone()).collect::<Vec<_>>())?;
                let mut next = Vec::new();
                let visit = |(sum, kept): &mut (S, Vec<Sample>), index: usize, ran: Ran| {
                    if !last {
                        kept.push(ran.sample(handed).map_err(ExecuteError::from)?);
                    }
                    visit(sum, &here, part.start + index, ran.skip(handed))
                };
                let merge = |(sum, kept): (S, Vec<Sample>)| {
                    next.extend(kept);
                    merge(&here, sum)
                };
                let own = runtime.silent();
                let runtime = if last { runtime } else { &own };
                Pool::new(&stage, runtime).fold(&fed, runtime, || (begin(&here), Vec::new()), visit, merge)?;
                fed = Dataset::stored(next);
            }
        }
        Ok(())
    }

    /// Runs one sample through all stages and looks at what is wanted of the whole.
    pub(crate) fn once<T>(
        &self,
        data: &Dataset,
        runtime: &Runtime,
        look: impl FnOnce(Ran) -> T,
    ) -> Result<T, ExecuteError> {
        let (last, fed) = self.approach(&data.range(0, 1), runtime)?;
        self.pool(&Pool::new(&last, runtime), runtime).once(&fed.sample(0)?, look)
    }

    /// Runs all stages but the last: the last stage, and the samples to feed it with.
    fn approach(&self, data: &Dataset, runtime: &Runtime) -> Result<(Cow<'a, Segment>, Dataset), ExecuteError> {
        let (mut fed, runtime) = (data.clone(), runtime.silent());
        for at in 0..self.handed.len() {
            let stage = self.stage(at, &fed.sample(0)?)?;
            let mut next = Vec::new();
            let keep = |kept: &mut Vec<Sample>, _, ran: Ran| -> Result<(), ExecuteError> {
                kept.push(ran.sample(ran.len())?);
                Ok(())
            };
            let merge = |kept: Vec<Sample>| {
                next.extend(kept);
                Ok(())
            };
            Pool::new(&stage, &runtime).fold(&fed, &runtime, Vec::new, keep, merge)?;
            fed = Dataset::stored(next);
        }
        let last =
            if self.len() == 1 { Cow::Borrowed(self.segment) } else { self.stage(self.handed.len(), &fed.sample(0)?)? };
        Ok((last, fed))
    }

    /// How many samples leave room for what stages hand on, judged by the first: whole shards.
    pub(crate) fn at_once(&self, data: &Dataset, runtime: &Runtime) -> Result<usize, ExecuteError> {
        let (mut fed, mut least) = (data.range(0, 1), usize::MAX);
        for at in 0..if data.len() > SHARD { self.handed.len() } else { 0 } {
            let sample = fed.sample(0)?;
            let stage = self.stage(at, &sample)?;
            let next = Pool::new(&stage, runtime).once(&sample, |ran| {
                least = least.min(fitting(ran, ran.len(), runtime.memory));
                ran.sample(ran.len())
            })?;
            fed = Dataset::stored(vec![next?]);
        }
        Ok((least / SHARD * SHARD).max(SHARD))
    }
}

/// Runs every sample through a segment, in stages where there is a limit; otherwise as [`Pool::fold`].
pub(crate) fn fold_within<S: Send, E: Send + From<ExecuteError>>(
    segment: &Segment,
    limit: Option<Limit>,
    data: &Dataset,
    runtime: &Runtime,
    begin: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, usize, Ran) -> Result<(), E> + Sync,
    merge: impl FnMut(S) -> Result<(), E> + Send,
) -> Result<(), E> {
    Stages::new(segment, limit).map_err(ExecuteError::from)?.fold(data, runtime, begin, visit, merge)
}

/// Runs the same samples through two segments side by side, each in stages where it has a limit; otherwise as
/// [`fold_pair`].
pub(crate) fn fold_pair_within<S: Send, E: Send + From<ExecuteError>>(
    segments: [&Segment; 2],
    limits: [Option<Limit>; 2],
    data: [&Dataset; 2],
    runtime: &Runtime,
    begin: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, usize, [Ran; 2]) -> Result<(), E> + Sync,
    merge: impl FnMut(S) -> Result<(), E> + Send,
) -> Result<(), E> {
    let [first, second] = [0, 1].map(|side| Stages::new(segments[side], limits[side]).map_err(ExecuteError::from));
    fold_stages([&first?, &second?], data, runtime, begin, visit, merge)
}

/// Runs the same samples through two segments that are cut into stages already.
pub(crate) fn fold_stages<S: Send, E: Send + From<ExecuteError>>(
    [first, second]: [&Stages; 2],
    [data, other]: [&Dataset; 2],
    runtime: &Runtime,
    begin: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, usize, [Ran; 2]) -> Result<(), E> + Sync,
    mut merge: impl FnMut(S) -> Result<(), E> + Send,
) -> Result<(), E> {
    let at_once = first.at_once(data, runtime)?.min(second.at_once(other, runtime)?);
    for part in parts(data.len(), at_once) {
        let (last, fed) = first.approach(&data.range(part.start, part.end), runtime)?;
        let (other_last, other_fed) = second.approach(&other.range(part.start, part.end), runtime)?;
        let [last, other_last] = [Pool::new(&last, runtime), Pool::new(&other_last, runtime)];
        let pools = [first.pool(&last, runtime), second.pool(&other_last, runtime)];
        let visit = |sum: &mut S, index: usize, ran: [Ran; 2]| visit(sum, part.start + index, ran);
        fold_pair(pools, [&fed, &other_fed], runtime, &begin, visit, &mut merge)?;
    }
    Ok(())
}

/// Samples in parts of so many each.
fn parts(samples: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    (0..samples).step_by(at_once).map(move |start| start..start.saturating_add(at_once).min(samples))
}

/// How many samples leave room for the first `handed` values of all of them, judged by one.
fn fitting(ran: Ran, handed: usize, memory: Option<u64>) -> usize {
    let room = memory.map_or(HANDED, |memory| memory / HELD / SHARE);
    usize::try_from(room / ran.bytes(handed).max(1)).unwrap_or(usize::MAX).max(1)
}

/// Where a graph can be cut.
struct Cuts<'a> {
    graph: &'a Graph,
    partition: Partition,
    /// Bytes of weights, as floats, that a stage may have.
    most: u64,
}

impl<'a> Cuts<'a> {
    fn new(segment: &'a Segment, most: u64) -> Self {
        let graph = &segment.model.graph;
        let wanted = segment.names.iter().filter_map(|name| graph.find(name));
        Self { graph, partition: Partition::of_graph(graph, wanted), most }
    }

    /// Where each cut is and names of what is handed on there, or why the stages would be too large.
    fn all(&self) -> Result<Vec<(usize, Vec<String>)>, String> {
        let mut cuts = Vec::new();
        let mut start = 0;
        loop {
            let reached = self.reach(start);
            let end = start + reached.len();
            if end == self.partition.nodes.len() {
                return Ok(cuts);
            }
            let least = reached.last().copied().unwrap_or_default() / 2;
            let places = (start + 1..=end).filter(|&at| reached[at - start - 1] >= least);
            let cuts_there = places.filter_map(|at| Some((at, self.handed(at)?)));
            let Some((at, (_, values))) = cuts_there.min_by_key(|(at, (elements, _))| (*elements, Reverse(*at))) else {
                let (node, most) = (self.graph.node(self.partition.nodes[end]).label(self.graph), self.most);
                return Err(format!(
                    "up to node `{node}`, stages of {most} bytes are not enough for its weights: allow more memory"
                ));
            };
            cuts.push((at, values.into_iter().map(|value| self.graph.value(value).name().to_owned()).collect()));
            start = at;
        }
    }

    /// Bytes of weights of a stage that starts somewhere, node by node, as long as they fit.
    fn reach(&self, start: usize) -> Vec<u64> {
        let mut held = HashSet::new();
        let mut bytes = 0;
        let add = |weights: &HashSet<ValueId>| {
            let new = weights.iter().filter(|&&value| held.insert(value));
            bytes += new.filter_map(|&value| self.graph.initializer(value)).map(as_floats).sum::<u64>();
            bytes
        };
        self.partition.weights[start..].iter().map(add).take_while(|&bytes| bytes <= self.most).collect()
    }

    /// What is handed on behind so many nodes, after how many elements it has, unknown dimensions aside; nothing where
    /// some of it has to be computed where it is used.
    fn handed(&self, at: usize) -> Option<(u64, Vec<ValueId>)> {
        let values = self.partition.crossing(at);
        let elements = |&value: &ValueId| {
            let shape = self.graph.value(value).shape().unwrap_or_default();
            shape.into_iter().flatten().fold(1, |count: u64, n| count.saturating_mul(n as u64))
        };
        values
            .iter()
            .all(|&value| self.can_be_handed(value))
            .then(|| (values.iter().map(elements).fold(0, u64::saturating_add), values))
    }

    fn can_be_handed(&self, value: ValueId) -> bool {
        let entry = self.graph.value(value);
        let Some((node, _)) = entry.producer() else { return true };
        let quantizer = ["QuantizeLinear", "DequantizeLinear"].contains(&self.graph.node(node).op());
        quantizer || entry.element_type().is_some_and(DataType::is_float)
    }
}

/// Bytes of a tensor's elements as floats, which the engine makes of integers.
fn as_floats(tensor: &TensorProto) -> u64 {
    4 * tensor.element_count().unwrap_or_default() as u64
}

#[cfg(test)]
mod tests;
