//! Gains over plain rounding, exact cases, and what must never happen.

use super::*;
use crate::kernels::Moments;
use crate::quant::GridKind;
use crate::quant::GridSpec;
use crate::quant::ScaleSearch;
use crate::solve::synthetic::{correlated, granularity, noise};
use proptest::prelude::*;

/// Moments of columns `[P, K]` of both networks.
fn moments(float: &[f32], quantized: &[f32], size: usize) -> Moments {
    let mut result = Moments {
        size,
        product: vec![0.0; size * size],
        cross: Some(vec![0.0; size * size]),
        quantized_sum: vec![0.0; size],
        float_sum: vec![0.0; size],
        count: (float.len() / size) as u64,
    };
    for (x, y) in float.chunks(size).zip(quantized.chunks(size)) {
        for i in 0..size {
            for j in 0..size {
                result.product[i * size + j] += y[i] * y[j];
                if let Some(cross) = &mut result.cross {
                    cross[i * size + j] += x[i] * y[j];
                }
            }
            result.quantized_sum[i] += f64::from(y[i]);
            result.float_sum[i] += f64::from(x[i]);
        }
    }
    if std::ptr::eq(float, quantized) {
        result.cross = None;
    }
    result
}

fn problem<'a>(groups: &'a [Group<'a>], grid: GridSpec) -> Problem<'a> {
    let Some(Statistics::Moments(moments)) = groups.first().map(|group| group.statistics) else {
        return Problem::new(groups, 1, Grid::Uniform(grid));
    };
    Problem::new(groups, moments.size, Grid::Uniform(grid))
}

fn solve(problem: &Problem) -> Result<Solution, SolveError> {
    ClosedForm::default().solve(problem)
}

fn gain(solution: &Solution) -> f64 {
    solution.ratio.decibels() - solution.plain_ratio.decibels()
}

#[test]
fn beats_plain_rounding_by_far() {
    let (size, rows) = (72, 24);
    let columns = correlated(2000, size, 1);
    let moments = moments(&columns, &columns, size);
    let weights = noise(rows * size, 2);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    for (bits, least) in [(2, 6.0), (3, 6.0), (4, 5.0), (8, 4.0)] {
        for per_channel in [true, false] {
            let grid = GridSpec::new(GridKind::Symmetric, bits).unwrap();
            let solution = solve(&Problem { granularity: granularity(per_channel), ..problem(&groups, grid) }).unwrap();
            assert!(gain(&solution) > least, "{bits} {per_channel}: {}", gain(&solution));
            assert_eq!(solution.scales.len(), if per_channel { rows } else { 1 });
        }
    }
}

#[test]
fn weights_on_the_grid_are_found_again() {
    let (size, rows) = (40, 8);
    let columns = correlated(500, size, 3);
    let moments = moments(&columns, &columns, size);
    let integers: Vec<i8> = noise(rows * size, 4).iter().map(|v| (v * 5.0).round().clamp(-3.0, 3.0) as i8).collect();
    let weights: Vec<f32> =
        integers.iter().enumerate().map(|(i, &q)| f32::from(q) * 0.25 * (1 + i / size) as f32).collect();
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let solution = solve(&problem(&groups, GridSpec::weight(3).unwrap())).unwrap();
    assert_eq!(solution.integers, integers);
    assert!(solution.ratio.decibels() > 100.0);
}

#[test]
fn makes_up_for_errors_of_earlier_layers() {
    let (size, rows) = (24, 6);
    let float = correlated(3000, size, 5);
    // The quantized network feeds 1.2 times the input: weights must shrink.
    let quantized: Vec<f32> = float.iter().map(|v| v * 1.2).collect();
    let moments = moments(&float, &quantized, size);
    let weights = noise(rows * size, 6);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let solution = solve(&Problem { damping: 1e-6, ..problem(&groups, GridSpec::WEIGHT_S8) }).unwrap();
    for (row, q) in weights
        .chunks(size)
        .zip(solution.integers.chunks(size))
        .zip(&solution.scales)
        .map(|((w, q), s)| (w, q.iter().map(move |&q| f32::from(q) * s)))
    {
        for (w, v) in row.iter().zip(q) {
            assert!((w / 1.2 - v).abs() < 0.05, "{w} {v}");
        }
    }
}

#[test]
fn the_bias_keeps_the_mean() {
    let (size, rows) = (18, 4);
    let (float, other) = (correlated(400, size, 7), correlated(400, size, 8));
    let moments = moments(&float, &other, size);
    let weights = noise(rows * size, 9);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let solution = solve(&Problem { centered: true, ..problem(&groups, GridSpec::weight(2).unwrap()) }).unwrap();
    for row in 0..rows {
        let output = |columns: &[f32], weight: &dyn Fn(usize) -> f32| -> f64 {
            columns
                .chunks(size)
                .map(|c| c.iter().enumerate().map(|(k, x)| f64::from(x * weight(k))).sum::<f64>())
                .sum::<f64>()
                / 400.0
        };
        let before = output(&float, &|k| weights[row * size + k]);
        let after = output(&other, &|k| f32::from(solution.integers[row * size + k]) * solution.scales[row]);
        assert!((before - after - solution.bias_shift.as_ref().unwrap()[row]).abs() < 1e-4);
    }
}

#[test]
fn scales_keep_above_their_limits() {
    let (size, rows) = (16, 3);
    let columns = correlated(100, size, 10);
    let moments = moments(&columns, &columns, size);
    let weights = noise(rows * size, 11);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let least = [0.5, 0.0, 3.0];
    let solution = solve(&Problem { least_scales: &least, ..problem(&groups, GridSpec::weight(4).unwrap()) }).unwrap();
    assert!(solution.scales.iter().zip(least).all(|(&scale, least)| scale >= least));
}

#[test]
fn same_bits_on_any_number_of_threads() {
    let (size, rows) = (50, 70);
    let columns = correlated(300, size, 12);
    let moments = moments(&columns, &columns, size);
    let weights = noise(rows * size, 13);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }; 2];
    for per_channel in [true, false] {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let problem =
                Problem { granularity: granularity(per_channel), ..problem(&groups, GridSpec::weight(3).unwrap()) };
            pool.install(|| solve(&problem).unwrap())
        };
        assert_eq!(on(1), on(3));
    }
}

