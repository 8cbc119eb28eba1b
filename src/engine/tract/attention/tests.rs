//! What the engine makes of `Attention`.

use crate::data::{Array, ArrayData};
use crate::engine::Backend;
use crate::engine::tract::Tract;
use msq_passes::ir;

/// Two heads, two queries, three keys, heads of two elements.
const QUERIES: [f32; 8] = [0.5, -1.0, 2.0, 0.25, 1.5, 1.0, -0.5, 3.0];
const KEYS: [f32; 12] = [1.0, 0.5, -1.0, 2.0, 0.0, -0.5, 1.0, 1.0, -2.0, 0.5, 0.75, -1.0];
const VALUES: [f32; 12] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0];

/// What the formula says, by the places of elements: of a head, a position and an element.
fn expected(keys: usize, cap: f32, bias: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let mut result = Vec::new();
    for head in 0..2 {
        let shared = head * keys / 2;
        for query in 0..2 {
            let score = |key: usize| {
                let product: f32 =
                    (0..2).map(|at| QUERIES[head * 4 + query * 2 + at] * KEYS[shared * 6 + key * 2 + at]).sum();
                let score = product / 2.0_f32.sqrt();
                let capped = if cap == 0.0 { score } else { cap * (score / cap).tanh() };
                (capped + bias(head, query, key)).exp()
            };
            let scores = [0, 1, 2].map(score);
            let all: f32 = scores.iter().sum();
            for at in 0..2 {
                let sum: f32 = (0..3).map(|key| scores[key] * VALUES[shared * 6 + key * 2 + at]).sum();
                result.push(if all == 0.0 { 0.0 } else { sum / all });
            }
        }
    }
    result
}

/// From heads before positions to positions before heads.
fn joined(values: &[f32], heads: usize) -> Vec<f32> {
    let positions = values.len() / heads / 2;
    let element = |at: usize| {
        let (position, head, element) = (at / (heads * 2), at / 2 % heads, at % 2);
        values[head * positions * 2 + position * 2 + element]
    };
    (0..values.len()).map(element).collect()
}

fn run(inputs: &str, node: &str, arrays: &[Array]) -> Vec<f32> {
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 23]>\n g ({inputs}) => (float[N] y)\n\
         <float[2,3] added = {{0.0, 1.0, -0.5, 2.0, -1.0, 0.25}}>\n{{\n{node}\n}}"
    );
    let model = ir::import(ir::text::parse(&text).unwrap()).unwrap();
    let shapes: Vec<Vec<usize>> = arrays.iter().map(|array| array.shape().to_vec()).collect();
    let plan = Tract.load(&model, &shapes).unwrap();
    let outputs = plan.session().unwrap().run(arrays).unwrap();
    outputs[0].value().to_f32().unwrap()
}

fn floats(shape: &[usize], values: &[f32]) -> Array {
    Array::from_f32(shape.to_vec(), values.to_vec()).unwrap()
}

/// With an axis of heads.
fn split(node: &str, mask: Option<(&str, Array)>) -> Vec<f32> {
    let mut arrays =
        vec![floats(&[1, 2, 2, 2], &QUERIES), floats(&[1, 2, 3, 2], &KEYS), floats(&[1, 2, 3, 2], &VALUES)];
    let mut inputs = "float[1,2,2,2] q, float[1,2,3,2] k, float[1,2,3,2] v".to_owned();
    if let Some((declared, mask)) = mask {
        inputs = format!("{inputs}, {declared} mask");
        arrays.push(mask);
    }
    run(&inputs, node, &arrays)
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32]) {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?}\n{expected:?}");
}

fn booleans(shape: &[usize], values: &[bool]) -> Array {
    Array::new(shape.to_vec(), ArrayData::Bool(values.to_vec())).unwrap()
}

