//! Products of packed rows with columns: for convolutions columns that lie anywhere in a buffer, here, for products of
//! tensors packed columns, in `dense`. The inner loops are in `tile`.

// What runs on vectors must be compiled into the function that chose them, and its loops are written out: see `tile`.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod dense;
mod epilogue;
mod panels;
mod tile;

pub(super) use dense::{Bias, Dense, pack_columns, tile_offsets, tile_width};
pub(crate) use epilogue::Activation;
pub(super) use panels::{Panels, ROWS, pack_rows};

use pulp::{Simd, WithSimd};
use tile::{DEPTH_AT_ONCE, EMPTY, Lane, Start, Tile, VECTORS, vectors};

/// Values that a buffer must have behind the last column, so that every vector can be read whole.
pub(crate) const SLACK: usize = 16;

/// Columns are copied into a dense tile where so many blocks of rows read them.
const BLOCKS_WORTH_PACKING: usize = 6;

/// Weights of no more values are read from a cache for every tile. Where there are more, several tiles are made ready and
/// each block of rows goes through all of them.
const WEIGHTS_IN_CACHE: usize = 1 << 15;
/// Values of the tiles that are made ready.
const COLUMNS_IN_CACHE: usize = 1 << 17;
/// The most of them.
const MOST_TILES: usize = 16;

/// Outputs of one group and one band.
pub(crate) struct Product<'a> {
    pub(crate) panels: &'a Panels,
    /// One value per row.
    pub(crate) bias: &'a [f32],
    pub(crate) activation: Activation,
    /// Where the columns lie.
    pub(crate) source: &'a [f32],
    /// Where each term of a sum starts reading, in `source`.
    pub(crate) offsets: &'a [usize],
    /// Distance between output rows in `source`.
    pub(crate) stride: usize,
    /// Output rows.
    pub(crate) height: usize,
    /// Outputs in a row.
    pub(crate) width: usize,
    /// Written: rows of the matrix `plane` apart, from the band's first element on.
    pub(crate) output: &'a mut [f32],
    /// Distance between rows of the matrix in `output`.
    pub(crate) plane: usize,
    /// Elements from the band's first to the end of its plane.
    pub(crate) end: usize,
    /// Room for a dense tile.
    pub(crate) scratch: &'a mut Vec<f32>,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, bias, activation, source, offsets, stride, height, width, output, plane, end, scratch } =
            self;
        let lanes = S::F32_LANES;
        let vectors = vectors::<S>();
        let depth = panels.depth();
        let size = depth.min(DEPTH_AT_ONCE) * vectors * lanes;
        let pack = panels.rows().div_ceil(ROWS) >= BLOCKS_WORTH_PACKING;
        let at_once =
            if panels.len() > WEIGHTS_IN_CACHE { (COLUMNS_IN_CACHE / size.max(1)).clamp(1, MOST_TILES) } else { 1 };
        let furthest = offsets.iter().max().copied().unwrap_or(0);
        let dense: Vec<usize> = (0..depth.min(DEPTH_AT_ONCE)).map(|at| at * vectors * lanes).collect();
        // Rows that would leave much of their vectors empty are taken as one row, value by value.
        let gather = pack && height > 1 && 4 * width < 3 * width.next_multiple_of(lanes);
        let (rows, length) = if gather { (1, height * width) } else { (height, width) };
        let mut all = (0..rows).flat_map(|y| {
            (0..length).step_by(lanes).map(move |x| Lane {
                from: y * stride + x,
                to: y * width + x,
                count: lanes.min(length - x),
            })
        });
        let mut room = EMPTY;
        let mut tiles = [Columns::default(); MOST_TILES];
        loop {
            let mut count = 0;
            for tile in tiles.iter_mut().take(at_once) {
                tile.used = 0;
                for (slot, lane) in tile.lanes.iter_mut().take(vectors).zip(all.by_ref()) {
                    *slot = lane;
                    tile.used += 1;
                }
                if tile.used == 0 {
                    break;
                }
                // The last vectors of an input that is read where it lies end behind it.
                tile.packed = pack || furthest + tile.lanes[tile.used - 1].from + lanes > source.len();
                count += 1;
            }
            if count == 0 {
                return;
            }
            if scratch.len() < count * size {
                scratch.resize(count * size, 0.0);
            }
            for start in (0..depth.max(1)).step_by(DEPTH_AT_ONCE) {
                let stop = depth.min(start + DEPTH_AT_ONCE);
                let offsets = &offsets[start..stop];
                for (tile, to) in tiles.iter().take(count).zip(scratch.chunks_exact_mut(size.max(1))) {
                    if gather {
                        tile.gather(source, offsets, [width, stride], to.chunks_exact_mut(vectors * lanes));
                    } else if tile.packed {
                        tile.pack(simd, source, offsets, to.chunks_exact_mut(vectors * lanes));
                    }
                }
                for (at, block) in panels.blocks().enumerate() {
                    let first = at * ROWS;
                    let rows = ROWS.min(panels.rows() - first);
                    let mut own = [0.0; ROWS];
                    own[..rows].copy_from_slice(&bias[first..first + rows]);
                    let block = &block[start * ROWS..stop * ROWS];
                    let output = &mut output[first * plane..];
                    for (at, columns) in tiles.iter().enumerate().take(count) {
                        let (source, offsets) = if columns.packed {
                            (&scratch[at * size..][..size], &dense[..stop - start])
                        } else {
                            (source, offsets)
                        };
                        let mut from = [0; VECTORS];
                        for (vector, from) in from.iter_mut().enumerate() {
                            *from = if columns.packed { vector * lanes } else { columns.lanes[vector].from };
                        }
                        let tile = Tile {
                            block,
                            rows,
                            start: if start == 0 { Start::Rows(own) } else { Start::Output },
                            activation: (stop == depth).then_some(activation),
                            source,
                            offsets,
                            from,
                            lanes: &columns.lanes,
                            plane,
                            end,
                        };
                        tile.run(simd, columns.used, &mut room, output);
                    }
                }
            }
        }
    }
}

