//! Pass `pack-weights`: int8 weights become packed constants, unpacked by ordinary operators.
//!
//! The int8 initializer of a quantized layer is replaced by words of digits (`code.rs` has the arithmetic) and a
//! sub-graph that turns them back into exactly those integers (`unpack.rs`). The sub-graph reads only constants:
//! runtimes fold it when they load the model and then have the int8 weights again, so kernels, speed and results are
//! those of plain int8.
//!
//! ```text
//! table   = Cast<int8>(Transpose(Range(0, rows) / B^k mod B) + low)     once per width
//! pool    = Reshape(Gather(table, words), [-1])                         once per width
//! w1, w2… = Split(pool, lengths)
//! W1      = Reshape(w1, shape)                                          once per layer
//! ```
//!
//! Small weights of one width share a pool, because nodes make up most of a small file; a weight that is alone needs
//! neither the pool's Reshape nor Split. There are two exceptions. 4 bits may
//! be an INT4 initializer and a Cast (opset 21), 2 bits INT2 (opset 25), for runtimes that support it; dequantizers of
//! blocks read these types as they are, without a Cast. A codebook,
//! whose table of digits maps to its entries, belongs to one layer:
//!
//! ```text
//! W = Reshape(Gather(Gather(codebook, digits), words), shape)
//! ```
//!
//! With `functions` the nodes between words and integers are a function of the model, one per width, and the unpacking
//! of a layer is one node.

mod code;
mod function;
mod pieces;
mod trellis;
mod unpack;

use crate::ir::{DataType, Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::quantize::packed;
use crate::quantize::trellis::TrellisRate;
use code::Code;
use indexmap::IndexMap;
use pieces::Piece;
use trellis::{Coded, Decoder};
use unpack::{Unpacker, cast, flatten, reshape, split};

/// How the integers of a weight are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// −1, 0 and 1: five per byte.
    Ternary,
    /// −2^(b−1) to 2^(b−1) − 1 for b bits, 1 to 7.
    Bits(u8),
    /// Any integers, at most 128 different ones: their list, and indices into it of the fewest bits that hold them.
    Codebook,
    /// −8 to 7 as an INT4 tensor.
    Int4,
    /// −2 to 1 as an INT2 tensor.
    Int2,
    /// Integers of a trellis code, as strings of bits along the output channels. Integers that are of no such code are
    /// stored as a codebook.
    Trellis(TrellisRate),
}

/// Packs the weights of quantized layers.
#[derive(Clone, Debug)]
pub struct PackWeights {
    /// The packing of each weight, by the name of the layer, or of the tensor where no layer reads it.
    pub layers: IndexMap<String, Packing>,
    /// Whether unpacking is written as functions of the model.
    pub functions: bool,
}

/// The domain of the functions.
const DOMAIN: &str = "msq";

/// The most entries of a codebook.
const LARGEST_CODEBOOK: usize = 128;

/// A weight of this many integers does not share a pool: its nodes are nothing beside its words, and the operators that
/// cut a pool would copy them.
const ALONE: usize = 1 << 16;

/// With this many integers of a width, words have two bytes: half the indices, for a table of 65,536 rows.
const WIDE: usize = 1 << 20;

impl Packing {
    /// Bytes of this number of weights, without the nodes that unpack them.
    pub fn bytes(self, weights: usize) -> usize {
        match self {
            Self::Int4 => weights.div_ceil(2),
            Self::Int2 => weights.div_ceil(4),
            Self::Ternary => Code::ternary(false).bytes(weights),
            Self::Bits(bits) => Code::of_bits(bits, false).map_or(weights, |code| code.bytes(weights)),
            Self::Codebook => weights,
            Self::Trellis(rate) => rate.bytes(weights),
        }
    }

    /// The first operator set with the types that the packing uses.
    pub const fn lowest_opset(self) -> i64 {
        match self {
            Self::Int4 => 21,
            Self::Int2 => 25,
            _ => 13,
        }
    }

