//! The front door of the library.

use crate::calibrate::synthetic::made_up;
use crate::calibrate::{Shard, ShardStatistics};
use crate::data::{Dataset, InputSpec, SyntheticOptions};
use crate::engine::Backend;
use crate::error::Error;
use crate::measure::CustomMetric;
use crate::pipeline::{self, Calibration, Quantized};
use crate::prepare::{contradicted, fix_inputs};
use crate::runtime::progress::{Cancellation, Progress};
use crate::runtime::{ErrorKind, Peers, Runtime};
use crate::scheme::options::Options;
use crate::search::{Division, Outcome, SearchOptions, Target};
use crate::solve::Solver;
use msq_passes::PassObserver;
use msq_passes::ir::Model;
use std::path::Path;
use std::sync::Arc;

/// Makes a float model small and fast: what to quantize, on which data, and to what.
///
/// ```
/// use msq_onnx::data::{DataOptions, Dataset};
/// use msq_onnx::search::Target;
/// use msq_onnx::{Options, Quantizer};
///
/// let quantizer = Quantizer::open("testdata/digits/digits.onnx")?;
/// let options = DataOptions { samples: Some(64), ..DataOptions::default() };
/// let data = Dataset::open("testdata/digits/calib.npz".as_ref(), &quantizer.inputs(), &options)?;
///
/// let int8 = quantizer.clone().calibration(data.clone()).run()?;
/// assert!(int8.report.bytes < int8.report.float_bytes / 2);
///
/// let small = quantizer.calibration(data).target(Target::Ratio(10.0)).options(Options { seed: 7, ..Options::default() }).run()?;
/// assert!(small.report.bytes < int8.report.bytes);
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("small.onnx");
/// small.save(&path)?;
/// # Ok::<(), msq_onnx::Error>(())
/// ```
///
/// Without calibration data, inputs are made up: see [`made_up`].
#[derive(Clone)]
#[must_use = "nothing happens until it runs"]
pub struct Quantizer<'a> {
    model: Model,
    calibration: Option<Dataset>,
    validation: Option<Dataset>,
    made_up: SyntheticOptions,
    options: Options,
    search: Option<SearchOptions>,
    solver: Option<Arc<dyn Solver>>,
    metric: Option<CustomMetric>,
    statistics: Option<Arc<[ShardStatistics]>>,
    runtime: Runtime<'a>,
}

/// Reads an ONNX model.
pub fn load(path: &Path) -> Result<Model, Error> {
    msq_passes::ir::load_model(path).map_err(|source| Error::Import { path: path.to_owned(), source })
}

impl<'a> Quantizer<'a> {
    /// To int8, on made-up data, unless told otherwise.
    pub fn new(model: Model) -> Self {
        Self {
            model,
            calibration: None,
            validation: None,
            made_up: SyntheticOptions::default(),
            options: Options::default(),
            search: None,
            solver: None,
            metric: None,
            statistics: None,
            runtime: Runtime::default(),
        }
    }

