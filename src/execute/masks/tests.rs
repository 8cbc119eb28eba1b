use super::*;
use crate::data::ArrayData;
use msq_passes::ir::{import, text};

fn model(graph: &str) -> Model {
    let source = format!("<ir_version: 8, opset_import: [\"\": 17]>\n{graph}");
    import(text::parse(&source).unwrap()).unwrap()
}

fn flags(shape: &[usize], values: &[i64]) -> Array {
    Array::new(shape.to_vec(), ArrayData::I64(values.to_vec())).unwrap()
}

fn floats(shape: &[usize]) -> Array {
    Array::from_f32(shape.to_vec(), vec![0.5; shape.iter().product()]).unwrap()
}

/// Self-attention of two heads as `TorchScript` exports it: the mask becomes an addend, heads are split by Reshapes.
fn attention(mask: &str, form: &str) -> Model {
    model(&format!(
        "g (float[N,T,8] x, int64[N,T] {mask}) => (float[N,T,8] y, float[N,8] pooled)
        <float[8,8] wq = {{{zeros}}}, int64[4] heads = {{0,0,2,4}}, int64[3] flat = {{0,0,8}}, float one = {{1}},
         float huge = {{-10000}}, int64[2] last = {{1,2}}, int64[1] middle = {{1}}, float zero = {{0}}> {{
          f = Cast <to = 1> ({mask})
          u = Unsqueeze(f, last)
          {form}
          q = MatMul(x, wq)
          qh = Reshape(q, heads)
          qt = Transpose <perm = [0,2,1,3]> (qh)
          kt = Transpose <perm = [0,2,3,1]> (qh)
          s = MatMul(qt, kt)
          masked = Add(s, added)
          p = Softmax <axis = -1> (masked)
          c = MatMul(p, qt)
          ct = Transpose <perm = [0,2,1,3]> (c)
          y = Reshape(ct, flat)
          pooled = ReduceMean <axes = [1], keepdims = 0> (y)
        }}",
        zeros = ["0"; 64].join(", ")
    ))
}

#[test]
fn an_attention_mask_is_followed_through_heads() {
    let masks = Masks::of(&attention("flags", "i = Sub(one, u)\n added = Mul(i, huge)"));
    assert_eq!(masks.notes(), ["input `flags` is a mask: positions where it is 0 count nowhere"]);
    let inputs = [floats(&[1, 3, 8]), flags(&[1, 3], &[1, 1, 0])];
    let kept = masks.of_inputs(&inputs).unwrap();
    let positions = kept.of("q", &[1, 3, 8]).unwrap();
    assert_eq!((positions.inner, positions.keep.clone()), (8, vec![true, true, false]));
    assert_eq!(positions.retain(&(0..24).collect::<Vec<_>>()), (0..16).collect::<Vec<_>>());
    assert_eq!(kept.of("y", &[1, 3, 8]), Some(positions));
    let heads = kept.of("qt", &[1, 2, 3, 4]).unwrap();
    assert_eq!((heads.inner, heads.keep), (4, [true, true, false].repeat(2)));
    let scores = kept.of("masked", &[1, 2, 3, 3]).unwrap();
    assert_eq!(scores.inner, 1);
    assert_eq!(scores.keep[..9], [true, true, false, true, true, false, false, false, false]);
    // What has no positions any more, an unknown value and a shape that does not fit count as a whole.
    assert_eq!(kept.of("pooled", &[1, 8]), None);
    assert_eq!(kept.of("nothing", &[1, 3, 8]), None);
    assert_eq!(kept.of("q", &[1, 4, 8]), None);
}

#[test]
fn the_graph_says_which_elements_leave_out() {
    // In `src_key_padding_mask` of torch 1 stands for padding.
    let masks = Masks::of(&attention("padding_mask", "added = Mul(u, huge)"));
    assert_eq!(masks.notes(), ["input `padding_mask` is a mask: positions where it is 1 count nowhere"]);
    let chosen = Masks::of(&attention("m", "b = Cast <to = 9> (u)\n added = Where(b, zero, huge)"));
    assert_eq!(chosen.notes(), ["input `m` is a mask: positions where it is 0 count nowhere"]);
    // Token ids compared with that of padding.
    let ids = Masks::of(&attention("ids", "b = Equal(u, one)\n added = Where(b, huge, zero)"));
    assert_eq!(ids.notes(), ["positions where input `ids` is 1 are padding"]);
    let kept = ids.of_inputs(&[floats(&[2, 3, 8]), flags(&[2, 3], &[7, 1, 1, 9, 9, 1])]).unwrap();
    assert_eq!(kept.of("q", &[2, 3, 8]).unwrap().keep, [true, false, false, true, true, false]);
    let heads = kept.of("qt", &[2, 2, 3, 4]).unwrap();
    assert_eq!(heads.keep, [true, false, false, true, false, false, true, true, false, true, true, false]);
}

