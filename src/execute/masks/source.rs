//! Inputs that say which positions of a sequence count.
//!
//! Each value computed from an input of rank 2 by casts, comparisons and arithmetic with single numbers is known by two
//! numbers: what it is where the input is 0, and where it is not (or, after a comparison of token ids, where the ids are
//! not and are the one compared with). An Add of −10,000 or −∞ to something, a Where that writes it, or an attention
//! operator that takes it as its mask says which of the two is left out. A product with 0 or a sum of the mask says so
//! only of an input whose name says mask. Names alone are enough for `attention_mask` and for lengths.

use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use std::collections::HashMap;

/// At this and below an addend leaves nothing of what a Softmax or a Sigmoid sees.
const HUGE: f32 = -1e3;

/// When an element of the input leaves its position out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// Where it is 0, or where it is 1; other elements are in no mask.
    Flag {
        /// Whether it is 1 there.
        set: bool,
    },
    /// Where it is this number, or where it is not.
    Number {
        /// The number.
        number: f32,
        /// Whether it is the number there.
        equal: bool,
    },
    /// The elements are lengths, one per sample.
    Length,
    /// No mask is known: what repeats at either end along this axis is padding.
    Repeats {
        /// The axis of positions.
        axis: usize,
    },
}

/// An input that masks.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) value: ValueId,
    /// Its place among the model's runtime inputs.
    pub(super) input: usize,
    pub(super) name: String,
    pub(super) rule: Rule,
}

impl Source {
    pub(super) fn is_lengths(&self) -> bool {
        self.rule == Rule::Length
    }

    /// The axis of positions.
    pub(super) fn axis(&self) -> usize {
        if let Rule::Repeats { axis } = self.rule { axis } else { 1 }
    }

    /// Whether another is a mask of the same input.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.value == other.value
    }

    /// What was taken for a mask, in words.
    pub(super) fn note(&self) -> String {
        let name = &self.name;
        match self.rule {
            Rule::Flag { set } => {
                format!("input `{name}` is a mask: positions where it is {} count nowhere", i32::from(set))
            }
            Rule::Number { number, equal: true } => format!("positions where input `{name}` is {number} are padding"),
            Rule::Number { number, .. } => format!("positions where input `{name}` is not {number} are padding"),
            Rule::Length => format!("input `{name}` holds lengths: positions behind them count nowhere"),
            Rule::Repeats { .. } => {
                format!("equal positions at an end of input `{name}` are taken for padding while weights are solved")
            }
        }
    }
}

/// What is known of a value that is computed from an input.
#[derive(Clone, Copy, Debug)]
struct Derived {
    source: ValueId,
    /// The number that the input is compared with; none before a comparison.
    number: Option<f32>,
    /// The value where the input is 0 and where it is 1, or where it is not the number and where it is.
    pair: [f32; 2],
    /// Whether it still is the input, moved at most.
    raw: bool,
}

/// Evidence that a state of an input leaves positions out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Evidence {
    number: Option<f32>,
    state: usize,
    strong: bool,
}

/// Operators that move or repeat elements of their first input, or change their type.
const MOVES: &[&str] = &[
    "Cast",
    "CastLike",
    "Identity",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Expand",
    "Transpose",
    "Tile",
    "Slice",
    "GatherND",
    "Dropout",
];

/// Operators beside those whose output has the elements that stand for nothing where an operand has them, or that end them.
const FOLLOWED: &[&str] =
    &["Add", "Clip", "Div", "LogSoftmax", "Max", "Min", "Mul", "Sigmoid", "Softmax", "Sub", "Where"];

