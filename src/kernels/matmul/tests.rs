use super::*;
use proptest::prelude::*;

/// Numbers that look random, the same in every run.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mixed = (0..count as u32).map(|at| (at ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761));
    mixed.map(|v| (v.rotate_left(13) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// What an axis belongs to: left operand, right operand, output.
const KINDS: [[bool; 3]; 6] = [
    [true, false, true],
    [true, false, true],
    [false, true, true],
    [false, true, true],
    [true, true, true],
    [true, true, false],
];

/// Tensors over the axes, each with its axes in an order of its own; returns axes and elements of each tensor.
fn tensors(lengths: &[(usize, usize)], orders: [u64; 3]) -> (Vec<Axis>, [usize; 3]) {
    let mut axes: Vec<[usize; 4]> = lengths.iter().map(|&(_, length)| [length, 0, 0, 0]).collect();
    let mut sizes = [1; 3];
    for tensor in 0..3 {
        let mut order: Vec<usize> = (0..axes.len()).filter(|&at| KINDS[lengths[at].0][tensor]).collect();
        order.sort_by_key(|&at| (at as u64 + 1).wrapping_mul(orders[tensor] | 1).rotate_left(17));
        for at in order {
            axes[at][tensor + 1] = sizes[tensor];
            sizes[tensor] *= axes[at][0];
        }
    }
    let axis = |[length, left, right, output]: [usize; 4]| Axis { length, left, right, output };
    (axes.into_iter().map(axis).collect(), sizes)
}

/// The sums as they are defined.
fn direct(axes: &[Axis], operands: [&[f32]; 2], size: usize) -> Vec<f64> {
    let mut output = vec![0.0; size];
    let all = |of: fn(&Axis) -> usize| places(axes, of);
    let [left, right, to] = [all(|axis| axis.left), all(|axis| axis.right), all(|axis| axis.output)];
    for ((left, right), to) in left.into_iter().zip(right).zip(to) {
        output[to] += f64::from(operands[0][left]) * f64::from(operands[1][right]);
    }
    output
}

fn run(product: &MatMul, operands: [&[f32]; 2], size: usize) -> Vec<f32> {
    let mut output = vec![f32::NAN; size];
    // What an earlier run left must not matter.
    let mut scratch = Scratch { rows: vec![f32::NAN; 10_000], columns: vec![f32::NAN; 10_000] };
    product.run(operands, &mut output, &mut scratch);
    output
}

/// Sums of so many products of numbers below 1 are those wanted: rounding grows with the number of partial sums, each
/// about as large as its square root.
#[track_caller]
fn assert_close(found: &[f32], wanted: &[f64], terms: usize, what: &dyn std::fmt::Debug) {
    let allowed = 1e-4 + 1e-6 * terms as f64;
    let wrong = found.iter().zip(wanted).position(|(a, b)| (f64::from(*a) - b).abs() >= allowed || a.is_nan());
    assert!(wrong.is_none() && found.len() == wanted.len(), "{wrong:?} of {what:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_those_of_the_definition(
        lengths in prop::collection::vec((0..KINDS.len(), prop_oneof![1..4_usize, 1..30_usize]), 1..6),
        orders in any::<[u64; 3]>(),
    ) {
        prop_assume!(lengths.iter().map(|(_, length)| length).product::<usize>() < 100_000);
        let (axes, sizes) = tensors(&lengths, orders);
        let (left, right) = (values(sizes[0], 1), values(sizes[1], 2));
        let wanted = direct(&axes, [&left, &right], sizes[2]);
        let Some(product) = MatMul::new(&axes, [None; 2]) else { return Ok(()) };
        let found = run(&product, [&left, &right], sizes[2]);
        let terms = axes.iter().filter(|axis| axis.output == 0).map(|axis| axis.length).product();
        assert_close(&found, &wanted, terms, &axes);
        // Constants give the same bits.
        for constants in [[Some(&left[..]), None], [None, Some(&right[..])], [Some(&left[..]), Some(&right[..])]] {
            let packed = MatMul::new(&axes, constants).unwrap();
            let operands = [0, 1].map(|at| if constants[at].is_some() { &[][..] } else { [&left[..], &right[..]][at] });
            prop_assert_eq!(&run(&packed, operands, sizes[2]), &found);
        }
    }
}

/// `[m, k]` times `[k, n]`.
fn matrices(m: usize, k: usize, n: usize) -> [Axis; 3] {
    let axis = |length, left, right, output| Axis { length, left, right, output };
    [axis(m, k, 0, n), axis(n, 0, 1, 1), axis(k, 1, n, 0)]
}

#[test]
fn long_and_large_products_are_those_of_the_definition() {
    for (m, k, n) in [(1, 1, 1), (1, 700, 130), (130, 600, 1), (7, 1100, 65), (190, 530, 33)] {
        let (left, right) = (values(m * k, 1), values(k * n, 2));
        let axes = matrices(m, k, n);
        let wanted = direct(&axes, [&left, &right], m * n);
        let product = MatMul::new(&axes, [None; 2]).unwrap();
        assert_close(&run(&product, [&left, &right], m * n), &wanted, k, &(m, k, n));
        let packed = MatMul::new(&axes, [None, Some(&right)]).unwrap();
        assert_eq!(run(&packed, [&left, &[]], m * n), run(&product, [&left, &right], m * n));
    }
}

#[test]
fn a_bias_is_added_before_bounds() {
    let (m, k, n) = (9, 20, 37);
    let (left, right) = (values(m * k, 1), values(k * n, 2));
    let axes = matrices(m, k, n);
    let sums = direct(&axes, [&left, &right], m * n);
    let product = MatMul::new(&axes, [None, Some(&right)]).unwrap();
    let activation = Activation::Clamp { low: -0.5, high: 1.0 };
    for (rows, columns, count) in [(0, 1, n), (1, 0, m), (0, 0, 1)] {
        let bias = values(count, 3);
        let addend = Addend { values: &bias, strides: &[(n, rows), (1, columns)] };
        let product = product.clone().with_bias(addend).unwrap().with_activation(activation);
        let with_bias =
            |(at, sum): (usize, &f64)| (sum + f64::from(bias[at / n * rows + at % n * columns])).clamp(-0.5, 1.0);
        let wanted: Vec<f64> = sums.iter().enumerate().map(with_bias).collect();
        assert_close(&run(&product, [&left, &[]], m * n), &wanted, k, &(rows, columns));
        // What is bounded is not added to.
        assert!(product.with_bias(addend).is_none());
    }
    let all = values(m * n, 4);
    assert!(product.with_bias(Addend { values: &all, strides: &[(n, n), (1, 1)] }).is_none());
}

#[test]
fn what_is_not_a_number_stays_where_it_is() {
    let axes = matrices(3, 2, 2);
    let left = [1.0, 2.0, f32::NAN, 0.0, f32::INFINITY, 1.0];
    let found = run(&MatMul::new(&axes, [None; 2]).unwrap(), [&left, &[1.0, 0.0, 0.0, 1.0]], 6);
    assert_eq!(format!("{found:?}"), "[1.0, 2.0, NaN, NaN, inf, NaN]");
}

#[test]
fn what_is_no_product_of_matrices_is_declined() {
    let axis = |length, left, right, output| Axis { length, left, right, output };
    assert!(MatMul::new(&matrices(3, 0, 2), [None; 2]).is_none());
    assert!(MatMul::new(&matrices(0, 3, 2), [None; 2]).is_none());
    // Element by element.
    assert!(MatMul::new(&[axis(5, 1, 1, 1), axis(3, 5, 5, 0)], [None; 2]).is_none());
    assert!(MatMul::new(&[axis(5, 0, 0, 1), axis(3, 1, 1, 0)], [None; 2]).is_none());
}
