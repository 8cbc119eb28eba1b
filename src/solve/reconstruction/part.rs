//! One block: its loss, and the gradients of that by what is learned.
//!
//! The loss of a sample compares what the block writes with what it writes in the float network ([`super::loss`]). It is
//! part of the graph that is differentiated. Gradients by weights are products of the gradient g behind a layer and the columns x̂ that it reads, `∂L/∂W = Σ g·x̂ᵀ`; those by
//! the step s of a quantizer y = s·q(x/s) are those of LSQ (arXiv 1902.08153):
//!
//! `∂L/∂ ln s = Σ g·(y − x)` inside the range, `Σ g·y` outside.

use super::loss::Loss;
use super::parameters::{Gradients, Parameters};
use super::relaxed::{Quantizer, round};
use crate::data::{Array, Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment, inputs, state_shapes_of, type_of};
use crate::kernels::{Geometry, Sampling, Unfolded};
use crate::runtime::Runtime;
use crate::solve::SolveError;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use msq_passes::ir::{DataType, Model};
use msq_passes::{Differentiate, pipelines};

/// A block of a network with quantizers, for samples of one shape.
#[derive(Debug)]
pub(super) struct Part {
    /// Quantizers as clamps, the loss behind what is written; its inputs are what is read, then the targets.
    base: Model,
    /// Names of the losses.
    losses: Vec<String>,
    /// The shape of each loss, and what one of its elements counts.
    shares: Vec<(Vec<usize>, f32)>,
    /// The quantizers of the block, those that are not learned too.
    quantizers: Vec<Quantizer>,
}

/// The way back through a block: its graph with the gradient in it, for parameters that change.
#[derive(Debug)]
pub(super) struct Backward {
    segment: Segment,
    /// As in [`Part`].
    shares: Vec<(Vec<usize>, f32)>,
}

/// What a block reads and writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between<'a> {
    pub(super) read: &'a [String],
    pub(super) written: &'a [String],
}

impl Part {
    /// The block between some values. `first` and `targets` are those of one sample, and `compared` says how each value
    /// written is.
    pub(super) fn new(
        relaxed: &Model,
        quantizers: &[Quantizer],
        between: Between,
        [first, targets]: [&Sample; 2],
        compared: &[Loss],
        runtime: &Runtime,
    ) -> Result<Self, SolveError> {
        let segment = Segment::between(relaxed, between.read, first, between.written)?;
        let mut base = segment.model;
        state_shapes_of(first, &mut base);
        let (mut losses, mut shares) = (Vec::new(), Vec::new());
        for ((name, target), loss) in between.written.iter().zip(&targets.arrays).zip(compared) {
            let Some(written) = base.graph.find(name) else { continue };
            let wanted = base.graph.add_value(&format!("{name}_target"));
            base.graph.add_input(wanted, type_of(target));
            let compared = loss.write(&mut base.graph, [written, wanted], name);
            base.graph.set_type(compared, type_of(target));
            base.graph.add_output(compared);
            losses.push(base.graph.value(compared).name().to_owned());
            shares.push((target.shape().to_vec(), loss.share(target)));
        }
        runtime.backend().infer(&base).map_err(ExecuteError::from)?.annotate(&mut base);
        let own = |quantizer: &&Quantizer| base.graph.find(&quantizer.written).is_some();
        let quantizers = quantizers.iter().filter(own).cloned().collect();
        Ok(Self { base, losses, shares, quantizers })
    }

    /// Whether a value is computed in the block.
    pub(super) fn has(&self, name: &str) -> bool {
        self.base.graph.find(name).is_some_and(|value| self.base.graph.value(value).producer().is_some())
    }

    /// The quantizers whose steps follow from data alone.
    pub(super) fn quantizers(&self) -> Vec<Quantizer> {
        self.quantizers.iter().filter(|quantizer| quantizer.free).cloned().collect()
    }

    /// Of some parameters, those whose gradients the graph gives; or why it gives none.
    pub(super) fn with_gradients(&self, parameters: Parameters) -> Result<Parameters, String> {
        let mut model = self.base.clone();
        pipelines::differentiate(self.losses.clone(), wanted(&parameters))
            .run(&mut model)
            .map_err(|error| error.to_string())?;
        let given = |name: &str| model.graph.find(&Differentiate::gradient_of(name)).is_some();
        let parameters = parameters.within(given);
        if parameters.layers.is_empty() {
            return Err("no layer of it has a gradient".to_owned());
        }
        Ok(parameters)
    }

