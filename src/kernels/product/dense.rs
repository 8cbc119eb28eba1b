//! Products of packed rows with packed columns.

use super::epilogue::Activation;
use super::panels::ROWS;
use super::tile::{DEPTH_AT_ONCE, EMPTY, Lane, Start, Tile, VECTORS, vectors};
use pulp::{Arch, Simd, WithSimd};

/// What the sums of a product start from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bias {
    /// One value per row.
    Rows(Vec<f32>),
    /// One value per column, and zeros up to the end of the last tile.
    Columns(Vec<f32>),
}

/// Columns of one tile of packed columns, which depends on the processor.
pub(crate) fn tile_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            vectors::<S>() * S::F32_LANES
        }
    }
    Arch::new().dispatch(Width)
}

/// Where the terms of a sum start in a tile of packed columns.
pub(crate) fn tile_offsets(depth: usize) -> Vec<usize> {
    let width = tile_width();
    (0..depth.min(DEPTH_AT_ONCE)).map(|at| at * width).collect()
}

/// Packs a matrix whose element of term k and column n is `source[depth[k] + columns[n]]`: tile after tile of
/// [`tile_width`] columns, each term by term, columns that are missing in the last zeros.
pub(crate) fn pack_columns(source: &[f32], depth: &[usize], columns: &[usize], to: &mut Vec<f32>) {
    let width = tile_width();
    to.resize(columns.len().div_ceil(width) * width * depth.len(), 0.0);
    for (columns, tile) in columns.chunks(width).zip(to.chunks_exact_mut((width * depth.len()).max(1))) {
        let (first, count) = (columns[0], columns.len());
        let neighbours = columns.iter().enumerate().all(|(at, &column)| column == first + at);
        if count < width {
            tile.fill(0.0);
        }
        if neighbours {
            for (row, &term) in tile.chunks_exact_mut(width).zip(depth) {
                row[..count].copy_from_slice(&source[term + first..][..count]);
            }
        } else {
            // Eight columns at once: what a cache line of the tile gets, it gets together.
            for (group, columns) in columns.chunks(8).enumerate() {
                for (row, &term) in tile.chunks_exact_mut(width).zip(depth) {
                    let source = &source[term..];
                    row[8 * group..].iter_mut().zip(columns).for_each(|(to, &column)| *to = source[column]);
                }
            }
        }
    }
}

/// Rows of a product, with all of its columns.
pub(crate) struct Dense<'a> {
    /// Rows in blocks, as `Panels` packs them.
    pub(crate) panels: &'a [f32],
    /// Rows.
    pub(crate) rows: usize,
    /// Terms of a sum.
    pub(crate) depth: usize,
    /// Packed columns.
    pub(crate) columns: &'a [f32],
    /// [`tile_offsets`] of the depth.
    pub(crate) offsets: &'a [usize],
    /// Columns.
    pub(crate) width: usize,
    pub(crate) bias: Option<&'a Bias>,
    /// The number of the first row, in the bias.
    pub(crate) first: usize,
    pub(crate) activation: Activation,
    /// Written: rows `stride` apart, of neighbouring columns.
    pub(crate) output: &'a mut [f32],
    /// Distance between rows in `output`.
    pub(crate) stride: usize,
}

impl WithSimd for Dense<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, rows, depth, columns, offsets, width, bias, first, activation, output, stride } = self;
        let lanes = S::F32_LANES;
        let size = vectors::<S>() * lanes;
        let mut room = EMPTY;
        for (at, columns) in columns.chunks_exact((depth * size).max(1)).enumerate() {
            let mut used = 0;
            let mut tile_lanes = [Lane::default(); VECTORS];
            let mut from = [0; VECTORS];
            for (vector, to) in (at * size..width.min((at + 1) * size)).step_by(lanes).enumerate() {
                tile_lanes[vector] = Lane { from: vector * lanes, to, count: lanes.min(width - to) };
                from[vector] = vector * lanes;
                used = vector + 1;
            }
            for start in (0..depth).step_by(DEPTH_AT_ONCE) {
                let stop = depth.min(start + DEPTH_AT_ONCE);
                for (at_block, block) in panels.chunks_exact(depth * ROWS).enumerate() {
                    let row = at_block * ROWS;
                    let tile_rows = ROWS.min(rows - row);
                    let mut own = [0.0; ROWS];
                    let begin = match bias {
                        _ if start > 0 => Start::Output,
                        Some(Bias::Columns(bias)) => Start::Columns(&bias[at * size..][..size]),
                        Some(Bias::Rows(bias)) => {
                            own[..tile_rows].copy_from_slice(&bias[first + row..][..tile_rows]);
                            Start::Rows(own)
                        }
                        None => Start::Rows(own),
                    };
                    let tile = Tile {
                        block: &block[start * ROWS..stop * ROWS],
                        rows: tile_rows,
                        start: begin,
                        activation: (stop == depth).then_some(activation),
                        source: &columns[start * size..stop * size],
                        offsets: &offsets[..stop - start],
                        from,
                        lanes: &tile_lanes,
                        plane: stride,
                        // Behind a row may be results of other products.
                        end: 0,
                    };
                    tile.run(simd, used, &mut room, &mut output[row * stride..]);
                }
            }
        }
    }
}
