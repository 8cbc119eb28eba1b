//! Pass `bound-masks`: what masks make of scores becomes a finite bound, which a quantizer of the scores can hold.
//!
//! ```text
//! p = Softmax(Add(scores, mask))         becomes   p = Softmax(Clip(Where(masked, c, scores), c))
//! p = Softmax(Where(kept, scores, −∞))   becomes   p = Softmax(Clip(Where(kept, scores, c), c))
//! ```
//!
//! A range from −10,000 or −∞ on leaves the scores no step. The bound c is given per `Softmax`, by whoever has seen the
//! scores. With n elements in a row and b bits behind the `Softmax`, let c ≤ r − ln(2·(2ᵇ − 1)·n) for the largest score r
//! of the row that no mask leaves out. Then all masked elements together have at most the weight
//!
//! n·e^(c − r) ≤ 1 / (2·(2ᵇ − 1)),
//!
//! half a step of what `Softmax` writes: each is rounded to 0, and none of the others moves by more than that. The same
//! holds for scores below c, hence the `Clip`: it says that the range need not reach further, and the quantizer does its
//! work. A row of which nothing is left is uniform, as with a mask of large finite numbers.
//!
//! Masks are found behind each `Softmax` along its last axis (`mask`): an `Add` of a value that is 0 or at most −50
//! wherever it is known, or a `Where` that fills in such a number; several in a row, and with what moves elements in
//! between. Of an added mask the condition is read: of a `Where` of two numbers its own, of constants a constant, else
//! whether it is below −25. A `Where` that replaces NaN behind the `Softmax`, as exporters write for rows of which nothing is
//! left, goes: there is none.
//!
//! Declined: scores that others than the `Softmax` read on the way.

mod mask;

use crate::ir::{DataType, Graph, Model, NodeId, NodeProto, TensorProto, TypeProto, Use, ValueId};
use crate::pass::{Outcome, Pass, PassError, shared_with};
use indexmap::IndexMap;
use mask::{Mask, Masked, masked};

/// Below this an element of an added mask leaves its position out.
const LEFT_OUT: f32 = mask::LEAST / 2.0;

/// Gives masked scores a finite bound.
#[derive(Clone, Debug, Default)]
pub struct BoundMasks {
    /// The bound of what each `Softmax` reads, by the name of that value.
    pub bounds: IndexMap<String, f32>,
}

impl BoundMasks {
    /// Elements at most this large stand for nothing.
    pub const LEAST: f32 = mask::LEAST;

    /// Names of the values that a `Softmax` reads along their last axis and that are masked.
    pub fn masked(model: &Model) -> Vec<String> {
        let graph = &model.graph;
        let found = graph.node_ids().filter_map(|id| masked(graph, id));
        found
            .filter(|site| refusal(graph, site).is_none())
            .map(|site| graph.value(site.value).name().to_owned())
            .collect()
    }

    /// The bound of rows whose largest scores are at least `least`, with `length` elements, and `bits` behind the
    /// `Softmax`.
    pub fn bound(least: f32, length: usize, bits: u8) -> f32 {
        let steps = 2.0 * (f64::from(bits).exp2() - 1.0);
        // A lower bound of 0 is that of a rectifier, which more targets know.
        ((f64::from(least) - (steps * length as f64).ln()) as f32).min(0.0)
    }
}

