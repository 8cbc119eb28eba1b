//! The solvers that follow gradients: gains over plain rounding, exact cases, and what must never happen.

use super::adaround::AdaRound;
use super::lsq::Lsq;
use super::synthetic::{correlated, granularity, noise};
use super::{Grid, Group, Problem, Solution, Solver, Statistics};
use crate::kernels::Columns;
use crate::quant::{GridKind, GridSpec};

fn same(size: usize, values: Vec<f32>) -> Columns {
    Columns { size, quantized: values.clone(), float: values }
}

fn full(bits: u8) -> Grid<'static> {
    Grid::Uniform(GridSpec::new(GridKind::Symmetric, bits).unwrap())
}

/// Both solvers, with their names.
fn solvers(steps: usize) -> [(&'static str, Box<dyn Solver>); 2] {
    [("adaround", Box::new(AdaRound { steps })), ("lsq", Box::new(Lsq { steps }))]
}

fn gain(solution: &Solution) -> f64 {
    solution.ratio.decibels() - solution.plain_ratio.decibels()
}

/// Σ ‖f(W·x + b) − f(V·x̂ + b + shift)‖² written out, for one group.
fn error(problem: &Problem, columns: &Columns, solution: &Solution) -> f64 {
    let size = problem.size;
    let f = |y: f64| if problem.rectified { y.max(0.0) } else { y };
    let mut sum = 0.0;
    for (row, weights) in problem.weights().chunks(size).enumerate() {
        let scale = f64::from(solution.scales[row % solution.scales.len()]);
        let bias = f64::from(problem.bias.get(row).copied().unwrap_or(0.0));
        let shift = solution.bias_shift.as_ref().filter(|_| problem.centered).map_or(0.0, |shift| shift[row]);
        for (x, y) in columns.float.chunks(size).zip(columns.quantized.chunks(size)) {
            let float: f64 = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let integers = &solution.integers[row * size..][..size];
            let quantized: f64 = integers.iter().zip(y).map(|(&q, &x)| f64::from(q) * f64::from(x)).sum();
            sum += (f(float + bias) - f(scale * quantized + bias + shift)).powi(2);
        }
    }
    sum
}

#[test]
fn beats_plain_rounding() {
    let (size, rows) = (36, 20);
    let columns = same(size, correlated(1000, size, 1));
    let weights = noise(rows * size, 2);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    for (grid, least) in [(full(2), 2.0), (full(3), 2.0), (full(4), 2.0), (Grid::Codebook(2), 2.0)] {
        for (name, solver) in solvers(1000) {
            for per_channel in [true, false] {
                let solution = solver
                    .solve(&Problem { granularity: granularity(per_channel), ..Problem::new(&groups, size, grid) })
                    .unwrap();
                assert!(gain(&solution) > least, "{name} {grid:?} {per_channel}: {}", gain(&solution));
                assert_eq!(solution.scales.len(), if per_channel { rows } else { 1 });
            }
        }
    }
}

#[test]
fn the_ratio_is_what_the_layer_computes() {
    let (size, rows) = (12, 5);
    let float = correlated(300, size, 3);
    let quantized = float.iter().zip(noise(300 * size, 4)).map(|(x, n)| x + 0.05 * n).collect();
    let columns = Columns { size, quantized, float };
    let (weights, bias) = (noise(rows * size, 5), noise(rows, 6));
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    for (name, solver) in solvers(50) {
        for (centered, rectified) in [(false, false), (false, true), (true, false), (true, true)] {
            let problem = Problem { centered, rectified, bias: &bias, ..Problem::new(&groups, size, full(3)) };
            let solution = solver.solve(&problem).unwrap();
            let expected = error(&problem, &columns, &solution);
            let found = solution.ratio.noise;
            assert!((found / expected - 1.0).abs() < 1e-3, "{name} {centered} {rectified}: {found} {expected}");
        }
    }
}

#[test]
fn what_is_cut_off_does_not_count() {
    let (size, rows) = (24, 12);
    let columns = same(size, correlated(800, size, 7));
    let weights = noise(rows * size, 8);
    let bias = vec![-0.5; rows];
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    let solver = AdaRound { steps: 1000 };
    for centered in [false, true] {
        let problem = Problem { centered, rectified: true, bias: &bias, ..Problem::new(&groups, size, full(3)) };
        let aware = solver.solve(&problem).unwrap();
        let unaware = solver.solve(&Problem { rectified: false, ..problem }).unwrap();
        let errors = [&aware, &unaware].map(|solution| error(&problem, &columns, solution));
        assert!(errors[0] < 0.9 * errors[1], "{centered}: {errors:?}");
    }
}

#[test]
fn weights_on_the_grid_are_found_again() {
    let (size, rows) = (20, 8);
    let columns = same(size, correlated(300, size, 9));
    let mut integers: Vec<i8> =
        noise(rows * size, 10).iter().map(|v| (v * 5.0).round().clamp(-3.0, 3.0) as i8).collect();
    // With the last level in use, plain rounding finds the scale.
    integers.iter_mut().step_by(size).for_each(|q| *q = 3);
    let weights: Vec<f32> =
        integers.iter().enumerate().map(|(i, &q)| f32::from(q) * 0.25 * (1 + i / size) as f32).collect();
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    for (name, solver) in solvers(200) {
        let solution = solver.solve(&Problem::new(&groups, size, Grid::Uniform(GridSpec::weight(3).unwrap()))).unwrap();
        assert_eq!(solution.integers, integers, "{name}");
        assert!(solution.ratio.decibels() > 100.0, "{name}");
    }
}

#[test]
fn makes_up_for_errors_of_earlier_layers() {
    let (size, rows) = (12, 4);
    let float = correlated(500, size, 11);
    let quantized = float.iter().map(|v| v * 1.02).collect();
    let columns = Columns { size, quantized, float };
    let weights = noise(rows * size, 12);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    for (name, solver) in solvers(2000) {
        let solution = solver.solve(&Problem::new(&groups, size, Grid::Uniform(GridSpec::weight(7).unwrap()))).unwrap();
        // The factor is most of the error of plain rounding.
        assert!(gain(&solution) > 5.0, "{name}: {}", gain(&solution));
    }
}

#[test]
fn scales_keep_above_their_limits() {
    let (size, rows) = (16, 3);
    let columns = same(size, correlated(100, size, 13));
    let weights = noise(rows * size, 14);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
    let least = [0.5, 0.0, 3.0];
    for (name, solver) in solvers(50) {
        for per_channel in [true, false] {
            let problem = Problem {
                least_scales: &least,
                granularity: granularity(per_channel),
                ..Problem::new(&groups, size, full(4))
            };
            let scales = solver.solve(&problem).unwrap().scales;
            let kept = if per_channel { scales.iter().zip(least).all(|(&s, l)| s >= l) } else { scales[0] >= 3.0 };
            assert!(kept, "{name}: {scales:?}");
        }
    }
}

#[test]
fn same_bits_on_any_number_of_threads() {
    let (size, rows) = (10, 40);
    let columns = same(size, correlated(200, size, 15));
    let weights = noise(rows * size, 16);
    let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }; 2];
    for (name, solver) in solvers(60) {
        for per_channel in [true, false] {
            let on = |threads, seed| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let problem =
                    Problem { granularity: granularity(per_channel), seed, ..Problem::new(&groups, size, full(3)) };
                pool.install(|| solver.solve(&problem).unwrap())
            };
            assert_eq!(on(1, 0), on(3, 0), "{name} {per_channel}");
            assert_ne!(on(1, 0), on(1, 1), "{name} {per_channel}: the seed has no effect");
        }
    }
}

