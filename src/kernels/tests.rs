//! Against convolutions and sums written out.

use super::*;
use msq_passes::analysis::Layer;
use msq_passes::ir;

/// Values between −1 and 1, different for each seed.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| (i.wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761) ^ seed) >> 8;
    (0..count as u32).map(|i| mix(i.wrapping_mul(97).wrapping_add(mix(i))) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn layer(input: &str, weight: &str, output: &str, node: &str) -> (ir::Model, Layer) {
    let count: usize = weight.split(',').map(|d| d.parse::<usize>().unwrap()).product();
    let zeros = vec!["0"; count].join(", ");
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]>\ng (float[{input}] x) => (float[{output}] y)\n<float[{weight}] w = {{{zeros}}}>\n{{ y = {node} }}"
    );
    let model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
    let layer = msq_passes::analysis::layers(&model).remove(0);
    (model, layer)
}

fn geometry(input: &str, weight: &str, output: &str, node: &str) -> Result<Geometry, KernelError> {
    let (model, layer) = layer(input, weight, output, node);
    Geometry::new(&layer, model.graph.node(layer.node))
}

/// W·unfold(x), `[N, G·O, P]`.
fn through_columns(geometry: &Geometry, weight: &[f32], x: &[f32], shape: &[usize]) -> Vec<f32> {
    let unfolded = Unfolded::new(geometry, x, shape, 0, Sampling::ALL).unwrap();
    let (samples, all) = (shape[0], unfolded.positions);
    let positions = all / samples;
    let mut result = Vec::new();
    for sample in 0..samples {
        for group in 0..geometry.groups() {
            let rows = geometry.rows(weight, group);
            for row in rows.chunks(geometry.inputs()) {
                for p in sample * positions..(sample + 1) * positions {
                    let column = |k: usize| unfolded.values[(group * geometry.inputs() + k) * all + p];
                    result.push(row.iter().enumerate().map(|(k, w)| w * column(k)).sum());
                }
            }
        }
    }
    result
}

/// A convolution as the standard writes it, over three dimensions.
struct Naive {
    input: [usize; 5],
    weight: [usize; 5],
    output: [usize; 3],
    groups: usize,
    strides: [usize; 3],
    dilations: [usize; 3],
    before: [usize; 3],
}

impl Naive {
    fn run(&self, x: &[f32], w: &[f32]) -> Vec<f32> {
        let [samples, channels, ..] = self.input;
        let [outputs, part, ..] = self.weight;
        let grid = |size: [usize; 3]| {
            (0..size[0]).flat_map(move |a| (0..size[1]).flat_map(move |b| (0..size[2]).map(move |c| [a, b, c])))
        };
        let kernel = [self.weight[2], self.weight[3], self.weight[4]];
        let mut result = Vec::new();
        for (n, o) in (0..samples).flat_map(|n| (0..outputs).map(move |o| (n, o))) {
            for at in grid(self.output) {
                let mut sum = 0.0;
                for c in 0..part {
                    let channel = o / (outputs / self.groups) * part + c;
                    for (t, tap) in grid(kernel).enumerate() {
                        let place = |i: usize| {
                            (at[i] * self.strides[i] + tap[i] * self.dilations[i])
                                .checked_sub(self.before[i])
                                .filter(|&p| p < self.input[2 + i])
                        };
                        let (Some(a), Some(b), Some(d)) = (place(0), place(1), place(2)) else { continue };
                        let index =
                            (((n * channels + channel) * self.input[2] + a) * self.input[3] + b) * self.input[4] + d;
                        sum += x[index] * w[(o * part + c) * kernel.iter().product::<usize>() + t];
                    }
                }
                result.push(sum);
            }
        }
        result
    }
}

fn check(naive: &Naive, rank: usize, attributes: &str) {
    let list = |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let flat = |sizes: [usize; 5]| [&sizes[..2], &sizes[5 - rank..]].concat();
    let (input, weight) = (flat(naive.input), flat(naive.weight));
    let output = [&[naive.input[0], naive.weight[0]], &naive.output[3 - rank..]].concat();
    let node = format!("Conv<{attributes}>(x, w)");
    let geometry = geometry(&list(&input), &list(&weight), &list(&output), &node).unwrap();
    let (x, w) = (values(input.iter().product(), 1), values(weight.iter().product(), 2));
    let (found, expected) = (through_columns(&geometry, &w, &x, &input), naive.run(&x, &w));
    assert_eq!(found.len(), expected.len(), "{attributes}");
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-4, "{attributes}: {a} {b}");
    }
}