/// The inputs of a model that mask, in the order of its inputs.
pub(super) fn find(model: &Model) -> Vec<Source> {
    let graph = &model.graph;
    let inputs: Vec<ValueId> = graph.runtime_inputs().collect();
    let derived = derived(graph);
    let mut evidence: HashMap<ValueId, Vec<Evidence>> = HashMap::new();
    let own = |node: &Node| node.output(0).is_some_and(|output| derived.contains_key(&output));
    for (_, node) in graph.nodes().filter(|(_, node)| !own(node) && node.subgraphs().next().is_none()) {
        for (source, found) in seen(graph, node, &derived) {
            evidence.entry(source).or_default().push(found);
        }
    }
    let source = |(input, &value): (usize, &ValueId)| {
        let name = graph.value(value).name().to_owned();
        let rule = rule(graph, value, evidence.get(&value).map_or(&[][..], Vec::as_slice))?;
        Some(Source { value, input, name, rule })
    };
    inputs.iter().enumerate().filter_map(source).collect()
}

/// Inputs of tokens or of features of a sequence, whose padding nothing but its own look tells.
pub(super) fn sequences(model: &Model) -> Vec<Source> {
    let graph = &model.graph;
    let source = |(input, value): (usize, ValueId)| {
        let entry = graph.value(value);
        let element = entry.element_type()?;
        let axis = match (entry.shape()?.len(), element.is_float()) {
            // Channels of a convolution lie on axis 1, its positions behind them.
            (3, true) if entry.uses().iter().any(|u| graph.node(u.node).is("Conv")) => 2,
            (2, false) | (3, true) => 1,
            _ => return None,
        };
        Some(Source { value, input, name: entry.name().to_owned(), rule: Rule::Repeats { axis } })
    };
    graph.runtime_inputs().enumerate().find_map(source).into_iter().collect()
}

/// Nodes that add a mask to something, or write it there: what they write has elements that stand for nothing, and a
/// range that holds them is of no use.
pub(crate) fn masking(model: &Model) -> Vec<NodeId> {
    let graph = &model.graph;
    let derived = derived(graph);
    let constant = |value: Option<ValueId>| {
        value.and_then(|value| model.constant(value)?.ok()?.to_f32().ok()).is_some_and(|values| is_mask(&values))
    };
    let filling = |value: Option<ValueId>| number(graph, value).is_some_and(|fill| fill <= HUGE);
    let masks = |node: &Node| match node.op() {
        "Add" | "Sub" | "Min" => {
            node.inputs().iter().any(|&value| constant(value))
                || seen(graph, node, &derived).iter().any(|(_, found)| found.strong)
        }
        "Where" => [1, 2].into_iter().any(|slot| filling(node.input(slot)) || constant(node.input(slot))),
        _ => false,
    };
    graph.nodes().filter(|(_, node)| masks(node)).map(|(id, _)| id).collect()
}

/// Nodes that add masks, with all that read what they write as it is, up to what makes ordinary numbers of it.
pub(crate) fn with_readers(model: &Model, masking: Vec<NodeId>) -> Vec<NodeId> {
    let (graph, mut found) = (&model.graph, masking);
    let mut at = 0;
    while let Some(&id) = found.get(at) {
        at += 1;
        let node = graph.node(id);
        if matches!(node.op(), "Softmax" | "LogSoftmax" | "Sigmoid" | "Clip") {
            continue;
        }
        for reader in node.outputs().iter().flatten().flat_map(|&value| graph.value(value).uses()) {
            let op = graph.node(reader.node).op();
            if !found.contains(&reader.node) && (MOVES.contains(&op) || FOLLOWED.contains(&op)) {
                found.push(reader.node);
            }
        }
    }
    found
}

/// Whether a constant is a mask: some of its elements blot out what they are added to, others leave it as it is.
fn is_mask(values: &[f32]) -> bool {
    let least = values.iter().copied().fold(0.0, f32::min);
    let leaves = values.iter().any(|v| v.abs() <= -least * 1e-3);
    least == f32::NEG_INFINITY || least <= f32::MIN / 4.0 || (least <= HUGE && leaves)
}

