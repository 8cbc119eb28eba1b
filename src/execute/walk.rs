//! Policy: walks through the float network and the quantized one side by side, from stop to stop.
//!
//! A solver wants to see the input of a layer, x in the float network and x̂ in the network whose layers before it are
//! quantized already, and it can only have x̂ once those are solved. Running the whole network for every layer would cost
//! as many passes as there are layers. Instead each side keeps, for every sample, the values at a cut: those that what
//! has been run hands to what has not. A step runs the segment from the cut to the values wanted, and moves the cut behind
//! them, unless the values there take more memory than allowed; then the cut stays, and the next step runs a longer
//! segment. Such a step is run with no more samples than its summary asks for: where nothing is handed on, the others need
//! not be run, and in front of large images they would be run once more for every layer. A comparison of two large
//! networks walks in the same way from stage to stage.

use super::ExecuteError;
use super::partition::boundary;
use super::segment::{Ran, Segment, inputs};
use super::stages::{Limit, Stages, fold_stages};
use crate::data::{Dataset, Sample};
use crate::runtime::Runtime;
use msq_passes::analysis::Layer;
use msq_passes::ir::{Graph, Model, NodeId, ValueId};

/// The input of a layer in both networks, for one sample.
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

/// Samples that are taken or left together where not all are run.
const TOGETHER: usize = 8;

/// What is summed over the readings of a step, shard by shard.
pub(crate) trait Summary: Send {
    /// Why a reading is refused, or the run fails.
    type Error: Send + From<ExecuteError>;
    /// How many samples are enough, given the shape of a reading.
    fn enough(&self, _: &[usize]) -> usize {
        usize::MAX
    }
    /// Adds a reading.
    fn observe(&mut self, reading: Reading) -> Result<(), Self::Error>;
    /// Adds the sums of a later shard.
    fn merge(&mut self, other: Self) -> Result<(), Self::Error>;
}

/// Where one side stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Names of the values to look at.
    pub wanted: Vec<String>,
    /// Names of the values that the network has been run up to then.
    pub done: Vec<String>,
    /// The nodes still to come.
    pub waiting: Vec<NodeId>,
    /// Names of values that a later stop looks at, even if no node still to come reads them.
    pub kept: Vec<String>,
}

/// Bytes that the values at both cuts may take, unless a limit on memory says otherwise: a quarter of it.
const CUTS: u64 = 256 << 20;

/// Two networks, run as far as the last stop.
#[derive(Debug)]
pub(crate) struct Walk {
    sides: [Side; 2],
    /// Bytes that the values at both cuts may take.
    budget: u64,
    /// Of the stages in which segments are run.
    limits: [Option<Limit>; 2],
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
    done: Vec<String>,
}

/// A segment of one side, from its cut to the values wanted.
#[derive(Debug)]
struct Next {
    /// The values at the next cut, then those wanted.
    segment: Segment,
    /// How many values the next cut has.
    cut: usize,
}

impl Walk {
    /// At the inputs of both networks.
    pub(crate) fn new(models: [&Model; 2], data: &Dataset, runtime: &Runtime) -> Self {
        let side = |model| Side { cut: inputs(model), data: data.clone(), done: Vec::new() };
        let budget = runtime.memory.map_or(CUTS, |memory| memory / 4);
        Self { sides: models.map(side), budget, limits: [None; 2], runtime: runtime.silent() }
    }

    /// The walk that runs its segments in stages.
    pub(crate) fn within(self, limits: [Option<Limit>; 2]) -> Self {
        Self { limits, ..self }
    }

    /// Runs both networks up to the input of `layer` and sums it up. `later` are the layers still to come, itself among
    /// them. With the layer comes the name of a value whose quantizer may change once the layer is solved: the cut stays
    /// before that.
    pub(crate) fn read<S: Summary>(
        &mut self,
        float: &Model,
        quantized: &Model,
        (layer, open): (&Layer, Option<&str>),
        later: &[Layer],
        summary: impl Fn() -> S + Sync,
    ) -> Result<S, S::Error> {
        let stops = [in_front_of(float, layer, None, later)?, in_front_of(quantized, layer, open, later)?];
        let mut total = summary();
        let visit = |sum: &mut S, sample: usize, [x, x_hat]: [Ran; 2]| {
            let (Some(float), Some(quantized)) = (x.as_f32(0), x_hat.as_f32(0)) else {
                return Err(ExecuteError::Sequence { layer: layer.name.clone() }.into());
            };
            sum.observe(Reading { sample, shape: x.shape(0), float, quantized })
        };
        let empty = summary();
        let enough = |ran: Ran| empty.enough(ran.shape(0));
        self.step_some([float, quantized], &stops, &enough, &summary, visit, |part| total.merge(part))?;
        Ok(total)
    }