#[test]
fn groups_strides_dilations_and_uneven_pads() {
    let naive = Naive {
        input: [2, 4, 1, 7, 9],
        weight: [6, 2, 1, 3, 2],
        output: [1, 4, 8],
        groups: 2,
        strides: [1, 2, 1],
        dilations: [1, 1, 2],
        before: [0, 2, 0],
    };
    check(&naive, 2, "group: int = 2, strides: ints = [2, 1], dilations: ints = [1, 2], pads: ints = [2, 0, 0, 1]");
}

#[test]
fn depthwise_with_automatic_pads() {
    let naive = |before| Naive {
        input: [1, 3, 1, 6, 5],
        weight: [3, 1, 1, 3, 3],
        output: [1, 3, 3],
        groups: 3,
        strides: [1, 2, 2],
        dilations: [1; 3],
        before,
    };
    check(&naive([0, 0, 1]), 2, "group: int = 3, strides: ints = [2, 2], auto_pad: string = \"SAME_UPPER\"");
    check(&naive([0, 1, 1]), 2, "group: int = 3, strides: ints = [2, 2], auto_pad: string = \"SAME_LOWER\"");
}

#[test]
fn one_and_three_dimensions() {
    let line = Naive {
        input: [2, 3, 1, 1, 11],
        weight: [4, 3, 1, 1, 4],
        output: [1, 1, 5],
        groups: 1,
        strides: [1, 1, 2],
        dilations: [1, 1, 1],
        before: [0, 0, 1],
    };
    check(&line, 1, "strides: ints = [2], pads: ints = [1, 0]");
    let space = Naive {
        input: [1, 2, 4, 5, 6],
        weight: [3, 2, 2, 3, 2],
        output: [3, 3, 6],
        groups: 1,
        strides: [1; 3],
        dilations: [1; 3],
        before: [0, 0, 1],
    };
    check(&space, 3, "pads: ints = [0, 0, 1, 0, 0, 0]");
}

#[test]
fn products_of_sequences() {
    let (x, w) = (values(2 * 5 * 3, 3), values(12, 4));
    let matmul = geometry("2,5,3", "3,4", "2,5,4", "MatMul(x, w)").unwrap();
    assert_eq!((matmul.groups(), matmul.outputs(), matmul.inputs()), (1, 4, 3));
    let rows = matmul.rows(&w, 0);
    assert_eq!(rows[3 + 2], w[2 * 4 + 1]);
    let mut back = vec![0.0; 12];
    matmul.put_rows(&rows, 0, &mut back);
    assert_eq!(back, w);
    let unfolded = Unfolded::new(&matmul, &x, &[2, 5, 3], 0, Sampling::ALL).unwrap();
    assert_eq!(unfolded.positions, 10);
    assert_eq!(unfolded.values[10 + 7], x[7 * 3 + 1]);
    let gemm = geometry("2,3", "4,3", "2,4", "Gemm<transB: int = 1>(x, w)").unwrap();
    assert_eq!(gemm.rows(&w, 0), w);
}

#[test]
fn what_is_not_supported_has_a_reason() {
    let reason = |input, weight, output, node| geometry(input, weight, output, node).unwrap_err().to_string();
    assert_eq!(reason("2,3", "4,2", "4,3", "MatMul(w, x)"), "the weight is the left operand");
    assert_eq!(reason("3,2", "3,4", "2,4", "Gemm<transA: int = 1>(x, w)"), "the activation is transposed");
    assert_eq!(reason("2,2,3", "2,3,4", "2,2,4", "MatMul(x, w)"), "a weight of rank 3 is no matrix");
    let transposed = reason("1,2,3,3", "2,3,1,1", "1,3,3,3", "ConvTranspose(x, w)");
    assert_eq!(transposed, "transposed convolutions are not supported");
    let geometry = geometry("1,2,4,4", "3,2,3,3", "1,3,2,2", "Conv(x, w)").unwrap();
    for shape in [&[1, 3, 4, 4][..], &[1, 2, 2, 2], &[1, 2, 16], &[]] {
        let x = vec![0.0; shape.iter().product()];
        assert!(Unfolded::new(&geometry, &x, shape, 0, Sampling::ALL).is_err(), "{shape:?}");
    }
}