/// Every value that is computed from an input of rank 2 and single numbers alone.
fn derived(graph: &Graph) -> HashMap<ValueId, Derived> {
    let mut derived: HashMap<ValueId, Derived> = HashMap::new();
    let matrices = graph.runtime_inputs().filter(|&value| graph.value(value).shape().is_some_and(|s| s.len() == 2));
    for value in matrices {
        derived.insert(value, Derived { source: value, number: None, pair: [0.0, 1.0], raw: true });
    }
    for (_, node) in graph.nodes().filter(|(_, node)| node.subgraphs().next().is_none()) {
        if let (Some(next), Some(output)) = (step(graph, node, &derived), node.output(0)) {
            derived.insert(output, next);
        }
    }
    derived
}

/// Words of a name.
fn words(name: &str) -> Vec<String> {
    let split = name.split(|c: char| !c.is_alphanumeric());
    split.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn rule(graph: &Graph, value: ValueId, evidence: &[Evidence]) -> Option<Rule> {
    let entry = graph.value(value);
    let words = words(entry.name());
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let element = entry.element_type()?;
    let integer = !element.is_float() && element != DataType::Bool;
    let named_mask = words.iter().any(|word| word.ends_with("mask"));
    if entry.shape().is_some_and(|shape| shape.len() == 1) {
        return (integer && has(&["length", "lengths", "len", "lens"])).then_some(Rule::Length);
    }
    let counts = |found: &&Evidence| found.strong || named_mask;
    let mut usable = evidence.iter().filter(counts);
    if let Some(first) = usable.next() {
        // Uses that contradict each other say nothing.
        let strong =
            evidence.iter().filter(counts).all(|other| (other.number, other.state) == (first.number, first.state));
        let rule = match first.number {
            None => Rule::Flag { set: first.state == 1 },
            Some(number) => Rule::Number { number, equal: first.state == 1 },
        };
        return strong.then_some(rule);
    }
    let conventional = entry.name().to_lowercase().ends_with("attention_mask") || has(&["input"]) && named_mask;
    (conventional && (integer || element == DataType::Bool) && entry.shape().is_some_and(|shape| shape.len() == 2))
        .then_some(Rule::Flag { set: false })
}

/// A single number.
fn number(graph: &Graph, value: Option<ValueId>) -> Option<f32> {
    let tensor = graph.constant(value?)?;
    if tensor.element_count().ok()? != 1 {
        return None;
    }
    match tensor.to_f32() {
        Ok(values) => values.first().copied(),
        Err(_) => tensor.to_i64().ok()?.first().map(|&n| n as f32),
    }
}

/// What a node makes of a derived value and single numbers; nothing where it takes in more than that.
fn step(graph: &Graph, node: &Node, derived: &HashMap<ValueId, Derived>) -> Option<Derived> {
    let read = |slot: usize| node.input(slot).and_then(|value| derived.get(&value).copied());
    let op = node.op();
    if MOVES.contains(&op) {
        return read(0);
    }
    let map = |from: Derived, pair: [f32; 2]| Some(Derived { pair, raw: false, ..from });
    let truth = |holds: bool| f32::from(u8::from(holds));
    match op {
        "Not" => read(0).and_then(|from| map(from, from.pair.map(|v| truth(v == 0.0)))),
        "Where" => {
            let from = read(0)?;
            let [yes, no] = [number(graph, node.input(1))?, number(graph, node.input(2))?];
            map(from, from.pair.map(|v| if v == 0.0 { no } else { yes }))
        }
        "And" | "Or" => {
            let from = read(0).or_else(|| read(1))?;
            // What decides alone stays what it is; the other state depends on the other operand.
            let decides = if op == "And" { 0.0 } else { 1.0 };
            from.pair.contains(&decides).then_some(Derived { raw: false, ..from })
        }
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Add" | "Sub" | "Mul" | "Div" | "Min"
        | "Max" => {
            let (from, other, swapped) = match (read(0), number(graph, node.input(1))) {
                (Some(from), Some(other)) => (from, other, false),
                _ => (read(1)?, number(graph, node.input(0))?, true),
            };
            if op == "Equal" && from.raw && from.number.is_none() {
                return Some(Derived { number: Some(other), pair: [0.0, 1.0], raw: false, ..from });
            }
            let of = |v: f32| {
                let (a, b) = if swapped { (other, v) } else { (v, other) };
                match op {
                    "Equal" => truth(a == b),
                    "Greater" => truth(a > b),
                    "GreaterOrEqual" => truth(a >= b),
                    "Less" => truth(a < b),
                    "LessOrEqual" => truth(a <= b),
                    "Add" => a + b,
                    "Sub" => a - b,
                    "Mul" if a == 0.0 || b == 0.0 => 0.0,
                    "Mul" => a * b,
                    "Div" => a / b,
                    "Min" => a.min(b),
                    _ => a.max(b),
                }
            };
            map(from, from.pair.map(of))
        }
        _ => None,
    }
}

/// The lower bound that what a node selects gets before anything else is done with it, as masked scores do
/// ([`BoundMasks`](msq_passes::BoundMasks)).
fn lower_bound(graph: &Graph, node: &Node) -> Option<f32> {
    let mut value = node.output(0)?;
    loop {
        let reader = graph.node(graph.only_use(value)?.node);
        match reader.op() {
            "Clip" => return number(graph, reader.input(1)),
            "Where" | "Reshape" | "Identity" => value = reader.output(0)?,
            _ => return None,
        }
    }
}

/// What a node that takes in more than derived values says of them.
fn seen(graph: &Graph, node: &Node, derived: &HashMap<ValueId, Derived>) -> Vec<(ValueId, Evidence)> {
    let read = |slot: usize| node.input(slot).and_then(|value| derived.get(&value).copied());
    let say =
        |from: Derived, state: usize, strong: bool| (from.source, Evidence { number: from.number, state, strong });
    let lower = |pair: [f32; 2]| usize::from(pair[1] < pair[0]);
    let huge = |pair: [f32; 2]| pair[0].min(pair[1]) <= HUGE && pair[0].max(pair[1]).abs() < 1.0;
    match node.op() {
        "Add" => {
            let added = [0, 1].into_iter().filter_map(read).filter(|from| huge(from.pair));
            added.map(|from| say(from, lower(from.pair), true)).collect()
        }
        "Where" => {
            let Some(from) = read(0) else { return Vec::new() };
            let bounded = |value: &f32| lower_bound(graph, node).is_some_and(|low| *value <= low);
            let fill = |slot: usize| number(graph, node.input(slot));
            let fill = |slot: usize| fill(slot).map(|value| if bounded(&value) { HUGE } else { value });
            let state_of = |truth: bool| from.pair.iter().position(|&v| (v != 0.0) == truth);
            let [yes, no] = [fill(1), fill(2)];
            let found = match (yes, no) {
                (Some(value), None) if value <= HUGE || value == 0.0 => state_of(true).map(|state| (state, value)),
                (None, Some(value)) if value <= HUGE || value == 0.0 => state_of(false).map(|state| (state, value)),
                _ => None,
            };
            let differs = from.pair[0] != from.pair[1];
            found.filter(|_| differs).map(|(state, value)| say(from, state, value <= HUGE)).into_iter().collect()
        }
        "Mul" => {
            let factor =
                [0, 1].into_iter().filter_map(read).find(|from| from.pair.contains(&0.0) && from.pair.contains(&1.0));
            let state = |from: Derived| usize::from(from.pair[1] == 0.0);
            factor.map(|from| say(from, state(from), false)).into_iter().collect()
        }
        "ReduceSum" => {
            let summed = read(0).filter(|from| from.pair == [0.0, 1.0] || from.pair == [1.0, 0.0]);
            summed.map(|from| say(from, usize::from(from.pair[1] == 0.0), false)).into_iter().collect()
        }
        "Attention" | "MultiHeadAttention" => {
            // The mask of onnxruntime's fused attention: 0 leaves out.
            let slots: &[usize] = if node.is("MultiHeadAttention") { &[4] } else { &[3] };
            let masks = slots.iter().filter_map(|&slot| read(slot));
            masks.filter(|from| from.pair == [0.0, 1.0]).map(|from| say(from, 0, true)).collect()
        }
        _ => Vec::new(),
    }
}