#[test]
fn masks_hide_or_add() {
    let hidden = |_: usize, _: usize, key: usize| if key == 1 { f32::NEG_INFINITY } else { 0.0 };
    let mask = booleans(&[1, 1, 1, 3], &[true, false, true]);
    let found = split("y = Attention (q, k, v, mask)", Some(("bool[1,1,1,3]", mask)));
    assert_near(&found, &expected(2, 0.0, hidden));
    let mask = floats(&[1, 1, 1, 3], &[0.0, f32::NEG_INFINITY, 0.0]);
    let found = split("y = Attention (q, k, v, mask)", Some(("float[1,1,1,3]", mask)));
    assert_near(&found, &expected(2, 0.0, hidden));
    let added = [[0.0, 1.0, -0.5], [2.0, -1.0, 0.25]];
    let found = split("y = Attention (q, k, v, added)", None);
    assert_near(&found, &expected(2, 0.0, |_, query, key| added[query][key]));
}

/// A query that may look at nothing, and one that could only look at what comes later.
#[test]
fn what_sees_nothing_is_zero() {
    let values = [false, true, true, false, false, false];
    for causal in ["", " <is_causal = 1>"] {
        let node = format!("y = Attention{causal} (q, k, v, mask)");
        let bias = |_: usize, query: usize, key: usize| {
            let later = !causal.is_empty() && key > query;
            if values[query * 3 + key] && !later { 0.0 } else { f32::NEG_INFINITY }
        };
        let found = split(&node, Some(("bool[2,3]", booleans(&[2, 3], &values))));
        assert_near(&found, &expected(2, 0.0, bias));
        let mask = values.map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY });
        let found = split(&node, Some(("float[2,3]", floats(&[2, 3], &mask))));
        assert_near(&found, &expected(2, 0.0, bias));
    }
}

#[test]
fn softcap_and_what_comes_later() {
    let later = |_: usize, query: usize, key: usize| if key > query { f32::NEG_INFINITY } else { 0.0 };
    let found = split("y = Attention <softcap = 0.75> (q, k, v)", None);
    assert_near(&found, &expected(2, 0.75, |_, _, _| 0.0));
    let found = split("y = Attention <softcap = 0.75, is_causal = 1> (q, k, v)", None);
    assert_near(&found, &expected(2, 0.75, later));
}

/// Which keys a query sees by its place among them.
fn window(past: usize, before: usize, behind: usize) -> impl Fn(usize, usize, usize) -> f32 {
    move |_, query, key| {
        let sees = key + before >= query + past && key <= query + past + behind;
        if sees { 0.0 } else { f32::NEG_INFINITY }
    }
}

#[test]
fn windows() {
    let found = split("y = Attention <left_window_size = 0, is_causal = 1> (q, k, v)", None);
    assert_near(&found, &expected(2, 0.0, window(0, 0, 0)));
    let found = split("y = Attention <left_window_size = 0, right_window_size = 1> (q, k, v)", None);
    assert_near(&found, &expected(2, 0.0, window(0, 0, 1)));
    let found = split("y = Attention <left_window_size = -1, right_window_size = 0> (q, k, v)", None);
    assert_near(&found, &expected(2, 0.0, window(0, 9, 0)));
    let mask = booleans(&[2, 3], &[true, false, true, true, false, true]);
    let found = split("y = Attention <left_window_size = 0, is_causal = 1> (q, k, v, mask)", Some(("bool[2,3]", mask)));
    // The second query sees nothing.
    let seen = |_: usize, query: usize, key: usize| if query + key == 0 { 0.0 } else { f32::NEG_INFINITY };
    assert_near(&found, &expected(2, 0.0, seen));
}

#[test]
fn the_past_comes_before() {
    let cut = |values: &[f32], from: usize, to: usize| [&values[from..to], &values[6 + from..6 + to]].concat();
    let arrays = [
        floats(&[1, 2, 2, 2], &QUERIES),
        floats(&[1, 2, 2, 2], &cut(&KEYS, 2, 6)),
        floats(&[1, 2, 2, 2], &cut(&VALUES, 2, 6)),
        floats(&[1, 2, 1, 2], &cut(&KEYS, 0, 2)),
        floats(&[1, 2, 1, 2], &cut(&VALUES, 0, 2)),
    ];
    let inputs = "float[1,2,2,2] q, float[1,2,2,2] k, float[1,2,2,2] v, float[1,2,1,2] a, float[1,2,1,2] b";
    let found = run(inputs, "y = Attention <is_causal = 1> (q, k, v, , a, b)", &arrays);
    assert_near(&found, &expected(2, 0.0, window(1, 9, 0)));
    let node = "y = Attention <is_causal = 1, left_window_size = 0> (q, k, v, , a, b)";
    assert_near(&run(inputs, node, &arrays), &expected(2, 0.0, window(1, 0, 0)));
}

