//! Models too large for the engine are run in stages.
//!
//! The engine holds a model about four times while it loads it. Where the weights are in other files and that is too
//! much, the nodes, in graph order, are dealt out to stages whose weights fit. One stage after another is loaded and run
//! on all samples, and hands the next what later nodes read. A cut goes where little is handed on, and where it is
//! floats, or integers between quantizers: shapes have to be computed where they are used.

use crate::Error;
use crate::data::{Array, Dataset, Sample};
use crate::engine::{EngineError, Output};
use crate::execute::segment::{extract, inputs};
use crate::execute::{Pool, Visitor};
use crate::runtime::Runtime;
use msq_passes::ir::{DataType, Graph, Model, NodeId, TensorProto, ValueId};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// How often the engine holds a model: as read, as prepared, as loaded and as packed for the kernels.
pub(crate) const HELD: u64 = 4;
/// Bytes of external weights that are loaded at once where nothing is said of memory.
const AT_ONCE: u64 = 1 << 30;
/// Of the memory allowed, the engine's part is one in this many: what it makes is held beside it.
const SHARE: u64 = 3;
/// Bytes that what one stage hands the next may take, over all samples, where nothing is said of memory.
const HANDED: u64 = 256 << 20;

/// A model and where it is cut.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    model: &'a Model,
    /// Names of the values each stage hands on. The last hands on the model's outputs.
    handed: Vec<Vec<String>>,
}

/// One stage of a model.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The nodes between what is fed and what is handed on; outputs are those of the latter that are computed.
    pub model: Model,
    /// What is handed on.
    pub handed: Vec<Place>,
}

/// Where a value is found when a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the stage's outputs.
    Output(usize),
    /// Among its inputs.
    Input(usize),
}

impl Place {
    /// Where a model has a value.
    pub(crate) fn of(graph: &Graph, name: &str) -> Option<Self> {
        let value = graph.find(name)?;
        let input = graph.runtime_inputs().position(|v| v == value).map(Self::Input);
        input.or_else(|| graph.outputs().position(|v| v == value).map(Self::Output))
    }
}

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
        let whole = memory.map_or(AT_ONCE, |memory| memory / HELD);
        let most = memory.map_or(AT_ONCE, |memory| memory / HELD / SHARE);
        (model.external_bytes() > whole).then_some(Self { most, asked: memory.is_some() })
    }

    /// Of stages of the same model once it is quantized: scales and zero points come on top of the weights.
    pub(crate) fn quantized(self) -> Self {
        Self { most: self.most + self.most / 4, ..self }
    }
}

impl<'a> Stages<'a> {
    /// As many stages as it takes for each to keep to the limit; one without. Says why, where there is no place to cut.
    pub(crate) fn new(model: &'a Model, limit: Option<Limit>) -> Result<Self, EngineError> {
        let cut = |limit: Limit| match Cuts::new(&model.graph, limit.most).all() {
            Err(reason) if limit.asked => Err(EngineError::Load { reason }),
            cuts => Ok(cuts.unwrap_or_default()),
        };
        let mut handed = limit.map_or(Ok(Vec::new()), cut)?;
        handed.push(model.graph.outputs().map(|value| model.graph.value(value).name().to_owned()).collect());
        Ok(Self { model, handed })
    }

    /// How many stages there are, at least one.
    pub(crate) fn len(&self) -> usize {
        self.handed.len()
    }

    /// A stage that is fed with the data, whose samples are what the stage before handed on.
    pub(crate) fn stage(&self, at: usize, data: &Dataset) -> Result<Stage, Error> {
        let handed = &self.handed[at];
        let model = if self.len() == 1 {
            self.model.clone()
        } else {
            let fed = if at == 0 { inputs(self.model) } else { self.handed[at - 1].clone() };
            let computed = handed.iter().filter(|name| !fed.contains(name)).cloned().collect();
            extract(self.model, &fed, &data.sample(0)?, computed)?
        };
        let place = |name: &String| {
            Place::of(&model.graph, name).ok_or_else(|| EngineError::NoSuchValue { name: name.clone() })
        };
        let handed = handed.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Stage { model, handed })
    }

    /// Runs stage after stage and returns the model's outputs for each sample.
    pub(crate) fn run(&self, data: &Dataset, runtime: &Runtime) -> Result<Vec<Sample>, Error> {
        let mut data = data.clone();
        for at in 0..self.len() {
            let stage = self.stage(at, &data)?;
            let mut next = Vec::new();
            let pool = Pool::new(&stage.model, runtime.threads);
            pool.run(&data, runtime, || Hand(&stage.handed), |samples: Vec<Sample>| next.extend(samples))?;
            data = Dataset::stored(next);
        }
        (0..data.len()).map(|index| Ok(data.sample(index)?)).collect()
    }
}