/// Neighbouring vectors of outputs.
#[derive(Clone, Copy, Default)]
struct Columns {
    lanes: [Lane; VECTORS],
    /// How many of them there are.
    used: usize,
    /// Whether their columns are copied.
    packed: bool,
}

impl Columns {
    /// Copies the columns of some terms for outputs that are counted over all rows.
    #[inline(always)]
    fn gather<'a>(
        &self,
        source: &[f32],
        offsets: &[usize],
        [width, stride]: [usize; 2],
        to: impl Iterator<Item = &'a mut [f32]>,
    ) {
        let mut places = [0; VECTORS * 16];
        let mut count = 0;
        for lane in self.lanes.iter().take(self.used) {
            for at in lane.to..lane.to + lane.count {
                places[count] = at / width * stride + at % width;
                count += 1;
            }
        }
        for (row, &offset) in to.zip(offsets) {
            let source = &source[offset..];
            for (to, &place) in row.iter_mut().zip(&places[..count]) {
                *to = source[place];
            }
        }
    }

    /// Copies the columns of some terms.
    #[inline(always)]
    fn pack<'a, S: Simd>(&self, simd: S, source: &[f32], offsets: &[usize], to: impl Iterator<Item = &'a mut [f32]>) {
        let lanes = S::F32_LANES;
        for (row, &offset) in to.zip(offsets) {
            for (row, lane) in row.chunks_exact_mut(lanes).zip(self.lanes.iter().take(self.used)) {
                let from = &source[offset + lane.from..];
                S::as_mut_simd_f32s(row).0[0] = if from.len() >= lanes {
                    S::as_simd_f32s(&from[..lanes]).0[0]
                } else {
                    simd.partial_load_f32s(from)
                };
            }
        }
    }
}
