//! Walks through the float network and the quantized one side by side, layer after layer.
//!
//! A solver wants to see what a layer reads, x in the float network and x̂ in the network whose layers before it are
//! quantized already, and it can only have x̂ once those are solved. Running the whole network for every layer would cost
//! as many passes as there are layers. Instead each side keeps, for every sample, the values at a cut: those that what
//! has been run hands to what has not. A step runs the segment from the cut to what the next layers read, and moves the
//! cut behind it, unless the values there take more memory than allowed; then the cut stays, and the next step runs a
//! longer segment.

use crate::Error;
use crate::data::{Array, Dataset, Sample};
use crate::engine::Output;
use crate::execute::segment::{extract, inputs};
use crate::execute::{Lane, Pool, Visitor};
use crate::runtime::Runtime;
use msq_passes::analysis::Layer;
use msq_passes::ir::{Graph, Model, NodeId, ValueId};
use std::collections::{HashMap, HashSet};

/// What layers read from one value, in both networks, for one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// Index of the sample.
    pub sample: usize,
    /// Shape of the value.
    pub shape: &'a [usize],
    /// The value in the float network.
    pub float: &'a [f32],
    /// The value in the quantized network.
    pub quantized: &'a [f32],
}

/// What is summed over the readings of a step, shard by shard.
pub(crate) trait Summary: Send {
    /// Adds a reading.
    fn observe(&mut self, reading: Reading) -> Result<(), Error>;
    /// Adds the sums of a later shard.
    fn merge(&mut self, other: Self) -> Result<(), Error>;
}

/// Both networks, run as far as the layers that were solved.
#[derive(Debug)]
pub(crate) struct Walk {
    float: Side,
    quantized: Side,
    /// Bytes that the values at both cuts may take.
    budget: u64,
    runtime: Runtime<'static>,
}

/// One network's progress.
#[derive(Debug)]
struct Side {
    /// Names of the values at the cut.
    cut: Vec<String>,
    /// Their elements, sample by sample.
    data: Dataset,
    /// Names of the values that it was run up to.
    read: Vec<String>,
}

impl Walk {
    /// At the inputs of both networks.
    pub(crate) fn new(model: &Model, data: &Dataset, budget: u64, runtime: &Runtime) -> Self {
        let side = || Side { cut: inputs(model), data: data.clone(), read: Vec::new() };
        Self { float: side(), quantized: side(), budget, runtime: runtime.silent() }
    }

    /// Runs both networks up to what `layer` reads and sums it up. `later` are the layers still to come, itself among
    /// them. With the layer comes the name of a value whose quantizer may change once the layer is solved: the cut stays
    /// before that.
    pub(crate) fn step<S: Summary>(
        &mut self,
        float: &Model,
        quantized: &Model,
        (layer, open): (&Layer, Option<&str>),
        later: &[Layer],
        summary: impl Fn() -> S + Sync,
    ) -> Result<S, Error> {
        let [float, quantized] =
            [self.float.segment(float, layer, None, later)?, self.quantized.segment(quantized, layer, open, later)?];
        let keep = self.fits(&float, &quantized)?;
        let float_pool = Pool::new(&float.model, self.runtime.threads);
        let pool = Pool::new(&quantized.model, self.runtime.threads);
        let visitor = || Reader {
            lane: float_pool.lane(),
            data: &self.float.data,
            segments: [&float, &quantized],
            keep,
            summary: &summary,
        };
        let mut total = summary();
        let mut kept: [Vec<Sample>; 2] = Default::default();
        let mut merged = Ok(());
        pool.run(&self.quantized.data, &self.runtime, visitor, |shard: Shard<S>| {
            let result = total.merge(shard.summary);
            merged = std::mem::replace(&mut merged, Ok(())).and(result);
            kept.iter_mut().zip(shard.kept).for_each(|(all, part)| all.extend(part));
        })?;
        merged?;
        let [float_kept, quantized_kept] = kept;
        self.float.advance(float, float_kept, keep);
        self.quantized.advance(quantized, quantized_kept, keep);
        Ok(total)
    }

    /// Whether the next cuts can be moved to, judged by the first sample: the values there fit the budget, and all are
    /// floats. Shapes have to be computed in the segment that uses them, where the engine sees that they are constant.
    fn fits(&self, float: &Segment, quantized: &Segment) -> Result<bool, Error> {
        let mut bytes = 0;
        for (segment, side) in [(float, &self.float), (quantized, &self.quantized)] {
            let outputs = Pool::new(&segment.model, 1).lane().run(&side.data.sample(0)?.arrays)?;
            let next = outputs.iter().take(segment.next.len());
            if next.clone().any(|output| output.as_f32().is_none()) {
                return Ok(false);
            }
            bytes += next.map(|o| 4 * o.shape().iter().product::<usize>() as u64).sum::<u64>();
        }
        Ok(bytes * self.float.data.len() as u64 <= self.budget)
    }
}

/// A part of a network: from a side's cut to the next one and to what the layer reads.
#[derive(Debug)]
struct Segment {
    model: Model,
    /// Names of the values at the next cut: the first outputs.
    next: Vec<String>,
    /// Which output the layer reads.
    reads: usize,
    /// The name of what has been run up to: what the layer reads, or what the quantizer before it does.
    done: String,
    /// The name of what the layer reads.
    name: String,
}

