//! Pass `cancel-transposes`: `Transpose`s on both sides of elementwise operators go.
//!
//! ```text
//! a = Transpose<p>(x);  b = Add(a, c);  d = Relu(b);  y = Transpose<p⁻¹>(d)
//! becomes
//! b = Add(x, c');  y = Relu(b)
//! ```
//!
//! with c' the constant c in the layout of x. An operator that computes each element by itself does the same in any order of
//! axes, so f(Transpose(x)) = Transpose(f(x)), for several operands where all have the same order. Exporters of networks
//! with channels last leave such pairs around each convolution; behind one, bias and activation are then out of reach of
//! `fuse-affine` and of quantizers.
//!
//! Sites are regions of elementwise operators that read each other, constants and the results of `Transpose`s of one order.
//! All values of a region are computed in the order of axes before these. A value that others than inverse `Transpose`s read
//! gets a `Transpose` of its own behind it. A `Transpose` of what another one wrote becomes one with it first.
//!
//! Declined: regions whose `Transpose`s would not become fewer. Not changed: orders that are not stated, operands of
//! another number of axes, operators with constants that are not readable.

use crate::ir::{AttributeProto, Graph, Model, NodeId, NodeProto, TensorProto, TypeProto, TypeValue, ValueId};
use crate::ops::{Trait, facts};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::{IndexMap, IndexSet};

/// Takes pairs of `Transpose` away.
#[derive(Clone, Copy, Debug, Default)]
pub struct CancelTransposes;

impl Pass for CancelTransposes {
    fn name(&self) -> &'static str {
        "cancel-transposes"
    }

    fn about(&self) -> &'static str {
        "transpositions on both sides of elementwise operators go"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        join_chains(&mut model.graph, &mut outcome);
        let nodes: Vec<NodeId> = model.graph.node_ids().collect();
        let mut seen: IndexSet<NodeId> = IndexSet::new();
        for id in nodes {
            if !model.graph.contains_node(id) || seen.contains(&id) {
                continue;
            }
            let Some(region) = Region::around(model, id)? else { continue };
            seen.extend(&region.inputs);
            if region.gain() > 0 {
                region.apply(&mut model.graph);
                outcome.count();
            } else {
                let label = model.graph.node(id).label(&model.graph).to_owned();
                outcome.decline(label, "as many transpositions would stand behind the operators as go before them");
            }
        }
        Ok(outcome)
    }
}

/// The order of axes that a `Transpose` states.
fn order(graph: &Graph, id: NodeId) -> Option<Vec<usize>> {
    let node = graph.node(id);
    let perm = node.ints("perm");
    let perm: Vec<usize> = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    (node.is("Transpose") && !perm.is_empty() && sorted.into_iter().eq(0..perm.len())).then_some(perm)
}

/// Whether a `Transpose` in one order undoes one in the other.
fn undoes(first: &[usize], then: &[usize]) -> bool {
    first.len() == then.len() && then.iter().enumerate().all(|(at, &axis)| first[axis] == at)
}

/// The `Transpose` that computes a value.
fn transposed(graph: &Graph, value: ValueId) -> Option<(NodeId, Vec<usize>)> {
    let (id, _) = graph.value(value).producer()?;
    Some((id, order(graph, id)?))
}

/// Makes one `Transpose` of two that follow each other, or none.
fn join_chains(graph: &mut Graph, outcome: &mut Outcome) {
    let nodes: Vec<NodeId> = graph.node_ids().collect();
    for id in nodes {
        let Some(then) = order(graph, id) else { continue };
        let Some((first, before)) = graph.node(id).input(0).and_then(|value| transposed(graph, value)) else {
            continue;
        };
        let (Some(source), Some(written)) = (graph.node(first).input(0), graph.node(id).output(0)) else { continue };
        if before.len() != then.len() {
            continue;
        }
        if undoes(&before, &then) {
            if !is_free(graph, written) {
                continue;
            }
            graph.replace_uses(written, source);
            graph.remove_node(id);
            graph.remove_value(written);
        } else {
            let both: Vec<i64> = then.iter().map(|&axis| before[axis] as i64).collect();
            graph.set_input(id, 0, Some(source));
            graph.set_attribute(id, AttributeProto::ints("perm", &both));
        }
        outcome.count();
        drop_unread(graph, first);
    }
}

/// Whether only nodes read a value.
fn is_free(graph: &Graph, value: ValueId) -> bool {
    !graph.is_output(value) && graph.value(value).captures().is_empty()
}

/// Removes a node whose result nothing reads.
fn drop_unread(graph: &mut Graph, id: NodeId) {
    let Some(written) = graph.node(id).output(0) else { return };
    if is_free(graph, written) && graph.value(written).uses().is_empty() {
        graph.remove_node(id);
        graph.remove_value(written);
    }
}

