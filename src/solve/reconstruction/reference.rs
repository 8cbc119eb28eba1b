//! How near the outputs of networks are to those of the float one, as searches measure it.

use super::samples::is_held_out;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment};
use crate::measure::comparison::Comparison;
use crate::measure::outputs::Outputs;
use crate::runtime::Runtime;
use crate::solve::SolveError;
use msq_passes::ir::Model;

/// The outputs of the float network on some samples.
pub(super) struct Reference<'a> {
    data: &'a Dataset,
    /// With what each of them holds, read off the samples.
    pub(super) outputs: Outputs,
    /// Of each sample, of each output.
    values: Vec<Vec<Vec<f32>>>,
}

impl<'a> Reference<'a> {
    /// Runs the float network.
    pub(super) fn new(
        float: &Model,
        outputs: &Outputs,
        data: &'a Dataset,
        runtime: &Runtime,
    ) -> Result<Self, SolveError> {
        let outputs = outputs.on(data.len());
        let mut itself = Comparison::new(&outputs);
        let mut values = Vec::with_capacity(data.len());
        let begin = || (Vec::new(), Comparison::new(&outputs));
        let observe = |(copies, part): &mut (Vec<_>, Comparison), at: usize, ran: Ran| -> Result<(), SolveError> {
            let values = ran.first(ran.len()).map_err(ExecuteError::from)?;
            part.observe_run(at, &values, ran, data)?;
            copies.push(values);
            Ok(())
        };
        let merge = |(copies, part): (Vec<_>, Comparison)| {
            values.extend(copies);
            itself.merge(&part);
            Ok::<(), SolveError>(())
        };
        Pool::new(&Segment::whole(float), runtime).fold(data, &runtime.silent(), begin, observe, merge)?;
        Ok(Self { data, outputs: outputs.decided(itself.readings()), values })
    }

    /// The distance of a network's outputs, as searches measure it.
    fn distance(&self, network: &Model, runtime: &Runtime) -> Result<f64, SolveError> {
        let mut total = Comparison::new(&self.outputs);
        let begin = || Comparison::new(&self.outputs);
        let observe = |part: &mut Comparison, at: usize, ran: Ran| -> Result<(), SolveError> {
            Ok(part.observe_run(at, &self.values[at], ran, self.data)?)
        };
        let merge = |part: Comparison| {
            total.merge(&part);
            Ok::<(), SolveError>(())
        };
        Pool::new(&Segment::whole(network), runtime).fold(self.data, &runtime.silent(), begin, observe, merge)?;
        Ok(total.metrics().distance)
    }
}

/// How far the outputs of two networks, without and with learning, are from those of the float one, as searches measure it,
/// on samples that no block has learned from.
pub(super) fn distances(
    (float, outputs): (&Model, &Outputs),
    networks: [&Model; 2],
    data: &Dataset,
    runtime: &Runtime,
) -> Result<[f64; 2], SolveError> {
    let mut samples = Vec::new();
    for at in (0..data.len()).filter(|&at| is_held_out(at)) {
        samples.push(data.sample(at).map_err(ExecuteError::from)?);
    }
    let data = Dataset::stored(samples);
    let reference = Reference::new(float, outputs, &data, runtime)?;
    let [before, after] = networks.map(|network| reference.distance(network, runtime));
    let (before, after) = (before?, after?);
    tracing::info!(before, after, "distance of the outputs on held-out samples without and with learning");
    Ok([before, after])
}
