//! Detections: which boxes of the float network the other network finds, and which it invents.
//!
//! Outputs of detectors are read in these forms:
//!
//! | form | shape | a box |
//! |---|---|---|
//! | rows | `[N, boxes, 4 + 1 + C + E]` | corners or centre and size, how likely it is a thing, scores of classes |
//! | columns | `[N, 4 + C + E, boxes]` | corners or centre and size, scores of classes |
//! | parts | `[N, boxes, 4]` and `[N, boxes, C]` | the same in two outputs |
//! | final | `[…, 6 + E]` or `[…, 7]` | corners, score, class; or image, corners, class, score |
//! | final parts | `[N, boxes, 4]`, `[N, boxes]`, `[N, boxes]`, or all without N | corners, score, class in three outputs |
//!
//! All but the final forms go through non-maximum suppression. Boxes with a score of a quarter count. One is *kept* if
//! the other network has a box of the same class that overlaps it with an intersection over union of one half, and
//! *invented* if only the other network has it; a partner's score may be a fifth lower, so that a score that moves across
//! the threshold by little does not count as a loss. What further outputs hold for each box, such as masks, is compared
//! between partners, and so are the last E numbers of a box, which are no scores: coefficients of masks, key points, angles.

mod read;
mod table;
#[cfg(test)]
mod tests;

use super::channels::{ChannelErrors, ChannelLayout};
use super::outputs::OutputArray;
use read::Reader;
use table::{Extras, Table};

/// Score from which on a box counts.
const COUNTS: f32 = 0.25;
/// Score from which on a box may be the partner of one that counts.
const PARTNER: f32 = 0.2;
/// Size from which on one is in pixels.
const LARGE: f32 = 2.0;
/// Score from which on a row that is final holds a box.
const SURE: f32 = 0.01;
/// Overlap from which on two boxes are the same thing.
const OVERLAP: f32 = 0.5;
/// Boxes that go into non-maximum suppression at most, the best.
const CANDIDATES: usize = 2000;
/// Boxes that a form without classes as whole numbers must have at least: fewer are something else.
const FEWEST: usize = 16;

/// How the boxes of a network are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoxForm {
    /// `[N, boxes, 4 + 1 + C + E]`, of which 1 + C are scored.
    Rows { at: usize, scored: usize },
    /// `[N, 4 + C + E, boxes]`, of which C are scored.
    Columns { at: usize, scored: usize },
    /// `[N, boxes, 4]` and `[N, boxes, C]`.
    Parts { boxes: usize, scores: usize },
    /// `[…, 6 + E]` or `[…, 7]`.
    Final { at: usize },
    /// `[N, boxes, 4]`, `[N, boxes]` and `[N, boxes]`.
    FinalParts { boxes: usize, scores: usize, classes: usize },
}

impl BoxForm {
    /// The outputs it is read from.
    pub(crate) fn outputs(self) -> Vec<usize> {
        match self {
            Self::Rows { at, .. } | Self::Columns { at, .. } | Self::Final { at } => vec![at],
            Self::Parts { boxes, scores } => vec![boxes, scores],
            Self::FinalParts { boxes, scores, classes } => vec![boxes, scores, classes],
        }
    }

    /// The form of a float network's outputs in one sample. `joined` are the outputs that are put together from boxes
    /// and scores, as the graph says; `asked` those that the caller says are boxes.
    pub(crate) fn of(parts: &[OutputArray], joined: &[bool], asked: &[bool]) -> Option<Self> {
        let evident = |form: &Self| form.outputs().into_iter().any(|at| joined[at] || asked[at]);
        let fits = |form: &Self| {
            let may_be = evident(form) || form.extras(parts).is_none();
            (may_be && form.is_plausible(parts)) || (evident(form) && form.is_idle(parts))
        };
        let finals = || (0..parts.len()).map(|at| Self::Final { at }).find(fits);
        let raw = (0..parts.len()).filter(|&at| joined[at] || asked[at]).filter_map(|at| match *parts[at].shape {
            [_, a, b] if a >= b => Some(Self::Rows { at, scored: Table::of_rows(a, b).scored(parts[at].values)? }),
            [_, a, b] => Some(Self::Columns { at, scored: Table::of_columns(b, a).scored(parts[at].values)? }),
            _ => None,
        });
        let of_parts = || {
            let boxes = (0..parts.len()).filter(|&at| box_rows(parts[at].shape).is_some());
            boxes.flat_map(|boxes| Self::of_parts(parts, boxes)).find(fits)
        };
        finals().or_else(of_parts).or_else(|| raw.into_iter().find(|form| form.is_plausible(parts)))
    }