#[test]
fn samples_complement_each_other() {
    let geometry = geometry("1,1,8,8", "1,1,1,1", "1,1,8,8", "Conv(x, w)").unwrap();
    let x: Vec<f32> = (0..64_u8).map(f32::from).collect();
    let sampling = Sampling { stride: 4, least: 1 };
    let taken = |sample| Unfolded::new(&geometry, &x, &[1, 1, 8, 8], sample, sampling).unwrap().values;
    // 4 and a width of 8 have common factors; 5 has none.
    assert_eq!(taken(1)[..3], [3.0, 8.0, 13.0]);
    let mut all: Vec<f32> = (0..8).flat_map(taken).collect();
    all.sort_by(f32::total_cmp);
    all.dedup();
    assert_eq!(all, x);
    let few = Unfolded::new(&geometry, &x, &[1, 1, 8, 8], 0, Sampling { stride: 1000, least: 16 }).unwrap();
    assert_eq!(few.positions, 22);
}

fn gram(geometry: &Geometry) -> Gram {
    Gram::new(geometry.clone(), Sampling { stride: 3, least: 4 }).unwrap()
}

/// Moments against sums written out.
fn check_moments(geometry: &Geometry, shape: &[usize]) {
    let length = shape.iter().product();
    let (x, y) = (values(length, 5), values(length, 6));
    let mut gram = gram(geometry);
    gram.observe(0, &x, &x, shape, None).unwrap();
    gram.observe(shape[0], &x, &y, shape, None).unwrap();
    let sampling = Sampling { stride: 3, least: 4 };
    let columns = |v: &[f32], first| Unfolded::new(geometry, v, shape, first, sampling).unwrap();
    let pairs = [(columns(&x, 0), columns(&x, 0)), (columns(&x, shape[0]), columns(&y, shape[0]))];
    let size = geometry.inputs();
    for (group, moments) in gram.finish().into_iter().enumerate() {
        let cross = moments.cross.as_ref().unwrap();
        for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
            let mut sums = [0.0; 2];
            for (float, quantized) in &pairs {
                let row = |c: &Unfolded, k: usize| c.values[(group * size + k) * c.positions..][..c.positions].to_vec();
                let dot = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                sums[0] += dot(row(quantized, i), row(quantized, j));
                sums[1] += dot(row(float, i), row(quantized, j));
            }
            assert!((f64::from(moments.product[i * size + j]) - sums[0]).abs() < 1e-3, "H {group} {i} {j}");
            assert!((f64::from(cross[i * size + j]) - sums[1]).abs() < 1e-3, "C {group} {i} {j}");
        }
        assert_eq!(moments.count as usize, pairs.iter().map(|p| p.0.positions).sum::<usize>());
        let sum: f64 = pairs
            .iter()
            .map(|p| {
                p.0.values[group * size * p.0.positions..][..p.0.positions].iter().map(|&v| f64::from(v)).sum::<f64>()
            })
            .sum();
        assert!((moments.float_sum[0] - sum).abs() < 1e-3);
    }
}

#[test]
fn moments_are_sums_of_products() {
    let pads = "pads: ints = [1, 1, 1, 1]";
    check_moments(&geometry("2,3,9,9", "4,3,3,3", "2,4,9,9", &format!("Conv<{pads}>(x, w)")).unwrap(), &[2, 3, 9, 9]);
    check_moments(
        &geometry("1,60,9,9", "6,20,3,3", "1,6,9,9", &format!("Conv<group: int = 3, {pads}>(x, w)")).unwrap(),
        &[1, 60, 9, 9],
    );
    check_moments(
        &geometry("2,4,7,7", "4,1,3,3", "2,4,7,7", &format!("Conv<group: int = 4, {pads}>(x, w)")).unwrap(),
        &[2, 4, 7, 7],
    );
    check_moments(&geometry("9,50", "50,3", "9,3", "MatMul(x, w)").unwrap(), &[9, 50]);
}

