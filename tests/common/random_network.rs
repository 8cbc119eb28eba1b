//! Networks made at random: convolutions and what stands around them in the wild, wired as shapes allow.

use std::fmt::Write;

/// A value `[N, C, H, W]`.
#[derive(Clone)]
struct Value {
    name: String,
    channels: usize,
    side: usize,
}

struct Network {
    state: u64,
    tensors: Vec<String>,
    nodes: Vec<String>,
    values: Vec<Value>,
}

/// A network in the textual syntax, different for each seed, with input `x` and outputs `y` and, often, one from inside.
pub(crate) fn random_network(seed: u64) -> String {
    let input = Value { name: "x".to_owned(), channels: 4, side: 12 };
    let mut network = Network { state: seed, tensors: Vec::new(), nodes: Vec::new(), values: vec![input] };
    let length = 6 + network.below(12);
    for _ in 0..length {
        network.grow();
    }
    network.finish(seed)
}

impl Network {
    /// A number below `end`, by splitmix64.
    fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// A value, the last one as often as not.
    fn any(&mut self) -> Value {
        let from = if self.below(2) == 0 { self.values.len() - 1 } else { self.below(self.values.len()) };
        self.values[from].clone()
    }

    fn tensor(&mut self, shape: &[usize], values: Option<&[f32]>) -> String {
        let name = format!("w{}", self.tensors.len());
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let values = values.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.tensors.push(format!("float[{}] {name} = {{{values}}}", shape.join(",")));
        name
    }

    fn push(&mut self, node: &str, inputs: &[&str], channels: usize, side: usize) {
        let name = format!("t{}", self.nodes.len());
        self.nodes.push(format!("{name} = {node} ({})", inputs.join(", ")));
        self.values.push(Value { name, channels, side });
    }

    fn grow(&mut self) {
        let from = self.any();
        let Value { name, channels, side } = from.clone();
        match self.below(12) {
            0..4 => self.convolution(&from),
            4 => self.batch_norm(&from),
            5 => {
                let op = ["Identity", "Sigmoid", "HardSwish", "LeakyRelu"][self.below(4)];
                self.push(op, &[&name], channels, side);
            }
            7 => {
                let factor = self.tensor(&[1, 1, 1], Some(&[0.5]));
                self.push("Mul", &[&name, &factor], channels, side);
            }
            8 => self.together(&from),
            9 if side >= 4 => {
                let op = ["MaxPool", "AveragePool"][self.below(2)];
                self.push(&format!("{op} <kernel_shape = [2, 2], strides = [2, 2]>"), &[&name], channels, side / 2);
            }
            10 => {
                let offsets: Vec<f32> = (0..channels).map(|c| c as f32 / 10.0 - 0.3).collect();
                let offsets = self.tensor(&[channels, 1, 1], Some(&offsets));
                self.push("Add", &[&name, &offsets], channels, side);
            }
            _ => self.push("Relu", &[&name], channels, side),
        }
    }

    fn convolution(&mut self, from: &Value) {
        let depthwise = self.below(4) == 0;
        let outputs = if depthwise { from.channels } else { [4, 8, 6][self.below(3)] };
        let (kernel, stride) = ([1, 3][self.below(2)], 1 + self.below(2) * usize::from(from.side >= 4));
        let inputs = if depthwise { 1 } else { from.channels };
        let weight = self.tensor(&[outputs, inputs, kernel, kernel], None);
        let mut operands = vec![from.name.clone(), weight];
        if self.below(2) == 0 {
            operands.push(self.tensor(&[outputs], None));
        }
        let (group, pad) = (if depthwise { outputs } else { 1 }, kernel / 2);
        let mut node = String::from("Conv <");
        let _ = write!(node, "kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}], group = {group}, ");
        let _ = write!(node, "pads = [{pad}, {pad}, {pad}, {pad}]>");
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        self.push(&node, &operands, outputs, from.side.div_ceil(stride));
    }

    fn batch_norm(&mut self, from: &Value) {
        let values =
            |start: f32, step: f32| -> Vec<f32> { (0..from.channels).map(|c| start + step * c as f32).collect() };
        let parts = [values(1.2, -0.3), values(-0.2, 0.1), values(0.1, -0.05), values(0.5, 0.25)];
        let parts = parts.map(|part| self.tensor(&[from.channels], Some(&part)));
        let [scale, offset, mean, variance] = parts.each_ref().map(String::as_str);
        self.push("BatchNormalization", &[&from.name, scale, offset, mean, variance], from.channels, from.side);
    }

    /// A sum or a concatenation with another value of the same size.
    fn together(&mut self, from: &Value) {
        let alike = |value: &&Value| value.side == from.side && value.name != from.name;
        let others: Vec<Value> = self.values.iter().filter(alike).cloned().collect();
        let Some(other) = (!others.is_empty()).then(|| others[self.below(others.len())].clone()) else { return };
        if other.channels == from.channels {
            self.push("Add", &[&from.name, &other.name], from.channels, from.side);
        } else if from.channels + other.channels <= 16 {
            let channels = from.channels + other.channels;
            self.push("Concat <axis = 1>", &[&from.name, &other.name], channels, from.side);
        }
    }

    fn finish(mut self, seed: u64) -> String {
        // At least one layer, whatever chance made.
        let last = self.any();
        self.convolution(&last);
        let last = self.values.last().cloned().unwrap_or(last);
        let weight = self.tensor(&[5, last.channels], None);
        let inside = self.values[1..self.values.len() - 1].iter().rev().find(|_| seed.is_multiple_of(3));
        let inside =
            inside.map_or(String::new(), |v| format!(", float[N,{},{},{}] {}", v.channels, v.side, v.side, v.name));
        let (tensors, nodes) = (self.tensors.join(",\n  "), self.nodes.join("\n  "));
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]>\nnet (float[N,4,12,12] x) => (float[N,5] y{inside})\n<\n  {tensors}\n>\n\
             {{\n  {nodes}\n  g0 = GlobalAveragePool ({})\n  g1 = Flatten (g0)\n  y = Gemm <transB = 1> (g1, {weight})\n}}",
            last.name
        )
    }
}
