//! Products of packed rows with columns that lie anywhere in a buffer: the inner loops.
//!
//! Vectors run along output positions. Each output is one chain of fused multiply-adds in the order of the depth, started
//! from its bias, so its bits depend neither on the width of vectors, nor on how outputs are cut into tiles.

use super::epilogue::Activation;
use super::panels::{Panels, ROWS};
use pulp::{Simd, WithSimd};

/// The most vectors of a tile: with 16 registers two, so that twelve sums, two columns and two weights fill them.
const VECTORS: usize = 4;

/// Values of a block of rows and a tile.
const ROOM: usize = ROWS * VECTORS * 16;

/// Values that a buffer must have behind the last column, so that every vector can be read whole.
pub(super) const SLACK: usize = 16;

/// Columns are copied into a dense tile where so many blocks of rows read them.
const BLOCKS_WORTH_PACKING: usize = 6;

/// Weights of no more values are read from a cache for every tile. Where there are more, several tiles are made ready and
/// each block of rows goes through all of them.
const WEIGHTS_IN_CACHE: usize = 1 << 15;
/// Terms of a sum that are added before other sums go on.
const DEPTH_AT_ONCE: usize = 512;
/// Values of the tiles that are made ready.
const COLUMNS_IN_CACHE: usize = 1 << 17;
/// The most of them.
const MOST_TILES: usize = 16;

/// Outputs of one group and one band.
pub(super) struct Product<'a> {
    pub(super) panels: &'a Panels,
    /// One value per row.
    pub(super) bias: &'a [f32],
    pub(super) activation: Activation,
    /// Where the columns lie.
    pub(super) source: &'a [f32],
    /// Where each term of a sum starts reading, in `source`.
    pub(super) offsets: &'a [usize],
    /// Distance between output rows in `source`.
    pub(super) stride: usize,
    /// Output rows.
    pub(super) height: usize,
    /// Outputs in a row.
    pub(super) width: usize,
    /// Written: rows of the matrix `plane` apart, from the band's first element on.
    pub(super) output: &'a mut [f32],
    /// Distance between rows of the matrix in `output`.
    pub(super) plane: usize,
    /// Elements from the band's first to the end of its plane.
    pub(super) end: usize,
    /// Room for a dense tile.
    pub(super) scratch: &'a mut Vec<f32>,
}

/// A vector of outputs: where it starts in the source and in a plane of the output, and how many of its values count.
#[derive(Clone, Copy, Default)]
struct Lane {
    from: usize,
    to: usize,
    count: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, bias, activation, source, offsets, stride, height, width, output, plane, end, scratch } =
            self;
        let lanes = S::F32_LANES;
        let vectors = if S::REGISTER_COUNT >= 32 { VECTORS } else { 2 };
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
        let mut room = [0.0; ROOM];
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
                        let lanes = &columns.lanes;
                        let (starts, ends) = (start == 0, stop == depth);
                        let bias = own;
                        let tile = Tile {
                            block,
                            rows,
                            bias,
                            activation,
                            source,
                            offsets,
                            from,
                            lanes,
                            plane,
                            end,
                            starts,
                            ends,
                        };
                        match rows {
                            1 | 2 => tile.write::<S, 2>(simd, columns.used, &mut room, output),
                            3 | 4 => tile.write::<S, 4>(simd, columns.used, &mut room, output),
                            _ => tile.write::<S, ROWS>(simd, columns.used, &mut room, output),
                        }
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

/// A block of rows and vectors of columns.
struct Tile<'a> {
    block: &'a [f32],
    rows: usize,
    bias: [f32; ROWS],
    activation: Activation,
    source: &'a [f32],
    offsets: &'a [usize],
    /// Where each vector starts in `source`.
    from: [usize; VECTORS],
    lanes: &'a [Lane; VECTORS],
    plane: usize,
    end: usize,
    /// Whether these are the first terms of the sums; otherwise the sums so far are in the output.
    starts: bool,
    /// Whether these are the last terms.
    ends: bool,
}

