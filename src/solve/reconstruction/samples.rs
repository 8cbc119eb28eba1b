//! Samples that are learned from, and those that are held out.

use crate::data::random::Random;
use crate::data::{Array, Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment};
use crate::runtime::Runtime;
use crate::solve::SolveError;
use msq_passes::ir::Model;

/// One sample in so many is held out.
const HELD_OUT: usize = 8;
/// Fewer samples than this say too little.
const LEAST_SAMPLES: usize = 16;
/// Bytes that the values between two blocks may take, unless the memory allowed says otherwise.
const STORED: u64 = 512 << 20;
/// Values held of each sample: x, x̂ and the targets, and what becomes of x̂.
const COPIES: u64 = 4;

/// Whether a sample is held out.
pub(super) fn is_held_out(sample: usize) -> bool {
    sample % HELD_OUT == HELD_OUT - 1
}

/// Samples of the shape of the first, as many as the memory allowed holds between two blocks: those to learn from, then
/// those held out, and how many the former are. Nothing where they are too few.
pub(super) fn samples(
    model: &Model,
    ends: &[Vec<String>],
    data: &Dataset,
    runtime: &Runtime,
) -> Result<Option<(Vec<Sample>, usize)>, SolveError> {
    if data.len() < LEAST_SAMPLES {
        tracing::info!(samples = data.len(), "no block learns from so few samples");
        return Ok(None);
    }
    let first = data.sample(0).map_err(ExecuteError::from)?;
    let tapped = Segment::tapped(model, &ends.concat())?;
    let size = |ran: Ran| (0..ran.len()).map(|at| ran.shape(at).iter().product::<usize>()).max().unwrap_or(0);
    let most = Pool::new(&tapped, runtime).once(&first, size)?.max(first.arrays.iter().map(Array::len).sum());
    let room = runtime.memory.map_or(STORED, |memory| memory / 4) / (4 * COPIES * most.max(1) as u64);
    let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
    let shapes = |sample: &Sample| sample.arrays.iter().map(|array| array.shape().to_vec()).collect::<Vec<_>>();
    let parts: (Vec<usize>, Vec<usize>) = (0..data.len()).partition(|&sample| !is_held_out(sample));
    let (mut taken, mut fitted) = (Vec::with_capacity(wanted), 0);
    for part in [parts.0, parts.1] {
        fitted = taken.len();
        let count = part.len() * wanted / data.len();
        for at in 0..count {
            let sample = data.sample(part[at * part.len() / count]).map_err(ExecuteError::from)?;
            if shapes(&sample) == shapes(&first) {
                taken.push(sample);
            }
        }
    }
    let enough = taken.len() >= LEAST_SAMPLES && fitted > 0 && fitted < taken.len();
    if !enough {
        tracing::info!(samples = taken.len(), "no block learns: too few samples of one shape fit the memory");
    }
    Ok(enough.then_some((taken, fitted)))
}

/// A sample with its targets.
pub(super) fn joined(mut sample: Sample, targets: &Sample) -> Sample {
    sample.arrays.extend(targets.arrays.iter().cloned());
    sample
}

/// Each element of a sample as the float or as the quantized network has it, with probability ½ (`QDrop`).
pub(super) fn mixed(float: &Sample, quantized: &Sample, random: &mut Random) -> Sample {
    let mut mix = |(x, y): (&Array, &Array)| {
        let values = x.to_f32().into_iter().zip(y.to_f32());
        if x == y || x.dtype() != msq_passes::ir::DataType::Float || x.shape() != y.shape() {
            return y.clone();
        }
        let values = values.map(|(x, y)| if random.unit() < 0.5 { x } else { y }).collect();
        Array::from_f32(y.shape().to_vec(), values).unwrap_or_else(|_| y.clone())
    };
    Sample { arrays: float.arrays.iter().zip(&quantized.arrays).map(&mut mix).collect() }
}
