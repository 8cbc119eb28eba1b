//! Models that tests make: from text, or digits with a change.

use super::arrays::{Npy, write_npz};
use super::{Run, Scratch, args, digits, msq};
use msq_onnx::data::{Array, Dataset, Sample};
use msq_passes::ir::{self, GraphProto, Model, ModelProto, TensorProto};
use std::path::{Path, PathBuf};

/// The digits model as its message.
pub(crate) fn digits_proto() -> ModelProto {
    let bytes = std::fs::read(digits("digits.onnx")).unwrap();
    ir::decode_model(bytes.into()).unwrap()
}

/// The digits model.
pub(crate) fn digits_model() -> Model {
    msq_onnx::load(&digits("digits.onnx")).unwrap()
}

/// A model from the textual syntax.
pub(crate) fn parse(text: &str) -> ModelProto {
    ir::text::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Writes a model message, valid or not.
pub(crate) fn write(path: &Path, model: &ModelProto) -> PathBuf {
    std::fs::write(path, ir::encode_model(model)).unwrap();
    path.to_owned()
}

/// The graph of a message that has one.
pub(crate) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

/// An initializer of the main graph.
pub(crate) fn initializer<'a>(model: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
    graph(model).initializer.iter_mut().find(|t| t.name() == name).unwrap()
}

/// Replaces element `index` of a float initializer.
pub(crate) fn set_element(model: &mut ModelProto, tensor: &str, index: usize, value: f32) {
    let tensor = initializer(model, tensor);
    let mut raw = tensor.raw_data.take().unwrap().to_vec();
    raw[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    tensor.raw_data = Some(raw.into());
}

/// Replaces all elements of a float initializer.
pub(crate) fn set(model: &mut ModelProto, tensor: &str, values: impl IntoIterator<Item = f32>) {
    let tensor = initializer(model, tensor);
    let values: Vec<f32> = values.into_iter().collect();
    *tensor = tensor.with_f32(&tensor.shape().unwrap(), &values);
}

/// Gives every float initializer without elements (`{}` in the text) some that follow from their index: spread evenly,
/// about as large as a trained layer's, so that activations neither vanish nor explode.
pub(crate) fn fill(model: &mut ModelProto) {
    let mut next = random(1);
    for tensor in graph(model).initializer.iter_mut().filter(|t| t.is_float()) {
        let shape = tensor.shape().unwrap();
        let count: usize = shape.iter().product();
        if count == 0 || tensor.raw_data.is_some() || !tensor.float_data.is_empty() {
            continue;
        }
        let inputs = count / shape.first().copied().unwrap_or(1);
        let reach = (6.0 / inputs as f32).sqrt();
        tensor.float_data = std::iter::repeat_with(|| next() * reach).take(count).collect();
    }
}

/// Numbers spread evenly over −1 to 1.
pub(crate) fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// Samples of an input of so many positions and channels, spread evenly over −2 to 2.
pub(crate) fn sequences(positions: usize, channels: usize) -> Dataset {
    let mut next = random(5);
    let sample = |_| {
        let values = (0..positions * channels).map(|_| 2.0 * next()).collect();
        Sample { arrays: vec![Array::from_f32(vec![1, positions, channels], values).unwrap()] }
    };
    Dataset::stored((0..24).map(sample).collect())
}

/// The operators of a model's main graph.
pub(crate) fn operators(path: &Path) -> Vec<String> {
    let model = msq_onnx::load(path).unwrap();
    model.graph.nodes().map(|(_, node)| node.op().to_owned()).collect()
}

/// A float model with data, in files.
pub(crate) struct Network {
    pub(crate) scratch: Scratch,
    pub(crate) float: PathBuf,
    pub(crate) data: PathBuf,
}

impl Network {
    /// From text, its weights filled, with samples for its input `x`.
    pub(crate) fn new(text: &str, samples: Npy) -> Self {
        let scratch = Scratch::new();
        let mut proto = parse(text);
        fill(&mut proto);
        let float = write(&scratch.path("float.onnx"), &proto);
        let data = scratch.path("data.npz");
        write_npz(&data, &[("x", samples)]);
        Self { scratch, float, data }
    }

    /// Quantizes with some flags into a file of their name.
    pub(crate) fn run(&self, flags: &str) -> (PathBuf, Run) {
        let out = self.scratch.out(&format!("{}.onnx", flags.replace([' ', ':', '/'], "-")));
        let mut all = args![&self.float, "-o", &out].to_vec();
        all.extend(flags.split_whitespace().map(std::ffi::OsString::from));
        (out, msq(&all))
    }
}
