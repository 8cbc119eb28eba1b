//! Forms of an operator that the target's kernel for it does not take.

use crate::ir::{Graph, Node, TensorProto, ValueId};
use crate::target::{Limit, Profile};

/// Why the target's kernel does not take a node, if it does not: the first limit that the node does not keep to.
pub(super) fn refuse_form(graph: &Graph, profile: &Profile, node: &Node) -> Option<String> {
    let found = profile.kernel(node.op())?.limits.iter().find_map(|limit| exceeded(graph, node, limit))?;
    Some(format!("`{}` has a kernel for it only {found}", profile.name))
}

/// What would have to hold, where it does not.
fn exceeded(graph: &Graph, node: &Node, limit: &Limit) -> Option<String> {
    match *limit {
        Limit::Axes(least, most) => {
            let axes = axes(graph, node)?;
            (!(least..=most).contains(&axes)).then(|| format!("with {least} to {most} axes, not {axes}"))
        }
        Limit::Inputs(wanted) => {
            (node.inputs().iter().flatten().count() != wanted).then(|| format!("with {wanted} inputs"))
        }
        Limit::Constant(slot) => {
            let open = node.input(slot).is_some_and(|value| graph.constant(value).is_none());
            open.then(|| format!("where input {slot} is constant"))
        }
        Limit::PositiveNumber(slot) => {
            let number = node.input(slot).and_then(|value| number(graph, value));
            (!number.is_some_and(|number| number > 0.0)).then(|| format!("where input {slot} is one number above 0"))
        }
        Limit::LastAxis => {
            let axis = node.int_or("axis", -1);
            let last = axis == -1 || axes(graph, node).is_some_and(|axes| axis == axes as i64 - 1);
            (!last).then(|| "over the last axis".to_owned())
        }
        Limit::Integer(name, wanted) => {
            (node.int_or(name, wanted) != wanted).then(|| format!("with `{name}` {wanted}"))
        }
        Limit::Text(name, taken) => {
            let text = node.string(name).or_else(|| taken.first().copied())?;
            (!taken.contains(&text)).then(|| format!("with `{name}` {}", taken.join(", ")))
        }
        Limit::Never(conditions) => {
            let all = conditions.iter().all(|&(name, absent, value)| node.string(name).unwrap_or(absent) == value);
            let said = || conditions.iter().map(|(name, _, value)| format!("`{name}` {value}")).collect::<Vec<_>>();
            all.then(|| format!("without {}", said().join(" and ")))
        }
    }
}

/// The number of axes of input 0, where it is known.
fn axes(graph: &Graph, node: &Node) -> Option<usize> {
    Some(graph.value(node.input(0)?).shape()?.len())
}

fn number(graph: &Graph, value: ValueId) -> Option<f32> {
    graph.constant(value).and_then(TensorProto::scalar_f32).filter(|number| number.is_finite())
}