    /// Runs both networks up to their stops. `visit` gets the values wanted of both sides, sample by sample; shards come
    /// to `merge` in order.
    pub(crate) fn step<S: Send, E: Send + From<ExecuteError>>(
        &mut self,
        models: [&Model; 2],
        stops: &[Stop; 2],
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, [Ran; 2]) -> Result<(), E> + Sync,
        merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        self.step_some(models, stops, &|_| usize::MAX, begin, visit, merge)
    }

    /// A step with only as many samples as are enough, where the cuts stay.
    fn step_some<S: Send, E: Send + From<ExecuteError>>(
        &mut self,
        models: [&Model; 2],
        stops: &[Stop; 2],
        enough: &dyn Fn(Ran) -> usize,
        begin: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, usize, [Ran; 2]) -> Result<(), E> + Sync,
        mut merge: impl FnMut(S) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let next = [self.sides[0].next(models[0], &stops[0])?, self.sides[1].next(models[1], &stops[1])?];
        let stages = |side: usize| Stages::new(&next[side].segment, self.limits[side]).map_err(ExecuteError::from);
        let stages = [stages(0)?, stages(1)?];
        let (moves, enough) = self.can_move(&next, &stages, enough)?;
        let all = self.sides[0].data.len();
        let taken = blocks(all, if moves { all } else { enough });
        let visit = |(sum, kept): &mut (S, [Vec<Sample>; 2]), index: usize, ran: [Ran; 2]| {
            visit(sum, taken[index], [ran[0].skip(next[0].cut), ran[1].skip(next[1].cut)])?;
            for side in 0..if moves { 2 } else { 0 } {
                kept[side].push(ran[side].sample(next[side].cut).map_err(ExecuteError::from)?);
            }
            Ok(())
        };
        let mut kept: [Vec<Sample>; 2] = Default::default();
        let keep = |(sum, part): (S, [Vec<Sample>; 2])| {
            kept.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
            merge(sum)
        };
        let data = [0, 1].map(|side| self.sides[side].data.subset(&taken));
        let (data, begin) = ([&data[0], &data[1]], || (begin(), Default::default()));
        fold_stages([&stages[0], &stages[1]], data, &self.runtime, begin, visit, keep)?;
        drop(stages);
        for ((side, next), (stop, kept)) in self.sides.iter_mut().zip(next).zip(stops.iter().zip(kept)) {
            side.done.extend_from_slice(&stop.done);
            if moves {
                side.cut = next.segment.names[..next.cut].to_vec();
                side.data = Dataset::stored(kept);
            }
        }
        Ok(())
    }

    /// Whether the next cuts can be moved to, and how many samples are enough otherwise, judged by the first sample: the
    /// values there fit the budget, and all are floats. Shapes have to be computed in the segment that uses them, where
    /// the engine sees that they are constant.
    fn can_move(
        &self,
        next: &[Next; 2],
        stages: &[Stages; 2],
        enough: &dyn Fn(Ran) -> usize,
    ) -> Result<(bool, usize), ExecuteError> {
        let (mut bytes, mut samples, mut floats) = (0, usize::MAX, true);
        for ((next, side), stages) in next.iter().zip(&self.sides).zip(stages) {
            let look = |ran: Ran| {
                floats &= (0..next.cut).all(|at| ran.as_f32(at).is_some());
                bytes += ran.bytes(next.cut);
                samples = samples.min(enough(ran.skip(next.cut)));
            };
            stages.once(&side.data, &self.runtime, look)?;
        }
        Ok((floats && bytes * self.sides[0].data.len() as u64 <= self.budget, samples))
    }
}

/// About `wanted` of so many samples, or all of them: blocks of consecutive ones, evenly spread.
fn blocks(all: usize, wanted: usize) -> Vec<usize> {
    let (blocks, wanted) = (all.div_ceil(TOGETHER), wanted.min(all).div_ceil(TOGETHER));
    let block = |at: usize| at * blocks / wanted.max(1) * TOGETHER;
    (0..wanted).flat_map(|at| block(at)..(block(at) + TOGETHER).min(all)).collect()
}

impl Side {
    fn next(&self, model: &Model, stop: &Stop) -> Result<Next, ExecuteError> {
        let done: Vec<&str> = self.done.iter().chain(&stop.done).map(String::as_str).collect();
        let cut = boundary(&model.graph, &done, &stop.waiting, &stop.kept);
        let wanted = [&cut[..], &stop.wanted].concat();
        let segment = Segment::between(model, &self.cut, &self.data.sample(0)?, &wanted)?;
        Ok(Next { segment, cut: cut.len() })
    }
}

/// The input of a layer, which is found by its name: in the quantized network, what the quantizers before it write. Of a
/// layer that quantizes its input at run time it is the floats before that: the integers say nothing without their scale.
pub(crate) fn input_of(graph: &Graph, layer: &Layer) -> Result<ValueId, ExecuteError> {
    let node = graph.nodes().find(|(_, node)| node.label(graph) == layer.name);
    let input = node.and_then(|(_, node)| node.input(1 - layer.weight_slot));
    let input = input.ok_or_else(|| ExecuteError::Sequence { layer: layer.name.clone() })?;
    let producer = graph.value(input).producer().map(|(node, _)| graph.node(node));
    let floats = producer.filter(|node| node.is("DynamicQuantizeLinear")).and_then(|node| node.input(0));
    Ok(floats.unwrap_or(input))
}

/// The stop in front of a layer; in front of the quantizer before it, where that may change.
fn in_front_of(model: &Model, layer: &Layer, open: Option<&str>, later: &[Layer]) -> Result<Stop, ExecuteError> {
    let graph = &model.graph;
    let input = input_of(graph, layer)?;
    let waits: std::collections::HashSet<&str> = later.iter().map(|layer| layer.name.as_str()).collect();
    let waiting = graph.nodes().filter(|(_, node)| waits.contains(node.label(graph))).map(|(id, _)| id).collect();
    let done = open.and_then(|open| graph.find(open)).map_or(input, |open| before_quantizer(graph, open));
    let name = |value: ValueId| vec![graph.value(value).name().to_owned()];
    Ok(Stop { wanted: name(input), done: name(done), waiting, kept: Vec::new() })
}

/// What the quantizer that makes a value reads; the value itself where none does.
pub(crate) fn before_quantizer(graph: &Graph, value: ValueId) -> ValueId {
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

#[cfg(test)]
mod tests;