impl Pass for BoundMasks {
    fn name(&self) -> &'static str {
        "bound-masks"
    }

    fn about(&self) -> &'static str {
        "masked scores become a finite bound, which a quantizer can hold"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let graph = &mut model.graph;
        let mut sites = Vec::new();
        for site in graph.node_ids().filter_map(|id| masked(graph, id)) {
            let name = graph.value(site.value).name();
            let Some(&bound) = self.bounds.get(name) else { continue };
            match refusal(graph, &site) {
                Some(reason) => outcome.decline(name, reason),
                None => sites.push((site, bound)),
            }
        }
        let mut conditions = IndexMap::new();
        for (site, bound) in sites {
            write(graph, &site, bound, &mut conditions);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// Who else reads scores on the way to the `Softmax`.
fn refusal(graph: &Graph, site: &Masked) -> Option<String> {
    let readers = std::iter::once(Some(site.softmax))
        .chain(site.path.iter().map(|&value| Some(graph.value(value).producer()?.0)));
    let shared = |(&value, own): (&ValueId, Option<NodeId>)| shared_with(graph, value, |node| Some(node) == own);
    site.path.iter().zip(readers).find_map(shared)
}

/// Elements that are left out, by the mask that is added.
type Conditions = IndexMap<ValueId, Condition>;

/// A condition, and whether it holds where elements are left out.
#[derive(Clone, Copy, Debug)]
struct Condition {
    value: ValueId,
    masked: bool,
}

fn write(graph: &mut Graph, site: &Masked, bound: f32, conditions: &mut Conditions) {
    let stem = graph.value(site.value).name().to_owned();
    let tensor = TensorProto::from_f32(&graph.fresh_name(&format!("{stem}_bound")), &[], &[bound]);
    let constant = graph.add_initializer(tensor);
    for mask in &site.masks {
        match *mask {
            Mask::Filled { node, slot } => graph.set_input(node, slot, Some(constant)),
            Mask::Added { node, scores, mask } => {
                let condition = conditions.get(&mask).copied().unwrap_or_else(|| condition(graph, mask));
                conditions.insert(mask, condition);
                let [yes, no] = if condition.masked { [constant, scores] } else { [scores, constant] };
                let name = graph.node(node).label(graph).to_owned();
                let output = graph.node(node).output(0);
                let operands = [Some(condition.value), Some(yes), Some(no)];
                graph.add_node(NodeProto::of("Where", &name, Vec::new()), &operands, &[output]);
                graph.remove_node(node);
            }
        }
    }
    let bounded = graph.add_op("Clip", &[Some(site.value), Some(constant)], Vec::new(), &format!("{stem}_bounded"));
    if let Some(ty) = graph.value(site.value).ty().cloned() {
        graph.set_type(bounded, ty);
    }
    graph.set_input(site.softmax, 0, Some(bounded));
    drop_guard(graph, site.softmax);
}

fn condition(graph: &mut Graph, mask: ValueId) -> Condition {
    if let Some(found) = own_condition(graph, mask) {
        return found;
    }
    let stem = format!("{}_masked", graph.value(mask).name());
    let constant = graph.constant(mask).and_then(|tensor| Some((tensor.shape().ok()?, tensor.to_f32().ok()?)));
    if let Some((shape, values)) = constant {
        let raw: Vec<u8> = values.iter().map(|&value| u8::from(value < LEFT_OUT)).collect();
        let tensor = TensorProto::from_raw(&graph.fresh_name(&stem), DataType::Bool, &shape, raw);
        return Condition { value: graph.add_initializer(tensor), masked: true };
    }
    let least = TensorProto::from_f32(&graph.fresh_name(&format!("{stem}_below")), &[], &[LEFT_OUT]);
    let least = graph.add_initializer(least);
    let shape = graph.value(mask).shape();
    let value = graph.add_op("Less", &[Some(mask), Some(least)], Vec::new(), &stem);
    if let Some(shape) = shape {
        graph.set_type(value, TypeProto::tensor(DataType::Bool, &shape));
    }
    Condition { value, masked: true }
}

/// The condition of a `Where` of two numbers, 0 and one that leaves out.
fn own_condition(graph: &Graph, mask: ValueId) -> Option<Condition> {
    let (id, _) = graph.value(mask).producer()?;
    let node = graph.node(id);
    let condition = node.input(0).filter(|_| node.is("Where"))?;
    let number = |slot: usize| graph.constant(node.input(slot)?)?.scalar_f32();
    let plain = |slot: usize| Some(graph.constant(node.input(slot)?)?.shape().ok()?.len() <= 1);
    let masked = number(1)? < number(2)?;
    (plain(1)? && plain(2)?).then_some(Condition { value: condition, masked })
}

/// Takes out a `Where` that replaces NaN of a `Softmax`.
fn drop_guard(graph: &mut Graph, softmax: NodeId) {
    let Some(shares) = graph.node(softmax).output(0) else { return };
    let is_nan =
        |reader: &Use| graph.node(reader.node).is("IsNaN").then(|| graph.node(reader.node).output(0)).flatten();
    let Some(nan) = graph.value(shares).uses().iter().find_map(is_nan) else { return };
    let guards: Vec<NodeId> = graph
        .value(nan)
        .uses()
        .iter()
        .filter(|reader| reader.slot == 0 && graph.node(reader.node).is("Where"))
        .filter(|reader| graph.node(reader.node).input(2) == Some(shares))
        .map(|reader| reader.node)
        .collect();
    for guard in guards {
        let Some(output) = graph.node(guard).output(0) else { continue };
        // A caller fetches an output by its name.
        if graph.is_output(output) {
            continue;
        }
        graph.replace_uses(output, shares);
        graph.remove_node(guard);
        graph.remove_value(output);
    }
}
