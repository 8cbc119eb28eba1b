//! `Attention` as operators that tract runs, where it does not run the operator itself.
//!
//! With Q, K and V of shape [batch, heads, length, head size], c the softcap, M the mask and the causal mask,
//!
//! `Y = softmax(cap(s·Q·Kᵀ) + bias(M))·V`, `cap(x) = c·tanh(x/c)`, s = 1/√(head size) where no scale is given.
//!
//! Inputs of three axes, [batch, length, heads·head size], are split into heads before and joined behind. Where several
//! heads of Q share one of K and V, those are repeated. A mask of booleans is true where something is looked at; one of
//! floats is added. A query that may look at nothing has a row of zeros: no infinity is added, which would make it NaN, and
//! the weights are multiplied by 1 where the mask or a window lets through and by 0 where it does not.
//!
//! Query i stands at i + p, behind the p keys of the past. A causal mask hides the keys behind it, a window those more than
//! so many places before or behind it.
//!
//! tract 0.23 knows neither softcap nor the scores as an output, its masks are floats of every query, its causal mask does
//! not count the past, and it does not read the windows. What has none of these stays. So does what is not told here:
//! lengths without padding, operands that are no floats of 32 bits, and masks of an unknown type. [`is_wrong`] tells what
//! tract would then compute otherwise without saying so.
//!
//! Values that passes wrote have no shapes. Without one, inputs have three axes where the node states heads, and otherwise
//! how many heads of Q share one of K and V follows from their shapes in the run.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

/// Added to the scores of what a mask hides, be it of booleans or of floats as low: beside a score it does not count.
const HIDDEN: f32 = -1e30;
/// Added to the scores of what comes later or lies beyond a window: beside what only a mask hides it does not count.
const FAR: f32 = -1e38;

/// Whether tract computes a node otherwise than the operator set, by its attributes and which inputs it has.
pub(super) fn is_wrong(int: impl Fn(&str) -> Option<i64>, has_input: impl Fn(usize) -> bool) -> bool {
    let has_window = WINDOWS.iter().any(|name| int(name).is_some_and(|size| size != -1));
    has_window || (int("is_causal").is_some_and(|causal| causal != 0) && has_input(4))
}

/// Every node that tract does not run as the operator set says.
pub(super) struct Attentions;

impl Lowering for Attentions {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        Attention::of(graph, graph.node(id)).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &model.graph;
        let sites = graph.nodes().filter_map(|(id, node)| Some((id, Attention::of(graph, node)?)));
        let sites: Vec<(NodeId, Attention)> = sites.collect();
        if sites.is_empty() {
            return Ok(());
        }
        for (id, attention) in sites {
            let stem = model.graph.node(id).label(&model.graph).to_owned();
            model.graph.remove_node(id);
            attention.write(&mut Writer { graph: &mut model.graph, stem });
        }
        model.graph.sort().map_err(EngineError::load)
    }
}

/// How many places before and behind it a query may look; −1 for any.
const WINDOWS: [&str; 2] = ["left_window_size", "right_window_size"];

/// A node that is replaced.
struct Attention {
    query: ValueId,
    key: ValueId,
    value: ValueId,
    mask: Option<Mask>,
    /// Keys and values before those of the inputs.
    past: Option<[ValueId; 2]>,
    /// The result, all keys, all values, and the scores.
    outputs: [Option<ValueId>; 4],
    /// Whether heads share an axis with the elements of a head.
    is_joined: bool,
    /// Heads of queries, and of keys and values, where they are known.
    heads: Option<[usize; 2]>,
    /// What is not known here follows from the head size in the run.
    scale: Option<f32>,
    softcap: f32,
    /// How many places before and behind it a query may look; none for any. A causal mask lets it look at none behind.
    windows: [Option<i64>; 2],
    has_window: bool,
    /// Which scores are an output: 0 as they are, 1 behind the softcap, 2 with the mask, 3 behind the softmax.
    scores: i64,
}

#[derive(Clone, Copy)]
enum Mask {
    Booleans(ValueId),
    Floats(ValueId),
}

