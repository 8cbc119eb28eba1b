//! Pass `normalize-padding`: every `Pad` adds, on all axes, numbers of elements that are not negative.
//!
//! * Paddings for some axes, by the input `axes`, become paddings for all: zeros for the others. Where the paddings are
//!   computed, `Concat` appends a 0 to them and `Gather` puts each, or the 0, in its place.
//! * Negative paddings crop. Cropping comes first, whatever the mode: `Slice`, and `Pad` with what is left of the
//!   paddings, if anything is.
//! * Mode `wrap` continues x periodically: for b elements before and e behind, `Concat(x[−b:], x, x[:e])` along each
//!   axis, if both are at most its length.
//!
//! onnxruntime moves transpositions through a `Pad` without looking at its axes and then refuses the model; the engine
//! does not know negative paddings and `wrap`. Declined: axes that are not constant, an unknown rank where axes are
//! given, and `wrap` where paddings or the length of an axis are unknown or the paddings are longer.

use crate::ir::{AttributeProto, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId, axis_of};
use crate::pass::{Found, Operand, Outcome, Pass, PassError, Plan, Rewrite};

/// Writes paddings for all axes and none that are negative.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalizePadding;

impl Pass for NormalizePadding {
    fn name(&self) -> &'static str {
        "normalize-padding"
    }

    fn about(&self) -> &'static str {
        "Pad states paddings of all axes, none of them negative"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let graph = &model.graph;
        let mut plan = Plan::default();
        for (id, node) in graph.nodes().filter(|(_, node)| node.is("Pad")) {
            plan.add(graph, node.label(graph), find(graph, id, node))?;
        }
        Ok(plan.apply(&mut model.graph))
    }
}

fn find(graph: &Graph, id: NodeId, node: &Node) -> Found {
    let (Some(input), Some(paddings), Some(output)) = (node.input(0), node.input(1), node.output(0)) else {
        return Ok(None);
    };
    let shape = graph.value(input).shape().or_else(|| graph.value(output).shape());
    let axes = node.input(3).map(|axes| of_all(graph, axes, shape.as_ref().map(Vec::len))).transpose()?;
    let numbers = graph.constant(paddings).and_then(|tensor| tensor.to_i64().ok());
    let Some(numbers) = numbers else {
        return match axes {
            Some(axes) => Ok(Some(gathered(graph, id, paddings, &axes))),
            None if node.string("mode") == Some("wrap") => Err("its paddings are not constant".into()),
            None => Ok(None),
        };
    };
    let listed = axes.is_some();
    let axes = axes.unwrap_or_else(|| (0..numbers.len() / 2).map(Some).collect());
    let given = axes.iter().flatten().count();
    if numbers.len() != 2 * given {
        return Err(format!("it has {} paddings for {given} axes", numbers.len()).into());
    }
    let of = |axis: &Option<usize>, side: usize| axis.map_or(0, |at| numbers[side * given + at]);
    let sides = axes.iter().map(|axis| [of(axis, 0), of(axis, 1)]).collect();
    let wraps = node.string("mode") == Some("wrap");
    Padding { graph, id, input, output, sides, shape, listed, wraps }.rewrite()
}

/// Where each axis of the input stands among the axes that a `Pad` names.
fn of_all(graph: &Graph, axes: ValueId, rank: Option<usize>) -> Result<Vec<Option<usize>>, String> {
    let axes = graph.constant(axes).and_then(|tensor| tensor.to_i64().ok()).ok_or("its axes are not constant")?;
    let rank = rank.ok_or("the rank of its input is unknown")?;
    let mut places = vec![None; rank];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, rank).ok_or("its axes do not fit its input")?;
        places[axis] = Some(at);
    }
    Ok(places)
}

/// Computed paddings, put in their places among zeros.
fn gathered(graph: &Graph, id: NodeId, paddings: ValueId, axes: &[Option<usize>]) -> Rewrite {
    let stem = graph.value(paddings).name();
    let given = axes.iter().flatten().count();
    let place = |axis: &Option<usize>, side: usize| axis.map_or(2 * given, |at| side * given + at) as i64;
    let places: Vec<i64> = (0..2).flat_map(|side| axes.iter().map(move |axis| place(axis, side))).collect();
    let mut rewrite = Rewrite::default().keeping(id);
    let zero = rewrite.constant(TensorProto::from_i64(&format!("{stem}_none"), &[1], &[0]));
    let places = rewrite.constant(TensorProto::from_i64(&format!("{stem}_places"), &[places.len()], &places));
    let along = vec![AttributeProto::int("axis", 0)];
    let extended = rewrite.op("Concat", &[paddings.into(), zero], along, format!("{stem}_and_none"));
    let all = rewrite.op("Gather", &[extended, places], Vec::new(), format!("{stem}_of_all_axes"));
    rewrite.set_input(id, 1, all);
    rewrite.set_input(id, 3, Operand::Absent);
    rewrite
}

