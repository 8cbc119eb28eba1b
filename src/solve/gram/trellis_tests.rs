//! Trellis codes by moments: better than grids and codebooks, packable, and what is special about them.

use super::{ClosedForm, assemble, prepare, trellis};
use crate::kernels::{Columns, Moments};
use crate::quant::{Granularity, GridSpec};
use crate::solve::synthetic::{correlated, noise};
use crate::solve::{Grid, Group, Problem, Solution, Solver, Statistics};
use msq_passes::{TrellisCode, TrellisRate};

fn code(bits: u8) -> TrellisCode {
    TrellisCode::new(TrellisRate::of_quarters(4 * bits).unwrap())
}

fn moments(columns: &[f32], size: usize) -> Moments {
    let mut product = vec![0.0; size * size];
    for column in columns.chunks(size) {
        for (i, a) in column.iter().enumerate() {
            product[i * size..][..size].iter_mut().zip(column).for_each(|(sum, b)| *sum += a * b);
        }
    }
    let sum: Vec<f64> = (0..size).map(|i| columns.chunks(size).map(|c| f64::from(c[i])).sum()).collect();
    let count = (columns.len() / size) as u64;
    Moments { size, product, cross: None, quantized_sum: sum.clone(), float_sum: sum, count }
}

fn solve(problem: &Problem) -> Solution {
    ClosedForm::default().solve(problem).unwrap()
}

/// Whether every column is of the code.
fn is_coded(solution: &Solution, size: usize, code: &TrellisCode) -> bool {
    (0..size).all(|input| {
        let column: Vec<i8> = solution.integers.iter().skip(input).step_by(size).copied().collect();
        code.pack(&column).is_some()
    })
}

#[test]
fn beats_grids_and_codebooks_of_as_many_bits() {
    let (size, rows) = (48, 32);
    let moments = moments(&correlated(1500, size, 1), size);
    let weights: Vec<f32> = noise(rows * size, 2);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    // At 4 bits a list of 16 levels made for these weights, which have no tails, is as good.
    for bits in [2, 3] {
        for granularity in [Granularity::Channel, Granularity::Tensor] {
            let of = |grid| solve(&Problem { granularity, ..Problem::new(&groups, size, grid) });
            let [trellis, uniform, codebook] =
                [Grid::Trellis(code(bits)), Grid::Uniform(GridSpec::weight(bits).unwrap()), Grid::Codebook(bits)]
                    .map(of);
            assert!(is_coded(&trellis, size, &code(bits)), "{bits} {granularity:?}");
            let [trellis, uniform, codebook] =
                [&trellis, &uniform, &codebook].map(|solution| solution.ratio.decibels());
            assert!(trellis > uniform.max(codebook) + 0.3, "{bits} {granularity:?}: {trellis} {uniform} {codebook}");
        }
    }
}

/// With feedback targets reach further than the weights do: on scales that fit the weights alone, much of the gain of 4 bits
/// is lost past the ends of the table.
#[test]
fn scales_leave_room_for_what_feedback_adds() {
    let (size, rows) = (48, 32);
    let moments = moments(&correlated(1500, size, 1), size);
    let draws: Vec<f32> = noise(6 * rows * size, 12);
    let weights: Vec<f32> = draws.chunks(6).map(|six| six.iter().sum()).collect();
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    for bits in [2, 3, 4] {
        let [trellis, uniform, codebook] =
            [Grid::Trellis(code(bits)), Grid::Uniform(GridSpec::weight(bits).unwrap()), Grid::Codebook(bits)]
                .map(|grid| solve(&Problem::new(&groups, size, grid)).ratio.decibels());
        assert!(trellis > uniform.max(codebook) + 0.3, "{bits}: {trellis} {uniform} {codebook}");
    }
}

