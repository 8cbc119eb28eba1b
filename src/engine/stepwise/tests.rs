use super::*;
use crate::engine::standard;
use msq_passes::ir::{import, text};

/// A model of operator set 17 with these inputs, outputs, constants and nodes. Types of outputs are left open.
fn model(inputs: &str, outputs: &str, constants: &str, nodes: &str) -> Model {
    let outputs = outputs.split(' ').map(|name| format!("float {name}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]>\ng ({inputs}) => ({outputs})\n<{constants}>\n{{\n{nodes}\n}}"
    );
    let mut proto = text::parse(&text).unwrap();
    for output in proto.graph.iter_mut().flat_map(|graph| &mut graph.output) {
        output.r#type = None;
    }
    import(proto).unwrap()
}

fn floats(values: &[f32]) -> Array {
    Array::from_f32(vec![values.len()], values.to_vec()).unwrap()
}

/// What a session yields for one input: the outputs, first by `run`, then by `show`, which have to be the same.
fn outputs(session: &mut dyn Session, input: &Array) -> Vec<Vec<f32>> {
    let ran = session.run(std::slice::from_ref(input)).unwrap();
    let ran: Vec<Vec<f32>> = ran.iter().map(|output| output.to_f32().unwrap()).collect();
    let mut shown = vec![Vec::new(); ran.len()];
    let visit = &mut |at: usize, output: &Output| {
        shown[at] = output.to_f32().unwrap();
        ControlFlow::Continue(())
    };
    session.show(std::slice::from_ref(input), visit).unwrap();
    assert_eq!(ran, shown);
    ran
}

fn session(model: &Model, length: usize) -> Box<dyn Session> {
    standard().load(model, &[vec![length]]).unwrap().session().unwrap()
}

/// As speech of a text: every value is repeated as often as another says, and the length is computed from that.
#[test]
fn lengths_that_values_say() {
    let nodes = "
        counts = Floor (x)
        whole = Cast <to = 7> (counts)
        ends = CumSum (whole, zero)
        total = ReduceMax <axes = [0], keepdims = 0> (ends)
        places = Range (zero, total, one)
        column = Unsqueeze (places, last)
        before = GreaterOrEqual (column, ends)
        counted = Cast <to = 7> (before)
        owner = ReduceSum <keepdims = 0> (counted, last)
        said = Gather (x, owner)
        padded = Pad (said, pads)
        y = Relu (padded)
        z = Neg (x)";
    let constants = "int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[2] pads = {0, 1}";
    let model = model("float[3] x", "y z", constants, nodes);
    assert!(shapes::depend_on_values(&model.graph));
    let mut session = session(&model, 3);
    for _ in 0..2 {
        assert_eq!(
            outputs(&mut *session, &floats(&[2.5, 0.5, 1.5])),
            [vec![2.5, 2.5, 1.5, 0.0], vec![-2.5, -0.5, -1.5]]
        );
        assert_eq!(outputs(&mut *session, &floats(&[0.0, 1.0, 0.0])), [vec![1.0, 0.0], vec![0.0, -1.0, 0.0]]);
    }
}

/// As the ends of detectors: boxes above a score, the best of those that overlap, filled up to a fixed number. There may be
/// a few boxes or none.
#[test]
fn boxes_that_are_left() {
    let nodes = "
        positive = Greater (x, zero)
        found = NonZero (positive)
        where = Squeeze (found, first)
        left = Gather (x, where)
        column = Unsqueeze (left, last)
        boxes = Mul (column, corners)
        images = Unsqueeze (boxes, first)
        scores = Unsqueeze (left, both)
        kept = NonMaxSuppression (images, scores, most, iou)
        places = Gather <axis = 1> (kept, two)
        best = Gather (left, places)
        count = Shape (best)
        missing = Sub (all, count)
        unread = Expand (best, missing)
        pads = Concat <axis = 0> (first, missing)
        y = Pad (best, pads)";
    let constants = "float zero = {0}, int64[1] first = {0}, int64[1] last = {1}, float[4] corners = {0, 0, 1, 1},
        int64[2] both = {0, 1}, int64[1] most = {5}, float[1] iou = {0.5}, int64 two = {2}, int64[1] all = {3}";
    let model = model("float[3] x", "y", constants, nodes);
    let mut session = session(&model, 3);
    for (fed, expected) in [
        ([2.0, 3.0, 2.9], [3.0, 2.0, 0.0]),
        ([-1.0, -2.0, -3.0], [0.0; 3]),
        ([2.0, -3.0, 5.0], [5.0, 2.0, 0.0]),
        ([-1.0, -2.0, 4.0], [4.0, 0.0, 0.0]),
    ] {
        assert_eq!(outputs(&mut *session, &floats(&fed)), [expected]);
    }
}

/// The branch is the one that the sample asks for, and what is in it has shapes that values say.
#[test]
fn branches_that_values_ask_for() {
    let nodes = "
        sum = ReduceSum <keepdims = 0> (x)
        c = Greater (sum, zero)
        t = If (c) <
            then_branch = a () => (float[n] p) {
                positive = Greater (x, zero)
                found = NonZero (positive)
                where = Squeeze (found, first)
                p = Gather (x, where)
            },
            else_branch = b () => (float[m] q) { q = Neg (x) }
        >
        y = Add (t, one)";
    let model = model("float[3] x", "y", "float zero = {0}, float one = {1}, int64[1] first = {0}", nodes);
    let mut session = session(&model, 3);
    assert_eq!(outputs(&mut *session, &floats(&[1.0, -0.5, 3.0])), [[2.0, 4.0]]);
    assert_eq!(outputs(&mut *session, &floats(&[1.0, -5.0, 3.0])), [[0.0, 6.0, -2.0]]);
    assert_eq!(outputs(&mut *session, &floats(&[1.0, 0.5, 3.0])), [[2.0, 1.5, 4.0]]);
}

/// Inputs, constants and a value twice may be outputs.
#[test]
fn every_kind_of_output() {
    let nodes = "t = NonZero (x)\n s = Cast <to = 1> (t)\n flat = Reshape (s, all)\n y = Add (flat, w)";
    let mut model = model("float[2] x", "y w x", "float w = {1.5}, int64[1] all = {-1}", nodes);
    let y = model.graph.find("y").unwrap();
    model.graph.add_output(y);
    let mut session = session(&model, 2);
    let expected = [vec![2.5], vec![1.5], vec![0.0, 4.0], vec![2.5]];
    assert_eq!(outputs(&mut *session, &floats(&[0.0, 4.0])), expected);
}

/// Which shape the loop leaves, the node behind it does not know beforehand.
#[test]
fn loops_are_run_before_what_reads_them() {
    let nodes = "
        n = Cast <to = 7> (x)
        all = ReduceSum <keepdims = 0> (n)
        last, rows = Loop (all, yes, x) <
            body = l (int64 i, bool go, float[2] v) => (bool on, float[2] sum, float[2] row) {
                on = Identity (go)
                sum = Add (v, v)
                row = Identity (v)
            }
        >
        count = Shape (rows)
        flat = Reshape (rows, list)
        y = Sub (flat, half)";
    let constants = "bool yes = {1}, int64[1] list = {-1}, float half = {0.5}";
    let model = model("float[2] x", "y last count", constants, nodes);
    let mut session = session(&model, 2);
    let expected = [vec![0.5, 0.5, 1.5, 1.5], vec![4.0, 4.0], vec![2.0, 2.0]];
    assert_eq!(outputs(&mut *session, &floats(&[1.0, 1.0])), expected);
}

/// The rest of a model runs up to a node that fails, which the error is of.
#[test]
fn what_fails_is_one_node() {
    let nodes = "found = NonZero (x)\n where = Squeeze (found, first)\n t = Gather (x, where)\n y = Reshape (t, two)";
    let model = model("float[3] x", "y", "int64[1] first = {0}, int64[1] two = {2}", nodes);
    let mut session = session(&model, 3);
    assert_eq!(outputs(&mut *session, &floats(&[1.0, 0.0, 3.0])), [[1.0, 3.0]]);
    assert!(session.run(&[floats(&[1.0, 2.0, 3.0])]).is_err());
    assert_eq!(outputs(&mut *session, &floats(&[0.0, 2.0, 3.0])), [[2.0, 3.0]]);
}

/// Whoever looks may end the run.
#[test]
fn a_run_ends_where_the_caller_says() {
    let nodes = "t = NonZero (x)\n s = Cast <to = 1> (t)\n y = Neg (s)\n z = Relu (s)";
    let model = model("float[2] x", "s y z", "int64 unread = {0}", nodes);
    let mut session = session(&model, 2);
    for _ in 0..2 {
        let mut seen = 0;
        let visit = &mut |_: usize, _: &Output| {
            seen += 1;
            ControlFlow::Break(())
        };
        session.show(&[floats(&[1.0, 2.0])], visit).unwrap();
        assert_eq!(seen, 1);
    }
}

/// Shapes that are computed from shapes alone are known beforehand, whatever operators do it.
#[test]
fn shapes_of_shapes_are_known() {
    let nodes = "
        s = Shape (x)
        n = Gather (s, zero)
        f = Cast <to = 1> (n)
        h = Mul (f, half)
        k = Cast <to = 7> (h)
        picked = ConstantOfShape (s)
        where = NonZero (picked)
        l = Unsqueeze (k, first)
        top, index = TopK (x, l)
        y = Relu (top)";
    let constants = "int64 zero = {0}, float half = {0.5}, int64[1] first = {0}";
    let known = model("float[4] x", "y", constants, nodes);
    assert!(!shapes::depend_on_values(&known.graph));
    let random = nodes.replace("k = Cast <to = 7> (h)", "r = RandomNormalLike (h)\n k = Cast <to = 7> (r)");
    assert!(shapes::depend_on_values(&model("float[4] x", "y", constants, &random).graph));
}

/// Turns end by the condition or by their number; a body may ask for other shapes in every turn, and have loops in it.
#[test]
fn loops_turn_by_turn() {
    let nodes = "
        start = Identity (x)
        last, sums = Loop (limit, yes, start) <
            body = l (int64 i, bool go, float[n] v) => (bool on, float[n] next, float sum) {
                more = Add (i, one)
                places = Range (zero, more, one)
                taken = Gather (x, places)
                sum = ReduceSum <keepdims = 0> (taken)
                inner = Loop (two, yes, v) <
                    body = m (int64 j, bool go2, float[m] u) => (bool on2, float[m] next2) {
                        on2 = Identity (go2)
                        next2 = Add (u, sum)
                    }
                >
                next = Identity (inner)
                on = Less (sum, most)
            }
        >
        y = Neg (sums)";
    let constants =
        "bool yes = {1}, int64 limit = {3}, int64 zero = {0}, int64 one = {1}, int64 two = {2}, float most = {5}";
    let model = model("float[3] x", "y last", constants, nodes);
    assert!(standard().unknown(&model).is_empty());
    let mut session = session(&model, 3);
    // Sums 1, 3, 6: all three turns.
    let all = [vec![-1.0, -3.0, -6.0], vec![21.0, 22.0, 23.0]];
    assert_eq!(outputs(&mut *session, &floats(&[1.0, 2.0, 3.0])), all);
    // The second sum is 6, so that there is no third turn.
    assert_eq!(outputs(&mut *session, &floats(&[2.0, 4.0, 8.0])), [vec![-2.0, -6.0], vec![18.0, 20.0, 24.0]]);
}

/// What no turn yields is empty, and a loop without an end is an error.
#[test]
fn loops_of_no_turns_and_without_end() {
    let nodes = "
        c = Greater (x, zero)
        flag = Squeeze (c, first)
        last, rows = Loop (, flag, x) <
            body = l (int64 i, bool go, float[1] v) => (bool on, float[1] next, float[1] row) {
                next = Sub (v, one)
                row = Identity (v)
                above = Greater (next, zero)
                on = Squeeze (above, first)
            }
        >
        flat = Reshape (rows, list)
        y = Add (flat, one)";
    let constants = "float zero = {0}, float one = {1}, int64[1] first = {0}, int64[1] list = {-1}";
    let model = model("float[1] x", "y last", constants, nodes);
    let mut session = session(&model, 1);
    assert_eq!(outputs(&mut *session, &floats(&[2.0])), [vec![3.0, 2.0], vec![0.0]]);
    assert_eq!(outputs(&mut *session, &floats(&[-1.0])), [vec![], vec![-1.0]]);
}