#[test]
fn same_bits_on_any_number_of_threads() {
    let geometry = geometry("1,30,12,12", "4,30,3,3", "1,4,10,10", "Conv(x, w)").unwrap();
    let shard = |shard: u32| {
        let mut part = gram(&geometry);
        let (x, y) = (values(30 * 144, shard), values(30 * 144, 100 + shard));
        part.observe(shard as usize, &x, if shard.is_multiple_of(2) { &x } else { &y }, &[1, 30, 12, 12], None)
            .unwrap();
        part
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut all = gram(&geometry);
            (0..4).for_each(|i| all.merge(shard(i)).unwrap());
            all.finish()
        })
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn long_columns_are_declined() {
    // A prime: there are no equal blocks.
    let geometry = geometry("1,5003", "5003,1", "1,1", "MatMul(x, w)").unwrap();
    let error = Gram::new(geometry, Sampling::ALL).unwrap_err();
    assert_eq!(error, KernelError::TooLarge { size: 5003, limit: 4096 });
}

/// Of longer columns the moments are those of layers that read a part each.
#[test]
fn long_columns_are_cut_into_blocks() {
    let whole = geometry("1,5000", "5000,1", "1,1", "MatMul(x, w)").unwrap();
    let part = geometry("1,2500", "2500,1", "1,1", "MatMul(x, w)").unwrap();
    let (x, y) = (values(3 * 5000, 1), values(3 * 5000, 2));
    let mut gram = Gram::new(whole, Sampling::ALL).unwrap();
    gram.observe(0, &x, &y, &[3, 5000], None).unwrap();
    assert_eq!(gram.blocks(), 2);
    let found = gram.finish();
    for (block, found) in found.iter().enumerate() {
        let cut = |values: &[f32]| -> Vec<f32> {
            values.chunks(5000).flat_map(|row| &row[2500 * block..2500 * (block + 1)]).copied().collect()
        };
        let mut own = Gram::new(part.clone(), Sampling::ALL).unwrap();
        own.observe(0, &cut(&x), &cut(&y), &[3, 2500], None).unwrap();
        assert_eq!(*found, own.finish()[0]);
    }
    assert_eq!(found.len(), 2);
}

/// What a sampler keeps of so many samples, added in shards of so many.
fn sampled(geometry: &Geometry, shape: &[usize], samples: usize, shard: usize) -> Vec<Columns> {
    let length = shape.iter().product();
    let mut all = ColumnSampler::new(geometry.clone(), samples);
    for first in (0..samples).step_by(shard) {
        let mut part = ColumnSampler::new(geometry.clone(), samples);
        for sample in first..(first + shard).min(samples) {
            let [x, y] = [2 * sample, 2 * sample + 1].map(|seed| values(length, seed as u32));
            part.observe(sample, &x, &y, shape, None).unwrap();
        }
        all.merge(part).unwrap();
    }
    all.finish()
}

#[test]
fn sampled_columns_are_unfolded_ones() {
    let conv = "Conv<group: int = 2, pads: ints = [1, 1, 1, 1]>(x, w)";
    let cases = [
        ("1,4,9,9", "6,2,3,3", "1,6,9,9", conv, vec![1, 4, 9, 9]),
        ("1,7,5", "5,3", "1,7,3", "MatMul(x, w)", vec![1, 7, 5]),
    ];
    for (input, weight, output, node, shape) in cases {
        let geometry = geometry(input, weight, output, node).unwrap();
        let (samples, size) = (3, geometry.inputs());
        let found = sampled(&geometry, &shape, samples, samples);
        assert_eq!(found.len(), geometry.groups());
        // There is room for every position.
        for (group, columns) in found.iter().enumerate() {
            for (network, kept) in [&columns.float, &columns.quantized].into_iter().enumerate() {
                let mut expected = Vec::new();
                for sample in 0..samples {
                    let x = values(shape.iter().product(), (2 * sample + network) as u32);
                    let all = Unfolded::new(&geometry, &x, &shape, sample, Sampling::ALL).unwrap();
                    let column = |p| (0..size).map(move |k| (p, k));
                    let value = |(p, k): (usize, usize)| all.values[(group * size + k) * all.positions + p];
                    expected.extend((0..all.positions).flat_map(column).map(value));
                }
                assert_eq!(kept, &expected, "{node} group {group}");
            }
            assert_eq!(columns.count() * size, columns.float.len());
            let mean: f32 = columns.float.iter().step_by(size).sum::<f32>() / columns.count() as f32;
            assert!((columns.means().float[0] - f64::from(mean)).abs() < 1e-5);
        }
        assert_eq!(found, sampled(&geometry, &shape, samples, 1), "{node}: shards");
    }
}

