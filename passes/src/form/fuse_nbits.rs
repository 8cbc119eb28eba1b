//! Pass `fuse-nbits`: a product with a weight in blocks becomes `MatMulNBits` of onnxruntime, and rows that are looked up in
//! a table in blocks `GatherBlockQuantized`.
//!
//! ```text
//! y = MatMul(x, DequantizeLinear<axis = 0, block_size>(q, s, z))   q [K, N], s and z [⌈K/block⌉, N]
//! y = com.microsoft.MatMulNBits<K, N, bits, block_size, accuracy_level>(x, B, scales, zero_points)
//! ```
//!
//! B is `[N, ⌈K/block⌉, block·bits/8]`: the integers u = q + 2^(b−1) of an output channel block by block, from the low end of
//! each byte, u = 2^(b−1), which stands for 0, behind the last ones; scales and zero points lie channel by channel. The
//! kernel computes Σ (u − z − 2^(b−1))·s·x, the same product; with accuracy level 4 it rounds blocks of x to 8 bits. This is
//! what onnxruntime makes of the pattern by itself when it loads a model, at opset 21 and with as many bits as there are
//! element types. Written here it needs neither.
//!
//! ```text
//! y = Reshape(Mul(Cast<float>(Gather(q, i)), Gather(s, i)), shape)   q [R, ⌈C/block⌉, block], s [R, ⌈C/block⌉, 1]
//! y = com.microsoft.GatherBlockQuantized<bits, block_size, gather_axis = 0, quantize_axis = 1>(B, i, scales)
//! ```
//!
//! B is `[R, C·bits/8]`, the same u of a row from the low end of each byte, scales are `[R, ⌈C/block⌉]`; the kernel computes
//! (u − 2^(b−1))·s for the rows i alone. A table and a product tied to it have the same bytes then.
//!
//! Declined: a weight that is not constant, blocks along another axis, and a table with readers that are no such lookups.

use crate::analysis::quantized::is_dequantizer;
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::quantize::{packed, transposed};
use indexmap::IndexMap;

/// The domain of onnxruntime's own operators.
const CONTRIB: &str = "com.microsoft";

/// The level at which onnxruntime rounds activations to 8 bits.
const INT8: i64 = 4;

/// Fuses products with weights in blocks, and lookups in tables in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuseNBits {
    /// Bits of the weight by layer name; 8 for those without an entry.
    pub bits: IndexMap<String, u8>,
    /// Bits of the tables to fuse, by tensor name.
    pub tables: IndexMap<String, u8>,
}

