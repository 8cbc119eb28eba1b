//! Charts as SVG: numbers become positions, and positions become marks. The template writes the marks and escapes their
//! texts.

use askama::Template;
use std::fmt::Write;

/// A chart.
#[derive(Debug, Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    /// Unique in the page.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// A description for readers who cannot see the chart.
    pub description: String,
    pub width: f64,
    pub height: f64,
    pub marks: Vec<Mark>,
}

/// A part of a chart. `class` is for the style sheet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mark {
    /// Bars or lines in one path.
    Path { class: &'static str, path: String },
    /// A text whose end, middle or start is at a position.
    Text { class: &'static str, x: f64, y: f64, text: String },
    /// A dot with a tooltip.
    Dot { class: &'static str, x: f64, y: f64, tip: String },
    /// An area that stands for a row of the table, with a tooltip.
    Place { row: usize, x: f64, y: f64, width: f64, height: f64, tip: String },
}

impl Mark {
    pub(super) fn text(class: &'static str, x: f64, y: f64, text: String) -> Self {
        Self::Text { class, x: px(x), y: px(y), text }
    }

    pub(super) fn dot(class: &'static str, x: f64, y: f64, tip: String) -> Self {
        Self::Dot { class, x: px(x), y: px(y), tip }
    }
}

/// Maps numbers to positions along one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    domain: (f64, f64),
    range: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    /// Equal differences become equal distances.
    pub(super) fn linear(domain: (f64, f64), range: (f64, f64)) -> Self {
        let domain = if domain.0 < domain.1 { domain } else { (domain.0 - 0.5, domain.0 + 0.5) };
        Self { domain, range, logarithmic: false }
    }

    /// Equal ratios become equal distances: whole decades around numbers above 0.
    pub(super) fn logarithmic((least, most): (f64, f64), range: (f64, f64)) -> Self {
        let (low, high) = (least.log10().floor(), most.log10().ceil());
        Self { logarithmic: true, ..Self::linear((low, if low < high { high } else { low + 1.0 }), range) }
    }

    /// The position of a number; a number outside the domain maps to its nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let share = ((value - self.domain.0) / (self.domain.1 - self.domain.0)).clamp(0.0, 1.0);
        self.range.0 + share * (self.range.1 - self.range.0)
    }

    /// About this number of round numbers in the domain; on a logarithmic scale the powers of ten.
    pub(super) fn ticks(&self, about: usize) -> Vec<f64> {
        let (low, high) = self.domain;
        if self.logarithmic {
            let skip = ((high - low) / about as f64).ceil().max(1.0) as usize;
            return (low as i32..=high as i32).step_by(skip).map(|exponent| 10_f64.powi(exponent)).collect();
        }
        let raw = (high - low) / about.max(1) as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * power >= raw * 0.999).unwrap_or(10.0) * power;
        // Round ends belong to the domain, despite rounding errors of the division.
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

/// A path of bars: the left end, the top, the width and the height of each.
pub(super) fn bars(bars: impl Iterator<Item = [f64; 4]>) -> String {
    let mut path = String::new();
    for [x, y, width, height] in bars {
        let _ = write!(path, "M{} {}h{}v{}h{}z", px(x), px(y), px(width), px(height), px(-width));
    }
    path
}

/// A path from point to point.
pub(super) fn line(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{} {}", if at == 0 { 'M' } else { 'L' }, px(x), px(y));
    }
    path
}

/// A length, to a hundredth.
pub(super) fn px(length: f64) -> f64 {
    // Adding zero turns −0 into 0.
    (length * 100.0).round() / 100.0 + 0.0
}

/// A number beside an axis, without trailing zeros.
pub(super) fn tick_text(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        format!("{value:.0e}")
    } else {
        format!("{rounded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_places() {
        let scale = Scale::linear((0.0, 8.0), (100.0, 20.0));
        assert_eq!([0.0, 4.0, 8.0, 9.0, -1.0].map(|v| scale.at(v)), [100.0, 60.0, 20.0, 20.0, 100.0]);
        let scale = Scale::logarithmic((0.02, 3.0), (0.0, 300.0));
        assert_eq!([0.01, 0.1, 10.0].map(|v| px(scale.at(v))), [0.0, 100.0, 300.0]);
        assert_eq!(scale.ticks(4), [0.01, 0.1, 1.0, 10.0]);
        assert_eq!(scale.at(0.0), 0.0);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear((0.0, 47.0), (0.0, 1.0)).ticks(3), [0.0, 20.0, 40.0]);
        assert_eq!(Scale::linear((-1.2, 1.0), (0.0, 1.0)).ticks(5), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(Scale::linear((3.0, 3.0), (0.0, 1.0)).ticks(2), [2.5, 3.0, 3.5]);
        assert_eq!([0.1 + 0.2, 20.0, 1e-4, 0.0].map(tick_text), ["0.3", "20", "1e-4", "0"]);
    }

    #[test]
    fn paths_are_short() {
        assert_eq!(bars([[1.0, 2.0, 3.004, 4.0]].into_iter()), "M1 2h3v4h-3z");
        assert_eq!(line([(0.0, 1.0), (2.5, -0.001)].into_iter()), "M0 1L2.5 0");
    }

    /// Names come from models, which may be untrusted.
    #[test]
    fn what_marks_say_is_escaped() {
        let hostile = || "\"><script>alert(1)</script>".to_owned();
        let marks = vec![
            Mark::text("label", 0.0, 0.0, hostile()),
            Mark::dot("dot", 0.0, 0.0, hostile()),
            Mark::Place { row: 0, x: 0.0, y: 0.0, width: 1.0, height: 1.0, tip: hostile() },
        ];
        let (title, description) = (hostile(), hostile());
        let chart = Chart { id: "a".to_owned(), title, description, width: 1.0, height: 1.0, marks };
        let text = chart.render().unwrap();
        assert!(!text.contains("<script"), "{text}");
        assert_eq!(text.matches("script&#62;alert").count(), 5, "{text}");
    }
}