    /// The ends of the integers that can be stored.
    pub fn interval(self) -> (i8, i8) {
        match self {
            Self::Ternary => (-1, 1),
            Self::Int4 => (-8, 7),
            Self::Int2 => (-2, 1),
            Self::Bits(bits @ 1..=7) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            Self::Bits(_) | Self::Codebook | Self::Trellis(_) => (i8::MIN, i8::MAX),
        }
    }

    fn code(self, wide: bool) -> Option<Code> {
        match self {
            Self::Ternary => Some(Code::ternary(wide)),
            Self::Bits(bits) => Code::of_bits(bits, wide),
            Self::Codebook | Self::Int4 | Self::Int2 | Self::Trellis(_) => None,
        }
    }
}

impl Pass for PackWeights {
    fn name(&self) -> &'static str {
        "pack-weights"
    }

    fn about(&self) -> &'static str {
        "integer weights are packed into fewer bits, with nodes that unpack them"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        let wanted = self.layers.values().map(|packing| packing.lowest_opset()).max();
        match (model.opset(""), wanted) {
            (Some(opset), Some(wanted)) if opset < wanted => {
                Err(PassError::Requires { pass: "pack-weights", earlier: "upgrade-opset" })
            }
            _ => Ok(()),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut packer = Packer { model, unpacker: Unpacker::default(), functions: self.functions };
        let mut pools: IndexMap<Packing, Vec<Weight>> = IndexMap::new();
        let mut coded = Vec::new();
        let weights = self.weights(packer.model, &mut outcome)?;
        for weight in &weights {
            match weight.packing {
                Packing::Trellis(rate) => match Coded::new(weight, rate) {
                    Some(strings) => coded.push(strings),
                    None if entries_of(weight).len() <= LARGEST_CODEBOOK => packer.codebook(weight)?,
                    None => {
                        let name = packer.model.graph.value(weight.value).name();
                        outcome.decline(name, "its integers are of no trellis code");
                        continue;
                    }
                },
                Packing::Codebook => packer.codebook(weight)?,
                Packing::Int4 | Packing::Int2 => packer.narrow(weight)?,
                Packing::Ternary | Packing::Bits(_) => pools.entry(weight.packing).or_default().push(weight.clone()),
            }
            outcome.count();
        }
        for (packing, weights) in pools {
            let count: usize = weights.iter().map(|w| w.integers.len()).sum();
            let Some(code) = packing.code(count >= WIDE) else { continue };
            let (alone, shared): (Vec<Weight>, Vec<Weight>) =
                weights.into_iter().partition(|w| w.integers.len() >= ALONE);
            for pool in alone.chunks(1).chain([&shared[..]]).filter(|pool| !pool.is_empty()) {
                packer.pool(packing, code, pool)?;
            }
        }
        Decoder::new(model, self.functions).write(coded)?;
        Ok(outcome)
    }
}

/// A weight to pack.
#[derive(Clone, Debug)]
struct Weight {
    /// The initializer that holds its integers.
    value: ValueId,
    packing: Packing,
    shape: Vec<usize>,
    integers: Vec<i8>,
}

impl Weight {
    fn dims(&self) -> Vec<i64> {
        self.shape.iter().map(|&n| n as i64).collect()
    }
}

impl PackWeights {
    fn weights(&self, model: &Model, outcome: &mut Outcome) -> Result<Vec<Weight>, PassError> {
        let mut weights: Vec<Weight> = Vec::new();
        let graph = &model.graph;
        let of_layers = graph.nodes().filter_map(|(id, node)| {
            let label = node.label(graph);
            Some((label, *self.layers.get(label)?, integers_of(graph, id)?))
        });
        // Weights beside the layers have the names of their tensors.
        let beside = self.layers.iter().filter_map(|(name, &packing)| {
            let value = graph.find(name)?;
            let int8 = graph.constant(value)?.element_type() == Some(DataType::Int8);
            int8.then_some((name.as_str(), packing, value))
        });
        for (label, packing, value) in of_layers.chain(beside) {
            if weights.iter().any(|w| w.value == value) {
                continue;
            }
            let Some(tensor) = model.constant(value).transpose()? else { continue };
            let integers: Vec<i8> = tensor.to_i64()?.into_iter().map(|q| q as i8).collect();
            if integers.is_empty() {
                outcome.decline(label, "its weight is empty");
                continue;
            }
            let (low, high) = packing.interval();
            if let Some(q) = integers.iter().find(|q| !(low..=high).contains(*q)) {
                return Err(PassError::Input(format!(
                    "layer `{label}`: {q} is not in {low}..={high}, the packing wanted"
                )));
            }
            weights.push(Weight { value, packing, shape: tensor.shape()?, integers });
        }
        Ok(weights)
    }
}

