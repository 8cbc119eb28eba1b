//! Pass `split-outliers`: what the quantizer of an activation clips of a few channels reaches the products that read it
//! in float.
//!
//! ```text
//! y = DQ(Q(x))·W   becomes   y = DQ(Q(x))·W + r·W_O,   r = x_O − clip(x_O, a, b)
//! ```
//!
//! O are a few channels of x, its last axis, `W_O` the rows of W that multiply them, and a and b the ends of what Q
//! represents: Q saturates, so that `DQ(Q(x_O))` ≈ `clip(x_O, a, b)`, and r is what is missing. The range of Q may then leave out
//! channels that are ten and more times larger than the others, and spends its integers on the others. This is the
//! decomposition of Dettmers et al. (*`LLM.int8()`*, arXiv 2208.07339, section 3), with the difference that the integer product
//! goes on reading all channels: nothing is taken out of x or W, and for values in the range r is 0.
//!
//! `W_O` has the values that the integers of W stand for. Which channels and ranges lose least is found by whoever has seen
//! the activations; the pass has the channels in its field and reads the range off the quantizer.
//!
//! Declined, for all readers of an activation together: a quantizer that other nodes than products read, products whose
//! weights are not constant matrices of 8 bits, and products whose outputs are quantized, which an integer kernel writes.

use crate::analysis::quantized::{EIGHT_BITS, Qdq};
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;

/// Adds what quantizers clip of some channels to the products that read them.
#[derive(Clone, Debug, Default)]
pub struct SplitOutliers {
    /// Channels along the last axis, in ascending order, by the name of the activation before its quantizer.
    pub channels: IndexMap<String, Vec<usize>>,
}