impl Tile<'_> {
    /// Computes `R` rows, at least as many as there are, for `used` vectors and writes them.
    #[inline(always)]
    fn write<S: Simd, const R: usize>(&self, simd: S, used: usize, room: &mut [f32; ROOM], output: &mut [f32]) {
        match used {
            1 => self.write_vectors::<S, R, 1>(simd, room, output),
            2 => self.write_vectors::<S, R, 2>(simd, room, output),
            3 if S::REGISTER_COUNT >= 32 => self.write_vectors::<S, R, 3>(simd, room, output),
            4 if S::REGISTER_COUNT >= 32 => self.write_vectors::<S, R, 4>(simd, room, output),
            _ => {}
        }
    }

    #[inline(always)]
    fn write_vectors<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        room: &mut [f32; ROOM],
        output: &mut [f32],
    ) {
        let lanes = S::F32_LANES;
        if !self.starts {
            let room = S::as_mut_simd_f32s(room).0;
            for (row, sums) in room.chunks_exact_mut(V).enumerate().take(self.rows) {
                for (sum, lane) in sums.iter_mut().zip(self.lanes) {
                    *sum = simd.partial_load_f32s(&output[row * self.plane + lane.to..][..lane.count]);
                }
            }
        }
        let sums = self.sums::<S, R, V>(simd, room);
        // Written to memory at constant places first: sums at places that depend on data would never be in registers.
        let room = &mut S::as_mut_simd_f32s(room).0[..R * V];
        for row in 0..R {
            for vector in 0..V {
                room[row * V + vector] = sums[row][vector];
            }
        }
        for (row, sums) in room.chunks_exact(V).enumerate().take(self.rows) {
            let output = &mut output[row * self.plane..];
            for (sum, lane) in sums.iter().zip(self.lanes) {
                let value = if self.ends { self.activation.apply(simd, *sum) } else { *sum };
                // What a vector writes behind its row of outputs, the next vector or band writes over; behind the plane
                // are results.
                if lane.count == lanes || (self.starts && self.ends && lane.to + lanes <= self.end) {
                    S::as_mut_simd_f32s(&mut output[lane.to..lane.to + lanes]).0[0] = value;
                } else {
                    simd.partial_store_f32s(&mut output[lane.to..lane.to + lane.count], value);
                }
            }
        }
    }

    /// `R` rows times `V` vectors of columns, on top of the bias. All loops over sums have constant lengths, so that the
    /// sums stay in registers, and are written out: a closure would not be compiled for the processor's vectors.
    #[inline(always)]
    fn sums<S: Simd, const R: usize, const V: usize>(&self, simd: S, room: &[f32; ROOM]) -> [[S::f32s; V]; R] {
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        let room = &S::as_simd_f32s(room).0[..R * V];
        for row in 0..R {
            let bias = simd.splat_f32s(self.bias[row]);
            for vector in 0..V {
                sums[row][vector] = if self.starts { bias } else { room[row * V + vector] };
            }
        }
        // Slices of one length need one check of an offset for all. The last vector is the furthest.
        let length = self.source.len() - self.from[V - 1];
        let mut sources = [self.source; V];
        for vector in 0..V {
            let from = self.from[vector];
            sources[vector] = &self.source[from..from + length];
        }
        for (weights, &offset) in self.block.as_chunks::<ROWS>().0.iter().zip(self.offsets) {
            let mut columns = [simd.splat_f32s(0.0); V];
            for vector in 0..V {
                columns[vector] = S::as_simd_f32s(&sources[vector][offset..offset + lanes]).0[0];
            }
            for row in 0..R {
                let weight = simd.splat_f32s(weights[row]);
                for vector in 0..V {
                    sums[row][vector] = simd.mul_add_f32s(weight, columns[vector], sums[row][vector]);
                }
            }
        }
        sums
    }
}
