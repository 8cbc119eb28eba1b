//! `GatherBlockQuantized` of onnxruntime as a lookup in floats, because tract does not know it.
//!
//! The data is a matrix of bytes, `[rows, columns·bits/8]`, integers u of a row from the low end of each byte, and may be a
//! constant of another shape behind a `Reshape`. `W_rc = (u_rc − z_rb)·s_rb`, b = ⌊c / block⌋, z = 2^(bits−1) where no zero
//! points are given. Tables of other element types, and lookups along other axes, stay.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};

/// The name of the operator.
const OPERATOR: &str = "GatherBlockQuantized";
const DOMAIN: &str = "com.microsoft";

/// Every lookup in a constant table.
pub(super) struct Lookups;

impl Lowering for Lookups {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        Table::of(graph, graph.node(id)).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &model.graph;
        let table = |(id, node)| Some((id, Table::of(graph, node)?.dequantized(graph, node)?));
        let found: Vec<(NodeId, TensorProto)> = graph.nodes().filter_map(table).collect();
        for (id, table) in found {
            replace(&mut model.graph, id, table);
        }
        Ok(())
    }
}

fn replace(graph: &mut Graph, id: NodeId, table: TensorProto) {
    let node = graph.node(id);
    let (name, indices, output) = (node.name().to_owned(), node.input(1), node.output(0));
    let constants: Vec<ValueId> = [0, 2, 3].into_iter().filter_map(|slot| node.input(slot)).collect();
    graph.remove_node(id);
    for value in constants {
        // Those with other readers stay, and so do those that a node computes.
        graph.remove_value(value);
    }
    let table = graph.add_initializer(table);
    graph.add_node(NodeProto::of("Gather", &name, Vec::new()), &[Some(table), indices], &[output]);
}

/// A constant table in blocks, whose parts fit each other.
struct Table<'a> {
    rows: usize,
    columns: usize,
    block: usize,
    bits: usize,
    words: &'a TensorProto,
    scales: &'a TensorProto,
    zero_points: Option<&'a TensorProto>,
}

impl<'a> Table<'a> {
    /// The table of a node that looks rows up in one.
    fn of(graph: &'a Graph, node: &Node) -> Option<Self> {
        let is_matrix = node.int_or("gather_axis", 0) == 0 && matches!(node.int_or("quantize_axis", 1), 1 | -1);
        if node.op() != OPERATOR || node.domain() != DOMAIN || !is_matrix {
            return None;
        }
        let (words, shape) = constant(graph, node.input(0)?)?;
        let bits = usize::try_from(node.int_or("bits", 4)).ok().filter(|bits| [2, 4, 8].contains(bits))?;
        let block = usize::try_from(node.int_or("block_size", 128)).ok().filter(|&block| block > 0)?;
        let &[rows, width] = &shape[..] else { return None };
        let table = Self {
            rows,
            columns: width.checked_mul(8 / bits)?,
            block,
            bits,
            words,
            scales: constant(graph, node.input(2)?)?.0,
            zero_points: node.input(3).and_then(|value| Some(constant(graph, value)?.0)),
        };
        let count = |tensor: &TensorProto| tensor.element_count().ok();
        let bytes = |tensor: &TensorProto| tensor.element_type() == Some(DataType::Uint8);
        let fits = bytes(words)
            && count(words) == rows.checked_mul(width)
            && count(table.scales) == rows.checked_mul(table.blocks())
            && table.zero_points.is_some() == node.input(3).is_some()
            && table.zero_points.is_none_or(|tensor| {
                bytes(tensor) && count(tensor) == rows.checked_mul(table.blocks().div_ceil(8 / bits))
            });
        fits.then_some(table)
    }

    /// Blocks of a row.
    fn blocks(&self) -> usize {
        self.columns.div_ceil(self.block)
    }

