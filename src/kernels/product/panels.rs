//! The left side of a product: rows packed for the kernels.

/// Rows of a block: what the kernels compute at once.
pub(crate) const ROWS: usize = 6;

/// A matrix in blocks of [`ROWS`] rows, each block column by column; rows that are missing in the last are zeros.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panels {
    values: Vec<f32>,
    rows: usize,
    depth: usize,
}

impl Panels {
    /// Packs a row-major matrix of `depth` columns.
    pub(crate) fn new(matrix: &[f32], depth: usize) -> Self {
        let rows = matrix.len() / depth.max(1);
        let mut values = Vec::new();
        let places: Vec<usize> = (0..rows).map(|row| row * depth).collect();
        pack_rows(matrix, &(0..depth).collect::<Vec<_>>(), &places, &mut values);
        Self { values, rows, depth }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Values, with the zeros that fill the last block.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Blocks in order.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact((self.depth * ROWS).max(1))
    }
}

/// Packs a matrix whose element of row m and term k is `source[rows[m] + depth[k]]`, as [`Panels`] does.
pub(crate) fn pack_rows(source: &[f32], depth: &[usize], rows: &[usize], to: &mut Vec<f32>) {
    to.resize(rows.len().div_ceil(ROWS) * depth.len() * ROWS, 0.0);
    for (rows, block) in rows.chunks(ROWS).zip(to.chunks_exact_mut((depth.len() * ROWS).max(1))) {
        let columns = block.as_chunks_mut::<ROWS>().0.iter_mut().zip(depth);
        if let Ok(rows) = <[usize; ROWS]>::try_from(rows) {
            let sources = rows.map(|row| &source[row..]);
            columns.for_each(|(column, &term)| *column = sources.map(|source| source[term]));
        } else {
            for (column, &term) in columns {
                *column = [0.0; ROWS];
                column.iter_mut().zip(rows).for_each(|(to, &row)| *to = source[row + term]);
            }
        }
    }
}