    fn of_parts(parts: &[OutputArray], boxes: usize) -> Vec<Self> {
        let count = box_rows(parts[boxes].shape);
        let others: Vec<usize> = (0..parts.len()).filter(|&at| at != boxes).collect();
        let flat: Vec<usize> = others
            .iter()
            .copied()
            .filter(|&at| parts[at].shape.len() < 3 && Some(parts[at].values.len()) == count)
            .collect();
        let mut found = Vec::new();
        for &scores in &flat {
            found.extend(flat.iter().filter(|&&c| c != scores).map(|&classes| Self::FinalParts {
                boxes,
                scores,
                classes,
            }));
        }
        let wide = |at: &usize| matches!(*parts[*at].shape, [_, rows, classes] if Some(rows) == count && classes > 0);
        found.extend(others.into_iter().filter(wide).map(|scores| Self::Parts { boxes, scores }));
        found
    }

    /// Whether the numbers can be boxes in this form.
    fn is_plausible(self, parts: &[OutputArray]) -> bool {
        let share = |v: &f32| (0.0..=1.0).contains(v);
        match self {
            Self::Rows { at, scored } => {
                let &[_, count, width] = parts[at].shape else { return false };
                let mut rows = parts[at].values.chunks_exact(width);
                let pixels = scored + 4 == width || rows.clone().any(|row| row[2].max(row[3]) > LARGE);
                count >= FEWEST && pixels && rows.all(|row| row[2] >= 0.0 && row[3] >= 0.0)
            }
            Self::Columns { at, scored } => {
                let &[_, width, count] = parts[at].shape else { return false };
                let images = parts[at].values.chunks_exact(width * count);
                let sizes = || images.clone().flat_map(|image| &image[2 * count..4 * count]);
                let pixels = scored + 4 == width || sizes().any(|&size| size > LARGE);
                count >= FEWEST && pixels && sizes().all(|&size| size >= 0.0)
            }
            Self::Parts { boxes, scores } => {
                let sizes = parts[boxes].values.chunks_exact(4).all(|b| b[2] >= 0.0 && b[3] >= 0.0);
                let count = parts[boxes].values.len() / 4;
                count >= FEWEST && sizes && parts[scores].values.iter().all(share)
            }
            Self::Final { at } => {
                let Some(columns) = FinalColumns::of(parts[at].shape) else { return false };
                let rows = || parts[at].values.chunks_exact(columns.width);
                let fine = |row: &[f32]| share(&row[columns.score]) && is_class(row[columns.class]);
                let image = |row: &[f32]| columns.corners == 0 || is_class(row[0]);
                let sure = |row: &&[f32]| row[columns.score] >= SURE;
                let ordered = |row: &[f32]| {
                    let own = &row[columns.corners..];
                    own[2] >= own[0] && own[3] >= own[1]
                };
                rows().all(|row| fine(row) && image(row))
                    && rows().filter(sure).all(ordered)
                    && rows().filter(sure).any(|row| row[columns.score] < 1.0)
            }
            Self::FinalParts { boxes: _, scores, classes } => {
                let some = parts[scores].values.iter().any(|&v| v > 0.0 && v < 1.0);
                some && parts[scores].values.iter().all(share) && parts[classes].values.iter().all(|&v| is_class(v))
            }
        }
    }

    /// Whether the numbers are final boxes with scores of nearly 0, as fixed numbers of boxes are filled up.
    fn is_idle(self, parts: &[OutputArray]) -> bool {
        let no_score = |score: &f32| (0.0..SURE).contains(score);
        match self {
            Self::Final { at } => FinalColumns::of(parts[at].shape).is_some_and(|columns| {
                let mut rows = parts[at].values.chunks_exact(columns.width);
                rows.all(|row| no_score(&row[columns.score]) && is_class(row[columns.class]))
            }),
            Self::FinalParts { boxes: _, scores, classes } => {
                parts[scores].values.iter().all(no_score) && parts[classes].values.iter().all(|&v| is_class(v))
            }
            Self::Rows { .. } | Self::Columns { .. } | Self::Parts { .. } => false,
        }
    }

    /// The numbers of each box that are neither its place nor scores.
    fn extras(self, parts: &[OutputArray]) -> Option<Extras> {
        let (at, first) = match self {
            Self::Rows { at, scored } | Self::Columns { at, scored } => (at, 4 + scored),
            Self::Final { at } => (at, FinalColumns::of(parts[at].shape)?.behind()?),
            Self::Parts { .. } | Self::FinalParts { .. } => return None,
        };
        let &[_, a, b] = parts[at].shape else { return None };
        let table = if matches!(self, Self::Columns { .. }) { Table::of_columns(b, a) } else { Table::of_rows(a, b) };
        Extras::behind(at, first, table)
    }

    /// Whether boxes have numbers beside places and scores.
    pub(crate) fn has_extras(self, shapes: &[&[usize]]) -> bool {
        let parts: Vec<OutputArray> = shapes.iter().map(|shape| OutputArray { values: &[], shape }).collect();
        self.extras(&parts).is_some()
    }

