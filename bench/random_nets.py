"""Time what msq-onnx makes of random small networks beside float, in onnxruntime on one thread.

    python random_nets.py --out OUT --msq path/to/msq-onnx --seeds 0 60 [--kind sequences]

Convolutional networks of one, two and three dimensions, with pools, strides, depthwise layers, several
activations, sums around layers, joined channels, squeeze-and-excitation and upsampling; or
networks for sequences, of attention and of layers on each step; most of them so small that
integers do not always pay. Each is quantized by
default and with `--placement all`, and the three files run in turns. A line for each: the
time of float, and by how much the time of each of ours differs. `SLOW` marks those that take
more than 1.1 times as long by default as in float, `LOST` those where float or all layers on
integers would take a seventh less than what was chosen. Exits 1 where one is slow.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sessions import feeds, times

SLOW = 1.1
LOST = 1.16
SLICE_MS = 2
ROUNDS = 40
SAMPLES = 16
UPSAMPLED = 32
HEADS = 4
SIZES = {1: [[128], [512], [2048]], 2: [[16] * 2, [28] * 2, [32] * 2, [64] * 2, [96] * 2], 3: [[4, 16, 16], [8, 24, 24]]}
ACTIVATIONS = ["Relu", "Relu", "LeakyRelu", "HardSwish", "Sigmoid", "Silu"]


class Network:
    """A random network, node by node."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape: list[int] = []
        self.channels = 0
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.value = "x"
        self.text = ""

    def op(self, op: str, inputs: list[str], **attributes: object) -> str:
        """Adds a node, whose output is the value from now on."""
        self.value = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.value], **attributes))
        return self.value

    def tensor(self, values: np.ndarray) -> str:
        """Adds a constant."""
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, *shape: int, inputs: int) -> str:
        """Adds a random weight of unit gain."""
        return self.tensor((self.rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32))

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Writes the network with a classifier at its end, and samples for it."""
        self.op("Gemm", [self.value, self.weight(10, self.channels, inputs=self.channels)], transB=1)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outputs = [helper.make_tensor_value_info(self.value, TensorProto.FLOAT, [1, 10])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.tensors)
        model, data = folder / "float.onnx", folder / "data.npz"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
        np.savez(data, x=self.rng.standard_normal((SAMPLES, *self.shape[1:])).astype(np.float32))
        return model, data


class Sequence(Network):
    """Attention and layers on each step, with sums around them and normalization behind."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.length, self.channels = int(self.rng.choice([1, 8, 32, 128])), int(self.rng.choice([32, 64, 128, 256]))
        self.shape = [1, self.length, self.channels]
        self.text = f"{self.shape[1:]}:"
        for _ in range(int(self.rng.integers(1, 5))):
            before = self.value
            kind = str(self.rng.choice(["layers", "layers", "attention"]))
            self.text += f" {kind}"
            if kind == "attention":
                self.attention()
            else:
                self.layers()
            self.op("Add", [before, self.value])
            one, zero = (self.tensor(np.full(self.channels, value, np.float32)) for value in (1, 0))
            self.op("LayerNormalization", [self.value, one, zero], axis=-1)
        self.op("ReduceMean", [self.value], axes=[1], keepdims=0)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A product with a weight and its bias."""
        self.op("MatMul", [x, self.weight(inputs, outputs, inputs=inputs)])
        return self.op("Add", [self.value, self.weight(outputs, inputs=100)])

    def layers(self) -> None:
        """Two layers on each step."""
        inner = self.channels * int(self.rng.choice([1, 2, 4]))
        x = self.linear(self.value, self.channels, inner)
        activation = str(self.rng.choice(["Relu", "Gelu", "Silu", "Tanh"]))
        self.text += f" {inner} {activation}"
        if activation == "Gelu":
            half, one, root = (self.tensor(np.array(value, np.float32)) for value in (0.5, 1, 2**0.5))
            erf = self.op("Erf", [self.op("Div", [x, root])])
            self.op("Mul", [self.op("Mul", [x, self.op("Add", [erf, one])]), half])
        elif activation == "Silu":
            self.op("Mul", [x, self.op("Sigmoid", [x])])
        else:
            self.op(activation, [x])
        self.linear(self.value, inner, self.channels)

    def attention(self) -> None:
        """Attention of four heads."""
        x, size = self.value, self.channels // HEADS
        heads = self.tensor(np.array([1, self.length, HEADS, size], np.int64))
        joined = self.tensor(np.array([1, self.length, self.channels], np.int64))
        root = self.tensor(np.array(size**0.5, np.float32))

        def part(perm: list[int]) -> str:
            """A projection, head by head."""
            return self.op("Transpose", [self.op("Reshape", [self.linear(x, self.channels, self.channels), heads])], perm=perm)

        query, key, value = part([0, 2, 1, 3]), part([0, 2, 3, 1]), part([0, 2, 1, 3])
        scores = self.op("Softmax", [self.op("Div", [self.op("MatMul", [query, key]), root])], axis=-1)
        self.op("Transpose", [self.op("MatMul", [scores, value])], perm=[0, 2, 1, 3])
        self.linear(self.op("Reshape", [self.value, joined]), self.channels, self.channels)


class Convolutional(Network):
    """Convolutions, their activations, and what is around and behind them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        axes = int(self.rng.choice([1, 2, 2, 2, 2, 3]))
        self.channels = int(self.rng.choice([1, 3, 3, 4, 16]))
        self.size = list(SIZES[axes][self.rng.integers(len(SIZES[axes]))])
        self.shape = [1, self.channels, *self.size]
        self.activation = str(self.rng.choice(ACTIVATIONS))
        self.text = f"{self.shape[1:]} {self.activation}:"
        width = int(self.rng.choice([8, 16, 24, 32]))
        for at in range(int(self.rng.integers(2, 6))):
            self.layer(at, width)
        self.op("GlobalAveragePool", [self.value])
        self.op("Flatten", [self.value])

    def layer(self, at: int, width: int) -> None:
        """A convolution with its activation, and perhaps something around or behind it."""
        axes, rng = len(self.size), self.rng
        before, channels, size = self.value, self.channels, self.size
        kernel, stride = int(rng.choice([1, 3, 3, 5])), 2 if rng.random() < 0.2 else 1
        depthwise = at > 0 and rng.random() < 0.2
        groups = self.channels if depthwise else 1
        outputs = self.channels if depthwise else min(width * (2**at if rng.random() < 0.5 else 1), 128)
        inputs = self.channels // groups
        weight = self.weight(outputs, inputs, *[kernel] * axes, inputs=inputs * kernel**axes)
        attributes = {"kernel_shape": [kernel] * axes, "pads": [kernel // 2] * 2 * axes, "strides": [stride] * axes}
        self.op("Conv", [self.value, weight], group=groups, **attributes)
        self.channels, self.size = outputs, [-(-length // stride) for length in self.size]
        self.text += f" {'depthwise' if depthwise else ''}{outputs}k{kernel}s{stride}"
        if self.activation == "Silu":
            x = self.value
            self.op("Sigmoid", [x])
            self.op("Mul", [x, self.value])
        else:
            self.op(self.activation, [self.value])
        around = str(rng.choice(["", "", "", "add", "concat", "excite", "upsample"]))
        if around == "add" and at > 0 and (channels, size) == (self.channels, self.size):
            self.op("Add", [before, self.value])
            self.text += " add"
        if around == "concat" and at > 0 and size == self.size:
            self.op("Concat", [before, self.value], axis=1)
            self.channels += channels
            self.text += " concat"
        if around == "excite":
            self.excite()
        if around == "upsample" and self.size[-1] <= UPSAMPLED:
            scales = self.tensor(np.array([1, 1] + [2] * axes, np.float32))
            attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            self.op("Resize", [self.value, "", scales], **attributes)
            self.size = [2 * length for length in self.size]
            self.text += " upsample"
        if min(self.size) >= 4 and rng.random() < 0.5:
            pool = str(rng.choice(["MaxPool", "MaxPool", "AveragePool"]))
            self.op(pool, [self.value], kernel_shape=[2] * axes, strides=[2] * axes)
            self.size = [length // 2 for length in self.size]
            self.text += f" {pool}"

    def excite(self) -> None:
        """Squeeze and excitation: channels are multiplied with what two layers make of their means."""
        axes, x = len(self.size), self.value
        inner = max(self.channels // 4, 4)
        for inputs, outputs, activation in ((self.channels, inner, "Relu"), (inner, self.channels, "Sigmoid")):
            y = self.op("GlobalAveragePool", [x]) if activation == "Relu" else self.value
            weight = self.weight(outputs, inputs, *[1] * axes, inputs=inputs)
            self.op(activation, [self.op("Conv", [y, weight], kernel_shape=[1] * axes)])
        self.op("Mul", [x, self.value])
        self.text += " excite"


class Mobile(Network):
    """Inverted residuals as of MobileNetV3, of many widths, with a pool behind the last activation or without."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rng = self.rng
        self.channels = 3
        self.size = [int(rng.choice([32, 48, 64, 96])), int(rng.choice([48, 64, 96, 192]))]
        self.shape = [1, 3, *self.size]
        self.width = float(rng.choice([0.35, 0.5, 0.75, 1.0]))
        self.text = f"{self.shape[1:]} x{self.width}:"
        self.convolution(self.rounded(16), 3, 2, "HardSwish")
        width = 16.0
        for _ in range(int(rng.integers(2, 9))):
            stride = 2 if rng.random() < 0.3 and min(self.size) >= 8 else 1
            width *= 1.5 if stride == 2 else 1
            self.block(self.rounded(width), stride)
        self.convolution(self.rounded(6 * width), 1, 1, "HardSwish")
        pool = str(rng.choice(["", "MaxPool", "AveragePool"]))
        if pool and min(self.size) >= 2:
            self.op(pool, [self.value], kernel_shape=[2, 2], strides=[2, 2])
            self.text += f" {pool}"
        self.op("GlobalAveragePool", [self.value])
        self.op("Flatten", [self.value])

    def rounded(self, channels: float) -> int:
        """Channels as the family rounds them: to multiples of 8."""
        return max(8, int(channels * self.width + 4) // 8 * 8)

    def convolution(self, outputs: int, kernel: int, stride: int, activation: str, *, depthwise: bool = False) -> None:
        """A convolution with its activation."""
        inputs = 1 if depthwise else self.channels
        weight = self.weight(outputs, inputs, kernel, kernel, inputs=inputs * kernel**2)
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        self.op("Conv", [self.value, weight], group=outputs if depthwise else 1, **attributes)
        self.channels, self.size = outputs, [-(-length // stride) for length in self.size]
        if activation:
            self.op(activation, [self.value])

    def block(self, outputs: int, stride: int) -> None:
        """Expansion, depthwise convolution, perhaps squeeze and excitation, projection, and a sum where shapes agree."""
        rng, before, inputs = self.rng, self.value, self.channels
        activation, kernel = str(rng.choice(["Relu", "HardSwish"])), int(rng.choice([3, 5]))
        inner = -(-int(inputs * float(rng.choice([2, 3, 4, 6]))) // 8) * 8
        self.convolution(inner, 1, 1, activation)
        self.convolution(inner, kernel, stride, activation, depthwise=True)
        excited = rng.random() < 0.5
        if excited:
            x, shape = self.value, (self.channels, self.size)
            self.op("GlobalAveragePool", [x])
            self.size = [1, 1]
            self.convolution(max(8, inner // 4), 1, 1, "Relu")
            self.convolution(inner, 1, 1, "HardSigmoid")
            self.channels, self.size = shape
            self.op("Mul", [x, self.value])
        self.convolution(outputs, 1, 1, "")
        if stride == 1 and outputs == inputs:
            self.op("Add", [before, self.value])
        self.text += f" {inner}k{kernel}s{stride}{'se' if excited else ''}->{outputs}"


KINDS = {"convolutions": Convolutional, "sequences": Sequence, "mobile": Mobile}


def main() -> None:
    """Make, quantize, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--kind", choices=list(KINDS), default="convolutions", help="what the networks are for")
    parser.add_argument("--seeds", type=int, nargs=2, default=[0, 60], help="the first seed, and that behind the last")
    args = parser.parse_args()
    slow = 0
    for seed in range(*args.seeds):
        folder = args.out / f"{args.kind}.{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        network = KINDS[args.kind](seed)
        model, data = network.save(folder)
        files = {"float": model, "faster": folder / "faster.onnx", "all": folder / "all.onnx"}
        for placement in ("faster", "all"):
            command = [args.msq.resolve(), model, "-o", files[placement], "--calib", data, "--placement", placement]
            subprocess.run([*command, "--no-repair", "--verify", "0", "-q"], check=True)
        spent = np.array(list(times(files, feeds(model, dict(np.load(data)))[0], ROUNDS, SLICE_MS).values()))
        _, chosen, integers = np.median(spent / spent[0], axis=1)
        mark = "SLOW" if chosen > SLOW else "LOST" if chosen > LOST * min(1, integers) else ""
        slow += mark == "SLOW"
        print(f"{seed:4} {1e3 * np.median(spent[0]):7.0f} us  default {chosen:.2f}  all {integers:.2f} {mark:4}  {network.text}", flush=True)
    raise SystemExit(min(slow, 1))


if __name__ == "__main__":
    main()
