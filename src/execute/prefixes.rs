//! Policy: runs variants of one network, each only from where it differs.
//!
//! A search runs hundreds of variants that are the same up to some layer. At chosen places, the *marks*, the values that
//! the part before hands to the part behind are kept for every sample, with the hashes of how they were computed
//! ([`content_hashes`]). A later variant starts from the kept values that spare it most, among those it would compute in
//! the very same way; so results are those of running it from the start, bit for bit.

use super::ExecuteError;
use super::partition::boundary;
use super::segment::{Ran, Segment, inputs};
use super::stages::{Limit, Stages, fold_within};
use crate::data::{Dataset, Sample};
use crate::runtime::Runtime;
use msq_passes::analysis::{Layer, content_hashes};
use msq_passes::ir::{Graph, Model, NodeId, ValueId};
use std::collections::{HashMap, HashSet};
use std::iter::Sum;

/// A place between layers.
#[derive(Clone, Debug)]
struct Mark {
    /// Values written by the layers before it.
    done: Vec<String>,
    /// Names of the layers behind it.
    waiting: Vec<String>,
}

/// Values kept at a mark.
#[derive(Clone, Debug)]
struct Kept {
    mark: usize,
    /// Names and content hashes.
    values: Vec<(String, u64)>,
    /// One set of values for each part of the data.
    parts: Vec<Dataset>,
}

/// How much was run, in multiply-accumulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// What was run.
    pub run: u64,
    /// What running every variant from the start would have taken.
    pub full: u64,
}

impl Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { run: a.run + b.run, full: a.full + b.full })
    }
}

/// Runs variants of a network on parts of the data.
#[derive(Debug)]
pub(crate) struct Prefixes {
    parts: Vec<Dataset>,
    marks: Vec<Mark>,
    kept: Vec<Kept>,
    /// Of the stages in which a variant is run.
    limit: Option<Limit>,
    runtime: Runtime<'static>,
    /// Multiply-accumulates of each layer by name.
    costs: HashMap<String, u64>,
    spent: Spent,
}

/// The part of a variant that has to be run.
#[derive(Debug)]
pub(crate) struct Suffix {
    /// The values asked for, then those to be kept.
    segment: Segment,
    /// Which kept values feed it; the inputs if none.
    from: Option<usize>,
    /// How many values were asked for.
    wanted: usize,
    /// Marks whose values it yields.
    yields: Vec<Kept>,
}

impl Prefixes {
    /// Nothing kept yet. Marks are set among the layers, given with the value each writes, so that what is kept takes no
    /// more than `budget` bytes and spares most. `limit` is that of the stages in which the network itself is run.
    pub(crate) fn new(
        model: &Model,
        layers: &[(Layer, String)],
        parts: Vec<Dataset>,
        budget: u64,
        limit: Option<Limit>,
        runtime: &Runtime,
    ) -> Result<Self, ExecuteError> {
        let macs = |layer: &Layer| layer.macs_per_sample(&model.graph).unwrap_or(0);
        let costs = layers.iter().map(|(l, _)| (l.name.clone(), macs(l).max(l.weights() as u64))).collect();
        let mut prefixes = Self {
            parts,
            marks: Vec::new(),
            kept: Vec::new(),
            limit,
            runtime: runtime.silent(),
            costs,
            spent: Spent::default(),
        };
        let places = (1..layers.len()).map(|at| Mark {
            done: layers[..at].iter().map(|(_, value)| value.clone()).collect(),
            waiting: layers[at..].iter().map(|(layer, _)| layer.name.clone()).collect(),
        });
        let costs: Vec<u64> = layers.iter().map(|(layer, _)| prefixes.costs[&layer.name]).collect();
        prefixes.marks = prefixes.affordable(model, &costs, places.collect(), budget)?;
        prefixes.limit = limit.map(Limit::quantized);
        Ok(prefixes)
    }

    /// What was run so far.
    pub(crate) fn spent(&self) -> Spent {
        self.spent
    }