/// Elementwise operators between `Transpose`s.
struct Region {
    order: Vec<usize>,
    nodes: IndexSet<NodeId>,
    /// The `Transpose`s before it.
    inputs: IndexSet<NodeId>,
    /// How many of the `Transpose`s in front nothing else reads.
    unread: usize,
    /// Inverse `Transpose`s behind it.
    outputs: Vec<NodeId>,
    /// Values that others read as well.
    shown: IndexSet<ValueId>,
    /// Constants in the layout of the region, by what they are now.
    constants: IndexMap<ValueId, TensorProto>,
}

impl Region {
    /// The region behind a `Transpose`, if there is one.
    fn around(model: &Model, seed: NodeId) -> Result<Option<Self>, PassError> {
        let graph = &model.graph;
        let (Some(order), Some(first)) = (order(graph, seed), graph.node(seed).output(0)) else { return Ok(None) };
        let mut nodes = connected(graph, first);
        while let Some(&other) = nodes.iter().find(|&&id| !fits(graph, id, &nodes, &order)) {
            nodes.shift_remove(&other);
        }
        if !graph.value(first).uses().iter().any(|reader| nodes.contains(&reader.node)) {
            return Ok(None);
        }
        let (mut inputs, mut constants) = (IndexSet::new(), IndexMap::new());
        for (_, value) in nodes.iter().flat_map(|&id| operands(graph, id)) {
            if let Some((transpose, _)) = transposed(graph, value) {
                inputs.insert(transpose);
            } else if let Some(tensor) = graph.constant(value) {
                let moved = moved(model, tensor, &order)?;
                constants.extend(moved.map(|tensor| (value, tensor)));
            }
        }
        let (mut outputs, mut shown) = (Vec::new(), IndexSet::new());
        for value in nodes.iter().filter_map(|&id| graph.node(id).output(0)) {
            let mut is_shown = !is_free(graph, value);
            for reader in graph.value(value).uses().iter().filter(|reader| !nodes.contains(&reader.node)) {
                if undoing(graph, reader.node, &order) {
                    outputs.push(reader.node);
                } else {
                    is_shown = true;
                }
            }
            shown.extend(is_shown.then_some(value));
        }
        let alone = |&&id: &&NodeId| {
            let written = graph.node(id).output(0);
            let own = |value: ValueId| graph.value(value).uses().iter().all(|reader| nodes.contains(&reader.node));
            written.is_some_and(|value| is_free(graph, value) && own(value))
        };
        let unread = inputs.iter().filter(alone).count();
        Ok(Some(Self { order, nodes, inputs, unread, outputs, shown, constants }))
    }

    /// How many `Transpose`s fewer there are without those around it.
    fn gain(&self) -> isize {
        (self.unread + self.outputs.len()).cast_signed() - self.shown.len().cast_signed()
    }

    fn apply(self, graph: &mut Graph) {
        let moved: IndexMap<ValueId, ValueId> =
            self.constants.iter().map(|(&value, tensor)| (value, graph.add_initializer(tensor.clone()))).collect();
        for &id in &self.nodes {
            for (slot, value) in operands(graph, id) {
                let source = match transposed(graph, value).filter(|(transpose, _)| self.inputs.contains(transpose)) {
                    Some((transpose, _)) => graph.node(transpose).input(0),
                    None => moved.get(&value).copied(),
                };
                if source.is_some() {
                    graph.set_input(id, slot, source);
                }
            }
        }
        for &id in &self.nodes {
            self.write(graph, id);
        }
        for input in self.inputs {
            drop_unread(graph, input);
        }
    }

    /// Gives what a node writes to those who read it: in the layout before the `Transpose`s within the region and behind the
    /// inverse ones, as before to all others.
    fn write(&self, graph: &mut Graph, id: NodeId) {
        let Some(value) = graph.node(id).output(0) else { return };
        let readers = graph.value(value).uses().to_vec();
        let mut written = value;
        if self.shown.contains(&value) {
            written = graph.add_value(&format!("{}_computed", graph.value(value).name()));
            if let Some(ty) = graph.value(value).ty().map(|ty| restored(ty, &self.order)) {
                graph.set_type(written, ty);
            }
            graph.set_output(id, 0, written);
            let name = graph.fresh_name(&format!("{}_transpose", graph.value(value).name()));
            let perm: Vec<i64> = self.order.iter().map(|&axis| axis as i64).collect();
            let node = NodeProto::of("Transpose", &name, vec![AttributeProto::ints("perm", &perm)]);
            graph.add_node(node, &[Some(written)], &[Some(value)]);
        } else {
            // The file may declare the value, in the layout that it had behind the `Transpose`s.
            graph.change_type(value, |ty| restored(ty, &self.order));
        }
        for reader in readers {
            if self.nodes.contains(&reader.node) {
                graph.set_input(reader.node, reader.slot, Some(written));
            } else if self.outputs.contains(&reader.node) {
                let Some(restored) = graph.node(reader.node).output(0) else { continue };
                graph.replace_uses(restored, written);
                graph.remove_node(reader.node);
                graph.remove_value(restored);
            }
        }
    }
}