/// Values inside a graph that state no types.
#[test]
fn shapes_that_are_not_known() {
    let before = "m = Neg (q)  a = Neg (m)  n = Neg (k)  b = Neg (n)";
    let found = split(&format!("{before}  y = Attention <softcap = 0.75> (a, b, v)"), None);
    assert_near(&found, &expected(2, 0.75, |_, _, _| 0.0));
    let arrays = [floats(&[1, 2, 4], &joined(&QUERIES, 2)), floats(&[1, 3, 2], &KEYS[..6])];
    let arrays = [&arrays[..], &[floats(&[1, 3, 2], &VALUES[..6])]].concat();
    let inputs = "float[1,2,4] q, float[1,3,2] k, float[1,3,2] v";
    let node = "y = Attention <q_num_heads = 2, kv_num_heads = 1, softcap = 0.75> (a, b, v)";
    let found = run(inputs, &format!("{before}  {node}"), &arrays);
    assert_near(&found, &joined(&expected(1, 0.75, |_, _, _| 0.0), 2));
}

/// Four heads of queries share two of keys and values, of shapes that the graph does not state.
#[test]
fn heads_that_are_shared_unknown_to_the_graph() {
    let twice = |values: &[f32]| values.chunks(4).flat_map(|head| [head, head].concat()).collect::<Vec<f32>>();
    let arrays =
        [floats(&[1, 4, 2, 2], &twice(&QUERIES)), floats(&[1, 2, 3, 2], &KEYS), floats(&[1, 2, 3, 2], &VALUES)];
    let inputs = "float[1,4,2,2] q, float[1,2,3,2] k, float[1,2,3,2] v";
    let before = "m = Neg (q)  a = Neg (m)  n = Neg (k)  b = Neg (n)  o = Neg (v)  c = Neg (o)";
    let found = run(inputs, &format!("{before}  y = Attention <softcap = 0.75> (a, b, c)"), &arrays);
    assert_near(&found, &twice(&expected(2, 0.75, |_, _, _| 0.0)));
}

/// Two heads of queries share one of keys and values; all in three axes.
#[test]
fn heads_in_one_axis() {
    let arrays = [
        floats(&[1, 2, 4], &joined(&QUERIES, 2)),
        floats(&[1, 3, 2], &KEYS[..6]),
        floats(&[1, 3, 2], &VALUES[..6]),
        booleans(&[1, 1, 1, 3], &[true, true, false]),
    ];
    let inputs = "float[1,2,4] q, float[1,3,2] k, float[1,3,2] v, bool[1,1,1,3] mask";
    let node = "y = Attention <q_num_heads = 2, kv_num_heads = 1> (q, k, v, mask)";
    let bias = |_: usize, _: usize, key: usize| if key == 2 { f32::NEG_INFINITY } else { 0.0 };
    assert_near(&run(inputs, node, &arrays), &joined(&expected(1, 0.0, bias), 2));
}

/// With all keys and values as weights of one: the softmax is what it is of the scores.
#[test]
fn scores_are_handed_out() {
    let shares = |mode: u8| {
        let attention =
            format!("t, , , s = Attention <softcap = 0.75, qk_matmul_output_mode = {mode}> (q, k, v, added)");
        match mode {
            2 => format!("{attention}\n w = Softmax <axis = -1> (s)\n y = MatMul (w, v)"),
            1 => format!("{attention}\n a = Add (s, added)\n w = Softmax <axis = -1> (a)\n y = MatMul (w, v)"),
            _ => format!("{attention}\n y = MatMul (s, v)"),
        }
    };
    let added = [[0.0, 1.0, -0.5], [2.0, -1.0, 0.25]];
    for mode in [1, 2, 3] {
        assert_near(&split(&shares(mode), None), &expected(2, 0.75, |_, query, key| added[query][key]));
    }
}
