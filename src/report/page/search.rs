//! The outcome of a search: size against distance, and the steps of MSQ.

use super::svg::{Chart, Mark, Scale, line, px, tick_text};
use crate::measure::metrics::Metrics;
use crate::report::numbers::{counted, percent};
use crate::report::search::{Outcome, Step};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 272.0;
const RIGHT: f64 = 468.0;
/// Number of MSQ's steps that are drawn, including the first and the last.
const CLASSES: [&str; 5] = ["step-0", "step-1", "step-2", "step-3", "step-4"];

/// The front, the proposal of each search, and the chosen plan: bits per weight against distance from the float
/// network.
pub(super) fn front(found: &Outcome) -> Chart {
    let proposals = found.proposals.iter().map(|p| (p.bits, &p.metrics, p.method.as_str()));
    let front = || found.front.iter().map(|p| (p.bits, &p.metrics, p.method.as_str()));
    let chosen = (found.bits, &found.metrics, found.chosen.as_str());
    let all: Vec<(f64, f64)> = front().chain(proposals.clone()).chain([chosen]).map(|p| (p.0, p.1.distance)).collect();
    let least = all.iter().map(|p| p.1).filter(|d| *d > 0.0).fold(f64::INFINITY, f64::min).min(1.0);
    let most = all.iter().map(|p| p.1).fold(least, f64::max);
    let ends = all.iter().fold((8.0_f64, 0.0_f64), |(low, high), p| (low.min(p.0), high.max(p.0)));
    let across = Scale::linear((ends.0.floor(), ends.1.ceil()), (LEFT, RIGHT));
    let up = Scale::logarithmic((least, most), (BOTTOM, TOP));
    let place = |bits: f64, metrics: &Metrics| (across.at(bits), up.at(metrics.distance));
    let dot = |class, (bits, metrics, method): (f64, &Metrics, &str)| {
        let (x, y) = place(bits, metrics);
        Mark::dot(class, x, y, tip(bits, metrics, method))
    };
    let mut marks = frame(across, up, ["bits of a weight on average", "distance from float"]);
    marks.push(Mark::Path { class: "front", path: line(front().map(|(bits, metrics, _)| place(bits, metrics))) });
    marks.extend(proposals.map(|point| dot("proposal", point)));
    marks.extend(front().map(|point| dot("point", point)));
    marks.push(dot("chosen", chosen));
    let (x, y) = place(chosen.0, chosen.1);
    // The front falls to the right, so labels have room above it on the right, and below it on the left.
    let (class, x, y) =
        if x < RIGHT - 130.0 { ("label", x + 10.0, y - 8.0) } else { ("label left", x - 10.0, y + 16.0) };
    marks.push(Mark::text(class, x, y, format!("chosen: {}", found.chosen)));
    Chart {
        id: "front-chart".to_owned(),
        title: "Size against distance".to_owned(),
        description: format!(
            "{} worth having; chosen: {}",
            counted(found.front.len(), "plan"),
            tip(chosen.0, chosen.1, chosen.2)
        ),
        width: WIDTH,
        height: HEIGHT,
        marks,
    }
}

