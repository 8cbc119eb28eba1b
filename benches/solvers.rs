//! Speed of the solvers, at the sizes of a small residual network: in closed form from moments, rounding to nearest, and
//! 100 steps along gradients on columns.

use criterion::{Criterion, criterion_group, criterion_main};
use msq_onnx::kernels::{Columns, Moments};
use msq_onnx::quant::GridSpec;
use msq_onnx::solve::adaround::AdaRound;
use msq_onnx::solve::cosine::Cosine;
use msq_onnx::solve::gram::ClosedForm;
use msq_onnx::solve::lsq::Lsq;
use msq_onnx::solve::round::Round;
use msq_onnx::solve::{Grid, Group, Problem, Solver, Statistics};
use std::hint::black_box;

/// Values between −1 and 1, the same in every run.
fn values(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

/// Moments as of inputs that have much in common with their neighbours.
fn moments(size: usize) -> Moments {
    let product = (0..size * size).map(|i| 0.9_f32.powi((i / size).abs_diff(i % size) as i32)).collect();
    let sums = vec![0.0; size];
    Moments { size, product, cross: None, quantized_sum: sums.clone(), float_sum: sums, count: 1 }
}

fn solving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gram");
    group.sample_size(10);
    for (rows, size) in [(16, 144), (32, 288), (64, 576)] {
        let (weights, moments) = (values(rows * size), moments(size));
        for bits in [2, 4] {
            let Ok(grid) = GridSpec::weight(bits) else { continue };
            group.bench_function(format!("{rows} rows of {size}, {bits} bits"), |b| {
                let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
                let problem = Problem::new(&groups, size, Grid::Uniform(grid));
                b.iter(|| ClosedForm::default().solve(black_box(&problem)));
            });
        }
    }
    group.finish();
}

fn cosine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cosine");
    group.sample_size(10);
    let Ok(grid) = GridSpec::weight(4) else { return };
    for (rows, size) in [(16, 144), (32, 288), (64, 576)] {
        let (weights, float) = (values(rows * size), values(2048 * size));
        let columns = Columns { size, quantized: float.clone(), float };
        let input = GridSpec::ACTIVATION_S8.affine(msq_onnx::quant::Range::new(-1.0, 1.0));
        let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
        for (name, input) in [("weights", None), ("weights and input", Some(input))] {
            group.bench_function(format!("{name}, {rows} rows of {size}"), |b| {
                let problem = Problem { input, ..Problem::new(&groups, size, Grid::Uniform(grid)) };
                b.iter(|| Cosine.solve(black_box(&problem)));
            });
        }
    }
    group.finish();
}

/// Columns in which neighbours have much in common.
fn columns(size: usize, count: usize) -> Columns {
    let mut last = 0.0;
    let mix = |value: f32| {
        last = 0.9 * last + value;
        last
    };
    let float: Vec<f32> = values(size * count).into_iter().map(mix).collect();
    let quantized = float.iter().map(|v| v * 1.01).collect();
    Columns { size, quantized, float }
}

fn learning(criterion: &mut Criterion) {
    let solvers: [(&str, &dyn Solver); 3] =
        [("round", &Round::default()), ("adaround", &AdaRound { steps: 100 }), ("lsq", &Lsq { steps: 100 })];
    for (name, solver) in solvers {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for (rows, size) in [(16, 144), (32, 288), (64, 576)] {
            let (weights, columns) = (values(rows * size), columns(size, 2048));
            let Ok(grid) = GridSpec::weight(4) else { continue };
            group.bench_function(format!("{rows} rows of {size}, 4 bits"), |b| {
                let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
                let problem = Problem { rectified: true, ..Problem::new(&groups, size, Grid::Uniform(grid)) };
                b.iter(|| solver.solve(black_box(&problem)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, solving, cosine, learning);
criterion_main!(benches);