fn rows_never_worse(solution: &Solution) -> bool {
    solution.ratio.noise <= solution.plain_ratio.noise && solution.scales.iter().all(|s| s.is_normal() && *s > 0.0)
}

#[test]
fn degenerate_inputs() {
    let size = 6;
    let weights = noise(2 * size, 14);
    let zero = vec![0.0; 2 * size];
    let constant = vec![1.0; 10 * size];
    let mut dead = correlated(50, size, 15);
    dead.iter_mut().skip(2).step_by(size).for_each(|v| *v = 0.0);
    let tiny: Vec<f32> = dead.iter().map(|v| v * 1e-18).collect();
    let huge: Vec<f32> = dead.iter().map(|v| v * 1e20).collect();
    let broken = vec![f32::NAN; 10 * size];
    for columns in [&zero[..0], &zero, &constant, &dead, &tiny, &huge, &broken] {
        let copy = columns.to_vec();
        for other in [columns, &copy] {
            let moments = moments(columns, other, size);
            for (weights, damping, centered) in
                [(&weights, DAMPING, false), (&weights, 0.0, true), (&zero, DAMPING, true), (&weights, f64::NAN, false)]
            {
                let groups = [Group { weights, statistics: Statistics::Moments(&moments) }];
                for per_channel in [true, false] {
                    let problem = Problem {
                        granularity: granularity(per_channel),
                        damping,
                        centered,
                        ..problem(&groups, GridSpec::weight(2).unwrap())
                    };
                    let powers = Grid::Scaled(GridSpec::WEIGHT_S8, ScaleSearch::PowerOfTwo);
                    for grid in [problem.grid, Grid::Levels(&[-1, 1]), powers] {
                        let solution = solve(&Problem { grid, ..problem }).unwrap();
                        assert!(rows_never_worse(&solution), "{solution:?}");
                        assert!(solution.bias_shift.iter().flatten().all(|b| b.is_finite()));
                    }
                }
            }
        }
    }
    let moments = moments(&dead, &dead, size);
    let broken = [Group { weights: &broken[..size], statistics: Statistics::Moments(&moments) }];
    assert!(solve(&problem(&broken, GridSpec::weight(2).unwrap())).is_err());
    assert!(solve(&problem(&[], GridSpec::weight(2).unwrap())).unwrap().integers.is_empty());
}