    /// The marks to keep: one after the other the one that spares most for its size, if every layer is as likely as any
    /// other to be where a variant begins to differ.
    fn affordable(
        &self,
        model: &Model,
        costs: &[u64],
        places: Vec<Mark>,
        budget: u64,
    ) -> Result<Vec<Mark>, ExecuteError> {
        let samples: u64 = self.parts.iter().map(|part| part.len() as u64).sum();
        let sizes = self.sizes(model, &places)?;
        let before: Vec<u64> = costs.iter().scan(0, |sum, &cost| Some(std::mem::replace(sum, *sum + cost))).collect();
        let mut chosen: Vec<usize> = Vec::new();
        let mut left = budget;
        loop {
            // What the layers from `at` to the next mark would be spared.
            let gain = |at: usize| {
                let last = chosen.iter().copied().filter(|&c| c < at).max().map_or(0, |c| c + 1);
                let next = chosen.iter().copied().filter(|&c| c > at).min().map_or(costs.len(), |c| c + 1);
                (before[at + 1] - before[last]) as f64 * (next - at - 1) as f64
            };
            let fits = |at: &usize| {
                !chosen.contains(at) && sizes[*at].is_some_and(|size| size.saturating_mul(samples) <= left)
            };
            let worth = |at: usize| gain(at) / sizes[at].unwrap_or(1).max(1) as f64;
            let best = (0..places.len()).filter(fits).max_by(|&a, &b| worth(a).total_cmp(&worth(b)).then(b.cmp(&a)));
            let Some(best) = best.filter(|&at| gain(at) > 0.0) else { break };
            left -= sizes[best].unwrap_or(0) * samples;
            chosen.push(best);
        }
        chosen.sort_unstable();
        Ok(places.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, mark)| mark).collect())
    }

    /// Bytes a sample takes at each mark, judged by the first; nothing where what is handed on is not all floats: shapes
    /// have to be computed where they are used.
    fn sizes(&self, model: &Model, places: &[Mark]) -> Result<Vec<Option<u64>>, ExecuteError> {
        let Some(first) = self.parts.first().filter(|part| !part.is_empty()) else {
            return Ok(vec![None; places.len()]);
        };
        let names: Vec<Vec<String>> = places.iter().map(|place| place.handed(&model.graph)).collect();
        let mut all: Vec<String> = names.concat();
        all.retain(|name| model.graph.find(name).is_some_and(|value| model.graph.value(value).producer().is_some()));
        all.sort_unstable();
        all.dedup();
        let segment = Segment::between(model, &inputs(model), &first.sample(0)?, &all)?;
        let sizes = Stages::new(&segment, self.limit)?.once(first, &self.runtime, |ran| {
            (0..ran.len()).map(|at| ran.as_f32(at).map(|values| 4 * values.len() as u64)).collect::<Vec<_>>()
        })?;
        let sizes: HashMap<&String, Option<u64>> = all.iter().zip(sizes).collect();
        let total = |names: &Vec<String>| names.iter().map(|name| sizes.get(name).copied().flatten()).sum();
        Ok(names.iter().map(|names| if names.is_empty() { None } else { total(names) }).collect())
    }

    /// What has to be run of a variant for the values wanted; with `keep`, values at marks are kept from now on.
    pub(crate) fn suffix(&mut self, variant: &Model, wanted: &[String], keep: bool) -> Result<Suffix, ExecuteError> {
        let graph = &variant.graph;
        let hashes = content_hashes(graph);
        let hash = |name: &String| graph.find(name).and_then(|value| hashes.get(&value).copied());
        let valid = |kept: &Kept| kept.values.iter().all(|(name, known)| hash(name) == Some(*known));
        let targets: Vec<ValueId> = wanted.iter().filter_map(|name| graph.find(name)).collect();
        let reach = |kept: Option<&Kept>| reach(graph, &targets, kept);
        let mut best = (None, reach(None).unwrap_or_default());
        for (at, kept) in self.kept.iter().enumerate().filter(|(_, kept)| valid(kept)) {
            if let Some(nodes) = reach(Some(kept)).filter(|nodes| nodes.len() < best.1.len()) {
                best = (Some(at), nodes);
            }
        }
        let (from, nodes) = best;
        self.count(graph, &nodes);
        let mut names = wanted.to_vec();
        let mut yields = Vec::new();
        for mark in 0..if keep { self.marks.len() } else { 0 } {
            if self.kept.iter().any(|kept| kept.mark == mark && valid(kept)) {
                continue;
            }
            let handed = self.marks[mark].handed(graph);
            let computed = |name: &String| {
                let producer = graph.find(name).and_then(|value| graph.value(value).producer());
                producer.is_some_and(|(node, _)| nodes.contains(&node))
            };
            let fed = |name: &String| from.is_some_and(|at| self.kept[at].values.iter().any(|(fed, _)| fed == name));
            // A value that only passes by would have to be copied: left to a mark further on.
            if handed.is_empty() || !handed.iter().all(|name| computed(name) && !fed(name)) {
                continue;
            }
            let values = handed.iter().filter_map(|name| Some((name.clone(), hash(name)?))).collect();
            names.extend(handed);
            yields.push(Kept { mark, values, parts: Vec::new() });
        }
        let kept = from.map(|at| &self.kept[at]);
        let sample = kept.map_or(&self.parts, |kept| &kept.parts).first().ok_or(ExecuteError::NoSamples)?.sample(0)?;
        let fed = |kept: &Kept| kept.values.iter().map(|(name, _)| name.clone()).collect();
        let segment = Segment::between(variant, &kept.map_or_else(|| inputs(variant), fed), &sample, &names)?;
        Ok(Suffix { segment, from, wanted: wanted.len(), yields })
    }

    /// Runs a suffix on a part of the data. `visit` gets the values asked for; shards come to `merge` in order.
    pub(crate) fn run<S: Send, E: Send + From<ExecuteError>>(
        &self,
        suffix: &mut Suffix,
        part: usize,
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, Ran) -> Result<(), E> + Sync,
        mut merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let data = suffix.from.map_or(&self.parts, |at| &self.kept[at].parts).get(part);
        let data = data.cloned().unwrap_or_else(|| Dataset::stored(Vec::new()));
        let Suffix { segment, wanted, yields, .. } = suffix;
        let lengths: Vec<usize> = yields.iter().map(|kept| kept.values.len()).collect();
        let mut found: Vec<Vec<Sample>> = vec![Vec::new(); lengths.len()];
        let visit = |(sum, kept): &mut (S, Vec<Vec<Sample>>), index: usize, ran: Ran| {
            visit(sum, index, ran.take(*wanted))?;
            let mut at = *wanted;
            for (kept, &length) in kept.iter_mut().zip(&lengths) {
                kept.push(ran.skip(at).sample(length).map_err(ExecuteError::from)?);
                at += length;
            }
            Ok(())
        };
        let begin = || (begin(), vec![Vec::new(); lengths.len()]);
        fold_within(segment, self.limit, &data, &self.runtime, begin, visit, |(sum, kept): (S, Vec<Vec<Sample>>)| {
            found.iter_mut().zip(kept).for_each(|(all, part)| all.extend(part));
            merge(sum)
        })?;
        for (kept, samples) in yields.iter_mut().zip(found) {
            kept.parts.push(Dataset::stored(samples));
        }
        Ok(())
    }

    /// Takes over what a suffix yielded, once it was run on every part in order.
    pub(crate) fn keep(&mut self, suffix: Suffix) {
        for kept in suffix.yields {
            if kept.parts.len() == self.parts.len() {
                self.kept.retain(|other| other.mark != kept.mark);
                self.kept.push(kept);
            }
        }
    }

    fn count(&mut self, graph: &Graph, nodes: &HashSet<NodeId>) {
        let samples: u64 = self.parts.iter().map(|part| part.len() as u64).sum();
        let cost = |id: NodeId| self.costs.get(graph.node(id).label(graph)).copied().unwrap_or(0);
        self.spent.run += samples * nodes.iter().map(|&id| cost(id)).sum::<u64>();
        self.spent.full += samples * graph.node_ids().map(cost).sum::<u64>();
    }
}

