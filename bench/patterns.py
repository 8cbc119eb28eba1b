"""Small models with the shapes that exporters leave, quantized by msq-onnx and by onnxruntime's own tools.

    python patterns.py --msq path/to/msq-onnx --out OUT [--models vit,llama] [--seeds 3]

Weights are random, with output channels of different sizes; inputs are random with a structure (smooth pictures, tokens
with channels of different sizes). The figure is the signal-to-noise ratio of the outputs against float in decibels, of
the worst output, on 64 samples that nothing was calibrated on, in onnxruntime; the mean over seeds. onnxruntime's tools
get the model after its own preprocessing, which needs the package `sympy`, and one scale per channel.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from sessions import session

Feeds = dict[str, np.ndarray]
SAMPLES = 64
OURS = {
    "static": "--placement all --no-repair",
    "default": "",
    "dynamic": "--act-bits dynamic",
    "qnn, 8 bits": "--profile qnn --no-repair",
    "qnn, 16 bits": "--profile qnn --no-repair --act-bits 16",
}


class Graph:
    """A model in the making; operators return the names of what they write."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: object) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def number(self, value: float) -> str:
        """A float."""
        return self.constant(np.float32(value))

    def shape(self, *values: int) -> str:
        """A vector of integers."""
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        """A weight whose first axis has parts of different sizes."""
        inputs = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        sizes = np.exp(0.5 * self.random.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
        return self.constant((self.random.standard_normal(shape) / np.sqrt(inputs) * sizes).astype(np.float32))

    def vector(self, *shape: int, mean: float = 0.0, spread: float = 0.1) -> str:
        """A bias or a factor per channel."""
        return self.constant((mean + spread * self.random.standard_normal(shape)).astype(np.float32))

    def op(self, op: str, *inputs: str, out: str | None = None, count: int = 1, **attributes: object) -> str | list[str]:
        """A node."""
        number = len(self.nodes)
        outputs = [out or f"{op.lower()}_{number}" + (f"_{at}" if count > 1 else "") for at in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op}_{number}", **attributes))
        return outputs[0] if count == 1 else outputs

    def model(self, inputs: dict[str, list], output: list, opset: int = 17) -> onnx.ModelProto:
        """The model; inputs that are masks are integers."""

        def info(name: str, shape: list) -> onnx.ValueInfoProto:
            kind = TensorProto.INT64 if name == "mask" else TensorProto.FLOAT
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            self.nodes, "pattern", [info(*entry) for entry in inputs.items()], [info("y", output)], self.constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def layer_norm(g: Graph, x: str, size: int) -> str:
    """LayerNormalization as TorchScript spells it below opset 17."""
    centered = g.op("Sub", x, g.op("ReduceMean", x, axes=[-1]))
    variance = g.op("ReduceMean", g.op("Pow", centered, g.number(2)), axes=[-1])
    scaled = g.op("Div", centered, g.op("Sqrt", g.op("Add", variance, g.number(1e-5))))
    return g.op("Add", g.op("Mul", scaled, g.vector(size, mean=1, spread=0.3)), g.vector(size))


def fused_norm(g: Graph, x: str, size: int) -> str:
    """LayerNormalization as an operator."""
    return g.op("LayerNormalization", x, g.vector(size, mean=1, spread=0.3), g.vector(size), axis=-1)


def rms_norm(g: Graph, x: str, size: int) -> str:
    """RMSNorm."""
    power = g.op("ReduceMean", g.op("Pow", x, g.number(2)), axes=[-1])
    scaled = g.op("Div", x, g.op("Sqrt", g.op("Add", power, g.number(1e-6))))
    return g.op("Mul", scaled, g.vector(size, mean=1, spread=0.3))


def gelu(g: Graph, x: str) -> str:
    """Gelu by Erf."""
    error = g.op("Erf", g.op("Div", x, g.number(np.sqrt(2))))
    return g.op("Mul", g.op("Mul", x, g.op("Add", error, g.number(1))), g.number(0.5))


def tanh_gelu(g: Graph, x: str) -> str:
    """Gelu by Tanh."""
    inner = g.op("Add", x, g.op("Mul", g.op("Pow", x, g.number(3)), g.number(0.044715)))
    gate = g.op("Add", g.op("Tanh", g.op("Mul", inner, g.number(0.7978846))), g.number(1))
    return g.op("Mul", g.op("Mul", x, g.number(0.5)), gate)


def linear(g: Graph, x: str, inputs: int, outputs: int, bias: bool = True) -> str:
    """A product with a matrix, and a bias."""
    product = g.op("MatMul", x, g.weight(inputs, outputs))
    return g.op("Add", product, g.vector(outputs)) if bias else product


def heads(g: Graph, x: str, length: int, count: int, size: int) -> str:
    """Channels as heads."""
    return g.op("Transpose", g.op("Reshape", x, g.shape(0, length, count, size)), perm=[0, 2, 1, 3])


def rotated(g: Graph, x: str, tables: tuple[str, str], size: int) -> str:
    """Rotary embedding."""
    cos, sin = tables
    front = g.op("Slice", x, g.shape(0), g.shape(size // 2), g.shape(3), g.shape(1))
    back = g.op("Slice", x, g.shape(size // 2), g.shape(2**62), g.shape(3), g.shape(1))
    turned = g.op("Concat", g.op("Neg", back), front, axis=-1)
    return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))


def attention(
    g: Graph, x: str, length: int, size: int, count: int, form: str = "three", mask: str | None = None, rotary: bool = False
) -> str:
    """Attention: query, key and value of three products, of one with Split, or of one with Gather as in timm."""
    each = size // count
    if form == "gather":
        joined = g.op("Reshape", linear(g, x, size, 3 * size), g.shape(0, length, 3, count, each))
        joined = g.op("Transpose", joined, perm=[2, 0, 3, 1, 4])
        query, key, value = (g.op("Gather", joined, g.constant(np.array(at, np.int64)), axis=0) for at in range(3))
    else:
        if form == "split":
            parts = g.op("Split", linear(g, x, size, 3 * size), g.shape(size, size, size), count=3, axis=-1)
        else:
            parts = [linear(g, x, size, size) for _ in range(3)]
        query, key, value = (heads(g, part, length, count, each) for part in parts)
    if rotary:
        angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, each, 2) / each)[None]
        angles = np.concatenate([angles, angles], 1)[None, None]
        tables = g.constant(np.cos(angles).astype(np.float32)), g.constant(np.sin(angles).astype(np.float32))
        query, key = rotated(g, query, tables, each), rotated(g, key, tables, each)
    query = g.op("Mul", query, g.number(1 / np.sqrt(each)))
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
    if mask:
        scores = g.op("Add", scores, mask)
    found = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
    found = g.op("Reshape", g.op("Transpose", found, perm=[0, 2, 1, 3]), g.shape(0, length, size))
    return linear(g, found, size, size)


def block(g: Graph, x: str, length: int, size: int, norm: Callable = layer_norm, activation: Callable = gelu, **how) -> str:
    """A block of an encoder."""
    x = g.op("Add", x, attention(g, norm(g, x, size), length, size, 4, **how))
    inner = activation(g, linear(g, norm(g, x, size), size, 4 * size))
    return g.op("Add", x, linear(g, inner, 4 * size, size))


def pictures(size: int, last: bool = False) -> Callable[[np.random.RandomState], Feeds]:
    """Smooth pictures of three channels."""

    def feeds(random: np.random.RandomState) -> Feeds:
        coarse = random.standard_normal((SAMPLES, 3, size // 4, size // 4))
        x = np.kron(coarse, np.ones((1, 1, 4, 4))) + 0.3 * random.standard_normal((SAMPLES, 3, size, size))
        return {"x": (x.transpose(0, 2, 3, 1) if last else x).astype(np.float32)}

    return feeds


def tokens(length: int, size: int, masked: bool = False) -> Callable[[np.random.RandomState], Feeds]:
    """Vectors of tokens whose channels differ in size, with a mask if asked for."""

    def feeds(random: np.random.RandomState) -> Feeds:
        sizes = np.exp(0.4 * np.random.RandomState(7).standard_normal(size))
        found = {"x": (random.standard_normal((SAMPLES, length, size)) * sizes).astype(np.float32)}
        if masked:
            found["mask"] = (np.arange(length)[None] < random.randint(4, length + 1, (SAMPLES, 1))).astype(np.int64)
        return found

    return feeds


Pattern = tuple[onnx.ModelProto, Callable[[np.random.RandomState], Feeds]]


def vit(seed: int) -> Pattern:
    """A vision transformer as timm and TorchScript write it: patches, class token, three blocks."""
    g, length, size = Graph(seed), 17, 64
    patches = g.op("Conv", "x", g.weight(size, 3, 8, 8), g.vector(size), strides=[8, 8])
    patches = g.op("Transpose", g.op("Reshape", patches, g.shape(0, size, 16)), perm=[0, 2, 1])
    batch = g.op("Gather", g.op("Shape", patches), g.shape(0), axis=0)
    shape = g.op("Concat", batch, g.shape(1, size), axis=0)
    x = g.op("Concat", g.op("Expand", g.vector(1, 1, size, spread=0.5), shape), patches, axis=1)
    x = g.op("Add", x, g.vector(1, length, size, spread=0.2))
    for _ in range(3):
        x = block(g, x, length, size, form="gather")
    x = g.op("Gather", layer_norm(g, x, size), g.constant(np.array(0, np.int64)), axis=1)
    g.op("Gemm", x, g.weight(10, size), g.vector(10), out="y", transB=1)
    return g.model({"x": ["N", 3, 32, 32]}, ["N", 10]), pictures(32)


def vit_fused(seed: int) -> Pattern:
    """The same with LayerNormalization, Gelu by Tanh, query, key and value by Split, and mean pooling."""
    g, length, size = Graph(seed), 16, 64
    x = g.op("Conv", "x", g.weight(size, 3, 8, 8), strides=[8, 8])
    x = g.op("Transpose", g.op("Reshape", x, g.shape(0, size, length)), perm=[0, 2, 1])
    for _ in range(3):
        x = block(g, x, length, size, norm=fused_norm, activation=tanh_gelu, form="split")
    g.op("Gemm", g.op("ReduceMean", fused_norm(g, x, size), axes=[1], keepdims=0), g.weight(size, 10), out="y")
    return g.model({"x": ["N", 3, 32, 32]}, ["N", 10]), pictures(32)


def llama(seed: int) -> Pattern:
    """A decoder: RMSNorm, rotary embeddings, a causal mask, SwiGLU."""
    g, length, size = Graph(seed), 16, 64
    causal = g.constant(np.triu(np.full((length, length), np.finfo(np.float32).min, np.float32), 1)[None, None])
    x = "x"
    for _ in range(2):
        x = g.op("Add", x, attention(g, rms_norm(g, x, size), length, size, 4, mask=causal, rotary=True))
        y = rms_norm(g, x, size)
        gate, up = (linear(g, y, size, 2 * size, bias=False) for _ in range(2))
        inner = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
        x = g.op("Add", x, linear(g, inner, 2 * size, size, bias=False))
    g.op("MatMul", rms_norm(g, x, size), g.weight(size, 50), out="y")
    return g.model({"x": ["N", length, size]}, ["N", length, 50]), tokens(length, size)


def encoder(seed: int) -> Pattern:
    """An encoder with a mask that is cast and made large, as transformers and optimum write it."""
    g, length, size = Graph(seed), 16, 64
    mask = g.op("Unsqueeze", g.op("Cast", "mask", to=TensorProto.FLOAT), g.shape(1, 2))
    mask = g.op("Mul", g.op("Sub", g.number(1), mask), g.number(np.finfo(np.float32).min))
    x = block(g, block(g, "x", length, size, mask=mask), length, size, mask=mask)
    g.op("Identity", x, out="y")
    return g.model({"x": ["N", length, size], "mask": ["N", length]}, ["N", length, size]), tokens(length, size, True)


def keras_encoder(seed: int) -> Pattern:
    """Attention of Keras: projections and products by Einsum."""
    g, length, size, count, each = Graph(seed), 12, 64, 4, 16

    def projected(x: str, equation: str, shape: tuple[int, ...], bias: tuple[int, ...], inputs: int) -> str:
        weight = g.constant((g.random.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32))
        return g.op("Add", g.op("Einsum", x, weight, equation=equation), g.vector(*bias))

    x = "x"
    for _ in range(2):
        y = layer_norm(g, x, size)
        query, key, value = (
            projected(y, "abc,cde->abde", (size, count, each), (count, each), size) for _ in range(3)
        )
        query = g.op("Mul", query, g.number(1 / np.sqrt(each)))
        scores = g.op("Softmax", g.op("Einsum", key, query, equation="aecd,abcd->acbe"), axis=-1)
        found = g.op("Einsum", scores, value, equation="acbe,aecd->abcd")
        x = g.op("Add", x, projected(found, "abcd,cde->abe", (count, each, size), (size,), size))
        inner = gelu(g, projected(layer_norm(g, x, size), "abc,cd->abd", (size, 4 * size), (4 * size,), size))
        x = g.op("Add", x, projected(inner, "abc,cd->abd", (4 * size, size), (size,), 4 * size))
    g.op("MatMul", x, g.weight(size, 12), out="y")
    return g.model({"x": ["N", length, size]}, ["N", length, 12]), tokens(length, size)


def channels_last(seed: int) -> Pattern:
    """Convolutions between Transposes, biases added behind them, as tf2onnx leaves them."""
    g, x, inputs = Graph(seed), "x", 3
    for outputs in (16, 32, 32):
        y = g.op("Conv", g.op("Transpose", x, perm=[0, 3, 1, 2]), g.weight(outputs, inputs, 3, 3), auto_pad="SAME_UPPER")
        x = g.op("Relu", g.op("Add", g.op("Transpose", y, perm=[0, 2, 3, 1]), g.vector(outputs)))
        inputs = outputs
    x = g.op("ReduceMean", x, axes=[1, 2], keepdims=0)
    g.op("Add", g.op("MatMul", x, g.weight(32, 10)), g.vector(10), out="y")
    return g.model({"x": ["N", 16, 16, 3]}, ["N", 10]), pictures(16, last=True)


def keras_mobile(seed: int) -> Pattern:
    """A depthwise convolution whose kernel is transposed and reshaped, rectifiers as Min of Max."""
    g = Graph(seed)

    def bounded(x: str) -> str:
        return g.op("Min", g.op("Max", x, g.number(0)), g.number(6))

    y = g.op("Conv", g.op("Transpose", "x", perm=[0, 3, 1, 2]), g.weight(16, 3, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2])
    kernel = g.op("Transpose", g.vector(3, 3, 16, 1, spread=0.3), perm=[2, 3, 0, 1])
    kernel = g.op("Reshape", kernel, g.shape(16, 1, 3, 3))
    y = bounded(g.op("Conv", bounded(y), kernel, pads=[1] * 4, group=16))
    x = g.op("Transpose", g.op("Conv", y, g.weight(32, 16, 1, 1)), perm=[0, 2, 3, 1])
    g.op("MatMul", g.op("ReduceMean", x, axes=[1, 2], keepdims=0), g.weight(32, 10), out="y")
    return g.model({"x": ["N", 16, 16, 3]}, ["N", 10]), pictures(16, last=True)


def convnext(seed: int) -> Pattern:
    """Depthwise convolutions, and products between Transposes with a factor per channel."""
    g, size = Graph(seed), 32
    x = g.op("Conv", "x", g.weight(size, 3, 4, 4), strides=[4, 4])
    for _ in range(2):
        y = g.op("Conv", x, g.weight(size, 1, 7, 7), pads=[3] * 4, group=size)
        y = layer_norm(g, g.op("Transpose", y, perm=[0, 2, 3, 1]), size)
        y = linear(g, gelu(g, linear(g, y, size, 4 * size)), 4 * size, size)
        y = g.op("Transpose", g.op("Mul", y, g.vector(size, mean=0.2, spread=0.05)), perm=[0, 3, 1, 2])
        x = g.op("Add", x, y)
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    g.op("Gemm", x, g.weight(10, size), g.vector(10), out="y", transB=1)
    return g.model({"x": ["N", 3, 32, 32]}, ["N", 10]), pictures(32)


def group_norm(seed: int) -> Pattern:
    """GroupNorm by InstanceNormalization between Reshapes, as TorchScript writes it."""
    g, size = Graph(seed), 32
    x = g.op("Conv", "x", g.weight(size, 3, 3, 3), pads=[1] * 4)
    for _ in range(2):
        y = g.op("Reshape", x, g.shape(0, 8, -1))
        y = g.op("InstanceNormalization", y, g.vector(8, mean=1, spread=0), g.vector(8, spread=0))
        y = g.op("Mul", g.op("Reshape", y, g.op("Shape", x)), g.vector(size, 1, 1, mean=1, spread=0.3))
        y = g.op("Add", y, g.vector(size, 1, 1))
        y = g.op("Mul", y, g.op("Sigmoid", y))
        x = g.op("Add", x, g.op("Conv", y, g.weight(size, size, 3, 3), pads=[1] * 4))
    x = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", x)))
    g.op("Gemm", x, g.weight(size, 10), out="y")
    return g.model({"x": ["N", 3, 16, 16]}, ["N", 10]), pictures(16)


PATTERNS = [vit, vit_fused, llama, encoder, keras_encoder, channels_last, keras_mobile, convnext, group_norm]


class Reader(CalibrationDataReader):
    """Samples one by one."""

    def __init__(self, feeds: Feeds) -> None:
        self.samples = iter([{name: values[at : at + 1] for name, values in feeds.items()} for at in range(SAMPLES)])

    def get_next(self) -> Feeds | None:
        return next(self.samples, None)


def decibels(model: Path, feeds: Feeds, wanted: list[np.ndarray]) -> float:
    """The ratio of the worst output."""
    found = session(model).run(None, feeds)
    ratios = [(a**2).sum() / max(((a - b) ** 2).sum(), 1e-30) for a, b in zip(wanted, found, strict=True)]
    return 10 * np.log10(min(ratios))


def measured(pattern: Callable[[int], Pattern], seed: int, out: Path, msq: str) -> dict[str, tuple[float, int]]:
    """Decibels and bytes of each tool."""
    model, make = pattern(seed)
    stem = out / f"{pattern.__name__}_{seed}"
    random = np.random.RandomState(seed)
    calib, test = make(random), make(random)
    float_model, data = stem.with_suffix(".onnx"), stem.with_suffix(".npz")
    onnx.save(model, float_model)
    np.savez(data, **calib)
    wanted, found = session(float_model).run(None, test), {}
    for name, flags in OURS.items():
        output = Path(f"{stem}_{name.replace(', ', '_').replace(' ', '_')}.onnx")
        command = [msq, float_model, "-o", output, "--calib", data, "-q", *flags.split()]
        subprocess.run(command, check=True)
        found[name] = decibels(output, test, wanted), output.stat().st_size
    prepared, static, dynamic = (Path(f"{stem}_{what}.onnx") for what in ("prepared", "ort_static", "ort_dynamic"))
    quant_pre_process(float_model, prepared)
    quantize_static(prepared, static, Reader(calib), quant_format=QuantFormat.QDQ, per_channel=True)
    quantize_dynamic(prepared, dynamic, per_channel=True, weight_type=QuantType.QInt8)
    for name, output in (("onnxruntime static", static), ("onnxruntime dynamic", dynamic)):
        found[name] = decibels(output, test, wanted), output.stat().st_size
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", help="names, with commas between them")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = arguments.models.split(",") if arguments.models else [pattern.__name__ for pattern in PATTERNS]
    head = None
    for pattern in (pattern for pattern in PATTERNS if pattern.__name__ in chosen):
        runs = [measured(pattern, seed, arguments.out, arguments.msq) for seed in range(arguments.seeds)]
        if head is None:
            head = list(runs[0])
            print("| model | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
        cells = [f"{np.mean([run[name][0] for run in runs]):.1f} ({runs[0][name][1] // 1024} KB)" for name in head]
        print(f"| `{pattern.__name__}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