impl Side {
    fn segment(&self, model: &Model, layer: &Layer, open: Option<&str>, later: &[Layer]) -> Result<Segment, Error> {
        let graph = &model.graph;
        let nodes: HashMap<&str, NodeId> = graph.nodes().map(|(id, node)| (node.label(graph), id)).collect();
        let read_by = |layer: &Layer| {
            let node = graph.node(*nodes.get(layer.name.as_str())?);
            node.input(1 - layer.weight_slot).map(|value| graph.value(value).name().to_owned())
        };
        let missing = || Error::Sequence { layer: layer.name.clone() };
        let name = read_by(layer).ok_or_else(missing)?;
        let waiting: Vec<NodeId> = later.iter().filter_map(|l| nodes.get(l.name.as_str()).copied()).collect();
        let before = open.and_then(|open| graph.find(open)).map(|open| before_quantizer(graph, open));
        let done = before.map_or_else(|| name.clone(), |value| graph.value(value).name().to_owned());
        let read: Vec<&str> = self.read.iter().chain([&done]).map(String::as_str).collect();
        let next = boundary(graph, &read, &waiting);
        let mut outputs = next.clone();
        let reads = outputs.iter().position(|output| *output == name).unwrap_or(outputs.len());
        if reads == outputs.len() {
            outputs.push(name.clone());
        }
        let model = extract(model, &self.cut, &self.data.sample(0)?, outputs)?;
        Ok(Segment { model, next, reads, done, name })
    }

    fn advance(&mut self, segment: Segment, kept: Vec<Sample>, keep: bool) {
        self.read.push(segment.done);
        if keep {
            self.cut = segment.next;
            self.data = Dataset::stored(kept);
        }
    }
}

/// What the quantizer that makes a value reads; the value itself where none does.
fn before_quantizer(graph: &Graph, value: ValueId) -> ValueId {
    let mut at = value;
    while let Some(node) = graph.value(at).producer().map(|(node, _)| graph.node(node)) {
        let Some(input) = node.input(0) else { break };
        match node.op() {
            "QuantizeLinear" => return input,
            // Of fewer than 8 bits, on integers.
            "DequantizeLinear" | "Clip" => at = input,
            _ => break,
        }
    }
    value
}

/// The values that what leads to `done` hands to what leads to `waiting`, in graph order.
pub(crate) fn boundary(graph: &Graph, done: &[&str], waiting: &[NodeId]) -> Vec<String> {
    let values = |names: &[&str]| names.iter().filter_map(|name| graph.find(name)).collect::<Vec<ValueId>>();
    let run = ancestors(graph, values(done));
    let inputs_of = |&id: &NodeId| graph.node(id).inputs().iter().flatten().copied().collect::<Vec<_>>();
    let mut needed = ancestors(graph, waiting.iter().flat_map(inputs_of).collect());
    needed.extend(waiting);
    let handed = |value: ValueId| {
        let given = match graph.value(value).producer() {
            Some((node, _)) => run.contains(&node),
            None => graph.is_input(value) && graph.initializer(value).is_none(),
        };
        let readers = graph.value(value).uses().iter().map(|u| u.node).chain(graph.value(value).captures().to_vec());
        given && readers.into_iter().any(|reader| needed.contains(&reader) && !run.contains(&reader))
    };
    let inputs = graph.runtime_inputs();
    let computed = graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten().copied().collect::<Vec<_>>());
    let handed = inputs.chain(computed).filter(|&value| handed(value));
    handed.map(|value| graph.value(value).name().to_owned()).collect()
}

/// The nodes that lead to the values.
fn ancestors(graph: &Graph, values: Vec<ValueId>) -> HashSet<NodeId> {
    let producer = |value: ValueId| graph.value(value).producer().map(|(node, _)| node);
    let mut found = HashSet::new();
    let mut open: Vec<NodeId> = values.into_iter().filter_map(producer).collect();
    while let Some(node) = open.pop() {
        if found.insert(node) {
            let node = graph.node(node);
            open.extend(node.inputs().iter().flatten().chain(node.captures()).copied().filter_map(producer));
        }
    }
    found
}

struct Shard<S> {
    summary: S,
    /// Values at the next cuts of both sides.
    kept: [Vec<Sample>; 2],
}

struct Reader<'a, F> {
    lane: Lane<'a, 'a>,
    data: &'a Dataset,
    /// Of the float and of the quantized network.
    segments: [&'a Segment; 2],
    keep: bool,
    summary: &'a F,
}

impl<S: Summary, F: Fn() -> S + Sync> Visitor for Reader<'_, F> {
    type Shard = Shard<S>;
    type Error = Error;

    fn begin(&mut self) -> Shard<S> {
        Shard { summary: (self.summary)(), kept: Default::default() }
    }

    fn visit(&mut self, shard: &mut Shard<S>, sample: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        let float = self.lane.run(&self.data.sample(sample)?.arrays)?;
        let [x, x_hat] = [(&float[..], self.segments[0]), (outputs, self.segments[1])].map(|(o, s)| &o[s.reads]);
        let (Some(values), Some(quantized)) = (x.as_f32(), x_hat.as_f32()) else {
            return Err(Error::Sequence { layer: self.segments[0].name.clone() });
        };
        shard.summary.observe(Reading { sample, shape: x.shape(), float: values, quantized })?;
        if self.keep {
            for (kept, (outputs, segment)) in
                shard.kept.iter_mut().zip([(&float[..], self.segments[0]), (outputs, self.segments[1])])
            {
                let arrays: Result<Vec<Array>, _> =
                    outputs[..segment.next.len()].iter().map(Output::to_array).collect();
                kept.push(Sample { arrays: arrays? });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