impl Mark {
    /// Names of the values the part before hands to the part behind.
    fn handed(&self, graph: &Graph) -> Vec<String> {
        let done: Vec<&str> = self.done.iter().map(String::as_str).collect();
        let waiting: HashSet<&str> = self.waiting.iter().map(String::as_str).collect();
        let waiting: Vec<NodeId> =
            graph.nodes().filter(|(_, node)| waiting.contains(node.label(graph))).map(|(id, _)| id).collect();
        boundary(graph, &done, &waiting, &[])
    }
}

/// The nodes between kept values, or the inputs, and the targets; nothing if the kept values are not enough.
fn reach(graph: &Graph, targets: &[ValueId], kept: Option<&Kept>) -> Option<HashSet<NodeId>> {
    let fed: HashSet<&str> = kept.iter().flat_map(|kept| &kept.values).map(|(name, _)| name.as_str()).collect();
    let mut nodes = HashSet::new();
    let mut open = targets.to_vec();
    while let Some(value) = open.pop() {
        if fed.contains(graph.value(value).name()) {
            continue;
        }
        let Some((node, _)) = graph.value(value).producer() else {
            if kept.is_some() && graph.is_input(value) && graph.initializer(value).is_none() {
                return None;
            }
            continue;
        };
        if nodes.insert(node) {
            let node = graph.node(node);
            open.extend(node.inputs().iter().flatten().chain(node.captures()));
        }
    }
    Some(nodes)
}