/// The different integers of a weight, in rising order.
fn entries_of(weight: &Weight) -> Vec<i8> {
    let mut entries = weight.integers.clone();
    entries.sort_unstable();
    entries.dedup();
    entries
}

/// The int8 initializer behind an input of a node, through the nodes that scale it and those that arrange it.
fn integers_of(graph: &Graph, node: NodeId) -> Option<ValueId> {
    const SCALING: [&str; 5] = ["DequantizeLinear", "Cast", "Mul", "Reshape", "Transpose"];
    let behind = |mut value: ValueId| loop {
        if let Some(tensor) = graph.constant(value) {
            return (tensor.element_type() == Some(DataType::Int8)).then_some(value);
        }
        let node = graph.node(graph.value(value).producer()?.0);
        if !node.domain().is_empty() || !SCALING.contains(&node.op()) {
            return None;
        }
        value = node.input(0)?;
    };
    graph.node(node).inputs().iter().flatten().copied().find_map(behind)
}

struct Packer<'a> {
    model: &'a mut Model,
    unpacker: Unpacker,
    functions: bool,
}

impl Packer<'_> {
    fn graph(&mut self) -> &mut Graph {
        &mut self.model.graph
    }

    /// Makes the readers of the weight read the computed value.
    fn replace(&mut self, weight: &Weight, with: ValueId) {
        let graph = self.graph();
        graph.replace_uses(weight.value, with);
        graph.remove_value(weight.value);
    }

    /// Weights of one width.
    fn pool(&mut self, packing: Packing, code: Code, weights: &[Weight]) -> Result<(), PassError> {
        let low = i32::from(packing.interval().0);
        let piece = |weight: &Weight| {
            let axis = (!weight.shape.is_empty()).then_some(0);
            Piece { share: weight.integers.len(), shape: weight.shape.clone(), axis }
        };
        let groups = pieces::grouped(weights.iter().map(|weight| (weight, piece(weight))));
        let weights: Vec<&Weight> = groups.iter().flatten().map(|(weight, _)| *weight).collect();
        let all: Vec<usize> =
            weights.iter().flat_map(|w| &w.integers).map(|&q| (i32::from(q) - low) as usize).collect();
        let stem =
            if packing == Packing::Ternary { "ternary".to_owned() } else { format!("bits{}", code.base.ilog2()) };
        let words = Unpacker::words(self.graph(), &stem, code, &all);
        let unpacked = self.unpack(words, code, low)?;
        let padding = code.padded(all.len()) - all.len();
        let graph = self.graph();
        let pool = if pieces::is_one(&groups, padding) { unpacked } else { flatten(graph, unpacked) };
        let alone = |graph: &mut Graph, weight: &&Weight, piece| reshape(graph, piece, &weight.dims(), "integers");
        let dealt = pieces::deal(graph, (pool, 0), &groups, padding, alone);
        for (weight, integers) in weights.into_iter().zip(dealt) {
            self.replace(weight, integers);
        }
        Ok(())
    }

    /// Integers of all words, as written or behind a function.
    fn unpack(&mut self, words: ValueId, code: Code, low: i32) -> Result<ValueId, PassError> {
        if self.functions {
            function::call(self.model, words, code, low)
        } else {
            Ok(self.unpacker.integers(&mut self.model.graph, words, code, low))
        }
    }

    /// A weight with its own list of integers.
    fn codebook(&mut self, weight: &Weight) -> Result<(), PassError> {
        let mut entries = entries_of(weight);
        let bits = entries.len().next_power_of_two().ilog2().max(1) as u8;
        // A table of two-byte words belongs to one layer only, and pays where that one is large.
        let Some(code) = Code::of_bits(bits, weight.integers.len() >= WIDE) else {
            return Err(PassError::Input(format!("{} integers are too many for a codebook", entries.len())));
        };
        let numbers: Vec<usize> = weight.integers.iter().map(|q| entries.binary_search(q).unwrap_or(0)).collect();
        // Padding reads entry 0; numbers past the last entry do not occur, but the table must cover them.
        entries.resize(code.base, 0);
        let graph = &mut self.model.graph;
        let words = Unpacker::words(graph, "numbers", code, &numbers);
        let codebook = graph.add_initializer(TensorProto::from_i8("codebook", &[entries.len()], &entries));
        let unpacked = self.unpacker.entries(graph, words, code, codebook);
        let padding = code.padded(weight.integers.len()) - weight.integers.len();
        let graph = self.graph();
        let piece = if padding == 0 {
            unpacked
        } else {
            let flat = flatten(graph, unpacked);
            split(graph, flat, &[weight.integers.len() as i64, padding as i64], 0)[0]
        };
        let integers = reshape(graph, piece, &weight.dims(), "integers");
        self.replace(weight, integers);
        Ok(())
    }

    /// A tensor of a type narrower than a byte: read as it is by dequantizers of blocks, whose zero points are of the same
    /// type, and cast to int8 for all others. Elements fill bytes from the low end.
    fn narrow(&mut self, weight: &Weight) -> Result<(), PassError> {
        let element = if weight.packing == Packing::Int4 { DataType::Int4 } else { DataType::Int2 };
        let stem = self.model.graph.value(weight.value).name().to_owned();
        let packed = narrow_tensor(&format!("{stem}_packed"), element, &weight.shape, &weight.integers);
        let graph = self.graph();
        let readers: Vec<NodeId> = graph.value(weight.value).uses().iter().map(|u| u.node).collect();
        let (dequantizers, others): (Vec<NodeId>, Vec<NodeId>) =
            readers.into_iter().partition(|&node| dequantizes_blocks(graph.node(node)));
        let captured = !graph.value(weight.value).captures().is_empty();
        let packed = graph.add_initializer(packed);
        if dequantizers.is_empty() || captured {
            let integers = cast(graph, packed, DataType::Int8, "integers");
            self.replace(weight, integers);
            return Ok(());
        }
        if !others.is_empty() {
            let integers = cast(graph, packed, DataType::Int8, "integers");
            for node in others {
                let inputs = graph.node(node).inputs().to_vec();
                for (slot, _) in inputs.iter().enumerate().filter(|(_, input)| **input == Some(weight.value)) {
                    graph.set_input(node, slot, Some(integers));
                }
            }
        }
        let mut zero_points: IndexMap<ValueId, ValueId> = IndexMap::new();
        for node in dequantizers {
            let Some(zero_point) = graph.node(node).input(2) else { continue };
            let narrow = if let Some(&narrow) = zero_points.get(&zero_point) {
                narrow
            } else {
                let Some(tensor) = graph.constant(zero_point) else { continue };
                let values: Vec<i8> = tensor.to_i64()?.into_iter().map(|z| z as i8).collect();
                let name = graph.value(zero_point).name();
                let tensor = narrow_tensor(&format!("{name}_packed"), element, &tensor.shape()?, &values);
                let narrow = graph.add_initializer(tensor);
                zero_points.insert(zero_point, narrow);
                narrow
            };
            graph.set_input(node, 2, Some(narrow));
        }
        for &zero_point in zero_points.keys() {
            graph.remove_value(zero_point);
        }
        self.replace(weight, packed);
        Ok(())
    }
}

/// Whether a node reads integers of a type narrower than a byte as they are.
fn dequantizes_blocks(node: &Node) -> bool {
    node.is("DequantizeLinear") && node.int_or("block_size", 0) != 0
}

/// A tensor of signed integers of 4 or 2 bits.
fn narrow_tensor(name: &str, element: DataType, shape: &[usize], integers: &[i8]) -> TensorProto {
    let bits = if element == DataType::Int4 { 4 } else { 2 };
    let raw = packed(&integers.iter().map(|q| q.cast_unsigned()).collect::<Vec<u8>>(), bits);
    TensorProto::from_raw(name, element, shape, raw)
}
