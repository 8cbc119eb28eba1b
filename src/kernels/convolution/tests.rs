use super::*;
use proptest::prelude::*;

/// Numbers that look random, the same in every run.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mixed = (0..count as u32).map(|at| (at ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761));
    mixed.map(|v| (v.rotate_left(13) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The sum as it is defined.
fn direct(window: &Window, weights: &[f32], bias: &[f32], activation: Activation, input: &[f32]) -> Vec<f32> {
    let Window { inputs, outputs, groups, axes: [tall, wide] } = *window;
    let (per_group, kernel) = (inputs / groups, tall.kernel * wide.kernel);
    let mut all = Vec::new();
    for output in 0..outputs {
        let group = output / (outputs / groups);
        for y in 0..tall.output {
            for x in 0..wide.output {
                let mut sum = f64::from(bias[output]);
                for channel in 0..per_group {
                    for tap in 0..kernel {
                        let at = |axis: &Axis, out: usize, tap: usize| {
                            (out * axis.stride + tap * axis.dilation)
                                .checked_sub(axis.before)
                                .filter(|&at| at < axis.input)
                        };
                        let (row, column) = (at(&tall, y, tap / wide.kernel), at(&wide, x, tap % wide.kernel));
                        if let (Some(row), Some(column)) = (row, column) {
                            let plane = &input[(group * per_group + channel) * tall.input * wide.input..];
                            let weight = weights[(output * per_group + channel) * kernel + tap];
                            sum += f64::from(plane[row * wide.input + column]) * f64::from(weight);
                        }
                    }
                }
                all.push(match activation {
                    Activation::Identity => sum as f32,
                    Activation::Clamp { low, high } => (sum as f32).clamp(low, high),
                    Activation::Silu => (sum / (1.0 + (-sum).exp())) as f32,
                    Activation::Gate { shift, low, high, scale, offset } => {
                        (sum as f32) * (sum as f32 + shift).clamp(low, high) * scale + offset
                    }
                });
            }
        }
    }
    all
}

/// A convolution with weights that look random yields the sums of the definition.
#[track_caller]
fn assert_defined(window: Window, activation: Activation, tolerance: f32) {
    let (weights, bias) = (values(window.outputs * window.depth(), 1), values(window.outputs, 2));
    let input = values(window.input_len(), 3);
    let layer = Convolution::new(window, &weights, bias.clone()).unwrap().with_activation(activation);
    let mut found = vec![f32::NAN; window.output_len()];
    layer.run(&input, &mut found, &mut Scratch::default());
    let wanted = direct(&window, &weights, &bias, activation, &input);
    let wrong = found.iter().zip(&wanted).find(|(a, b)| (*a - *b).abs().total_cmp(&tolerance).is_ge());
    assert!(wrong.is_none(), "{wrong:?} by {window:?}");
}

fn axis() -> impl Strategy<Value = Axis> {
    (1..40_usize, 1..6_usize, 1..4_usize, 1..3_usize, 0..4_usize, 0..4_usize).prop_filter_map(
        "the kernel reaches beyond the input",
        |(input, kernel, stride, dilation, before, after)| {
            let free = (input + before + after).checked_sub((kernel - 1) * dilation + 1)?;
            Some(Axis { input, output: free / stride + 1, kernel, stride, dilation, before })
        },
    )
}

fn window() -> impl Strategy<Value = Window> {
    let channels = prop_oneof![
        (1..4_usize, 1..9_usize, 1..20_usize).prop_map(|(groups, i, o)| [groups, groups * i, groups * o]),
        (1..5_usize).prop_map(|groups| [groups, groups, groups]),
        (1..3_usize).prop_map(|i| [1, i, 37]),
    ];
    (channels, axis(), axis()).prop_map(|([groups, inputs, outputs], tall, wide)| {
        let pointwise = |axis: Axis| Axis { kernel: 1, stride: 1, before: 0, output: axis.input, ..axis };
        let axes = if wide.input % 3 == 0 { [pointwise(tall), pointwise(wide)] } else { [tall, wide] };
        Window { inputs, outputs, groups, axes }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_those_of_the_definition(window in window(), activation in 0..4_usize) {
        let weights = values(window.outputs * window.depth(), 1);
        let bias = values(window.outputs, 2);
        let input = values(window.input_len(), 3);
        let activation = [
            Activation::Identity,
            Activation::Clamp { low: -0.25, high: 0.5 },
            Activation::Silu,
            Activation::Gate { shift: 3.0, low: 0.0, high: 6.0, scale: 1.0 / 6.0, offset: 0.5 },
        ][activation];
        let layer = Convolution::new(window, &weights, bias.clone()).unwrap().with_activation(activation);
        let wanted = direct(&window, &weights, &bias, activation, &input);
        let mut scratch = Scratch::default();
        // What an earlier run left must not matter.
        scratch.planes.resize(100_000, f32::NAN);
        scratch.tile.resize(10_000, f32::NAN);
        let mut found = vec![f32::NAN; window.output_len()];
        layer.run(&input, &mut found, &mut scratch);
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            prop_assert!((found - wanted).abs() < 1e-4, "{at}: {found} instead of {wanted} by {window:?}");
        }
    }
}

#[test]
fn bands_do_not_change_bits() {
    let axis = |input| Axis { input, output: input, kernel: 3, stride: 1, dilation: 1, before: 1 };
    for groups in [1, 4] {
        let window = Window { inputs: 4, outputs: 4, groups, axes: [axis(37), axis(29)] };
        let weights = values(4 * window.depth(), 1);
        let layer = Convolution::new(window, &weights, values(4, 2)).unwrap();
        let input = values(window.input_len(), 3);
        let run = |layer: &Convolution| {
            let mut output = vec![0.0; window.output_len()];
            layer.run(&input, &mut output, &mut Scratch::default());
            output.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let mut narrow = layer.clone();
        narrow.planes = Planes::new(&window, 4 / groups, 500);
        assert!(narrow.planes.band() < layer.planes.band());
        assert_eq!(run(&narrow), run(&layer));
    }
}

/// Sums that are long, and weights that are many, are cut into parts that go on where the last ended.
#[test]
fn long_sums_are_those_of_the_definition() {
    for (inputs, outputs, side) in [(90, 70, 11), (130, 260, 7)] {
        let axis = Axis { input: side, output: side, kernel: 3, stride: 1, dilation: 1, before: 1 };
        let window = Window { inputs, outputs, groups: 1, axes: [axis; 2] };
        assert_defined(window, Activation::Clamp { low: -1.0, high: 8.0 }, 1e-3);
        assert!(window.depth() > 512);
    }
}

#[test]
fn not_a_number_stays_one() {
    let axes = [Axis::SINGLE, Axis { input: 9, output: 9, ..Axis::SINGLE }];
    let window = Window { inputs: 1, outputs: 1, groups: 1, axes };
    let activation = Activation::Clamp { low: 0.0, high: 6.0 };
    let layer = Convolution::new(window, &[1.0], vec![0.0]).unwrap().with_activation(activation);
    let mut input = vec![-1.0, 1.0, 7.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0, f32::NAN];
    let mut output = vec![0.0; 9];
    layer.run(&input.clone(), &mut output, &mut Scratch::default());
    input = vec![0.0, 1.0, 6.0, f32::NAN, 6.0, 0.0, 0.0, 0.0, f32::NAN];
    assert_eq!(format!("{output:?}"), format!("{input:?}"));
}

#[test]
fn silu_is_exact_to_rounding() {
    let count = 4001;
    let axes = [Axis::SINGLE, Axis { input: count, output: count, ..Axis::SINGLE }];
    let window = Window { inputs: 1, outputs: 1, groups: 1, axes };
    let layer = Convolution::new(window, &[1.0], vec![0.0]).unwrap().with_activation(Activation::Silu);
    let mut input: Vec<f32> = (0..count).map(|at| (at as f32 - 2000.0) * 0.051).collect();
    (input[0], input[1], input[2]) = (f32::NAN, f32::INFINITY, -0.0);
    let mut output = vec![0.0; count];
    layer.run(&input, &mut output, &mut Scratch::default());
    assert!(output[0].is_nan() && output[1] == f32::INFINITY && output[2] == 0.0);
    for (x, y) in input.iter().zip(&output).skip(3) {
        let wanted = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
        assert!((f64::from(*y) - wanted).abs() <= 4e-7 * wanted.abs() + 1e-34, "{x}: {y} instead of {wanted}");
    }
}

#[test]
fn weights_that_do_not_fit_are_declined() {
    let axes = [Axis::SINGLE; 2];
    let window = Window { inputs: 4, outputs: 6, groups: 2, axes };
    assert!(Convolution::new(window, &[0.0; 12], vec![0.0; 6]).is_some());
    assert!(Convolution::new(window, &[0.0; 11], vec![0.0; 6]).is_none());
    assert!(Convolution::new(window, &[0.0; 12], vec![0.0; 5]).is_none());
    let empty = Axis { input: 0, output: 0, ..Axis::SINGLE };
    assert!(Convolution::new(Window { axes: [Axis::SINGLE, empty], ..window }, &[0.0; 12], vec![0.0; 6]).is_none());
    assert!(Convolution::new(Window { groups: 4, ..window }, &[0.0; 6], vec![0.0; 6]).is_none());
}

/// Columns of one position, and narrow rows under many weights, fill vectors as well as wide rows do, and right.
#[test]
fn narrow_outputs_are_those_of_the_definition() {
    let axis = |input, kernel| Axis { input, output: input, kernel, stride: 1, dilation: 1, before: kernel / 2 };
    for axes in
        [[axis(50, 5), Axis::SINGLE], [axis(4, 3), axis(4, 3)], [axis(9, 3), axis(2, 3)], [axis(11, 1), axis(3, 3)]]
    {
        let window = Window { inputs: 5, outputs: 80, groups: 1, axes };
        assert_defined(window, Activation::Identity, 1e-4);
    }
}

/// Kernels that are longer than what lies behind the planes, where every output channel reads one input channel and where
/// it reads more.
#[test]
fn long_kernels_read_nothing_behind_their_input() {
    let long = |kernel, stride| Axis {
        input: 600,
        output: (600 - kernel) / stride + 1,
        kernel,
        stride,
        dilation: 1,
        before: 0,
    };
    let tall = Axis { input: 5, output: 3, kernel: 3, stride: 1, dilation: 1, before: 0 };
    for (groups, outputs) in [(1, 1), (3, 3), (1, 4)] {
        for axes in [[Axis::SINGLE, long(129, 1)], [Axis::SINGLE, long(300, 2)], [tall, long(257, 1)]] {
            let window = Window { inputs: groups, outputs, groups, axes };
            assert_defined(window, Activation::Identity, 1e-3);
        }
    }
}