/// A `Pad` whose paddings are known.
struct Padding<'a> {
    graph: &'a Graph,
    id: NodeId,
    input: ValueId,
    output: ValueId,
    /// Elements before and behind, for each axis; negative ones are cropped.
    sides: Vec<[i64; 2]>,
    shape: Option<Vec<Option<usize>>>,
    /// Whether the node names axes.
    listed: bool,
    wraps: bool,
}

impl Padding<'_> {
    fn rewrite(self) -> Found {
        let cropped = self.sides.iter().flatten().any(|&n| n < 0);
        let padded = self.sides.iter().flatten().any(|&n| n > 0);
        if !(self.listed || cropped || (self.wraps && padded)) {
            return Ok(None);
        }
        let mut steps: Vec<Step> = Vec::new();
        if cropped {
            steps.push(Step::Crop);
        }
        if self.wraps {
            self.can_wrap()?;
            let axes = (0..self.sides.len()).filter(|&axis| self.sides[axis].iter().any(|&n| n > 0));
            steps.extend(axes.map(Step::Wrap));
        } else if padded || !cropped {
            steps.push(Step::Pad);
        }
        let mut rewrite = Rewrite::of(self.id).dropping(self.graph.node(self.id).input(3));
        let mut value = Operand::Value(self.input);
        let last = steps.len().saturating_sub(1);
        for (at, step) in steps.into_iter().enumerate() {
            let (proto, inputs) = self.step(&mut rewrite, step, value, at == last);
            if at == last {
                rewrite.node(proto, &inputs, Some(self.output));
            } else {
                value = rewrite.named_op(proto, &inputs, format!("{}_part", self.name()));
            }
        }
        Ok(Some(rewrite))
    }

    fn name(&self) -> &str {
        self.graph.value(self.output).name()
    }

    /// Whether the paddings are no longer than the axes they continue.
    fn can_wrap(&self) -> Result<(), String> {
        let shape = self.shape.as_ref().ok_or("the rank of its input is unknown")?;
        for (&[before, behind], length) in self.sides.iter().zip(shape) {
            let longest = before.max(behind).max(0);
            if longest == 0 {
                continue;
            }
            let length = length.ok_or("the length of an axis that it continues is unknown")? as i64;
            if longest > length + before.min(0) + behind.min(0) {
                return Err("it continues an axis by more than its length".into());
            }
        }
        Ok(())
    }

    /// A step's node, the last one under the name of the `Pad`.
    fn step(&self, rewrite: &mut Rewrite, step: Step, value: Operand, last: bool) -> (NodeProto, Vec<Operand>) {
        let node = self.graph.node(self.id);
        let name = if last { node.label(self.graph) } else { "" };
        match step {
            Step::Crop => {
                let axes: Vec<usize> =
                    (0..self.sides.len()).filter(|&a| self.sides[a].iter().any(|&n| n < 0)).collect();
                let starts = axes.iter().map(|&axis| (-self.sides[axis][0]).max(0)).collect();
                let end = |&axis: &usize| if self.sides[axis][1] < 0 { self.sides[axis][1] } else { i64::MAX };
                let ends = axes.iter().map(end).collect();
                let inputs = self.slice(rewrite, value, starts, ends, &axes);
                (NodeProto::of("Slice", name, Vec::new()), inputs)
            }
            Step::Wrap(axis) => {
                let [before, behind] = self.sides[axis];
                let mut parts = Vec::new();
                let part = |rewrite: &mut Rewrite, start: i64, end: i64| {
                    let inputs = self.slice(rewrite, value, vec![start], vec![end], &[axis]);
                    rewrite.op("Slice", &inputs, Vec::new(), format!("{}_side", self.name()))
                };
                if before > 0 {
                    parts.push(part(rewrite, -before, i64::MAX));
                }
                parts.push(value);
                if behind > 0 {
                    parts.push(part(rewrite, 0, behind));
                }
                (NodeProto::of("Concat", name, vec![AttributeProto::int("axis", axis as i64)]), parts)
            }
            Step::Pad => {
                let sides = |side: usize| self.sides.iter().map(move |sides| sides[side].max(0));
                let paddings: Vec<i64> = sides(0).chain(sides(1)).collect();
                let paddings = TensorProto::from_i64(&format!("{}_pads", self.name()), &[paddings.len()], &paddings);
                let mut inputs = vec![value, rewrite.constant(paddings)];
                inputs.extend(node.input(2).map(Operand::Value));
                (NodeProto::of("Pad", name, node.attributes().to_vec()), inputs)
            }
        }
    }

    fn slice(
        &self,
        rewrite: &mut Rewrite,
        value: Operand,
        starts: Vec<i64>,
        ends: Vec<i64>,
        axes: &[usize],
    ) -> Vec<Operand> {
        let axes = axes.iter().map(|&axis| axis as i64).collect();
        let lists = [("starts", starts), ("ends", ends), ("axes", axes)];
        let constant = |(role, numbers): (&str, Vec<i64>)| {
            rewrite.constant(TensorProto::from_i64(&format!("{}_{role}", self.name()), &[numbers.len()], &numbers))
        };
        std::iter::once(value).chain(lists.map(constant)).collect()
    }
}

/// A part of what a `Pad` does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Crop,
    /// Continues an axis.
    Wrap(usize),
    Pad,
}
