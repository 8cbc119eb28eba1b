//! The numbers of boxes in one output, which of them are scores, and what is behind these.

use crate::measure::outputs::OutputArray;

/// How far numbers beside a share may be off 0 to 1 that are no scores for certain.
const NEAR: f32 = 0.01;

/// Where the numbers of boxes are in an image: box by box, or number by number.
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// Numbers of a box.
    width: usize,
    count: usize,
    /// How far apart the numbers of a box are, and the boxes.
    steps: [usize; 2],
}

impl Table {
    pub(super) fn of_rows(count: usize, width: usize) -> Self {
        Self { width, count, steps: [1, width] }
    }

    pub(super) fn of_columns(count: usize, width: usize) -> Self {
        Self { width, count, steps: [count, 1] }
    }

    fn place(self, row: usize, column: usize) -> usize {
        column * self.steps[0] + row * self.steps[1]
    }

    /// How many numbers of each box are scores, behind the first four: those up to the first that is none for some box. `None`
    /// where there are none, and where one is nearly a score and may be anything.
    pub(super) fn scored(self, values: &[f32]) -> Option<usize> {
        let size = self.width * self.count;
        if self.width < 5 || size == 0 {
            return None;
        }
        let of = |column: usize| {
            values
                .chunks_exact(size)
                .flat_map(move |image| (0..self.count).map(move |row| image[self.place(row, column)]))
        };
        let is_score = |column: &usize| of(*column).all(|value| (0.0..=1.0).contains(&value));
        let scored = (4..self.width).take_while(is_score).count();
        let is_other = |column: usize| of(column).any(|value| !(-NEAR..=1.0 + NEAR).contains(&value));
        (scored > 0 && (4 + scored == self.width || is_other(4 + scored))).then_some(scored)
    }
}

/// Numbers of each box beside its place and scores, from the first on.
#[derive(Clone, Copy)]
pub(super) struct Extras {
    at: usize,
    first: usize,
    table: Table,
}

impl Extras {
    /// Those from a number on, if there are any.
    pub(super) fn behind(at: usize, first: usize, table: Table) -> Option<Self> {
        (first < table.width).then_some(Self { at, first, table })
    }

    /// How many a box has.
    pub(super) fn count(self) -> usize {
        self.table.width - self.first
    }

    /// Those of a box of an image.
    pub(super) fn of<'a>(self, parts: &[OutputArray<'a>], image: usize, row: usize) -> impl Iterator<Item = f32> + 'a {
        let Self { at, first, table } = self;
        let size = table.width * table.count;
        let values = &parts[at].values[image * size..][..size];
        (first..table.width).map(move |column| values[table.place(row, column)])
    }
}
