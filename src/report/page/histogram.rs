//! Values on their grid: counts on a logarithmic scale, and the numbers of the grid.

use super::svg::{Chart, Mark, Scale, bars, line, tick_text};
use crate::report::Distribution;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 150.0;
/// The baseline of the bars.
const FLOOR: f64 = 112.0;
const SIDE: f64 = 10.0;
/// Of grids with more numbers only the ends are shown.
const SHOWN: usize = 40;

/// A chart of values and their grid, named by `id`.
pub(super) fn chart(id: String, title: String, found: &Distribution) -> Chart {
    let Distribution { min, max, counts, grid } = found;
    let (low, high) = ends(grid);
    let across = Scale::linear((min.min(low), max.max(high)), (SIDE, WIDTH - SIDE));
    let most = counts.iter().copied().max().unwrap_or_default().max(1) as f64;
    let height = |count: u64| (1.0 + count as f64).log10() / (1.0 + most).log10() * (FLOOR - 8.0);
    let width = (max - min) / counts.len().max(1) as f64;
    let bin = |at: usize| (min + at as f64 * width, min + (at + 1) as f64 * width);
    let within = |at: usize| bin(at).1 > low && bin(at).0 < high;
    let bar = |(at, &count): (usize, &u64)| {
        let (x, end) = (across.at(bin(at).0), across.at(bin(at).1));
        [x, FLOOR - height(count), (end - x).max(0.5), height(count)]
    };
    let path =
        |inside: bool| bars(counts.iter().enumerate().filter(|(at, n)| **n > 0 && within(*at) == inside).map(bar));
    let mut marks = vec![
        Mark::Path {
            class: "range",
            path: bars([[across.at(low), 4.0, across.at(high) - across.at(low), FLOOR - 4.0]].into_iter()),
        },
        Mark::Path { class: "inside", path: path(true) },
        Mark::Path { class: "outside", path: path(false) },
        Mark::Path { class: "axis", path: line([(SIDE, FLOOR), (WIDTH - SIDE, FLOOR)].into_iter()) },
        Mark::Path { class: "levels", path: levels(grid, across) },
    ];
    let ticks = across.ticks(5).into_iter();
    marks.extend(ticks.map(|tick| Mark::text("below", across.at(tick), HEIGHT - 8.0, tick_text(tick))));
    let description = format!(
        "Values from {min:.3} to {max:.3}; {} numbers from {low:.3} to {high:.3} stand for them. Counts on a logarithmic scale.",
        grid.len()
    );
    Chart { id, title, description, width: WIDTH, height: HEIGHT, marks }
}

/// The range of numbers that are rounded rather than clipped: half a step beyond the ends of the grid.
fn ends(grid: &[f64]) -> (f64, f64) {
    let [first, .., last] = grid else { return grid.first().map_or((0.0, 0.0), |&only| (only, only)) };
    ((3.0 * first - grid[1]) / 2.0, (3.0 * last - grid[grid.len() - 2]) / 2.0)
}

/// Strokes below the axis at the numbers of the grid; only at its ends where strokes would overlap.
fn levels(grid: &[f64], across: Scale) -> String {
    let few = if grid.len() <= SHOWN { 1 } else { grid.len() - 1 };
    grid.iter()
        .step_by(few)
        .map(|&level| line([(across.at(level), FLOOR), (across.at(level), FLOOR + 9.0)].into_iter()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path<'a>(chart: &'a Chart, wanted: &str) -> &'a str {
        let mut paths = chart.marks.iter().filter_map(|mark| match mark {
            Mark::Path { class, path } if *class == wanted => Some(path.as_str()),
            _ => None,
        });
        paths.next().unwrap_or_default()
    }

    #[test]
    fn bars_stand_where_values_lie() {
        let found = Distribution { min: -4.0, max: 4.0, counts: vec![9, 0, 99, 9], grid: vec![-1.0, 0.0, 1.0] };
        let chart = chart("a".to_owned(), "t".to_owned(), &found);
        // 100 px a bin and 50 a unit; the second bin is empty, the outer ones lie beyond what the grid reaches.
        assert_eq!(path(&chart, "inside"), "M210 8h100v104h-100z");
        assert_eq!(path(&chart, "outside"), "M10 60h100v52h-100zM310 60h100v52h-100z");
        assert_eq!(path(&chart, "range"), "M135 4h150v108h-150z");
        assert_eq!(path(&chart, "levels"), "M160 112L160 121M210 112L210 121M260 112L260 121");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let found = Distribution { min: 0.0, max: 0.0, counts: vec![0], grid: Vec::new() };
        let chart = chart("a".to_owned(), "t".to_owned(), &found);
        assert_eq!((path(&chart, "inside"), path(&chart, "outside")), ("", ""));
        assert!(!format!("{:?}", chart.marks).contains("NaN"));
    }
}