/// Each channel has moments of its own, some none at all; columns go over all of them.
#[test]
fn depthwise_layers_have_a_column_per_tap() {
    let (size, channels) = (9, 40);
    let all: Vec<Moments> =
        (0..channels)
            .map(|c| {
                if c == 7 {
                    moments(&vec![0.0; 50 * size], size)
                } else {
                    moments(&correlated(200, size, 10 + c), size)
                }
            })
            .collect();
    let draws: Vec<f32> = noise(6 * channels as usize * size, 3);
    let weights: Vec<f32> = draws.chunks(6).map(|six| six.iter().sum()).collect();
    let groups: Vec<Group> = weights
        .chunks(size)
        .zip(&all)
        .map(|(weights, moments)| Group { weights, statistics: Statistics::Moments(moments) })
        .collect();
    let problem = Problem::new(&groups, size, Grid::Trellis(code(3)));
    // Whether or not a codebook is better.
    let coded = || {
        let prepared = prepare(&problem, false).unwrap();
        assemble(&problem, &prepared, &trellis::solve(&problem, &prepared, code(3)))
    };
    let solution = coded();
    assert!(is_coded(&solution, size, &code(3)));
    assert!(solution.ratio.decibels() > solution.plain_ratio.decibels());
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(threads.install(coded), solution);
}

/// Fewer samples than inputs: the form is that of the samples. Its integers are those of its moments, nearly.
#[test]
fn few_samples_are_as_good_as_their_moments() {
    let (size, rows, samples) = (90, 24, 40);
    let values = correlated(2 * samples, size, 21);
    let weights: Vec<f32> = noise(2 * rows * size, 22);
    for groups in [1, 2] {
        let parts: Vec<&[f32]> = values.chunks(samples * size).take(groups).collect();
        let columns: Vec<Columns> =
            parts.iter().map(|part| Columns { size, float: part.to_vec(), quantized: part.to_vec() }).collect();
        let moments: Vec<Moments> = parts.iter().map(|part| moments(part, size)).collect();
        let weights: Vec<&[f32]> = weights.chunks(rows * size).collect();
        let decibels = |statistics: Vec<Statistics>| {
            let groups: Vec<Group> = statistics
                .into_iter()
                .zip(&weights)
                .map(|(statistics, weights)| Group { weights, statistics })
                .collect();
            let problem = Problem::new(&groups, size, Grid::Trellis(code(2)));
            let prepared = prepare(&problem, false).unwrap();
            let found = assemble(&problem, &prepared, &trellis::solve(&problem, &prepared, code(2)));
            assert!(is_coded(&found, size, &code(2)), "{}", groups.len());
            found.ratio.decibels()
        };
        let thin = decibels(columns.iter().map(Statistics::Columns).collect());
        let full = decibels(moments.iter().map(Statistics::Moments).collect());
        assert!((thin - full).abs() < 0.5, "{groups}: {thin} {full}");
    }
}

/// A codebook takes over where columns are too short for a code to pay.
#[test]
fn few_rows_are_never_worse_than_a_codebook() {
    let size = 36;
    let moments = moments(&correlated(800, size, 5), size);
    for rows in [1, 2, 3, 8, 11] {
        let weights = noise(rows * size, 6 + rows as u64);
        let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
        let trellis = solve(&Problem::new(&groups, size, Grid::Trellis(code(2))));
        let quick = ClosedForm { quick: true, ..ClosedForm::default() };
        let codebook = quick.solve(&Problem::new(&groups, size, Grid::Codebook(2))).unwrap();
        assert!(trellis.ratio.noise <= codebook.ratio.noise, "{rows}");
        let mut entries = trellis.integers.clone();
        entries.sort_unstable();
        entries.dedup();
        assert!(is_coded(&trellis, size, &code(2)) || entries.len() <= 4, "{rows}");
    }
}

#[test]
fn rows_of_zeros_and_limits_of_scales() {
    let (size, rows) = (20, 16);
    let moments = moments(&correlated(300, size, 8), size);
    let mut weights = noise(rows * size, 9);
    weights[3 * size..4 * size].fill(0.0);
    let groups = [Group { weights: &weights, statistics: Statistics::Moments(&moments) }];
    let mut least = vec![0.0; rows];
    least[5] = 0.25;
    let problem = Problem { least_scales: &least, ..Problem::new(&groups, size, Grid::Trellis(code(2))) };
    let solution = solve(&problem);
    assert!(is_coded(&solution, size, &code(2)));
    let others = solution.scales.iter().enumerate().filter(|(row, _)| ![3, 5].contains(row)).map(|(_, s)| *s);
    let smallest = others.fold(f32::INFINITY, f32::min);
    assert!(solution.scales[3] < 1e-4 * smallest && solution.scales[3] > 0.0, "{:?}", solution.scales);
    assert!(solution.scales[5] >= 0.25);
}