/// How many samples leave room for what a stage hands on of all of them, judged by one.
pub(crate) fn fitting(places: &[Place], inputs: &[Array], outputs: &[Output], memory: Option<u64>) -> usize {
    let shape = |place: &Place| match *place {
        Place::Output(at) => outputs[at].shape().iter().product::<usize>(),
        Place::Input(at) => inputs[at].shape().iter().product(),
    };
    let bytes = 4 * places.iter().map(shape).sum::<usize>() as u64;
    let room = memory.map_or(HANDED, |memory| memory / HELD / SHARE);
    usize::try_from(room / bytes.max(1)).unwrap_or(usize::MAX).max(1)
}

/// What places hold when a stage has run on a sample.
pub(crate) fn hand(places: &[Place], inputs: &[Array], outputs: &[Output]) -> Result<Sample, EngineError> {
    let array = |place: &Place| match *place {
        Place::Output(at) => outputs[at].to_array(),
        Place::Input(at) => Ok(inputs[at].clone()),
    };
    Ok(Sample { arrays: places.iter().map(array).collect::<Result<_, _>>()? })
}

/// Hands on what places hold, sample by sample.
struct Hand<'a>(&'a [Place]);

impl Visitor for Hand<'_> {
    type Shard = Vec<Sample>;
    type Error = Error;

    fn begin(&mut self) -> Vec<Sample> {
        Vec::new()
    }

    fn visit(&mut self, shard: &mut Vec<Sample>, _: usize, inputs: &[Array], outputs: &[Output]) -> Result<(), Error> {
        shard.push(hand(self.0, inputs, outputs)?);
        Ok(())
    }
}

/// Where a graph can be cut.
struct Cuts<'a> {
    graph: &'a Graph,
    nodes: Vec<NodeId>,
    /// Bytes of weights, as floats, that a stage may have.
    most: u64,
    /// The initializers each node reads, or that what it reads is computed from.
    weights: Vec<HashSet<ValueId>>,
    /// Values that depend on the inputs: how many nodes have to be run for one to be there, and the last node that
    /// reads it.
    spans: Vec<(ValueId, usize, usize)>,
}

impl<'a> Cuts<'a> {
    fn new(graph: &'a Graph, most: u64) -> Self {
        let nodes: Vec<NodeId> = graph.node_ids().collect();
        let mut behind: HashMap<ValueId, HashSet<ValueId>> =
            graph.initializers().map(|(value, _)| (value, HashSet::from([value]))).collect();
        let mut spans: HashMap<ValueId, (usize, usize)> = graph.runtime_inputs().map(|value| (value, (0, 0))).collect();
        let mut weights = Vec::new();
        for (at, &id) in nodes.iter().enumerate() {
            let node = graph.node(id);
            let read: Vec<ValueId> = node.inputs().iter().flatten().chain(node.captures()).copied().collect();
            let own: HashSet<ValueId> = read.iter().filter_map(|v| behind.get(v)).flatten().copied().collect();
            let outputs = node.outputs().iter().flatten().copied();
            let mut varies = false;
            for value in read {
                if let Some((_, last)) = spans.get_mut(&value) {
                    (*last, varies) = (at, true);
                }
            }
            if varies {
                spans.extend(outputs.map(|value| (value, (at + 1, at))));
                weights.push(own);
            } else {
                // What only constants go into is computed where it is read.
                behind.extend(outputs.map(|value| (value, own.clone())));
                weights.push(HashSet::new());
            }
        }
        for value in graph.outputs() {
            spans.entry(value).and_modify(|(_, last)| *last = nodes.len());
        }
        let spans = spans.into_iter().map(|(value, (first, last))| (value, first, last));
        let mut spans: Vec<_> = spans.filter(|(_, first, last)| last >= first).collect();
        spans.sort_unstable();
        Self { graph, nodes, most, weights, spans }
    }

    /// Names of what is handed on at each cut, or why the stages would be too large.
    fn all(&self) -> Result<Vec<Vec<String>>, String> {
        let mut cuts = Vec::new();
        let mut start = 0;
        loop {
            let reached = self.reach(start);
            let end = start + reached.len();
            if end == self.nodes.len() {
                return Ok(cuts);
            }
            let least = reached.last().copied().unwrap_or_default() / 2;
            let places = (start + 1..=end).filter(|&at| reached[at - start - 1] >= least);
            let cuts_there = places.filter_map(|at| Some((at, self.handed(at)?)));
            let Some((at, (_, values))) = cuts_there.min_by_key(|(at, (elements, _))| (*elements, Reverse(*at))) else {
                let (node, most) = (self.graph.node(self.nodes[end]).label(self.graph), self.most);
                return Err(format!(
                    "up to node `{node}`, stages of {most} bytes are not enough for its weights: allow more memory"
                ));
            };
            cuts.push(values.into_iter().map(|value| self.graph.value(value).name().to_owned()).collect());
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
        self.weights[start..].iter().map(add).take_while(|&bytes| bytes <= self.most).collect()
    }

    /// What is handed on behind so many nodes, after how many elements it has, unknown dimensions aside; nothing where
    /// some of it has to be computed where it is used.
    fn handed(&self, at: usize) -> Option<(u64, Vec<ValueId>)> {
        let across = self.spans.iter().filter(|(_, first, last)| *first <= at && *last >= at);
        let values: Vec<ValueId> = across.map(|&(value, ..)| value).collect();
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