    /// The block with some parameters, without rounding.
    fn with(&self, parameters: &Parameters) -> Model {
        let mut model = self.base.clone();
        parameters.put(&mut model);
        model
    }

    /// All quantizers, those learned as they are now.
    fn now(&self, parameters: &Parameters) -> Vec<Quantizer> {
        let learned = |own: &Quantizer| parameters.quantizers.iter().find(|other| other.written == own.written);
        self.quantizers.iter().map(|own| learned(own).unwrap_or(own).clone()).collect()
    }

    /// The way back through the block, for gradients by some parameters.
    pub(super) fn backward(&self, parameters: &Parameters, first: &Sample) -> Result<Backward, SolveError> {
        let mut model = self.with(parameters);
        pipelines::differentiate(self.losses.clone(), wanted(parameters)).run(&mut model)?;
        round(&mut model, &self.now(parameters))?;
        let mut names: Vec<String> = self.losses.clone();
        for layer in &parameters.layers {
            names.extend([layer.input.clone(), Differentiate::gradient_of(&layer.output)]);
        }
        for quantizer in &parameters.quantizers {
            let gradient = Differentiate::gradient_of(&quantizer.written);
            names.extend([quantizer.read.clone(), quantizer.written.clone(), gradient]);
        }
        let fed = self.seeded(first.clone(), 1.0)?;
        let segment = Segment::between(&model, &inputs(&model), &fed, &names)?;
        Ok(Backward { segment, shares: self.shares.clone() })
    }

    /// A sample with its targets, and what the gradient starts from.
    fn seeded(&self, sample: Sample, share: f32) -> Result<Sample, SolveError> {
        seeded(&self.shares, sample, share)
    }

    /// The mean loss over samples. Each has the values read, then the targets.
    #[cfg(test)]
    pub(super) fn error(
        &self,
        parameters: &Parameters,
        samples: Vec<Sample>,
        runtime: &Runtime,
    ) -> Result<f64, SolveError> {
        let mut model = self.with(parameters);
        round(&mut model, &self.now(parameters))?;
        let count = samples.len().max(1) as f64;
        let Some(first) = samples.first() else { return Ok(0.0) };
        let segment = Segment::between(&model, &inputs(&model), first, &self.losses)?;
        let mut total = 0.0;
        let visit = |sum: &mut f64, _: usize, ran: Ran| -> Result<(), SolveError> {
            *sum += loss(&self.shares, ran)?;
            Ok(())
        };
        let merge = |part: f64| {
            total += part;
            Ok::<(), SolveError>(())
        };
        Pool::new(&segment, runtime).fold(&Dataset::stored(samples), &runtime.silent(), || 0.0, visit, merge)?;
        Ok(total / count)
    }

    /// Whether a target is compared: all elements it has are floats.
    pub(super) fn takes(targets: &Sample) -> bool {
        !targets.arrays.is_empty() && targets.arrays.iter().all(|array| array.dtype() == DataType::Float)
    }
}

impl Backward {
    /// Takes over the parameters as they are now.
    pub(super) fn take(&mut self, parameters: &Parameters) {
        parameters.put(&mut self.segment.model);
    }

    /// Gradients of the mean loss over samples. Each has the values read, then the targets.
    pub(super) fn gradients(
        &self,
        parameters: &Parameters,
        samples: Vec<Sample>,
        runtime: &Runtime,
    ) -> Result<Gradients, SolveError> {
        let share = 1.0 / samples.len().max(1) as f32;
        let fed = samples.into_iter().map(|sample| seeded(&self.shares, sample, share));
        let fed = fed.collect::<Result<Vec<Sample>, SolveError>>()?;
        let mut total = Gradients::of(parameters);
        let visit = |sums: &mut Gradients, _: usize, ran: Ran| self.add(parameters, sums, ran);
        let merge = |part: Gradients| {
            total.add(&part);
            Ok::<(), SolveError>(())
        };
        let begin = || Gradients::of(parameters);
        Pool::new(&self.segment, runtime).fold(&Dataset::stored(fed), &runtime.silent(), begin, visit, merge)?;
        Ok(total)
    }

