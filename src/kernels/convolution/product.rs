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
        let pack = panels.rows().div_ceil(ROWS) >= BLOCKS_WORTH_PACKING;
        let dense: Vec<usize> =
            if pack { (0..offsets.len()).map(|at| at * vectors * lanes).collect() } else { Vec::new() };
        let furthest = offsets.iter().max().copied().unwrap_or(0);
        let mut ragged: Vec<f32> = Vec::new();
        let mut all = (0..height).flat_map(|y| {
            (0..width).step_by(lanes).map(move |x| Lane {
                from: y * stride + x,
                to: y * width + x,
                count: lanes.min(width - x),
            })
        });
        let mut tile = [Lane::default(); VECTORS];
        let mut room = [0.0; ROOM];
        loop {
            let mut used = 0;
            for (slot, lane) in tile.iter_mut().take(vectors).zip(all.by_ref()) {
                *slot = lane;
                used += 1;
            }
            if used == 0 {
                return;
            }
            // Vectors that are not used repeat the last, and are not written.
            let last = tile[used - 1];
            tile[used..].fill(Lane { count: 0, ..last });
            let short = furthest + last.from + lanes > source.len();
            let (source, offsets) = if pack || short {
                let to = if pack { &mut *scratch } else { &mut ragged };
                to.resize(offsets.len() * vectors * lanes, 0.0);
                for (row, &offset) in to.chunks_exact_mut(vectors * lanes).zip(offsets) {
                    for (row, lane) in row.chunks_exact_mut(lanes).zip(&tile) {
                        let from = &source[offset + lane.from..];
                        S::as_mut_simd_f32s(row).0[0] = if from.len() >= lanes {
                            S::as_simd_f32s(&from[..lanes]).0[0]
                        } else {
                            simd.partial_load_f32s(from)
                        };
                    }
                }
                for (at, lane) in tile.iter_mut().enumerate() {
                    lane.from = at * lanes;
                }
                (&to[..], if pack { &dense[..] } else { &[] })
            } else {
                (source, offsets)
            };
            let own: Vec<usize>;
            let offsets = if offsets.is_empty() && panels.depth() > 0 {
                own = (0..panels.depth()).map(|at| at * vectors * lanes).collect();
                &own[..]
            } else {
                offsets
            };
            for (at, block) in panels.blocks().enumerate() {
                let first = at * ROWS;
                let rows = ROWS.min(panels.rows() - first);
                let mut own = [0.0; ROWS];
                own[..rows].copy_from_slice(&bias[first..first + rows]);
                let tile = Tile { block, rows, bias: own, activation, source, offsets, lanes: &tile, plane, end };
                let output = &mut output[first * plane..];
                match rows {
                    1 | 2 => tile.write::<S, 2>(simd, used, &mut room, output),
                    3 | 4 => tile.write::<S, 4>(simd, used, &mut room, output),
                    _ => tile.write::<S, ROWS>(simd, used, &mut room, output),
                }
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
    lanes: &'a [Lane; VECTORS],
    plane: usize,
    end: usize,
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
        let sums = self.sums::<S, R, V>(simd);
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
                let value = self.activation.apply(simd, *sum);
                // What a vector writes behind its row of outputs, the next vector or band writes over; behind the plane
                // are results.
                if lane.to + lanes <= self.end {
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
    fn sums<S: Simd, const R: usize, const V: usize>(&self, simd: S) -> [[S::f32s; V]; R] {
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for row in 0..R {
            sums[row] = [simd.splat_f32s(self.bias[row]); V];
        }
        // Slices of one length need one check of an offset for all. The last vector is the furthest.
        let length = self.source.len() - self.lanes[V - 1].from;
        let mut sources = [self.source; V];
        for vector in 0..V {
            let from = self.lanes[vector].from;
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