/// Whether a node is a `Transpose` that undoes this order, and only nodes read what it writes.
fn undoing(graph: &Graph, id: NodeId, before: &[usize]) -> bool {
    let inverse = order(graph, id).is_some_and(|then| undoes(before, &then));
    inverse && graph.node(id).output(0).is_some_and(|value| is_free(graph, value))
}

/// The elementwise nodes that are connected with a value.
fn connected(graph: &Graph, value: ValueId) -> IndexSet<NodeId> {
    let mut found = IndexSet::new();
    let mut values = vec![value];
    while let Some(value) = values.pop() {
        let producer = graph.value(value).producer().map(|(id, _)| id);
        let readers = graph.value(value).uses().iter().map(|reader| reader.node);
        for id in readers.chain(producer) {
            if is_elementwise(graph, id) && found.insert(id) {
                // A constant that others read too says nothing of these.
                let read = operands(graph, id).into_iter().map(|(_, value)| value);
                values.extend(read.filter(|&value| graph.constant(value).is_none()));
                values.extend(graph.node(id).output(0));
            }
        }
    }
    found
}

fn is_elementwise(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let of_two = facts(node.op()).has(Trait::Binary);
    let known = facts(node.op()).has(Trait::Unary) || (of_two && node.inputs().len() == 2);
    node.domain().is_empty() && known && node.outputs().len() == 1 && !operands(graph, id).is_empty()
}

/// The operands that are computed element by element, with their slots.
fn operands(graph: &Graph, id: NodeId) -> Vec<(usize, ValueId)> {
    let node = graph.node(id);
    let count = if facts(node.op()).has(Trait::Binary) { 2 } else { 1 };
    let read = node.inputs().iter().take(count).enumerate();
    read.filter_map(|(slot, value)| Some((slot, (*value)?))).collect()
}

/// Whether all that a node reads is in the order, within the region or a constant.
fn fits(graph: &Graph, id: NodeId, nodes: &IndexSet<NodeId>, order_of: &[usize]) -> bool {
    operands(graph, id).into_iter().all(|(_, value)| {
        let entry = graph.value(value);
        match graph.constant(value) {
            Some(tensor) => tensor.is_float() && tensor.dims.len() <= order_of.len(),
            None => entry.producer().is_some_and(|(producer, _)| {
                nodes.contains(&producer) || order(graph, producer).is_some_and(|order| order == order_of)
            }),
        }
    })
}

/// A constant in the layout before a `Transpose`; `None` where it is one number and may stay.
fn moved(model: &Model, tensor: &TensorProto, order: &[usize]) -> Result<Option<TensorProto>, PassError> {
    let shape = tensor.shape()?;
    if shape.iter().product::<usize>() == 1 {
        return Ok(None);
    }
    let mut wide = vec![1; order.len() - shape.len()];
    wide.extend(&shape);
    let mut sizes = vec![1; order.len()];
    order.iter().zip(&wide).for_each(|(&axis, &size)| sizes[axis] = size);
    let values = model.loaded(tensor)?.to_f32()?;
    // How far apart neighbours along each new axis are in the old layout.
    let mut strides = vec![0; order.len()];
    for (at, &axis) in order.iter().enumerate() {
        strides[axis] = wide[at + 1..].iter().product();
    }
    let element = |index: usize| {
        let (mut rest, mut from) = (index, 0);
        for axis in (0..sizes.len()).rev() {
            from += rest % sizes[axis] * strides[axis];
            rest /= sizes[axis];
        }
        values[from]
    };
    let moved: Vec<f32> = (0..values.len()).map(element).collect();
    Ok(Some(TensorProto { name: Some(format!("{}_moved", tensor.name())), ..tensor.with_f32(&sizes, &moved) }))
}

/// The type of a value before the `Transpose` that made this of it.
fn restored(ty: &TypeProto, order: &[usize]) -> TypeProto {
    let mut before = ty.clone();
    if let Some(TypeValue::Tensor(tensor)) = &mut before.value
        && let Some(shape) = tensor.shape.as_mut().filter(|shape| shape.dim.len() == order.len())
    {
        let now = shape.dim.clone();
        order.iter().zip(now).for_each(|(&axis, dim)| shape.dim[axis] = dim);
    }
    before
}