#[test]
fn what_is_no_mask() {
    // An image to be filled in, and a gate without a name that says more.
    let image = model("g (float[N,1,4,4] mask, float[N,1,4,4] x) => (float[N,1,4,4] y) { y = Mul(x, mask) }");
    assert!(Masks::of(&image).is_empty());
    let gate = model("g (float[N,4] gate, float[N,4] x) => (float[N,4] y) { y = Mul(x, gate) }");
    assert!(Masks::of(&gate).is_empty());
    // Elements that are no flags, nothing left out, and nothing left.
    let masks = Masks::of(&attention("flags", "i = Sub(one, u)\n added = Mul(i, huge)"));
    for values in [[1, 2, 0], [1, 1, 1], [0, 0, 0]] {
        assert!(masks.of_inputs(&[floats(&[1, 3, 8]), flags(&[1, 3], &values)]).is_none(), "{values:?}");
    }
}

#[test]
fn rows_of_all_samples_together_and_lengths() {
    let rows = model(
        "g (float[N,T,4] x, int64[N,T] attention_mask) => (float[R,4] y)
        <float[4,4] w = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, int64[2] flat = {-1, 4}> {
          r = Reshape(x, flat)
          y = Gemm(r, w)
        }",
    );
    let masks = Masks::of(&rows);
    let kept = masks.of_inputs(&[floats(&[2, 2, 4]), flags(&[2, 2], &[1, 0, 1, 1])]).unwrap();
    assert_eq!(kept.of("y", &[4, 4]).unwrap().keep, [true, false, true, true]);
    let speech = model(
        "g (float[N,3,T] x, int64[N] x_lengths) => (float[N,3,T] y)
        <float[3,3,3] w = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}> {
          y = Conv <kernel_shape = [3], pads = [1,1]> (x, w)
        }",
    );
    let masks = Masks::of(&speech);
    assert_eq!(masks.notes(), ["input `x_lengths` holds lengths: positions behind them count nowhere"]);
    let kept = masks.of_inputs(&[floats(&[1, 3, 5]), flags(&[1], &[3])]).unwrap();
    assert_eq!(kept.of("y", &[1, 3, 5]).unwrap().keep, [true, true, true, false, false].repeat(3));
}

/// Without a mask, what repeats at the ends is padding, of tokens and of features; what differs counts as it is.
#[test]
fn ends_that_repeat_are_padding() {
    let tokens = model("g (float[N,T,2] x) => (float[N,T,2] y) <float[2,2] w = {1, 0, 0, 1}> { y = MatMul(x, w) }");
    assert!(Masks::of(&tokens).is_empty());
    let masks = Masks::default().or_repeats(&tokens);
    let keep = |values: &[f32]| {
        let x = Array::from_f32(vec![1, values.len() / 2, 2], values.to_vec()).unwrap();
        let kept = masks.of_inputs(&[x]);
        kept.and_then(|kept| kept.of("y", &[1, values.len() / 2, 2])).map(|positions| positions.keep)
    };
    // Padding that is a little noisy, in front and behind.
    let padded = [9.0, 9.0, 9.01, 9.0, 1.0, 2.0, 3.0, -1.0, 5.0, 5.0, 5.0, 5.01, 5.01, 5.0];
    assert_eq!(keep(&padded), Some(vec![false, true, true, true, false, false, false]));
    assert_eq!(keep(&[1.0, 2.0, 3.0, -1.0, 2.0, 2.0]), None);
    // Silence all along says nothing.
    assert_eq!(keep(&[0.0; 8]), None);
    let ids = model(
        "g (int64[N,T] ids) => (float[N,T,2] y)
        <float[3,2] table = {1, 2, 3, 4, 5, 6}, float[2,2] w = {1, 0, 0, 1}> {
          e = Gather(table, ids)
          y = MatMul(e, w)
        }",
    );
    assert!(Masks::chosen(&ids, false).or_repeats(&ids).is_empty());
    let masks = Masks::default().or_repeats(&ids);
    let kept = masks.of_inputs(&[flags(&[1, 5], &[101, 102, 100, 100, 100])]).unwrap();
    assert_eq!(kept.of("y", &[1, 5, 2]).unwrap().keep, [true, true, false, false, false]);
}