    /// The form in two samples, where it is one: columns are scores that are so in both.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Rows { at, scored }, Self::Rows { at: other, scored: less }) if at == other => {
                Some(Self::Rows { at, scored: scored.min(less) })
            }
            (Self::Columns { at, scored }, Self::Columns { at: other, scored: less }) if at == other => {
                Some(Self::Columns { at, scored: scored.min(less) })
            }
            (own, other) => Some(own).filter(|own| *own == other),
        }
    }

    fn is_final(self) -> bool {
        matches!(self, Self::Final { .. } | Self::FinalParts { .. })
    }

    /// All boxes of a sample that may be partners, per image.
    fn read(self, parts: &[OutputArray], corners: bool, background: Option<usize>) -> Vec<Vec<Detection>> {
        let reader = Reader { parts, corners, background };
        match self {
            Self::Rows { at, scored } => reader.rows(at, scored),
            Self::Columns { at, scored } => reader.columns(at, scored),
            Self::Parts { boxes, scores } => reader.parts(boxes, scores),
            Self::Final { at } => reader.finals(at),
            Self::FinalParts { boxes, scores, classes } => reader.final_parts(boxes, scores, classes),
        }
    }

    /// Where boxes of one image are the first axis of further outputs: how many there are.
    pub(crate) fn rows(self, parts: &[OutputArray]) -> Option<usize> {
        let Self::FinalParts { boxes, .. } = self else { return None };
        matches!(parts[boxes].shape, [_, 4]).then(|| parts[boxes].values.len() / 4)
    }

    /// Places of the float network's boxes and of their partners, where there are such [rows](Self::rows).
    pub(crate) fn partners(self, float: &[OutputArray], network: &[OutputArray]) -> Vec<(usize, usize)> {
        let read = |parts: &[OutputArray]| suppressed(self.read(parts, true, None).concat(), true);
        let (float, network) = (read(float), read(network));
        paired(&float, &network).filter_map(|(own, partner)| Some((own.row, partner?.row))).collect()
    }

    /// The first four numbers of every box.
    fn raw(self, parts: &[OutputArray]) -> Vec<[f32; 4]> {
        self.read(parts, true, None).concat().iter().map(|found| found.corners).collect()
    }

    /// The class that stands for nothing: where the scores of a box sum to 1, that with most of it.
    fn background(self, parts: &[OutputArray]) -> Option<usize> {
        let Self::Parts { scores, .. } = self else { return None };
        let &[_, _, classes] = parts[scores].shape else { return None };
        if classes < 2 {
            return None;
        }
        let mut sums = vec![0.0_f64; classes];
        let mut rows = 0.0;
        for row in parts[scores].values.chunks_exact(classes) {
            rows += 1.0;
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
        }
        let most = (0..classes).max_by(|&a, &b| sums[a].total_cmp(&sums[b]))?;
        ((sums.iter().sum::<f64>() / rows - 1.0).abs() < 1e-2 && sums[most] > 0.5 * rows).then_some(most)
    }
}

/// The columns of boxes that are final.
#[derive(Clone, Copy)]
struct FinalColumns {
    width: usize,
    corners: usize,
    score: usize,
    class: usize,
}

impl FinalColumns {
    fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            [_, 6] | [_, _, 6] => Some(Self { width: 6, corners: 0, score: 4, class: 5 }),
            [_, 7] | [_, _, 7] | [_, _, _, 7] => Some(Self { width: 7, corners: 1, score: 6, class: 5 }),
            [_, rows, width] if width > 7 && rows >= FEWEST => Some(Self { width, corners: 0, score: 4, class: 5 }),
            _ => None,
        }
    }

    /// Where the numbers begin that are behind score and class.
    fn behind(self) -> Option<usize> {
        (self.corners == 0).then_some(6)
    }
}

/// The number of boxes in an output that holds four numbers for each.
fn box_rows(shape: &[usize]) -> Option<usize> {
    match *shape {
        [images, rows, 4] | [images, rows, 1, 4] if images > 0 => Some(rows),
        [rows, 4] => Some(rows),
        _ => None,
    }
}

/// Whether outputs hold boxes, but none in this sample.
pub(crate) fn are_none(parts: &[OutputArray]) -> bool {
    let is_empty = |part: &OutputArray| part.values.is_empty() && FinalColumns::of(part.shape).is_some();
    parts.iter().any(|part| box_rows(part.shape) == Some(0) || is_empty(part))
}

/// Whether a number can be that of a class; −1 stands for none.
fn is_class(value: f32) -> bool {
    value.fract() == 0.0 && (-1.0..65536.0).contains(&value)
}