impl Attention {
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let softcap = node.float_or("softcap", 0.0);
        let is_plain = node.input(3).is_none() && softcap == 0.0 && node.output(3).is_none();
        let is_run = is_plain && !is_wrong(|name| node.int(name), |slot| node.input(slot).is_some());
        if !node.is("Attention") || is_run || node.input(6).is_some() {
            return None;
        }
        let mut windows = WINDOWS.map(|name| node.int(name).filter(|size| *size >= 0));
        let has_window = windows.iter().any(Option::is_some);
        if node.int_or("is_causal", 0) != 0 {
            windows[1] = Some(0);
        }
        let [query, key, value] = [node.input(0)?, node.input(1)?, node.input(2)?];
        if graph.value(query).element_type().is_some_and(|element| element != DataType::Float) {
            return None;
        }
        let mask = match node.input(3) {
            Some(mask) => Some(Mask::of(graph, mask)?),
            None => None,
        };
        let past = match (node.input(4), node.input(5)) {
            (Some(keys), Some(values)) => Some([keys, values]),
            (None, None) => None,
            _ => return None,
        };
        let length = |value: ValueId, axis: usize| match graph.constant(value) {
            Some(constant) => constant.shape().ok()?.get(axis).copied(),
            None => graph.value(value).shape()?.get(axis).copied().flatten(),
        };
        let stated = |name: &str| node.int(name).and_then(|heads| usize::try_from(heads).ok());
        let rank = graph.value(query).shape().map(|shape| shape.len());
        let is_joined = rank.map_or(node.int("q_num_heads").is_some(), |rank| rank == 3);
        let heads = if is_joined {
            Some([stated("q_num_heads")?, stated("kv_num_heads")?])
        } else {
            length(query, 1).zip(length(key, 1)).map(|(queries, keys)| [queries, keys])
        };
        if heads.is_some_and(|[queries, keys]| queries.checked_rem(keys) != Some(0)) {
            return None;
        }
        let size = match heads {
            Some([queries, _]) if is_joined => length(query, 2).and_then(|elements| elements.checked_div(queries)),
            _ => length(query, 3),
        };
        let given = node.attribute("scale").and_then(|scale| scale.f);
        let scale = given.or_else(|| size.map(|size| 1.0 / (size as f32).sqrt()));
        let outputs = [0, 1, 2, 3].map(|slot| node.output(slot));
        let scores = node.int_or("qk_matmul_output_mode", 0);
        Some(Self {
            query,
            key,
            value,
            mask,
            past,
            outputs,
            is_joined,
            heads,
            scale,
            softcap,
            windows,
            has_window,
            scores,
        })
    }

    /// Writes the operators.
    fn write(&self, writer: &mut Writer) {
        let [mut query, mut key, mut value] = [self.query, self.key, self.value];
        if let (true, Some([queries, keys])) = (self.is_joined, self.heads) {
            query = writer.split(query, queries);
            [key, value] = [key, value].map(|joined| writer.split(joined, keys));
        }
        if let Some([keys, values]) = self.past {
            let along = || vec![AttributeProto::int("axis", 2)];
            key = writer.op("Concat", &[keys, key], along());
            value = writer.op("Concat", &[values, value], along());
        }
        writer.hand_out(key, self.outputs[1]);
        writer.hand_out(value, self.outputs[2]);
        let heads = match self.heads {
            Some(heads) => writer.heads(heads),
            None => Some(writer.heads_in_the_run(query, key)),
        };
        if let Some(heads) = heads {
            let along = || vec![AttributeProto::int("axis", 1)];
            [key, value] = [key, value].map(|shared| writer.op("Gather", &[shared, heads], along()));
        }
        let weights = self.weights(writer, query, key);
        let mut result = writer.op("MatMul", &[weights, value], Vec::new());
        if self.is_joined {
            result = writer.transpose(result, &[0, 2, 1, 3]);
            let shape = writer.numbers(&[3], &[0, 0, -1]);
            result = writer.op("Reshape", &[result, shape], Vec::new());
        }
        writer.hand_out(result, self.outputs[0]);
    }

    /// The weights of the values.
    fn weights(&self, writer: &mut Writer, query: ValueId, key: ValueId) -> ValueId {
        let scale = match self.scale {
            Some(scale) => writer.scalar(scale),
            None => writer.scale(query),
        };
        let scaled = writer.op("Mul", &[query, scale], Vec::new());
        let turned = writer.transpose(key, &[0, 1, 3, 2]);
        let mut scores = [writer.op("MatMul", &[scaled, turned], Vec::new()); 4];
        if self.softcap != 0.0 {
            let cap = writer.scalar(self.softcap);
            let share = writer.op("Div", &[scores[0], cap], Vec::new());
            let bent = writer.op("Tanh", &[share], Vec::new());
            scores[1] = writer.op("Mul", &[bent, cap], Vec::new());
        }
        scores[2] = scores[1];
        if let Some(mask) = self.mask {
            let bias = mask.bias(writer);
            scores[2] = writer.op("Add", &[scores[2], bias], Vec::new());
        }
        let mut seen = self.mask.map(|mask| mask.seen(writer));
        for (end, window) in self.windows.into_iter().enumerate() {
            let Some(window) = window else { continue };
            let bias = writer.beyond(query, key, self.past.map(|[keys, _]| keys), window, end == 1);
            scores[2] = writer.op("Add", &[scores[2], bias], Vec::new());
            if self.has_window {
                let within = writer.within(bias);
                seen = Some(seen.map_or(within, |seen| writer.op("Mul", &[seen, within], Vec::new())));
            }
        }
        scores[3] = writer.op("Softmax", &[scores[2]], vec![AttributeProto::int("axis", -1)]);
        if let Some(seen) = seen {
            scores[3] = writer.op("Mul", &[scores[3], seen], Vec::new());
        }
        let wanted = usize::try_from(self.scores).ok().and_then(|mode| scores.get(mode).copied());
        if let Some(wanted) = wanted {
            writer.hand_out(wanted, self.outputs[3]);
        }
        scores[3]
    }
}

