//! What the prices of a target leave in float.

#![allow(clippy::unwrap_used)]

use msq_passes::Profile;
use msq_passes::analysis::Placement;
use msq_passes::ir::{import, text};

/// Whether the depthwise convolution between two others runs on integers.
fn is_on_integers(channels: usize) -> bool {
    let (shape, square) = (format!("1,{channels},96,96"), format!("{channels},{channels},1,1"));
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[{shape}] x) => (float[{shape}] y)
         <float[{square}] a = {{}}, float[{channels},1,3,3] w = {{}}, float[{square}] b = {{}}, float[{shape}] p, float[{shape}] q>
         {{ p = Conv (x, a)  [middle] q = Conv <group = {channels}, pads = [1, 1, 1, 1]> (p, w)  y = Conv (q, b) }}"
    );
    let model = import(text::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))).unwrap();
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None);
    placement.nodes.keys().any(|&node| model.graph.node(node).label(&model.graph) == "middle")
}

/// The kernel for depthwise convolutions that computes 16 channels at a time takes no other numbers of channels.
#[test]
fn depthwise_convolutions_of_whole_vectors_pay_sooner() {
    assert!(is_on_integers(48));
    assert!(!is_on_integers(40));
}