impl Pass for FuseNBits {
    fn name(&self) -> &'static str {
        "fuse-nbits"
    }

    fn about(&self) -> &'static str {
        "products and lookups with weights in blocks become MatMulNBits and GatherBlockQuantized of onnxruntime"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let (mut products, mut tables) = (Vec::new(), Vec::new());
        for (id, node) in model.graph.nodes().filter(|(_, node)| node.is("MatMul")) {
            let label = node.label(&model.graph);
            let bits = self.bits.get(label).copied().unwrap_or(8);
            sort(Product::new(model, id, bits)?, label, &mut products, &mut outcome);
        }
        for (name, &bits) in &self.tables {
            sort(Table::new(model, name, bits)?, name, &mut tables, &mut outcome);
        }
        if !(products.is_empty() && tables.is_empty()) && model.opset(CONTRIB).is_none() {
            model.set_opset(CONTRIB, 1);
        }
        let mut constants = IndexMap::new();
        for product in products {
            product.write(&mut model.graph, &mut constants);
            outcome.count();
        }
        // After the products, whose kernels want their words as initializers: `share-weights` keeps the first of equal ones.
        for table in tables {
            table.write(&mut model.graph);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// Keeps what is to be fused, and notes the reason where it is not.
fn sort<T>(found: Option<Result<T, String>>, site: &str, kept: &mut Vec<T>, outcome: &mut Outcome) {
    match found {
        Some(Ok(fused)) => kept.push(fused),
        Some(Err(reason)) => outcome.decline(site, reason),
        None => {}
    }
}

/// A table in blocks, and what takes its place.
struct Table {
    held: ValueId,
    lookups: Vec<RowLookup>,
    integers: TensorProto,
    scales: TensorProto,
    attributes: Vec<AttributeProto>,
}

/// Nodes that look rows up and dequantize them.
struct RowLookup {
    nodes: Vec<NodeId>,
    name: String,
    indices: ValueId,
    output: ValueId,
}

impl Table {
    /// `None` where there is no such table in blocks; a reason where something else reads it.
    fn new(model: &Model, name: &str, bits: u8) -> Result<Option<Result<Self, String>>, PassError> {
        let graph = &model.graph;
        let Some(held) = graph.find(name) else { return Ok(None) };
        let Some(tensor) = model.constant(held).transpose()? else { return Ok(None) };
        let (&[rows, blocks, block], Some(DataType::Int8)) = (&tensor.shape()?[..], tensor.element_type()) else {
            return Ok(None);
        };
        let mut scale = None;
        let readers = graph.value(held).uses();
        let lookups: Option<Vec<RowLookup>> =
            readers.iter().map(|read| RowLookup::new(graph, read.node, &mut scale)).collect();
        let scales = scale.and_then(|value| model.constant(value)).transpose()?;
        let (Some(lookups), Some(scales)) = (lookups, scales) else {
            return Ok(Some(Err("not all that reads it looks rows up".to_owned())));
        };
        if scales.shape()? != [rows, blocks, 1] || !graph.value(held).captures().is_empty() {
            return Ok(Some(Err("its scales are no initializer, one per block".to_owned())));
        }
        let words = packed(&unsigned_all(&tensor, bits)?, bits);
        let width = words.len() / rows.max(1);
        let attributes =
            [("bits", i64::from(bits)), ("block_size", block as i64), ("gather_axis", 0), ("quantize_axis", 1)];
        Ok(Some(Ok(Self {
            held,
            lookups,
            integers: TensorProto::from_u8(&format!("{name}_words"), &[rows, width], &words),
            scales: TensorProto::from_f32(&format!("{name}_scales"), &[rows, blocks], &scales.to_f32()?),
            attributes: attributes.map(|(name, value)| AttributeProto::int(name, value)).to_vec(),
        })))
    }

    fn write(self, graph: &mut Graph) {
        let words = graph.add_initializer(self.integers);
        let scales = graph.add_initializer(self.scales);
        for lookup in self.lookups {
            lookup.nodes.iter().for_each(|&node| graph.remove_node(node));
            let mut proto = NodeProto::of("GatherBlockQuantized", &lookup.name, self.attributes.clone());
            proto.domain = Some(CONTRIB.to_owned());
            graph.add_node(proto, &[Some(words), Some(lookup.indices), Some(scales)], &[Some(lookup.output)]);
        }
        graph.remove_value(self.held);
    }
}

impl RowLookup {
    /// The lookup that a `Gather` makes in a table, whose scales are those found before, if any were.
    fn new(graph: &Graph, gather: NodeId, scale: &mut Option<ValueId>) -> Option<Self> {
        let node = graph.node(gather);
        let alone = |id: NodeId, op: &str| {
            let reader = graph.only_use(graph.node(id).output(0)?)?;
            (graph.node(reader.node).is(op) && reader.slot == 0).then_some(reader.node)
        };
        let rows = |node: &Node| node.is("Gather") && node.int_or("axis", 0) == 0;
        let indices = node.input(1).filter(|_| rows(node))?;
        let cast = alone(gather, "Cast")?;
        let product = alone(cast, "Mul")?;
        let reshape = alone(product, "Reshape")?;
        let (gathered, _) = graph.value(graph.node(product).input(1)?).producer()?;
        let of_scales = graph.node(gathered);
        let same_rows = rows(of_scales) && of_scales.input(1) == Some(indices);
        graph.only_use(of_scales.output(0)?).filter(|_| same_rows)?;
        let own = of_scales.input(0)?;
        if *scale.get_or_insert(own) != own {
            return None;
        }
        let nodes = vec![gather, cast, gathered, product, reshape];
        let output = graph.node(reshape).output(0)?;
        Some(Self { nodes, name: node.name().to_owned(), indices, output })
    }
}

/// A product, and what takes its place.
struct Product {
    node: NodeId,
    input: ValueId,
    /// The dequantized weight.
    weight: ValueId,
    integers: TensorProto,
    scales: TensorProto,
    zero_points: Option<TensorProto>,
    attributes: Vec<AttributeProto>,
}

impl Product {
    /// A product whose weight has so many bits; `None` for a weight without blocks, and the reason why one with blocks stays.
    fn new(model: &Model, id: NodeId, bits: u8) -> Result<Option<Result<Self, String>>, PassError> {
        let graph = &model.graph;
        let Some([input, weight]) = graph.node(id).two_inputs() else { return Ok(None) };
        let Some((dequantizer, _)) = graph.value(weight).producer() else { return Ok(None) };
        let read = graph.node(dequantizer);
        let block = usize::try_from(read.int_or("block_size", 0)).unwrap_or_default();
        if !is_dequantizer(read) || block == 0 {
            return Ok(None);
        }
        let constant = |slot| Ok::<_, PassError>(read.input(slot).and_then(|v| model.constant(v)).transpose()?);
        let (Some(integers), Some(scales)) = (constant(0)?, constant(1)?) else {
            return Ok(Some(Err("its weight is not constant".to_owned())));
        };
        let zero_points = constant(2)?;
        let (&[size, channels], 0) = (&integers.shape()?[..], read.int_or("axis", 1)) else {
            return Ok(Some(Err("the blocks of its weight do not lie along its inputs".to_owned())));
        };
        let blocks = size.div_ceil(block);
        let stem = graph.value(weight).name();
        let words = words(&unsigned_all(&integers, bits)?, channels, block, bits);
        let bytes = block * usize::from(bits) / 8;
        let scales = transposed(&scales.to_f32()?, blocks);
        let zero_points = match zero_points {
            None => None,
            Some(tensor) => {
                let columns = transposed(&unsigned_all(&tensor, bits)?, blocks);
                let rows: Vec<u8> = columns.chunks(blocks).flat_map(|row| packed(row, bits)).collect();
                let width = rows.len() / channels.max(1);
                Some(TensorProto::from_u8(&format!("{stem}_zero_points"), &[channels, width], &rows))
            }
        };
        let attributes = [
            ("K", size as i64),
            ("N", channels as i64),
            ("bits", i64::from(bits)),
            ("block_size", block as i64),
            ("accuracy_level", INT8),
        ];
        Ok(Some(Ok(Self {
            node: id,
            input,
            weight,
            integers: TensorProto::from_u8(&format!("{stem}_words"), &[channels, blocks, bytes], &words),
            scales: TensorProto::from_f32(&format!("{stem}_scales"), &[channels, blocks], &scales),
            zero_points,
            attributes: attributes.map(|(name, value)| AttributeProto::int(name, value)).to_vec(),
        })))
    }

    /// Writes the product; `constants` are those of weights that are written already, by weight.
    fn write(self, graph: &mut Graph, constants: &mut IndexMap<ValueId, Vec<Option<ValueId>>>) {
        let own = constants.entry(self.weight).or_insert_with(|| {
            let tensors = [Some(self.integers), Some(self.scales), self.zero_points];
            tensors.into_iter().flatten().map(|tensor| Some(graph.add_initializer(tensor))).collect()
        });
        let inputs: Vec<Option<ValueId>> = [Some(self.input)].into_iter().chain(own.iter().copied()).collect();
        let node = graph.node(self.node);
        let (name, output) = (node.name().to_owned(), node.output(0));
        let mut proto = NodeProto::of("MatMulNBits", &name, self.attributes);
        proto.domain = Some(CONTRIB.to_owned());
        graph.remove_node(self.node);
        graph.add_node(proto, &inputs, &[output]);
    }
}

/// q + 2^(b−1) of every integer.
fn unsigned_all(tensor: &TensorProto, bits: u8) -> Result<Vec<u8>, PassError> {
    Ok(tensor.to_i64()?.into_iter().map(|q| unsigned(q, bits)).collect())
}

/// q + 2^(b−1).
fn unsigned(q: i64, bits: u8) -> u8 {
    (q + (1 << (bits - 1))) as u8
}

/// The integers `[K, N]` in words, each channel filled up to whole blocks with what stands for 0.
fn words(integers: &[u8], channels: usize, block: usize, bits: u8) -> Vec<u8> {
    let size = integers.len() / channels.max(1);
    let padded = size.div_ceil(block) * block;
    let zero = unsigned(0, bits);
    let channel = |channel: usize| {
        let row = integers.iter().skip(channel).step_by(channels).copied();
        packed(&row.chain(std::iter::repeat(zero)).take(padded).collect::<Vec<u8>>(), bits)
    };
    (0..channels).flat_map(channel).collect()
}
