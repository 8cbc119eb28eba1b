//! The left side of a product: rows packed for the kernels.

/// Rows of a block: what the kernels compute at once.
pub(super) const ROWS: usize = 6;

/// A matrix in blocks of [`ROWS`] rows, each block column by column; rows that are missing in the last are zeros.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panels {
    values: Vec<f32>,
    rows: usize,
    depth: usize,
}

impl Panels {
    /// Packs a row-major matrix of `depth` columns.
    pub(super) fn new(matrix: &[f32], depth: usize) -> Self {
        let rows = matrix.len() / depth.max(1);
        let mut values = vec![0.0; rows.div_ceil(ROWS) * depth * ROWS];
        for (at, row) in matrix.chunks_exact(depth.max(1)).enumerate() {
            let block = &mut values[at / ROWS * depth * ROWS..][..depth * ROWS];
            block.chunks_exact_mut(ROWS).zip(row).for_each(|(column, value)| column[at % ROWS] = *value);
        }
        Self { values, rows, depth }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Values, with the zeros that fill the last block.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Blocks in order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact((self.depth * ROWS).max(1))
    }
}