fn distinct(integers: &[i8]) -> usize {
    integers.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_codebook_beats_the_grid_of_as_many() {
    let (size, rows) = (72, 24);
    let columns = correlated(2000, size, 1);
    let moments = moments(&columns, &columns, size);
    let weights = noise(rows * size, 2);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    for (per_channel, bits) in [(true, 2), (true, 3), (false, 2)] {
        let uniform = problem(&groups, GridSpec::new(GridKind::Symmetric, bits).unwrap());
        let uniform = solve(&Problem { granularity: granularity(per_channel), ..uniform }).unwrap();
        let codebook = Problem {
            grid: Grid::Codebook(bits),
            granularity: granularity(per_channel),
            ..problem(&groups, GridSpec::WEIGHT_S8)
        };
        let codebook = solve(&codebook).unwrap();
        assert!(distinct(&codebook.integers) <= 1 << bits);
        let decibels = [&uniform, &codebook].map(|s| s.ratio.decibels());
        assert!(decibels[1] > decibels[0] + 0.2, "{per_channel} {bits}: {decibels:?}");
        assert!(gain(&codebook) > 4.0, "{per_channel} {bits}: {}", gain(&codebook));
    }
}

/// Lists of integers and scales that have to be powers of two: kept to, and worth solving for.
#[test]
fn other_grids_are_kept_to() {
    let (size, rows) = (72, 24);
    let columns = correlated(2000, size, 1);
    let moments = moments(&columns, &columns, size);
    let weights = noise(rows * size, 2);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let full = GridSpec::new(GridKind::Symmetric, 4).unwrap();
    let signs: &[i8] = &[-1, 1];
    let powers: &[i8] = &[-4, -2, -1, 0, 1, 2, 4];
    let scaled = [ScaleSearch::PowerOfTwo, ScaleSearch::Shift].map(|search| Grid::Scaled(full, search));
    for grid in [Grid::Levels(signs), Grid::Levels(powers), scaled[0], scaled[1]] {
        for per_channel in [true, false] {
            let solution =
                solve(&Problem { grid, granularity: granularity(per_channel), ..problem(&groups, full) }).unwrap();
            assert!(rows_never_worse(&solution));
            assert!(gain(&solution) > 3.0, "{grid:?} {per_channel}: {}", gain(&solution));
            match grid {
                Grid::Levels(levels) => assert!(solution.integers.iter().all(|q| levels.contains(q))),
                _ => assert!(solution.scales.iter().all(|s| s.log2().fract() == 0.0), "{:?}", solution.scales),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn never_worse_than_plain_rounding(
        size in 1_usize..30, rows in 1_usize..5, columns in 0_usize..60, bits in 2_u8..=8, seed in 0_u64..1000,
        same: bool, per_channel: bool, centered: bool, full: bool, entries in 0_u8..4,
    ) {
        let float = correlated(columns, size, seed);
        let mut quantized = noise(columns * size, seed + 1);
        quantized.iter_mut().zip(&float).for_each(|(q, x)| *q = x + 0.1 * *q);
        let moments = moments(&float, if same { &float } else { &quantized }, size);
        let weights = noise(rows * size, seed + 2);
        let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }; 2];
        let kind = if full { GridKind::Symmetric } else { GridKind::SymmetricNarrow };
        let grid = GridSpec::new(kind, bits).unwrap();
        let solution = solve(&Problem { granularity: granularity(per_channel), centered, ..problem(&groups, grid) }).unwrap();
        prop_assert!(rows_never_worse(&solution));
        let range = grid.quantized_min()..=grid.quantized_max();
        prop_assert!(solution.integers.iter().all(|&q| range.contains(&i32::from(q))));
        if entries > 0 {
            let grid = Grid::Codebook(entries);
            let codebook = Problem { grid, granularity: granularity(per_channel), centered, ..problem(&groups, GridSpec::WEIGHT_S8) };
            let solution = solve(&codebook).unwrap();
            prop_assert!(rows_never_worse(&solution));
            prop_assert!(distinct(&solution.integers) <= 1 << entries);
        }
    }
}

/// Columns in two halves that have nothing to do with each other: what is left out is zero.
#[test]
fn blocks_of_long_columns() {
    let (size, rows, count) = (48, 10, 2000);
    let halves = [correlated(count, size / 2, 21), correlated(count, size / 2, 22)];
    let parts: Vec<Moments> = halves.iter().map(|half| moments(half, half, size / 2)).collect();
    let weights = noise(rows * size, 23);
    let groups = [Group { weights: &weights, statistics: Statistics::Blocks(&parts) }];
    let grid = GridSpec::weight(3).unwrap();
    for grid in [Grid::Uniform(grid), Grid::Codebook(2)] {
        for per_channel in [true, false] {
            let problem =
                Problem { granularity: granularity(per_channel), centered: true, ..Problem::new(&groups, size, grid) };
            let solution = solve(&problem).unwrap();
            assert!(gain(&solution) > 2.0, "{grid:?} {per_channel}: {}", gain(&solution));
            let plain = problem.nearest(&weights, &vec![1.0; weights.len()]).unwrap();
            assert_eq!(solution.scales, plain.scales);
            assert!(solution.integers.iter().all(|q| plain.data.contains(q) || matches!(grid, Grid::Uniform(_))));
            // The mean of what a row computes, both halves together.
            for (row, shift) in solution.bias_shift.as_ref().unwrap().iter().enumerate() {
                let scale = f64::from(solution.scales[if per_channel { row } else { 0 }]);
                let mean: f64 = (0..size)
                    .map(|i| {
                        let part = &parts[i / (size / 2)];
                        let x = part.float_sum[i % (size / 2)] / count as f64;
                        let at = row * size + i;
                        (f64::from(weights[at]) - scale * f64::from(solution.integers[at])) * x
                    })
                    .sum();
                assert!((mean - shift).abs() < 1e-6, "{mean} {shift}");
            }
        }
    }
}

/// Fewer columns than values give the same weights by way of columns as by way of moments.
#[test]
fn few_columns_are_solved_like_their_moments() {
    let (size, rows, count) = (64, 10, 24);
    let float = correlated(count, size, 21);
    let quantized: Vec<f32> = float.iter().zip(noise(float.len(), 22)).map(|(x, e)| x + 0.05 * e).collect();
    let weights = noise(rows * size, 23);
    let moments = moments(&float, &quantized, size);
    let columns = crate::kernels::Columns { size, quantized, float };
    for centered in [false, true] {
        let solved = [Statistics::Moments(&moments), Statistics::Columns(&columns)].map(|statistics| {
            let groups = [Group { weights: &weights, statistics }];
            let grid = Grid::Uniform(GridSpec::weight(4).unwrap());
            solve(&Problem { centered, ..Problem::new(&groups, size, grid) }).unwrap()
        });
        let same = solved[0].integers.iter().zip(&solved[1].integers).filter(|(a, b)| a == b).count();
        assert!(same * 50 >= 49 * rows * size, "{centered}: {same} of {}", rows * size);
        let [full, thin] = solved.each_ref().map(|solution| solution.ratio.decibels());
        assert!((full - thin).abs() < 0.1, "{centered}: {full} {thin}");
        let shifts = solved.each_ref().map(|solution| solution.bias_shift.clone().unwrap());
        for (a, b) in shifts[0].iter().zip(&shifts[1]) {
            assert!((a - b).abs() < 0.05, "{a} {b}");
        }
    }
}

/// With next to no columns correlations are chance, and what is found is hardly worse than rounding on other columns.
#[test]
fn few_columns_are_trusted_little() {
    let (size, rows) = (96, 16);
    let weights = noise(rows * size, 31);
    let other = noise(4000 * size, 32);
    for count in [2, 8, 30] {
        let seen = noise(count * size, 33);
        let columns = crate::kernels::Columns { size, quantized: seen.clone(), float: seen };
        let groups = [Group { weights: &weights, statistics: Statistics::Columns(&columns) }];
        let grid = Grid::Uniform(GridSpec::weight(3).unwrap());
        let problem = Problem::new(&groups, size, grid);
        let noise_of = |solution: &Solution| -> f64 {
            let error = |column: &[f32]| -> f64 {
                let row = |row: usize| {
                    let of = row * size..(row + 1) * size;
                    let pairs = weights[of.clone()].iter().zip(&solution.integers[of]).zip(column);
                    let scale = solution.scales[row];
                    pairs.map(|((w, &q), x)| f64::from((w - scale * f32::from(q)) * x)).sum::<f64>().powi(2)
                };
                (0..rows).map(row).sum()
            };
            other.chunks(size).map(error).sum()
        };
        let found = noise_of(&solve(&problem).unwrap());
        let nearest = noise_of(&crate::solve::round::Round::default().solve(&problem).unwrap());
        assert!(found < 1.15 * nearest, "{count}: {found} {nearest}");
    }
}
