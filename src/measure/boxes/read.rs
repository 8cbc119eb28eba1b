//! The boxes of a sample, from outputs in each of the forms.

use super::{Detection, FinalColumns};
use crate::measure::outputs::OutputArray;

/// The outputs of a sample, and what their numbers mean.
pub(super) struct Reader<'a> {
    pub parts: &'a [OutputArray<'a>],
    /// Whether boxes are corners; else centre and size.
    pub corners: bool,
    /// The class that stands for nothing.
    pub background: Option<usize>,
}

impl Reader<'_> {
    pub(super) fn rows(&self, at: usize, scored: usize) -> Vec<Vec<Detection>> {
        let &[images, _, width] = self.parts[at].shape else { return Vec::new() };
        let read = |(place, row): (usize, &[f32])| {
            let (class, score) = if scored == 1 { (0, 1.0) } else { self.best(row[5..4 + scored].iter().copied()) };
            let found = self.detection([row[0], row[1], row[2], row[3]], row[4] * score, class);
            Detection { row: place, ..found }
        };
        let image = |v: &[f32]| v.chunks_exact(width).enumerate().map(read).collect();
        per_image(self.parts[at].values, images).map(image).collect()
    }

    pub(super) fn columns(&self, at: usize, scored: usize) -> Vec<Vec<Detection>> {
        let &[images, _, count] = self.parts[at].shape else { return Vec::new() };
        let read = |image: &[f32]| {
            let of = |column: usize, b: usize| image[column * count + b];
            let one = |b: usize| {
                let (class, score) = self.best((4..4 + scored).map(|column| of(column, b)));
                Detection { row: b, ..self.detection([of(0, b), of(1, b), of(2, b), of(3, b)], score, class) }
            };
            (0..count).map(one).collect()
        };
        per_image(self.parts[at].values, images).map(read).collect()
    }

    pub(super) fn parts(&self, boxes: usize, scores: usize) -> Vec<Vec<Detection>> {
        let &[images, _, classes] = self.parts[scores].shape else { return Vec::new() };
        let read = |(own, scores): (&[f32], &[f32])| {
            let pairs = own.chunks_exact(4).zip(scores.chunks_exact(classes));
            let one = |(own, scores): (&[f32], &[f32])| {
                let (class, score) = self.best(scores.iter().copied());
                self.detection([own[0], own[1], own[2], own[3]], score, class)
            };
            pairs.map(one).collect()
        };
        let scores = per_image(self.parts[scores].values, images);
        per_image(self.parts[boxes].values, images).zip(scores).map(read).collect()
    }

    pub(super) fn finals(&self, at: usize) -> Vec<Vec<Detection>> {
        let OutputArray { values, shape } = self.parts[at];
        let Some(columns) = FinalColumns::of(shape) else { return Vec::new() };
        // Several images in one list keep apart by their number.
        let images = if columns.corners == 0 && shape.len() == 3 { shape[0] } else { 1 };
        let read = |(place, row): (usize, &[f32])| {
            let own = [0, 1, 2, 3].map(|at| row[columns.corners + at]);
            let image = if columns.corners == 0 { 0 } else { row[0] as usize };
            let found = self.detection(own, row[columns.score], row[columns.class] as usize + (image << 32));
            Detection { row: place, ..found }
        };
        let image = |v: &[f32]| v.chunks_exact(columns.width).enumerate().map(read).collect();
        per_image(values, images).map(image).collect()
    }

    pub(super) fn final_parts(&self, boxes: usize, scores: usize, classes: usize) -> Vec<Vec<Detection>> {
        let shape = self.parts[boxes].shape;
        let images = shape.first().copied().filter(|_| shape.len() > 2).unwrap_or(1);
        let of = |at: usize| per_image(self.parts[at].values, images);
        let read = |((own, scores), classes): ((&[f32], &[f32]), &[f32])| {
            let all = own.chunks_exact(4).zip(scores).zip(classes).enumerate();
            let one = |(row, ((own, &score), &class)): (usize, ((&[f32], &f32), &f32))| {
                let own = [own[0], own[1], own[2], own[3]];
                Detection { row, ..self.detection(own, score, class.max(0.0) as usize) }
            };
            all.map(one).collect()
        };
        of(boxes).zip(of(scores)).zip(of(classes)).map(read).collect()
    }

    /// The class with the largest score, but for the background, and the score.
    fn best(&self, scores: impl Iterator<Item = f32>) -> (usize, f32) {
        let all = scores.enumerate().filter(|(class, _)| Some(*class) != self.background);
        all.fold((0, f32::NEG_INFINITY), |best, (class, score)| if score > best.1 { (class, score) } else { best })
    }

    fn detection(&self, own: [f32; 4], score: f32, class: usize) -> Detection {
        Detection { row: 0, corners: as_corners(own, self.corners), score, class }
    }
}

/// The values of each image, also where there are none.
fn per_image(values: &[f32], images: usize) -> impl Iterator<Item = &[f32]> {
    let size = values.len() / images.max(1);
    (0..images).map(move |image| &values[image * size..][..size])
}

fn as_corners(own: [f32; 4], corners: bool) -> [f32; 4] {
    let [x, y, width, height] = own;
    if corners { own } else { [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0] }
}