/// A box that a network finds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Detection {
    /// Its place among the boxes of its image.
    row: usize,
    /// Left, top, right, bottom.
    corners: [f32; 4],
    score: f32,
    class: usize,
}

fn overlap(a: &Detection, b: &Detection) -> f32 {
    let area = |c: [f32; 4]| (c[2] - c[0]).max(0.0) * (c[3] - c[1]).max(0.0);
    let (a, b) = (a.corners, b.corners);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// The boxes that may count, the best first, without those that a better one of their class overlaps.
fn suppressed(mut found: Vec<Detection>, is_final: bool) -> Vec<Detection> {
    found.retain(|found| found.score >= PARTNER);
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    if is_final {
        return found;
    }
    found.truncate(CANDIDATES);
    let mut kept: Vec<Detection> = Vec::new();
    for one in found {
        if !kept.iter().any(|better| better.class == one.class && overlap(better, &one) > OVERLAP) {
            kept.push(one);
        }
    }
    kept
}

/// Boxes of the float network and of the other, summed over samples; parts merge.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoxMatches {
    boxes: u64,
    kept: u64,
    invented: u64,
    /// Σ (1 − overlap) and Σ |difference of scores| over boxes that are kept.
    moved: f64,
    rescored: f64,
    /// Of numbers beside places and scores, where boxes are kept.
    extras: ChannelErrors,
}

impl BoxMatches {
    /// Adds a sample.
    pub(crate) fn observe(&mut self, form: BoxForm, float: &[OutputArray], network: &[OutputArray]) {
        let corners = form.is_final() || form.raw(float).iter().all(|c| c[2] >= c[0] && c[3] >= c[1]);
        let background = form.background(float);
        let read = |parts: &[OutputArray]| {
            let images = form.read(parts, corners, background).into_iter();
            images.map(|found| suppressed(found, form.is_final())).collect::<Vec<_>>()
        };
        let extras = form.extras(float).zip(form.extras(network));
        let mut beside = [Vec::new(), Vec::new()];
        for (image, (own, other)) in read(float).iter().zip(&read(network)).enumerate() {
            for (own, partner) in paired(own, other) {
                self.boxes += 1;
                let Some(partner) = partner else { continue };
                self.kept += 1;
                self.moved += f64::from(1.0 - overlap(own, partner));
                self.rescored += f64::from((own.score - partner.score).abs());
                if let Some((of_float, of_network)) = extras {
                    beside[0].extend(of_float.of(float, image, own.row));
                    beside[1].extend(of_network.of(network, image, partner.row));
                }
            }
            self.invented += paired(other, own).filter(|(_, partner)| partner.is_none()).count() as u64;
        }
        if let Some((extras, _)) = extras {
            let layout = ChannelLayout { channels: extras.count(), inner: 1 };
            self.extras.merge(&ChannelErrors::of(&beside[0], &beside[1], layout, None));
        }
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.boxes += other.boxes;
        self.kept += other.kept;
        self.invented += other.invented;
        self.moved += other.moved;
        self.rescored += other.rescored;
        self.extras.merge(&other.extras);
    }

    /// Boxes of the float network, those kept, and those invented.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [self.boxes, self.kept, self.invented]
    }

    /// Share of the variance of the numbers beside places and scores that is lost, on average; `None` where there are none.
    pub(crate) fn beside(&self) -> Option<f64> {
        let figures = self.extras.figures();
        let lost = if figures.varies { figures.mean } else { 0.0 };
        (self.extras.elements() > 0).then_some(lost)
    }

    /// Whether neither network finds any.
    pub(crate) fn are_none(&self) -> bool {
        self.boxes + self.invented == 0
    }

    /// Share of boxes that only one of the networks finds: none where neither finds any.
    pub(crate) fn lost(&self) -> f64 {
        let found = self.boxes + self.invented;
        (found - self.kept) as f64 / found.max(1) as f64
    }

    /// By how much boxes that are kept are off, on average.
    pub(crate) fn shifted(&self) -> f64 {
        (self.moved + self.rescored) / self.kept.max(1) as f64
    }
}

/// Every box that counts, with its partner; the best choose first.
fn paired<'a>(
    own: &'a [Detection],
    other: &'a [Detection],
) -> impl Iterator<Item = (&'a Detection, Option<&'a Detection>)> {
    let mut taken = vec![false; other.len()];
    own.iter().filter(|own| own.score >= COUNTS).map(move |own| {
        let fits = |at: &usize| !taken[*at] && other[*at].class == own.class && overlap(own, &other[*at]) >= OVERLAP;
        let best =
            (0..other.len()).filter(fits).max_by(|&a, &b| overlap(own, &other[a]).total_cmp(&overlap(own, &other[b])));
        if let Some(at) = best {
            taken[at] = true;
        }
        (own, best.map(|at| &other[at]))
    })
}
