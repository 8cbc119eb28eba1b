//! The inner loops: a block of rows times vectors of columns.
//!
//! Vectors run along outputs. Each output is one chain of fused multiply-adds in the order of the depth, started from its
//! bias, so its bits depend neither on the width of vectors, nor on how outputs are cut into tiles.

use super::epilogue::Activation;
use super::panels::ROWS;
use pulp::Simd;

/// The most vectors of a tile.
pub(super) const VECTORS: usize = 4;

/// Terms of a sum that are added before other sums go on.
pub(super) const DEPTH_AT_ONCE: usize = 512;

/// Values of a block of rows and a tile.
const ROOM: usize = ROWS * VECTORS * 16;

/// Sums of a block and a tile, in memory.
pub(super) type Room = [f32; ROOM];

/// An empty room.
pub(super) const EMPTY: Room = [0.0; ROOM];

/// Vectors of a tile: with 16 registers two, so that twelve sums, two columns and two weights fill them.
pub(super) const fn vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { VECTORS } else { 2 }
}

/// A vector of outputs: where it starts in the source and in a row of the output, and how many of its values count.
#[derive(Clone, Copy, Default)]
pub(super) struct Lane {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) count: usize,
}

/// What sums start from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// One value per row.
    Rows([f32; ROWS]),
    /// One value per column of the tile.
    Columns(&'a [f32]),
    /// The sums so far, which are in the output.
    Output,
}

/// A block of rows and vectors of columns.
pub(super) struct Tile<'a> {
    /// The block, column by column.
    pub(super) block: &'a [f32],
    /// Rows that count.
    pub(super) rows: usize,
    pub(super) start: Start<'a>,
    /// Applied to the sums, if these are the last terms.
    pub(super) activation: Option<Activation>,
    /// Where the columns lie.
    pub(super) source: &'a [f32],
    /// Where each term starts reading, in `source`.
    pub(super) offsets: &'a [usize],
    /// Where each vector starts in `source`.
    pub(super) from: [usize; VECTORS],
    pub(super) lanes: &'a [Lane; VECTORS],
    /// Distance between rows in the output.
    pub(super) plane: usize,
    /// Elements of an output row that may be written over by what a vector holds beyond its own.
    pub(super) end: usize,
}

impl Tile<'_> {
    /// Computes for `used` vectors and writes them.
    #[inline(always)]
    pub(super) fn run<S: Simd>(&self, simd: S, used: usize, room: &mut Room, output: &mut [f32]) {
        match self.rows {
            1 | 2 => self.write::<S, 2>(simd, used, room, output),
            3 | 4 => self.write::<S, 4>(simd, used, room, output),
            _ => self.write::<S, ROWS>(simd, used, room, output),
        }
    }

    /// Computes `R` rows, at least as many as there are.
    #[inline(always)]
    fn write<S: Simd, const R: usize>(&self, simd: S, used: usize, room: &mut Room, output: &mut [f32]) {
        match used {
            1 => self.write_vectors::<S, R, 1>(simd, room, output),
            2 => self.write_vectors::<S, R, 2>(simd, room, output),
            3 if S::REGISTER_COUNT >= 32 => self.write_vectors::<S, R, 3>(simd, room, output),
            4 if S::REGISTER_COUNT >= 32 => self.write_vectors::<S, R, 4>(simd, room, output),
            _ => {}
        }
    }

    #[inline(always)]
    fn write_vectors<S: Simd, const R: usize, const V: usize>(&self, simd: S, room: &mut Room, output: &mut [f32]) {
        let lanes = S::F32_LANES;
        self.begin::<S, V>(simd, room, output);
        let sums = self.sums::<S, R, V>(simd, room);
        // Written to memory at constant places first: sums at places that depend on data would never be in registers.
        let room = &mut S::as_mut_simd_f32s(room).0[..R * V];
        for row in 0..R {
            for vector in 0..V {
                room[row * V + vector] = sums[row][vector];
            }
        }
        let whole = self.activation.is_some() && !matches!(self.start, Start::Output);
        for (row, sums) in room.chunks_exact(V).enumerate().take(self.rows) {
            let output = &mut output[row * self.plane..];
            for (sum, lane) in sums.iter().zip(self.lanes) {
                let value = match self.activation {
                    Some(activation) => activation.apply(simd, *sum),
                    None => *sum,
                };
                // What a vector writes behind its row of outputs, the next vector or band writes over; behind the plane
                // are results.
                if lane.count == lanes || (whole && lane.to + lanes <= self.end) {
                    S::as_mut_simd_f32s(&mut output[lane.to..lane.to + lanes]).0[0] = value;
                } else {
                    simd.partial_store_f32s(&mut output[lane.to..lane.to + lane.count], value);
                }
            }
        }
    }

    /// Puts what sums start from into the room, where it is not one value per row.
    #[inline(always)]
    fn begin<S: Simd, const V: usize>(&self, simd: S, room: &mut Room, output: &[f32]) {
        let room = S::as_mut_simd_f32s(room).0;
        match self.start {
            Start::Rows(_) => {}
            Start::Columns(bias) => {
                let bias = S::as_simd_f32s(bias).0;
                for sums in room.chunks_exact_mut(V).take(self.rows) {
                    sums.copy_from_slice(&bias[..V]);
                }
            }
            Start::Output => {
                for (row, sums) in room.chunks_exact_mut(V).enumerate().take(self.rows) {
                    for (sum, lane) in sums.iter_mut().zip(self.lanes) {
                        *sum = simd.partial_load_f32s(&output[row * self.plane + lane.to..][..lane.count]);
                    }
                }
            }
        }
    }

    /// `R` rows times `V` vectors of columns, on top of the start. All loops over sums have constant lengths, so that the
    /// sums stay in registers, and are written out: a closure would not be compiled for the processor's vectors.
    #[inline(always)]
    fn sums<S: Simd, const R: usize, const V: usize>(&self, simd: S, room: &Room) -> [[S::f32s; V]; R] {
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        let room = &S::as_simd_f32s(room).0[..R * V];
        for row in 0..R {
            for vector in 0..V {
                sums[row][vector] = match &self.start {
                    Start::Rows(bias) => simd.splat_f32s(bias[row]),
                    _ => room[row * V + vector],
                };
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
