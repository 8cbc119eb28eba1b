//! Nodes that stay in float, grouped: a transformer has hundreds, for a handful of reasons.

use super::Report;
use super::numbers::{grouped, short};
use indexmap::IndexMap;
use msq_passes::analysis::Kept;
use std::cmp::Reverse;

/// Reasons that say no more than that floats are read or fed, and what stands for all of them.
const FOLLOWING: [&str; 4] = [
    "it reads values that are not quantized",
    "no integer kernel reads its output",
    "an operand is float",
    "its output is not quantized",
];
const FOLLOWS: &str = "only float values are read or fed";

/// Nodes that stay in float for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatGroup<'a> {
    /// The reason, without the names of nodes and values.
    pub reason: String,
    /// Operators and the number of their nodes, most frequent first.
    pub operators: Vec<(&'a str, usize)>,
    /// The nodes.
    pub nodes: Vec<&'a Kept>,
    /// Whether they stay in float only because what they read or feed is float.
    pub follows: bool,
}

impl FloatGroup<'_> {
    /// Operators with their counts: ``ReduceMean ×26, Sub ×13``, at most so many of them.
    pub fn operators(&self, most: usize) -> String {
        let one = |&(op, count): &(&str, usize)| match count {
            1 => op.to_owned(),
            _ => format!("{op} ×{}", grouped(count as u64)),
        };
        let mut said: Vec<String> = self.operators.iter().take(most).map(one).collect();
        if self.operators.len() > most {
            let rest: usize = self.operators[most..].iter().map(|(_, count)| count).sum();
            said.push(if rest == 1 { "1 other".to_owned() } else { format!("{} others", grouped(rest as u64)) });
        }
        said.join(", ")
    }

    /// The names of at most two nodes, long ones shortened.
    pub fn names(&self) -> String {
        let named: Vec<String> = self.nodes.iter().take(2).map(|kept| format!("`{}`", short(&kept.node))).collect();
        let more = if self.nodes.len() > 2 { ", …" } else { "" };
        format!("{}{more}", named.join(", "))
    }
}

impl Report {
    /// The nodes that stay in float by reason: those with most multiplications first, then the most nodes; nodes that only
    /// follow others come last.
    pub fn float_groups(&self) -> Vec<FloatGroup<'_>> {
        let layers = self.layers.iter().chain(&self.float_layers);
        let macs: IndexMap<&str, u64> = layers.map(|layer| (&*layer.name, layer.macs.unwrap_or(0))).collect();
        groups(&self.kept, |node| macs.get(node).copied().unwrap_or(0))
    }
}

fn groups(kept: &[Kept], macs: impl Fn(&str) -> u64) -> Vec<FloatGroup<'_>> {
    let mut by_reason: IndexMap<String, Vec<&Kept>> = IndexMap::new();
    for one in kept {
        by_reason.entry(reason(one)).or_default().push(one);
    }
    let mut groups = Vec::new();
    for (reason, nodes) in by_reason {
        let mut counts: IndexMap<&str, usize> = IndexMap::new();
        for node in &nodes {
            *counts.entry(&node.op).or_default() += 1;
        }
        let mut operators: Vec<(&str, usize)> = counts.into_iter().collect();
        operators.sort_by_key(|&(_, count)| Reverse(count));
        let follows = reason == FOLLOWS;
        groups.push(FloatGroup { reason, operators, nodes, follows });
    }
    let work = |group: &FloatGroup| group.nodes.iter().map(|node| macs(&node.node)).sum::<u64>();
    groups.sort_by_cached_key(|group| (group.follows, Reverse(work(group)), Reverse(group.nodes.len())));
    groups
}

/// The reason without what differs from node to node: its operator, its operands' names, and times.
fn reason(kept: &Kept) -> String {
    let text = kept.reason.split(": about ").next().unwrap_or_default();
    let text = text.strip_suffix(&format!(" for {}", kept.op)).unwrap_or(text);
    let text = match text.split_once("operand `").map(|(before, rest)| (before, rest.split_once('`'))) {
        Some((before, Some((_, behind)))) => format!("{before}an operand{behind}"),
        _ => text.to_owned(),
    };
    if FOLLOWING.contains(&&*text) { FOLLOWS.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(op: &str, node: &str, reason: &str) -> Kept {
        Kept { node: node.to_owned(), op: op.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn nodes_are_grouped_by_reason_and_operator() {
        let none = |op: &str, node: &str| kept(op, node, &format!("`ort-cpu` has no integer kernel for {op}"));
        let slow =
            |node: &str, time: u32| kept("Conv", node, &format!("it would be slower: about {time} µs, 1 in float"));
        let reads = "it reads values that are not quantized";
        let all = [
            kept("Add", "a", reads),
            none("Sub", "s"),
            none("ReduceMean", "r"),
            none("ReduceMean", "t"),
            kept("Mul", "m", "operand `x` is float"),
            slow("c", 40),
            slow("d", 50),
        ];
        let macs = |node: &str| if node == "c" { 1000 } else { 0 };
        let found = groups(&all, macs);
        let said: Vec<String> = found.iter().map(|group| format!("{}: {}", group.operators(3), group.reason)).collect();
        let expected = [
            "Conv ×2: it would be slower",
            "ReduceMean ×2, Sub: `ort-cpu` has no integer kernel",
            "Add, Mul: only float values are read or fed",
        ];
        assert_eq!(said, expected);
        assert_eq!(found[1].names(), "`s`, `r`, …");
        assert_eq!(found[1].operators(1), "ReduceMean ×2, 1 other");
        assert_eq!(found.iter().map(|group| group.follows).collect::<Vec<_>>(), [false, false, true]);
    }
}
