//! Augmentation: shifted and mirrored copies of images.
//!
//! A copy is a random crop of the image after padding it by an eighth of its sides on every side, with its edges
//! repeated; every other copy is mirrored left to right. The seed and the copy's number determine the crop.

use super::Dataset;
use super::array::{Array, ArrayData};
use super::error::DataError;
use super::random::Random;
use super::source::{Labels, Opened, Source};

/// The stream of random numbers.
const STREAM: u64 = 11;
/// Sides are padded by their length divided by this.
const MARGIN: usize = 8;

struct Augmented {
    inner: Dataset,
    copies: usize,
    seed: u64,
}

impl Dataset {
    /// The samples, followed by this number of shifted and mirrored copies of each; `None` where the samples are not
    /// images, that is one array of floats `[N, C, H, W]`.
    #[must_use]
    pub fn augmented(&self, copies: usize, seed: u64) -> Option<Self> {
        let sample = self.sample(0).ok()?;
        let [array] = &sample.arrays[..] else { return None };
        let ([_, 1 | 3, height, width], ArrayData::F32(_)) = (array.shape(), array.data()) else { return None };
        if (*height).min(*width) < 2 {
            return None;
        }
        let repeated = |per_sample: usize| -> Vec<i64> {
            let once = (0..self.len()).flat_map(|i| self.labels(i).unwrap_or_default().to_vec());
            let once: Vec<i64> = once.take(per_sample * self.len()).collect();
            once.iter().copied().cycle().take(once.len() * (1 + copies)).collect()
        };
        let labels = self.labels(0).map(|labels| Labels { values: repeated(labels.len()), per_sample: labels.len() });
        let source = Augmented { inner: self.clone(), copies, seed };
        Some(Self::of(Opened { labels, ..Opened::new(source) }, String::new()))
    }
}

impl Source for Augmented {
    fn len(&self) -> usize {
        self.inner.len() * (1 + self.copies)
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let arrays = self.inner.sample(index % self.inner.len().max(1))?.arrays;
        if index < self.inner.len() {
            return Ok(arrays);
        }
        let mut random = Random::new(self.seed, STREAM, index as u64);
        Ok(arrays.into_iter().map(|array| moved(array, &mut random)).collect())
    }
}

fn moved(array: Array, random: &mut Random) -> Array {
    let (shape, data) = array.clone().into_parts();
    let ([.., height, width], ArrayData::F32(values)) = (&shape[..], data) else { return array };
    let (height, width) = (*height, *width);
    let mut shift = |extent: usize| {
        let margin = extent / MARGIN;
        random.below(2 * margin as u64 + 1) as usize
    };
    let (down, right) = (shift(height), shift(width));
    let mirrored = random.below(2) == 1;
    // Position `at` of the crop in the image, whose first and last lines are repeated beyond its edges.
    let place = |at: usize, by: usize, extent: usize| (at + by).saturating_sub(extent / MARGIN).min(extent - 1);
    let mut result = Vec::with_capacity(values.len());
    for plane in values.chunks_exact(height * width) {
        for y in 0..height {
            let line = &plane[place(y, down, height) * width..][..width];
            result.extend((0..width).map(|x| line[place(if mirrored { width - 1 - x } else { x }, right, width)]));
        }
    }
    Array::from_f32(shape, result).unwrap_or(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sample;

    fn images(shape: &[usize]) -> Dataset {
        let count = shape.iter().product::<usize>();
        let sample = |k: usize| Sample {
            arrays: vec![Array::from_f32(shape.to_vec(), (0..count).map(|i| (100 * k + i) as f32).collect()).unwrap()],
        };
        Dataset::stored((0..3).map(sample).collect())
    }

    #[test]
    fn originals_first_then_copies_of_their_own_pixels() {
        let data = images(&[1, 1, 8, 8]);
        let more = data.augmented(3, 5).unwrap();
        assert_eq!(more.len(), 12);
        let values = |data: &Dataset, i: usize| data.sample(i).unwrap().arrays[0].to_f32();
        let mut different = 0;
        for i in 0..12 {
            let (own, from) = (values(&more, i), values(&data, i % 3));
            if i < 3 {
                assert_eq!(own, from);
                continue;
            }
            different += usize::from(own != from);
            assert!(own.iter().all(|value| from.contains(value)));
            // A neighbour to the right stays one, to the right or mirrored to the left, or is an edge gone on.
            let steps: Vec<f32> =
                own.chunks(8).flat_map(|line| line.windows(2).map(|pair| pair[1] - pair[0])).collect();
            assert!(
                steps.iter().all(|step| [-1.0, 0.0].contains(step)) || steps.iter().all(|s| [0.0, 1.0].contains(s))
            );
            assert_eq!(own, values(&data.augmented(3, 5).unwrap(), i), "the same every time");
        }
        assert!(different >= 7, "{different} of 9 copies differ");
    }

    #[test]
    fn what_is_no_image_is_not_augmented() {
        assert!(images(&[1, 8]).augmented(1, 0).is_none());
        assert!(images(&[1, 5, 4, 4]).augmented(1, 0).is_none());
    }
}