fn never_worse(solution: &Solution) -> bool {
    solution.ratio.noise <= solution.plain_ratio.noise && solution.scales.iter().all(|s| s.is_normal() && *s > 0.0)
}

#[test]
fn degenerate_inputs() {
    let size = 6;
    let weights = noise(2 * size, 17);
    let zero = vec![0.0; 2 * size];
    let mut dead = correlated(80, size, 18);
    dead.iter_mut().skip(2).step_by(size).for_each(|v| *v = 0.0);
    let mut partly = dead.clone();
    partly[7] = f32::NAN;
    partly[20] = f32::INFINITY;
    let scaled = |factor: f32| dead.iter().map(|v| v * factor).collect::<Vec<_>>();
    let (tiny, large, huge) = (scaled(1e-18), scaled(1e15), scaled(1e25));
    let (constant, broken) = (vec![1.0; 10 * size], vec![f32::NAN; 10 * size]);
    let one = dead[..size].to_vec();
    let bias = [-1.0, 1e20];
    for columns in [&zero[..0], &one, &zero, &constant, &dead, &partly, &tiny, &large, &huge, &broken] {
        let columns = same(size, columns.to_vec());
        for (weights, centered, rectified, per_channel, grid) in [
            (&weights, false, false, true, full(2)),
            (&weights, true, true, true, full(2)),
            (&weights, true, true, false, full(8)),
            (&weights, false, true, true, Grid::Codebook(1)),
            (&zero, true, false, false, full(2)),
            (&zero, true, true, true, Grid::Codebook(2)),
        ] {
            let groups = [Group { weights, statistics: Statistics::Columns(&columns) }];
            let problem = Problem {
                centered,
                rectified,
                granularity: granularity(per_channel),
                bias: &bias,
                ..Problem::new(&groups, size, grid)
            };
            for (name, solver) in solvers(20) {
                let solution = solver.solve(&problem).unwrap();
                assert!(never_worse(&solution), "{name}: {solution:?}");
                assert!(solution.bias_shift.iter().flatten().all(|b| b.is_finite()), "{name}");
            }
        }
    }
    let columns = same(size, dead);
    let unsound = [Group { weights: &broken[..size], statistics: Statistics::Columns(&columns) }];
    let unseen = [Group { weights: &weights, statistics: Statistics::Nothing }];
    for (name, solver) in solvers(20) {
        assert!(solver.solve(&Problem::new(&unsound, size, full(2))).is_err(), "{name}");
        assert!(solver.solve(&Problem::new(&[], size, full(2))).unwrap().integers.is_empty(), "{name}");
        let problem = Problem::new(&unseen, size, full(2));
        let (solution, plain) =
            (solver.solve(&problem).unwrap(), super::round::Round::default().solve(&problem).unwrap());
        assert_eq!((solution.integers, solution.scales), (plain.integers, plain.scales), "{name}");
    }
}