fn tip(bits: f64, metrics: &Metrics, method: &str) -> String {
    let Metrics { distance, agreement, accuracy, metric, .. } = *metrics;
    let parts = [
        Some(format!("{bits:.2} bits")),
        Some(format!("distance {distance:.4}")),
        agreement.map(|share| format!("agreement {}", percent(share, 1))),
        accuracy.map(|share| format!("accuracy {}", percent(share, 1))),
        metric.map(|metric| format!("metric {metric:.4}")),
        Some(method.to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// `Acc_i` of every layer at the first step, the last step and some between; `None` where MSQ did not run.
pub(super) fn layer_accuracies(steps: &[Step]) -> Option<Chart> {
    let layers = steps.first()?.accuracies.len();
    let shown = shown(steps);
    let across = Scale::linear((1.0, layers.max(2) as f64), (LEFT, RIGHT));
    let least = steps.iter().flat_map(|step| &step.accuracies).copied().fold(1.0, f64::min);
    let up = Scale::linear((10.0 * (10.0 * least).floor(), 100.0), (BOTTOM, TOP));
    let mut marks = frame(across, up, ["layer, in graph order", "accuracy, %"]);
    for (class, step) in &shown {
        let points = step.accuracies.iter().enumerate();
        let path = line(points.map(|(i, accuracy)| (across.at(i as f64 + 1.0), up.at(100.0 * accuracy))));
        marks.push(Mark::Path { class, path });
    }
    let bits = |step: Option<&(_, &Step)>| step.map_or(0.0, |(_, step)| step.bits);
    let (first, last) = (bits(shown.first()), bits(shown.last()));
    Some(Chart {
        id: "accuracy-chart".to_owned(),
        title: "Accuracy that MSQ predicts at each layer".to_owned(),
        description: format!("{} of {} steps, from {first:.2} to {last:.2} bits", shown.len(), steps.len()),
        width: WIDTH,
        height: HEIGHT,
        marks,
    })
}

/// The steps that are drawn, the first, the last and some between, each with the class of its line.
pub(super) fn shown(steps: &[Step]) -> Vec<(&'static str, &Step)> {
    let count = CLASSES.len().min(steps.len());
    let class = |at: usize| CLASSES[CLASSES.len() - count + at];
    (0..count).map(|at| (class(at), &steps[at * (steps.len() - 1) / (count - 1).max(1)])).collect()
}

/// The grid with its numbers, and the names of the axes.
fn frame(across: Scale, up: Scale, [below, left]: [&str; 2]) -> Vec<Mark> {
    let mut marks = Vec::new();
    for tick in up.ticks(5) {
        let y = px(up.at(tick));
        marks.push(Mark::Path { class: "grid", path: line([(LEFT, y), (RIGHT, y)].into_iter()) });
        marks.push(Mark::text("left", LEFT - 8.0, y + 4.0, tick_text(tick)));
    }
    for tick in across.ticks(8).into_iter().filter(|tick| tick.fract() == 0.0) {
        marks.push(Mark::text("below", across.at(tick), BOTTOM + 20.0, tick_text(tick)));
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    marks.push(Mark::text("below", middle, HEIGHT - 6.0, below.to_owned()));
    marks.push(Mark::text("heading", 4.0, 12.0, left.to_owned()));
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::bit_plan::BitPlan;
    use indexmap::IndexMap;

    fn step(bits: f64, accuracies: &[f64]) -> Step {
        let plan = BitPlan::of_layers(IndexMap::new());
        Step { bits, packed_bytes: 0, accuracies: accuracies.to_vec(), lowered: Vec::new(), plan }
    }

    #[test]
    fn first_and_last_steps_are_shown() {
        let steps: Vec<Step> = (0..64).map(|at| step(f64::from(at), &[])).collect();
        let bits = |count: usize| shown(&steps[..count]).iter().map(|(_, step)| step.bits).collect::<Vec<_>>();
        assert_eq!(bits(1), [0.0]);
        assert_eq!(bits(2), [0.0, 1.0]);
        assert_eq!(bits(64), [0.0, 15.0, 31.0, 47.0, 63.0]);
    }

    #[test]
    fn accuracies_run_from_layer_to_layer() {
        assert!(layer_accuracies(&[]).is_none());
        let chart = layer_accuracies(&[step(8.0, &[0.5, 0.75, 1.0]), step(4.0, &[0.5, 0.5, 0.5])]).unwrap();
        let lines = chart.marks.iter().filter_map(|mark| match mark {
            Mark::Path { class, path } if class.starts_with("step") => Some((*class, path.as_str())),
            _ => None,
        });
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [("step-3", "M56 272L262 147L468 22"), ("step-4", "M56 272L262 272L468 272")]
        );
    }
}
