//! What the float network makes of samples, for the quantized one to come near to.

use super::part::Between;
use crate::data::{Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment, inputs};
use crate::runtime::Runtime;
use crate::solve::SolveError;
use msq_passes::ir::Model;

/// The float network from one cut on, up to the values that are compared.
#[derive(Debug)]
pub(super) struct Teacher {
    segment: Segment,
}

/// A teacher that is loaded.
#[derive(Debug)]
pub(super) struct Taught<'a> {
    pool: Pool<'a>,
}

impl Teacher {
    /// `first` is what is read of one sample.
    pub(super) fn new(float: &Model, between: Between, first: &Sample) -> Result<Self, SolveError> {
        Ok(Self { segment: Segment::between(float, between.read, first, between.written)? })
    }

    /// The targets of one sample.
    pub(super) fn once(&self, sample: &Sample, runtime: &Runtime) -> Result<Sample, SolveError> {
        let ran = |ran: Ran| ran.sample(ran.len());
        Ok(Pool::new(&self.segment, runtime).once(sample, ran)?.map_err(ExecuteError::from)?)
    }

    pub(super) fn pool(&self, runtime: &Runtime) -> Taught<'_> {
        Taught { pool: Pool::new(&self.segment, runtime) }
    }
}

impl Taught<'_> {
    /// The targets of some samples, in their order.
    pub(super) fn targets(&mut self, samples: &[Sample], runtime: &Runtime) -> Result<Vec<Sample>, SolveError> {
        let mut targets = Vec::with_capacity(samples.len());
        let visit = |kept: &mut Vec<Sample>, _: usize, ran: Ran| -> Result<(), SolveError> {
            kept.push(ran.sample(ran.len()).map_err(ExecuteError::from)?);
            Ok(())
        };
        let merge = |part: Vec<Sample>| {
            targets.extend(part);
            Ok::<(), SolveError>(())
        };
        self.pool.fold(&Dataset::stored(samples.to_vec()), &runtime.silent(), Vec::new, visit, merge)?;
        Ok(targets)
    }
}

/// The mean square of the elements of the values at each end, over samples.
pub(super) fn signals(
    float: &Model,
    ends: &[Vec<String>],
    samples: &[Sample],
    runtime: &Runtime,
) -> Result<Vec<Vec<f64>>, SolveError> {
    let Some(first) = samples.first() else { return Ok(Vec::new()) };
    let segment = Segment::between(float, &inputs(float), first, &ends.concat())?;
    let count = segment.names.len();
    let mut total = vec![[0.0, 0.0]; count];
    let visit = |sums: &mut Vec<[f64; 2]>, _: usize, ran: Ran| -> Result<(), SolveError> {
        for (at, [squares, elements]) in sums.iter_mut().enumerate() {
            let values = ran.values(at).map_err(ExecuteError::from)?;
            *squares += values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            *elements += values.len() as f64;
        }
        Ok(())
    };
    let merge = |part: Vec<[f64; 2]>| {
        total.iter_mut().zip(part).for_each(|(sum, part)| {
            sum[0] += part[0];
            sum[1] += part[1];
        });
        Ok::<(), SolveError>(())
    };
    let data = Dataset::stored(samples.to_vec());
    Pool::new(&segment, runtime).fold(&data, &runtime.silent(), || vec![[0.0; 2]; count], visit, merge)?;
    let mut means = total.into_iter().map(|[squares, elements]| squares / f64::max(elements, 1.0));
    Ok(ends.iter().map(|end| means.by_ref().take(end.len()).collect()).collect())
}