/// How many columns of constant samples are kept.
fn kept(geometry: &Geometry, shape: &[usize], samples: usize) -> usize {
    let x = vec![0.5; shape.iter().product()];
    let mut sampler = ColumnSampler::new(geometry.clone(), samples);
    (0..samples).for_each(|sample| sampler.observe(sample, &x, &x, shape, None).unwrap());
    let columns = &sampler.finish()[0];
    assert_eq!((columns.float.len(), columns.quantized.len()), (columns.count() * columns.size, columns.float.len()));
    columns.count()
}

#[test]
fn samplers_keep_their_limits() {
    // 64 positions a sample and room for 16,384 columns: first fewer positions, then fewer samples. Steps are whole and
    // have no factor in common with the width, so that up to two thirds of the room may stay empty.
    let short = geometry("1,1,8,8", "1,1,1,1", "1,1,8,8", "Conv(x, w)").unwrap();
    assert_eq!(kept(&short, &[1, 1, 8, 8], 256), 16_384);
    for samples in [300, 1000, 10_000, 17_000, 40_000] {
        let count = kept(&short, &[1, 1, 8, 8], samples);
        assert!((5_461..=16_384).contains(&count), "{samples}: {count}");
    }
    // 2^24 values of 5,000 each.
    let long = geometry("1,5000", "5000,1", "1,1", "MatMul(x, w)").unwrap();
    let count = kept(&long, &[1, 5000], 4000);
    assert!((1_677..=3_355).contains(&count), "{count}");
    let merged = ColumnSampler::new(long, 1).merge(ColumnSampler::new(short, 1));
    assert_eq!(merged.unwrap_err(), KernelError::Merge);
}

/// Columns that are fewer than half as many as their values stay as they are; positions that count nowhere are not among
/// them.
#[test]
fn few_columns_are_kept_and_others_left_out() {
    let geometry = geometry("1,6,40", "40,3", "1,6,3", "MatMul(x, w)").unwrap();
    let (x, y) = (values(240, 1), values(240, 2));
    let keep = |element: usize| !(40..200).contains(&element);
    let observed = |quantized: &[f32]| {
        let mut parts = [0, 1].map(|_| Gram::new(geometry.clone(), Sampling::ALL).unwrap());
        parts[0].observe(0, &x, &x, &[1, 6, 40], Some(&keep)).unwrap();
        parts[1].observe(1, &x, quantized, &[1, 6, 40], Some(&keep)).unwrap();
        let [mut all, later] = parts;
        all.merge(later).unwrap();
        all
    };
    let kept = |values: &[f32]| [&values[..40], &values[200..]].concat();
    let found = observed(&y).finish_few().unwrap();
    assert_eq!(found[0].float, [kept(&x), kept(&x)].concat());
    assert_eq!(found[0].quantized, [kept(&x), kept(&y)].concat());
    let mut moments = Gram::new(geometry.clone(), Sampling::ALL).unwrap();
    moments.observe(0, &kept(&x), &kept(&x), &[1, 2, 40], None).unwrap();
    moments.observe(1, &kept(&x), &kept(&y), &[1, 2, 40], None).unwrap();
    assert_eq!(observed(&y).finish(), moments.finish());
    let mut many = Gram::new(geometry, Sampling::ALL).unwrap();
    (0..4).for_each(|sample| many.observe(sample, &x, &x, &[1, 6, 40], None).unwrap());
    assert!(many.finish_few().is_none());
}
