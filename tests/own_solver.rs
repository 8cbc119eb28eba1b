//! A solver given by a library user: it sees the layers, and its integers are those of the model.

use msq_onnx::data::SyntheticOptions;
use msq_onnx::quant::Sqnr;
use msq_onnx::solve::{Problem, Solution, SolveError, Solver, StatisticsKind};
use msq_onnx::{Options, Quantizer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rounds towards zero, on scales that clip nothing.
#[derive(Debug)]
struct TowardsZero {
    statistics: StatisticsKind,
    /// Layers solved.
    solved: Arc<AtomicUsize>,
    /// Integers left out of each solution.
    missing: usize,
}

impl Solver for TowardsZero {
    fn name(&self) -> &'static str {
        "towards-zero"
    }

    fn statistics(&self) -> StatisticsKind {
        self.statistics
    }

    fn solve(&self, problem: &Problem) -> Result<Solution, SolveError> {
        self.solved.fetch_add(1, Ordering::Relaxed);
        let weights = problem.weights();
        let largest = weights.chunks(problem.size).map(|row| row.iter().fold(0.0_f32, |most, w| most.max(w.abs())));
        let scales: Vec<f32> = largest.map(|most| (most / 127.0).max(f32::MIN_POSITIVE)).collect();
        let rows = weights.chunks(problem.size).zip(&scales);
        let mut integers: Vec<i8> = rows.flat_map(|(row, s)| row.iter().map(move |w| (w / s).trunc() as i8)).collect();
        integers.truncate(integers.len() - self.missing);
        Ok(Solution {
            integers,
            scales,
            zero_points: Vec::new(),
            bias_shift: None,
            input_scale: None,
            ratio: Sqnr::default(),
            plain_ratio: Sqnr::default(),
        })
    }
}

fn quantizer<'a>() -> Quantizer<'a> {
    let digits = Quantizer::open(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/digits/digits.onnx")).unwrap();
    digits.made_up(SyntheticOptions { count: 8, ..SyntheticOptions::default() }).options(Options::default())
}

fn solver(statistics: StatisticsKind, missing: usize) -> (Box<dyn Solver>, Arc<AtomicUsize>) {
    let solved = Arc::new(AtomicUsize::new(0));
    (Box::new(TowardsZero { statistics, solved: solved.clone(), missing }), solved)
}

#[test]
fn its_integers_are_those_of_the_model() {
    for statistics in [StatisticsKind::Nothing, StatisticsKind::Columns] {
        let (solver, solved) = solver(statistics, 0);
        let quantized = quantizer().solver(solver).run().unwrap();
        assert_eq!(solved.load(Ordering::Relaxed), quantized.report.layers.len(), "{statistics:?}");
        // Errors of up to a whole step have four times the power of those of up to half a step: 6 dB. Where samples were
        // held out, they show that rounding to nearest is better, and it is taken.
        let plain = quantizer().run().unwrap();
        let noise = |report: &msq_onnx::report::Report| report.layers[0].weight_sqnr.unwrap();
        let worse = noise(&quantized.report) < noise(&plain.report) - 3.0;
        assert_eq!(worse, statistics == StatisticsKind::Nothing, "{statistics:?}");
    }
}

#[test]
fn solutions_of_the_wrong_size_are_refused() {
    let (solver, _) = solver(StatisticsKind::Nothing, 1);
    let error = quantizer().solver(solver).run().unwrap_err().to_string();
    assert!(error.contains("solver `towards-zero` gave") && error.contains("integers instead of"), "{error}");
}