    /// The model of an ONNX file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::new(load(path.as_ref())?))
    }

    /// The inputs that data must feed: all but those that the [options](Self::options) fix.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let fixed = &self.options.prepare.fix_input;
        let is_fixed = |input: &InputSpec| fixed.iter().any(|fixed| fixed.input == input.name);
        InputSpec::of(&self.model).into_iter().filter(|input| !is_fixed(input)).collect()
    }

    /// Of the inputs that the options fix, those for which an `.npz` has an array with other values. It is not used.
    pub fn contradicted(&self, data: &Path) -> Vec<String> {
        contradicted(&self.model, &self.options.prepare.fix_input, data)
    }

    /// The data to calibrate on. A search keeps a [part](parts) of it to measure plans on, unless there is other data
    /// for that.
    pub fn calibration(self, data: Dataset) -> Self {
        Self { calibration: Some(data), ..self }
    }

    /// The data a search measures plans on.
    pub fn validation(self, data: Dataset) -> Self {
        Self { validation: Some(data), ..self }
    }

    /// What data is made up, where there is none to calibrate on.
    pub fn made_up(self, made_up: SyntheticOptions) -> Self {
        Self { made_up, ..self }
    }

    /// How to quantize.
    pub fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// A solver of the caller's own, in the place of the one that the options name. Searches compare plans with the
    /// solvers of the library, and the plan that wins is solved by this one.
    pub fn solver(self, solver: Box<dyn Solver>) -> Self {
        Self { solver: Some(solver.into()), ..self }
    }

    /// A metric of the caller's own, in the place of the command that the options name: by it, and not by accuracy or
    /// agreement, a drop is counted.
    pub fn metric(self, metric: CustomMetric) -> Self {
        Self { metric: Some(metric), ..self }
    }

    /// What [`count`](Self::count) found in all parts of the calibration data, in any order: the data are not run again for
    /// that, and what comes out has the same bytes. Searches, solvers and the comparison of outputs still read data.
    pub fn statistics(self, parts: Vec<ShardStatistics>) -> Self {
        Self { statistics: Some(parts.into()), ..self }
    }

    /// What the result has to keep to; the bits of every layer are searched for then, and those of the options do not
    /// count.
    pub fn target(self, target: Target) -> Self {
        let search = self.search.unwrap_or_else(|| SearchOptions::new(target));
        Self { search: Some(SearchOptions { target, ..search }), ..self }
    }

    /// What the result has to keep to, and how bits are searched for.
    pub fn search_options(self, search: SearchOptions) -> Self {
        Self { search: Some(search), ..self }
    }

    /// Who is told how far the run is.
    pub fn progress(self, progress: &'a dyn Progress) -> Self {
        Self { runtime: self.runtime.progress(progress), ..self }
    }

    /// Who is shown the model after each pass, whatever lists of passes it goes through until it is written. Models that
    /// only a search builds are not shown.
    pub fn pass_observer(self, observer: &'a dyn PassObserver) -> Self {
        Self { runtime: self.runtime.pass_observer(observer), ..self }
    }

    /// What can end the run early, with an error of kind [`Cancelled`](crate::runtime::ErrorKind::Cancelled).
    pub fn cancellation(self, cancellation: &Cancellation) -> Self {
        Self { runtime: self.runtime.cancellation(cancellation), ..self }
    }

    /// Other processes that do the same run, and share the learning of it with this one.
    pub fn peers(self, peers: Arc<dyn Peers>) -> Self {
        Self { runtime: self.runtime.peers(peers), ..self }
    }

    /// Another back end to run models with, in place of the one built in.
    pub fn backend(self, backend: Arc<dyn Backend>) -> Self {
        Self { runtime: self.runtime.with_backend(backend), ..self }
    }

    /// Number of threads; all cores unless said.
    pub fn threads(mut self, threads: usize) -> Self {
        self.runtime.threads = threads;
        self
    }

    /// Bytes the engine may hold at once; no limit where `None`.
    pub fn memory(mut self, memory: Option<u64>) -> Self {
        self.runtime.memory = memory;
        self
    }

    /// Quantizes.
    pub fn run(self) -> Result<Quantized, Error> {
        let Some(search) = self.search.clone() else {
            return self.on_threads(|this| {
                let this = this.with_fixed_inputs()?;
                if this.calibration.is_none() {
                    return this.run_without_data();
                }
                let (data, synthetic) = this.data()?;
                this.run_on(&data, synthetic, None)
            });
        };
        self.searching(|model, calibration, division, options, runtime| {
            pipeline::search_and_quantize(model, calibration, division, options, &search, runtime)
        })
    }

    /// Searches for the bits of every layer and leaves it at that. Without a target, one point of accuracy, or of
    /// agreement with the float model, may be lost.
    pub fn search(self) -> Result<Outcome, Error> {
        let search = self.search.clone().unwrap_or_default();
        self.searching(|model, calibration, division, options, runtime| {
            pipeline::search_only(model, calibration, &division.validation, options, &search, runtime)
        })
    }

    /// Measures a part of what the layers cost alone, into the file that [`SearchOptions::journal`] names, and leaves it at
    /// that: for [`SearchOptions::measurements`] of searches with the same model, data and options, whatever their target.
    /// Returns how many costs there are in this part.
    pub fn measure(self, shard: Shard) -> Result<usize, Error> {
        let search = self.search.clone().unwrap_or_default();
        self.searching(|model, calibration, division, options, runtime| {
            pipeline::measure_part(model, calibration, &division.validation, options, (&search, shard), runtime)
        })
    }

    /// Looks at the activations for a part of the calibration data and leaves it at that: for
    /// [`statistics`](Self::statistics), with the same model, data and options.
    pub fn count(self, shard: Shard) -> Result<ShardStatistics, Error> {
        self.on_threads(|this| {
            let this = this.with_fixed_inputs()?;
            let (data, synthetic) = this.data()?;
            let solver = this.solver.as_deref();
            let calibration =
                Calibration { data: &data, synthetic, solver, unfed: None, metric: None, statistics: None };
            pipeline::count(this.model, calibration, shard, &this.options, &this.runtime)
        })
    }

    /// Does all of a run on threads of its own, as many as it may use: the caller's only waits.
    fn on_threads<T: Send>(self, run: impl FnOnce(Self) -> Result<T, Error> + Send) -> Result<T, Error> {
        let threads = self.runtime.threads;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        pool.install(|| run(self))
    }

    /// With the data in parts, and what else a search goes by.
    fn searching<T: Send>(
        self,
        run: impl FnOnce(Model, Calibration, &Division, &Options, &Runtime) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.on_threads(|this| {
            let this = this.with_fixed_inputs()?;
            let (data, synthetic) = this.data()?;
            let metric = this.chosen_metric();
            let division = Division::of(&data, this.validation.as_ref());
            let data = &division.calibration;
            let (solver, metric) = (this.solver.as_deref(), metric.as_ref());
            let calibration = Calibration { data, synthetic, solver, unfed: None, metric, statistics: None };
            run(this.model, calibration, &division, &this.options, &this.runtime)
        })
    }

    /// With the inputs that the options fix as constants of the model.
    fn with_fixed_inputs(mut self) -> Result<Self, Error> {
        fix_inputs(&mut self.model, &self.options.prepare.fix_input, self.runtime.passes())?;
        Ok(self)
    }

    /// The caller's own metric, or the command that the options name.
    fn chosen_metric(&self) -> Option<CustomMetric> {
        let command = || self.options.measure.metric_command.as_ref().map(CustomMetric::command);
        self.metric.clone().or_else(command)
    }

    /// Quantizes on some data; `unfed` is why there is none.
    fn run_on(self, data: &Dataset, synthetic: bool, unfed: Option<&str>) -> Result<Quantized, Error> {
        let metric = self.chosen_metric();
        let (solver, statistics) = (self.solver.as_deref(), self.statistics.as_deref());
        let calibration = Calibration { data, synthetic, solver, unfed, metric: metric.as_ref(), statistics };
        pipeline::quantize(self.model, calibration, &self.options, &self.runtime)
    }

    /// Quantizes on made-up data: on floats of both signs, else on magnitudes, as logarithms and roots want them, else only
    /// the weights.
    fn run_without_data(self) -> Result<Quantized, Error> {
        let magnitudes = SyntheticOptions { non_negative: true, ..self.made_up.clone() };
        let mut reason = None;
        for options in [self.made_up.clone(), magnitudes] {
            let data = match made_up(&self.model, &options, &*self.runtime.backend()).map_err(Error::from) {
                Err(error) if error.kind() == ErrorKind::Data => {
                    return self.run_on(&Dataset::none(), true, Some(&error.to_string()));
                }
                data => data?,
            };
            match self.clone().run_on(&data, true, None) {
                Err(error) if error.of_inputs().is_some() => reason = reason.or_else(|| error.of_inputs()),
                Err(error) => return Err(error),
                Ok(mut quantized) => {
                    let signs = |reason| format!("made-up inputs have no floats below zero: with such {reason}");
                    quantized.report.notes.extend(reason.map(signs));
                    return Ok(quantized);
                }
            }
        }
        let reason = reason.map(|reason| format!("with made-up inputs {reason}; give data with `--calib`"));
        self.run_on(&Dataset::none(), true, reason.as_deref())
    }

    /// The data to calibrate on, and whether it is made up.
    fn data(&self) -> Result<(Dataset, bool), Error> {
        match &self.calibration {
            // Frames of sequences have their states, and so their shapes, when the network has run.
            Some(data) if !data.links().is_empty() => Ok((data.clone(), false)),
            Some(data) => Ok((data.grouped(self.options.verify.verify)?, false)),
            None => Ok((made_up(&self.model, &self.made_up, &*self.runtime.backend())?, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::standard;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn quantizer<'a>() -> Quantizer<'a> {
        let digits = Quantizer::open(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/digits/digits.onnx")).unwrap();
        digits.made_up(SyntheticOptions { count: 16, ..SyntheticOptions::default() })
    }

    /// Cancels at the first step of a phase, and counts steps from then on.
    struct CancelsAt<'a> {
        phase: &'static str,
        cancellation: &'a Cancellation,
        steps_after: AtomicUsize,
    }

    impl Progress for CancelsAt<'_> {
        fn begin(&self, phase: &'static str, _: u64) {
            if phase == self.phase {
                self.cancellation.cancel();
            }
        }

        fn advance(&self, _: u64) {
            self.steps_after.fetch_add(self.cancellation.is_cancelled().into(), Ordering::Relaxed);
        }
    }

    #[test]
    fn a_cancelled_run_ends_in_whatever_phase_it_is() {
        let search = SearchOptions { samples: 4, repairs: 2, ..SearchOptions::new(Target::Bits(3.0)) };
        for phase in ["calibrate", "solve", "verify", "sensitivity", "msq"] {
            let cancellation = Cancellation::default();
            let progress = CancelsAt { phase, cancellation: &cancellation, steps_after: AtomicUsize::new(0) };
            let quantizer = quantizer().progress(&progress).cancellation(&cancellation);
            let found = quantizer.search_options(search.clone()).run();
            assert!(
                found.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled),
                "{phase}: {:?}",
                found.err()
            );
            let (steps, threads) = (progress.steps_after.into_inner(), Runtime::default().threads);
            // Searches run networks within a step, and those runs end early too.
            assert!(steps <= threads, "{phase}: {steps} more steps");
        }
    }

    #[test]
    fn data_to_measure_on_is_not_calibrated_on() {
        let data =
            made_up(&quantizer().model, &SyntheticOptions { count: 24, ..SyntheticOptions::default() }, &*standard())
                .unwrap();
        let target = quantizer().calibration(data.range(0, 16)).target(Target::Bits(4.0));
        let [own, other] = [target.clone(), target.validation(data.range(16, 24))].map(|q| q.search().unwrap().samples);
        assert_eq!((own, other), ([8, 8], [16, 8]));
    }
}
