//! How operands of different shapes meet, row by row: the axes of a result, as few as it takes, and the steps of each operand.

use tract_onnx::tract_core::internal::TVec;

/// The axes of a result and, of N operands, the steps along them. Axes along which all operands step on as they do along the
/// one behind are joined, so that the last axis is as long as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broadcast<const N: usize> {
    /// The shape of the result.
    pub(super) shape: TVec<usize>,
    /// Lengths of the joined axes, the last one first.
    lengths: TVec<usize>,
    /// The steps of the operands along them; 0 where one element is for the whole axis.
    steps: TVec<[usize; N]>,
}

impl<const N: usize> Broadcast<N> {
    /// Of operands of these shapes, aligned at their last axes; none where they do not fit.
    pub(super) fn of(shapes: [&[usize]; N]) -> Option<Self> {
        let rank = shapes.iter().map(|shape| shape.len()).max()?;
        let mut found = Self { shape: TVec::new(), lengths: TVec::new(), steps: TVec::new() };
        // Elements of each operand behind the axis.
        let mut behind = [1; N];
        for at in 0..rank {
            let own = shapes.map(|shape| shape.len().checked_sub(at + 1).map_or(1, |axis| shape[axis]));
            let length = own.iter().copied().find(|&length| length != 1).unwrap_or(1);
            if own.iter().any(|&own| own != 1 && own != length) {
                return None;
            }
            let steps = std::array::from_fn(|n| if own[n] == 1 { 0 } else { behind[n] });
            behind = std::array::from_fn(|n| behind[n] * own[n]);
            found.shape.insert(0, length);
            if length != 1 {
                found.push(length, steps);
            }
        }
        Some(found)
    }

    /// Adds an axis in front of those so far.
    fn push(&mut self, length: usize, steps: [usize; N]) {
        if let (Some(last), Some(inner)) = (self.lengths.last_mut(), self.steps.last())
            && steps.iter().zip(inner).all(|(&step, &inner)| step == inner * *last)
        {
            *last *= length;
            return;
        }
        self.lengths.push(length);
        self.steps.push(steps);
    }

    /// Elements of a row: of the result along its last joined axis.
    pub(super) fn width(&self) -> usize {
        self.lengths.first().copied().unwrap_or(1)
    }

    /// Whether each operand has an element of its own for each of a row; otherwise it has one for all.
    pub(super) fn varies(&self) -> [bool; N] {
        self.steps.first().map_or([false; N], |steps| steps.map(|step| step != 0))
    }

    /// Where each row starts in the operands, in the order of the result.
    pub(super) fn rows(&self) -> impl Iterator<Item = [usize; N]> + '_ {
        let count: usize = self.lengths.iter().skip(1).product();
        let rows = if self.lengths.contains(&0) { 0 } else { count };
        (0..rows).map(move |row| {
            let (mut rest, mut starts) = (row, [0; N]);
            for (length, steps) in self.lengths.iter().zip(&self.steps).skip(1) {
                let at = rest % length;
                rest /= length;
                starts.iter_mut().zip(steps).for_each(|(start, step)| *start += at * step);
            }
            starts
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements of the operands that each of the result's has.
    fn elements(shapes: [&[usize]; 2]) -> Vec<[usize; 2]> {
        let found = Broadcast::of(shapes).unwrap();
        let varies = found.varies();
        let row = |starts: [usize; 2]| {
            (0..found.width()).map(move |at| std::array::from_fn(|n| starts[n] + if varies[n] { at } else { 0 }))
        };
        found.rows().flat_map(row).collect()
    }

    #[test]
    fn every_element_meets_its_own() {
        let cases: [[&[usize]; 2]; 7] = [
            [&[2, 3, 4], &[2, 3, 4]],
            [&[2, 3, 4], &[4]],
            [&[2, 3, 1], &[1, 1, 4]],
            [&[2, 1, 4], &[3, 1]],
            [&[1, 1], &[2, 3]],
            [&[], &[5]],
            [&[2, 0], &[1]],
        ];
        for [a, b] in cases {
            let found = Broadcast::of([a, b]).unwrap();
            let shape = found.shape.clone();
            let at = |shape: &[usize], index: &[usize]| {
                let index = &index[index.len() - shape.len()..];
                shape.iter().zip(index).fold(0, |at, (&length, &i)| at * length + if length == 1 { 0 } else { i })
            };
            let count: usize = shape.iter().product();
            let expected: Vec<[usize; 2]> = (0..count)
                .map(|element| {
                    let mut index = vec![0; shape.len()];
                    shape.iter().enumerate().rev().fold(element, |rest, (axis, &length)| {
                        index[axis] = rest % length;
                        rest / length
                    });
                    [at(a, &index), at(b, &index)]
                })
                .collect();
            assert_eq!(elements([a, b]), expected, "{a:?} {b:?}");
        }
        assert_eq!(Broadcast::of([&[2, 3], &[2]]), None);
    }

    #[test]
    fn axes_are_joined() {
        let joined = |shapes| Broadcast::<2>::of(shapes).unwrap().lengths.to_vec();
        assert_eq!(joined([&[2, 3, 4], &[2, 3, 4]]), [24]);
        assert_eq!(joined([&[2, 3, 4], &[1]]), [24]);
        assert_eq!(joined([&[2, 3, 4], &[3, 4]]), [12, 2]);
        assert_eq!(joined([&[2, 1, 3, 4], &[2, 5, 3, 4]]), [12, 5, 2]);
    }
}