    /// The table in floats.
    fn dequantized(&self, graph: &Graph, node: &Node) -> Option<TensorProto> {
        let (blocks, bits) = (self.blocks(), self.bits);
        let scales = self.scales.to_f32().ok()?;
        let integers = digits(self.words, self.columns, bits)?;
        let zero_points = match self.zero_points {
            Some(tensor) => digits(tensor, blocks, bits)?,
            None => vec![1 << (bits - 1); scales.len()],
        };
        let value = |(at, integer): (usize, u8)| {
            let group = at / self.columns * blocks + at % self.columns / self.block;
            (f32::from(integer) - f32::from(zero_points[group])) * scales[group]
        };
        let values: Vec<f32> = integers.into_iter().enumerate().map(value).collect();
        let name = graph.fresh_name(&format!("{}_table", graph.value(node.output(0)?).name()));
        Some(TensorProto::from_f32(&name, &[self.rows, self.columns], &values))
    }
}

/// Numbers of so many bits, from the low end of each byte; each row of so many begins with a byte.
fn digits(words: &TensorProto, columns: usize, bits: usize) -> Option<Vec<u8>> {
    let words: Vec<u8> = words.to_i64().ok()?.into_iter().map(|word| word as u8).collect();
    let per = 8 / bits;
    let mask = u8::MAX >> (8 - bits);
    let row = |row: &[u8]| -> Vec<u8> { (0..columns).map(|at| row[at / per] >> (at % per * bits) & mask).collect() };
    Some(words.chunks_exact(columns.div_ceil(per).max(1)).flat_map(row).collect())
}

/// A constant here, itself or behind a `Reshape`, and its shape.
fn constant(graph: &Graph, value: ValueId) -> Option<(&TensorProto, Vec<usize>)> {
    let here = |value: ValueId| graph.initializer(value).filter(|tensor| !tensor.is_external());
    if let Some(tensor) = here(value) {
        return Some((tensor, tensor.shape().ok()?));
    }
    let node = graph.node(graph.value(value).producer()?.0);
    let tensor = here(node.input(0).filter(|_| node.is("Reshape"))?)?;
    let shape = here(node.input(1)?)?.to_i64().ok()?;
    Some((tensor, shape.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir;

    /// The table that a lookup with these operands and attributes becomes.
    fn table(operands: &str, attributes: &str) -> Option<Vec<f32>> {
        let words = |first: u8| (first..first + 16).map(|word| word.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!(
            "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>
             g (int64[n] i) => (float[n,32] y)
             <uint8[2,16] w = {{{0}, {1}}}, uint8[2,1,16] other = {{{0}, {1}}}, int64[2] shape = {{2, 16}},
              float[2,2] s = {{1, 2, 3, 4}}, uint8[2,1] z = {{16, 50}}, float[2] few = {{1, 2}}>
             {{ same = Reshape(other, shape)
                y = com.microsoft.GatherBlockQuantized <block_size = 16{attributes}> ({operands}) }}",
            words(0),
            words(100)
        );
        let mut model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
        Lookups.lower(&mut model).unwrap();
        let (_, node) = model.graph.nodes().find(|(_, node)| node.op() == "Gather")?;
        Some(model.graph.initializer(node.input(0)?)?.to_f32().unwrap())
    }

    #[test]
    fn rows_are_read_from_the_low_end() {
        let found = table("w, i, s", "").unwrap();
        assert_eq!(found.len(), 64);
        // 0x00, 0x01 … in the first row, 0x64, 0x65 … in the second.
        assert_eq!(found[..4], [-8.0, -8.0, -7.0, -8.0]);
        assert_eq!(found[16..20], [0.0, -16.0, 2.0, -16.0]);
        assert_eq!(found[32..36], [-12.0, -6.0, -9.0, -6.0]);
        assert_eq!(table("same, i, s", ", bits = 4, quantize_axis = -1").unwrap(), found);
        // Zero points 0 and 1, 2 and 3.
        let shifted = table("w, i, s, z", "").unwrap();
        assert_eq!([shifted[2], shifted[16], shifted[32], shifted[48]], [1.0, 14.0, 6.0, 36.0]);
        assert_eq!(table("w, i, few", ", bits = 8").unwrap()[..3], [-128.0, -127.0, -126.0]);
    }

    #[test]
    fn other_axes_and_broken_tables_stay() {
        assert!(table("w, i, few", "").is_none());
        assert!(table("w, i, s", ", gather_axis = 1").is_none());
        assert!(table("w, i, s", ", bits = 8").is_none());
    }
}