impl Pass for SplitOutliers {
    fn name(&self) -> &'static str {
        "split-outliers"
    }

    fn about(&self) -> &'static str {
        "what quantizers clip of a few channels reaches products in float"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let qdq = Qdq::new(model);
        let mut sites = Vec::new();
        for (name, channels) in &self.channels {
            match Site::new(&qdq, name, channels) {
                Ok(site) => sites.push(site),
                Err(reason) => outcome.decline(name, reason),
            }
        }
        for site in sites {
            site.write(&mut model.graph);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// An activation with a quantizer of its own, and the products that read it.
struct Site {
    value: ValueId,
    channels: Vec<usize>,
    /// The ends of what the quantizer represents.
    range: [f32; 2],
    products: Vec<Product>,
}

/// A product, and the rows of its weight that multiply the channels.
struct Product {
    node: NodeId,
    rows: Vec<f32>,
    columns: usize,
}

impl Site {
    fn new(qdq: &Qdq, name: &str, channels: &[usize]) -> Result<Self, String> {
        let graph = &qdq.model.graph;
        let value = graph.find(name).ok_or("there is no such value")?;
        if channels.is_empty() {
            return Err("it has no channels to split".to_owned());
        }
        let readers: Vec<&Node> = graph.value(value).uses().iter().map(|reader| graph.node(reader.node)).collect();
        if readers.iter().any(|node| is_split(graph, node)) {
            return Err("its channels are split already".to_owned());
        }
        let mut quantizers = readers.iter().filter(|node| node.is("QuantizeLinear"));
        let integers = match (quantizers.next(), quantizers.next()) {
            (Some(quantizer), None) => quantizer.output(0).ok_or("its quantizer writes nothing")?,
            (None, _) => return Err("no quantizer reads it".to_owned()),
            _ => return Err("several quantizers read it".to_owned()),
        };
        let mut range = None;
        let mut products = Vec::new();
        for reader in alone(graph, integers)? {
            let node = graph.node(reader);
            let other = || format!("`{}` is not read by `DequantizeLinear` alone", graph.value(integers).name());
            let read = node.output(0).filter(|_| node.is("DequantizeLinear")).ok_or_else(other)?;
            let quantized = qdq.dequantized(read, EIGHT_BITS)?.ok_or_else(other)?;
            if !quantized.per_tensor() {
                return Err("it has more than one scale".to_owned());
            }
            let (low, high) = if quantized.element == DataType::Int8 { (-128, 127) } else { (0, 255) };
            range = Some([low, high].map(|end: i64| (end - quantized.zero_points[0]) as f32 * quantized.scales[0]));
            for product in alone(graph, read)? {
                products.push(Product::new(qdq, product, read, channels)?);
            }
        }
        match range {
            Some(range) if !products.is_empty() => Ok(Self { value, channels: channels.to_vec(), range, products }),
            _ => Err("no product reads it".to_owned()),
        }
    }

    fn write(self, graph: &mut Graph) {
        let stem = graph.value(self.value).name().to_owned();
        let constant = |graph: &mut Graph, part: &str, tensor: &dyn Fn(&str) -> TensorProto| {
            let name = graph.fresh_name(&format!("{stem}_{part}"));
            Some(graph.add_initializer(tensor(&name)))
        };
        let channels: Vec<i64> = self.channels.iter().map(|&channel| channel as i64).collect();
        let count = channels.len();
        let indices = constant(graph, "channels", &|name| TensorProto::from_i64(name, &[count], &channels));
        let [low, high] = self.range;
        let low = constant(graph, "low", &|name| TensorProto::from_f32(name, &[], &[low]));
        let high = constant(graph, "high", &|name| TensorProto::from_f32(name, &[], &[high]));
        let axis = AttributeProto::int("axis", -1);
        let own = graph.add_op("Gather", &[Some(self.value), indices], vec![axis], &format!("{stem}_outliers"));
        let kept = graph.add_op("Clip", &[Some(own), low, high], Vec::new(), &format!("{stem}_clipped"));
        let rest = graph.add_op("Sub", &[Some(own), Some(kept)], Vec::new(), &format!("{stem}_rest"));
        for Product { node, rows, columns } in self.products {
            let Some(output) = graph.node(node).output(0) else { continue };
            let name = graph.value(output).name().to_owned();
            let weight =
                TensorProto::from_f32(&graph.fresh_name(&format!("{name}_outlier_rows")), &[count, columns], &rows);
            let weight = graph.add_initializer(weight);
            let on_integers = graph.add_value(&format!("{name}_integers"));
            graph.set_output(node, 0, on_integers);
            let added = graph.add_op("MatMul", &[Some(rest), Some(weight)], Vec::new(), &format!("{name}_outliers"));
            let sum = NodeProto::of("Add", &graph.fresh_name(&format!("{name}_sum")), Vec::new());
            graph.add_node(sum, &[Some(on_integers), Some(added)], &[Some(output)]);
        }
    }
}

/// Whether a node takes channels for a product of their own.
fn is_split(graph: &Graph, node: &Node) -> bool {
    let clips = |value: ValueId| graph.value(value).uses().iter().any(|reader| graph.node(reader.node).is("Clip"));
    node.is("Gather") && node.int_or("axis", 0) == -1 && node.output(0).is_some_and(clips)
}

/// The nodes that read a value which nobody else reads.
fn alone(graph: &Graph, value: ValueId) -> Result<Vec<NodeId>, String> {
    let entry = graph.value(value);
    if graph.is_output(value) {
        return Err(format!("`{}` is a graph output", entry.name()));
    }
    if !entry.captures().is_empty() {
        return Err(format!("a sub-graph reads `{}`", entry.name()));
    }
    Ok(entry.uses().iter().map(|reader| reader.node).collect())
}

impl Product {
    fn new(qdq: &Qdq, id: NodeId, read: ValueId, channels: &[usize]) -> Result<Self, String> {
        let graph = &qdq.model.graph;
        let node = graph.node(id);
        let name = node.name();
        let plain =
            node.is("MatMul") || node.is("Gemm") && node.int_or("transA", 0) == 0 && node.float_or("alpha", 1.0) == 1.0;
        let [first, weight] = [node.input(0), node.input(1)];
        let Some(weight) = weight.filter(|&weight| plain && first == Some(read) && weight != read) else {
            return Err(format!("`{name}` is no product with a matrix on its right"));
        };
        let output = node.output(0).ok_or_else(|| format!("`{name}` writes nothing"))?;
        if graph.value(output).uses().iter().any(|reader| graph.node(reader.node).is("QuantizeLinear")) {
            return Err(format!("the output of `{name}` is quantized"));
        }
        let unread = || format!("the weight of `{name}` is not a matrix of 8 bits");
        let quantized = qdq.dequantized(weight, EIGHT_BITS)?.ok_or_else(unread)?;
        let tensor = qdq.constant(quantized.integers)?;
        let [height, width] = tensor.shape().map_err(|e| e.to_string())?[..] else { return Err(unread()) };
        let integers = tensor.to_i64().map_err(|e| e.to_string())?;
        let transposed = node.is("Gemm") && node.int_or("transB", 0) != 0;
        let (rows, columns) = if transposed { (width, height) } else { (height, width) };
        if channels.iter().any(|&channel| channel >= rows) {
            return Err(format!("`{name}` reads {rows} channels"));
        }
        let at = |row: usize, column: usize| {
            let [r, c] = if transposed { [column, row] } else { [row, column] };
            let slice = if quantized.per_tensor() { 0 } else { [r, c][usize::from(quantized.lies_along(1, Some(2)))] };
            let centred = integers[r * width + c] - quantized.zero_points[slice];
            centred as f32 * quantized.scales[slice]
        };
        let slices = if quantized.lies_along(1, Some(2)) { width } else { height };
        if !quantized.per_tensor() && quantized.scales.len() != slices {
            return Err(unread());
        }
        let rows = channels.iter().flat_map(|&row| (0..columns).map(move |column| (row, column)));
        Ok(Self { node: id, rows: rows.map(|(row, column)| at(row, column)).collect(), columns })
    }
}