impl Mask {
    fn of(graph: &Graph, value: ValueId) -> Option<Self> {
        let constant = graph.constant(value).and_then(TensorProto::element_type);
        let writer = graph.value(value).producer().map(|(node, _)| graph.node(node).op());
        match constant.or_else(|| graph.value(value).element_type()) {
            Some(DataType::Bool) => Some(Self::Booleans(value)),
            Some(DataType::Float) => Some(Self::Floats(value)),
            // What passes write has no type yet.
            None if writer == Some("DequantizeLinear") => Some(Self::Floats(value)),
            _ => None,
        }
    }

    /// What is added to scores, which is finite.
    fn bias(self, writer: &mut Writer) -> ValueId {
        match self {
            Self::Booleans(mask) => {
                let (none, hidden) = (writer.scalar(0.0), writer.scalar(HIDDEN));
                writer.op("Where", &[mask, none, hidden], Vec::new())
            }
            Self::Floats(mask) => {
                let hidden = writer.scalar(HIDDEN);
                writer.op("Max", &[mask, hidden], Vec::new())
            }
        }
    }

    /// 1 where the mask lets through, 0 elsewhere.
    fn seen(self, writer: &mut Writer) -> ValueId {
        let booleans = match self {
            Self::Booleans(mask) => mask,
            Self::Floats(mask) => {
                let least = writer.scalar(f32::MIN);
                writer.op("GreaterOrEqual", &[mask, least], Vec::new())
            }
        };
        let to = AttributeProto::element("to", DataType::Float);
        writer.op("Cast", &[booleans], vec![to])
    }
}

/// Writes nodes and constants into a graph.
struct Writer<'a> {
    graph: &'a mut Graph,
    /// What new names begin with.
    stem: String,
}