    /// Adds the gradients of a sample.
    fn add(&self, parameters: &Parameters, sums: &mut Gradients, ran: Ran) -> Result<(), SolveError> {
        let losses = self.shares.len();
        sums.loss += loss(&self.shares, ran)?;
        for (at, layer) in parameters.layers.iter().enumerate() {
            let [read, gradient] = [0, 1].map(|slot| losses + 2 * at + slot);
            let columns = Unfolded::new(&layer.geometry, &values(ran, read)?, ran.shape(read), 0, Sampling::ALL)?;
            let rows = rows(&layer.geometry, &values(ran, gradient)?, ran.shape(gradient), columns.positions);
            by_weight(&layer.geometry, &rows, &columns, &mut sums.weights[at]);
            for (sum, row) in sums.biases[at].iter_mut().zip(rows.chunks(columns.positions.max(1))) {
                *sum += row.iter().sum::<f32>();
            }
        }
        let first = losses + 2 * parameters.layers.len();
        for (at, quantizer) in parameters.quantizers.iter().enumerate() {
            let [x, y, g] = [0, 1, 2].map(|slot| values(ran, first + 3 * at + slot));
            let [low, high] = quantizer.bounds();
            let (x, y, g) = (x?, y?, g?);
            let part = |((x, y), g): ((&f32, &f32), &f32)| {
                let inside = low < *x && *x < high;
                f64::from(*g) * f64::from(if inside { y - x } else { *y })
            };
            sums.steps[at] += x.iter().zip(y.iter()).zip(g.iter()).map(part).sum::<f64>();
        }
        Ok(())
    }
}

/// A sample with its targets, and behind them what the gradient of each loss starts from.
fn seeded(shares: &[(Vec<usize>, f32)], mut sample: Sample, share: f32) -> Result<Sample, SolveError> {
    for (shape, weight) in shares {
        let seed = vec![weight * share; shape.iter().product()];
        sample.arrays.push(Array::from_f32(shape.clone(), seed).map_err(odd)?);
    }
    Ok(sample)
}

/// The loss of a sample, whose losses element by element come first.
fn loss(shares: &[(Vec<usize>, f32)], ran: Ran) -> Result<f64, SolveError> {
    let mut total = 0.0;
    for (at, (_, weight)) in shares.iter().enumerate() {
        total += f64::from(*weight) * values(ran, at)?.iter().map(|&value| f64::from(value)).sum::<f64>();
    }
    Ok(total)
}

/// What gradients are wanted of.
fn wanted(parameters: &Parameters) -> Vec<String> {
    let mut names: Vec<String> = parameters.layers.iter().map(|layer| layer.output.clone()).collect();
    names.extend(parameters.quantizers.iter().map(|quantizer| quantizer.written.clone()));
    names.sort_unstable();
    names.dedup();
    names
}

fn values(ran: Ran<'_>, at: usize) -> Result<std::borrow::Cow<'_, [f32]>, SolveError> {
    Ok(ran.values(at).map_err(ExecuteError::from)?)
}

fn odd(error: crate::data::LengthError) -> SolveError {
    SolveError::Other { solver: "block".to_owned(), source: Box::new(error) }
}

/// What a layer writes as rows `[G·O, P]`, out of `[N, G·O, …]` or `[…, O]`.
fn rows(geometry: &Geometry, values: &[f32], shape: &[usize], positions: usize) -> Vec<f32> {
    let channels = geometry.groups() * geometry.outputs();
    let mut rows = vec![0.0; channels * positions];
    let samples = if geometry.is_window() { shape.first().copied().unwrap_or(1).max(1) } else { positions.max(1) };
    let each = positions / samples;
    for (sample, values) in values.chunks(channels * each.max(1)).take(samples).enumerate() {
        for (channel, values) in values.chunks(each.max(1)).enumerate() {
            rows[channel * positions + sample * each..][..each].copy_from_slice(values);
        }
    }
    rows
}

/// Adds Σ g·x̂ᵀ of a sample to the gradient of a weight in storage order.
fn by_weight(geometry: &Geometry, rows: &[f32], columns: &Unfolded, gradient: &mut [f32]) {
    let (outputs, size, positions) = (geometry.outputs(), geometry.inputs(), columns.positions);
    let groups = rows.chunks(outputs * positions.max(1)).zip(columns.values.chunks(size * positions.max(1)));
    for (group, (rows, columns)) in groups.enumerate() {
        let mut product = Mat::<f32>::zeros(size, outputs);
        let left = MatRef::from_row_major_slice(columns, size, positions);
        let right = MatRef::from_row_major_slice(rows, outputs, positions).transpose();
        matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
        let mut sums = geometry.rows(gradient, group);
        for (output, sums) in sums.chunks_mut(size.max(1)).enumerate() {
            sums.iter_mut().zip(product.col_as_slice(output)).for_each(|(sum, value)| *sum += value);
        }
        geometry.put_rows(&sums, group, gradient);
    }
}