impl Writer<'_> {
    fn op(&mut self, op: &str, inputs: &[ValueId], attributes: Vec<AttributeProto>) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.graph.add_op(op, &inputs, attributes, &format!("{}_{}", self.stem, op.to_lowercase()))
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.graph.add_initializer(TensorProto::from_f32(&format!("{}_number", self.stem), &[], &[value]))
    }

    fn numbers(&mut self, shape: &[usize], values: &[i64]) -> ValueId {
        self.graph.add_initializer(TensorProto::from_i64(&format!("{}_numbers", self.stem), shape, values))
    }

    /// 1/√(head size), the last axis of queries.
    fn scale(&mut self, query: ValueId) -> ValueId {
        let size = self.op("Shape", &[query], vec![AttributeProto::int("start", -1)]);
        let to = AttributeProto::element("to", DataType::Float);
        let size = self.op("Cast", &[size], vec![to]);
        let root = self.op("Sqrt", &[size], Vec::new());
        self.op("Reciprocal", &[root], Vec::new())
    }

    fn transpose(&mut self, value: ValueId, perm: &[i64]) -> ValueId {
        self.op("Transpose", &[value], vec![AttributeProto::ints("perm", perm)])
    }

    /// An axis of heads out of the last axis, before that of positions.
    fn split(&mut self, joined: ValueId, heads: usize) -> ValueId {
        let shape = self.numbers(&[4], &[0, 0, heads as i64, -1]);
        let split = self.op("Reshape", &[joined, shape], Vec::new());
        self.transpose(split, &[0, 2, 1, 3])
    }

    /// For each head of queries the one of keys and values that it shares; `None` where each has its own.
    fn heads(&mut self, [queries, keys]: [usize; 2]) -> Option<ValueId> {
        let heads: Vec<i64> = (0..queries).map(|head| (head / (queries / keys)) as i64).collect();
        (queries != keys).then(|| self.numbers(&[queries], &heads))
    }

    /// The same where the numbers of heads follow from shapes in the run.
    fn heads_in_the_run(&mut self, query: ValueId, key: ValueId) -> ValueId {
        let counts = [query, key].map(|value| {
            let count =
                self.op("Shape", &[value], vec![AttributeProto::int("start", 1), AttributeProto::int("end", 2)]);
            let axis = self.numbers(&[1], &[0]);
            self.op("Squeeze", &[count, axis], Vec::new())
        });
        let sharing = self.op("Div", &counts, Vec::new());
        let [first, step] = [0, 1].map(|number| self.numbers(&[], &[number]));
        let heads = self.op("Range", &[first, counts[0], step], Vec::new());
        self.op("Div", &[heads, sharing], Vec::new())
    }

    /// [`FAR`] for keys that lie further from a query than a window is wide, behind it or before it, 0 for the others.
    fn beyond(&mut self, query: ValueId, key: ValueId, past: Option<ValueId>, window: i64, is_behind: bool) -> ValueId {
        let length = || vec![AttributeProto::int("start", 2), AttributeProto::int("end", 3)];
        let lengths = [query, key].map(|value| self.op("Shape", &[value], length()));
        let before = past.map(|past| self.op("Shape", &[past], length()));
        // With a row for each place of the past, whose queries are not asked again.
        let rows = before.map_or(lengths[0], |before| self.op("Add", &[before, lengths[0]], Vec::new()));
        let shape = self.op("Concat", &[rows, lengths[1]], vec![AttributeProto::int("axis", 0)]);
        let far = AttributeProto::tensor("value", TensorProto::from_f32("", &[1], &[FAR]));
        let everywhere = self.op("ConstantOfShape", &[shape], vec![far]);
        // The first diagonal that is too far.
        let diagonal = self.numbers(&[], &[if is_behind { window + 1 } else { -window - 1 }]);
        let upper = AttributeProto::int("upper", i64::from(is_behind));
        let bias = self.op("Trilu", &[everywhere, diagonal], vec![upper]);
        let Some(before) = before else { return bias };
        let axis = self.numbers(&[1], &[0]);
        self.op("Slice", &[bias, before, rows, axis], Vec::new())
    }

    /// 1 where [`Writer::beyond`] adds nothing, 0 elsewhere.
    fn within(&mut self, bias: ValueId) -> ValueId {
        let none = self.scalar(0.0);
        let within = self.op("GreaterOrEqual", &[bias, none], Vec::new());
        let to = AttributeProto::element("to", DataType::Float);
        self.op("Cast", &[within], vec![to])
    }

    /// Gives an output of the node that is replaced a value.
    fn hand_out(&mut self, value: ValueId, output: Option<ValueId>) {
        if let Some(output) = output {
            let name = self.graph.fresh_name(&format!("{}_out", self.stem));
            self.graph.add_node(NodeProto::of("Identity", &name, Vec::new()), &[Some(value)], &[Some(output)]);
        }
    }
}

#[cfg(test)]
mod tests;
