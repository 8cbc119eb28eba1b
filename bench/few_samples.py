"""What a run states of itself with few calibration samples, beside what unseen samples get.

    python few_samples.py --msq before=PATH --msq after=PATH --out OUT [--rows 16 64 512] [--seeds 3] [--args "..."]

Random networks of small vectors: perceptrons on normal, heavy-tailed, correlated and tabular inputs, a recommender with
embedding tables, a convolution over short signals, and a small transformer. Each is quantized with the first rows of its
data, by every binary and by onnxruntime's `quantize_static` (min-max, QDQ, weights of int8 per channel), and all files run
on 10,000 rows that nobody has seen. Prints signal-to-noise ratios in dB, of the mean over channels as a run states it:
medians over seeds of what is stated and of what is real, and over all networks how far the two are apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import statistics
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

UNSEEN = 10_000
ROWS = [16, 32, 64, 128, 512, 4096]
LENGTH, WIDTH, HEADS, WORDS = 16, 32, 4, 50
ITEMS, FEATURES = 40, 8
Feeds = dict[str, np.ndarray]


class Network:
    """A random network, node by node, whose weights have unit gain."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        """Adds a node, and returns its output."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def tensor(self, values: np.ndarray) -> str:
        """Adds a constant."""
        name = f"w{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """Adds a random constant."""
        return self.tensor((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def linear(self, value: str, inputs: int, outputs: int, gain: float = 2.0) -> str:
        """A layer on the last axis."""
        product = self.op("MatMul", value, self.normal(inputs, outputs, scale=(gain / inputs) ** 0.5))
        return self.op("Add", product, self.normal(outputs, scale=0.1))

    def layers(self, value: str, widths: list[int], activation: str = "Relu") -> str:
        """Layers with activations between them."""
        for at, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
            value = self.linear(value, inputs, outputs)
            value = self.op(activation, value) if at + 2 < len(widths) else value
        return value

    def normalized(self, value: str) -> str:
        """Layer normalization with a few large factors, as trained transformers have them."""
        scale = np.exp(0.4 * self.rng.standard_normal(WIDTH)).astype(np.float32)
        scale[self.rng.choice(WIDTH, 2, replace=False)] *= 8
        return self.op("LayerNormalization", value, self.tensor(scale), self.normal(WIDTH, scale=0.1), axis=-1)

    def attention(self, value: str) -> str:
        """Attention of several heads."""
        split = self.tensor(np.array([0, LENGTH, HEADS, WIDTH // HEADS]))
        parts = [self.linear(value, WIDTH, WIDTH, 1.0) for _ in range(3)]
        query, key, content = (
            self.op("Transpose", self.op("Reshape", part, split), perm=perm)
            for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        scaled = self.op("Mul", self.op("MatMul", query, key), self.tensor(np.array(0.35, np.float32)))
        mixed = self.op("MatMul", self.op("Softmax", scaled, axis=-1), content)
        joined = self.tensor(np.array([0, LENGTH, WIDTH]))
        return self.linear(self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined), WIDTH, WIDTH)

    def save(self, path: Path, output: str, samples: Feeds) -> None:
        """Writes the network."""
        kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
        inputs = [
            helper.make_tensor_value_info(name, kinds[array.dtype.kind], ["N", *array.shape[1:]])
            for name, array in samples.items()
        ]
        self.nodes.append(helper.make_node("Identity", [output], ["y"]))
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
        graph = helper.make_graph(self.nodes, "few", inputs, outputs, self.tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def perceptron(inputs: int, hidden: int, draw: Callable[[np.random.Generator, int, int], np.ndarray], activation: str):
    """A perceptron on vectors that `draw` draws."""

    def make(rng: np.random.Generator, path: Path, rows: int) -> Feeds:
        network = Network(rng)
        samples = {"x": draw(rng, rows, inputs).astype(np.float32)}
        network.save(path, network.layers("x", [inputs, hidden, hidden, 4], activation), samples)
        return samples

    return make


def normal(rng: np.random.Generator, rows: int, inputs: int) -> np.ndarray:
    """Independent normal numbers."""
    return rng.standard_normal((rows, inputs))


def correlated(rng: np.random.Generator, rows: int, inputs: int) -> np.ndarray:
    """Normal numbers of a few factors, with another spread in each column."""
    mixed = rng.standard_normal((rows, 4)) @ rng.standard_normal((4, inputs))
    return mixed * np.exp(0.3 * rng.standard_normal(inputs))


def heavy(rng: np.random.Generator, rows: int, inputs: int) -> np.ndarray:
    """Student's t with four degrees of freedom."""
    return rng.standard_t(4, (rows, inputs))


def tabular(rng: np.random.Generator, rows: int, inputs: int) -> np.ndarray:
    """Categories as one-hot vectors, standardized amounts (log-normal) and counts (Poisson)."""
    categories = np.eye(inputs // 4)[rng.integers(0, inputs // 4, rows)]
    amounts = rng.lognormal(0, 0.8, (rows, inputs // 4))
    counts = rng.poisson(3, (rows, inputs // 4))
    rest = rng.standard_normal((rows, inputs - 3 * (inputs // 4)))
    numbers = np.concatenate([amounts, counts], 1)
    return np.concatenate([categories, (numbers - numbers.mean(0)) / numbers.std(0), rest], 1)


def recommender(rng: np.random.Generator, path: Path, rows: int) -> Feeds:
    """Two embeddings, their product, and dense features; items are looked up by how popular they are."""
    network = Network(rng)
    popular = rng.zipf(1.3, (2, rows)) % ITEMS
    dense = rng.lognormal(0, 0.7, (rows, FEATURES)).astype(np.float32)
    samples = {"user": popular[0].astype(np.int64), "item": popular[1].astype(np.int64), "dense": dense}
    user, item = (network.op("Gather", network.normal(ITEMS, 16), name, axis=0) for name in ("user", "item"))
    features = network.op("Relu", network.linear("dense", FEATURES, 16))
    joined = network.op("Concat", user, item, network.op("Mul", user, item), features, axis=1)
    network.save(path, network.layers(joined, [64, 32, 4]), samples)
    return samples


def signals(rng: np.random.Generator, path: Path, rows: int) -> Feeds:
    """Convolutions over short autoregressive signals, each as loud as it is."""
    network = Network(rng)
    noise = rng.standard_normal((rows, 4, 64))
    for at in range(1, 64):
        noise[:, :, at] += 0.8 * noise[:, :, at - 1]
    samples = {"x": (noise * rng.lognormal(0, 0.5, (rows, 1, 1))).astype(np.float32)}
    value = "x"
    for inputs, outputs in ((4, 16), (16, 32)):
        weight = network.normal(outputs, inputs, 5, scale=(2 / inputs / 5) ** 0.5)
        value = network.op("Conv", value, weight, network.normal(outputs, scale=0.1), pads=[2, 2], strides=[2])
        value = network.op("Relu", value)
    pooled = network.op("Flatten", network.op("GlobalAveragePool", value))
    network.save(path, network.linear(pooled, 32, 4), samples)
    return samples


def transformer(rng: np.random.Generator, path: Path, rows: int) -> Feeds:
    """Two layers of a transformer on token ids."""
    network = Network(rng)
    samples = {"ids": (rng.zipf(1.3, (rows, LENGTH)) % WORDS).astype(np.int64)}
    value = network.op("Gather", network.normal(WORDS, WIDTH), "ids", axis=0)
    for _ in range(2):
        value = network.op("Add", value, network.attention(network.normalized(value)))
        inner = network.op("Relu", network.linear(network.normalized(value), WIDTH, 2 * WIDTH))
        value = network.op("Add", value, network.linear(inner, 2 * WIDTH, WIDTH))
    pooled = network.op("ReduceMean", network.normalized(value), axes=[1], keepdims=0)
    network.save(path, network.linear(pooled, WIDTH, 4), samples)
    return samples


NETWORKS: dict[str, Callable[[np.random.Generator, Path, int], Feeds]] = {
    "normal 8": perceptron(8, 32, normal, "Relu"),
    "normal 64": perceptron(64, 64, normal, "Relu"),
    "correlated 32": perceptron(32, 64, correlated, "Tanh"),
    "heavy 16": perceptron(16, 48, heavy, "Relu"),
    "heavy 64": perceptron(64, 64, heavy, "LeakyRelu"),
    "tabular 32": perceptron(32, 48, tabular, "Relu"),
    "recommender": recommender,
    "signals": signals,
    "transformer": transformer,
}


class Reader(CalibrationDataReader):
    """Hands out one row after the other."""

    def __init__(self, samples: Feeds) -> None:
        rows = len(next(iter(samples.values())))
        self.rows: Iterator[Feeds] = ({n: a[at : at + 1] for n, a in samples.items()} for at in range(rows))

    def get_next(self) -> Feeds | None:
        """The next row."""
        return next(self.rows, None)


def outputs(path: Path, samples: Feeds) -> np.ndarray:
    """What a file computes in onnxruntime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, samples)[0]


def ratio(found: np.ndarray, wanted: np.ndarray) -> float:
    """Signal-to-noise ratio in dB: errors relative to the variance of each channel, averaged over channels."""
    return float(-10 * np.log10(np.mean(np.mean((found - wanted) ** 2, 0) / np.var(wanted, 0))))


def quantized(msq: Path, model: Path, data: Path, args: list[str], folder: Path) -> tuple[Path, float]:
    """The file that a binary writes, and the ratio that it states."""
    out = folder / f"{zlib.crc32(str(msq).encode())}.onnx"
    command = [msq, model, "-o", out, "--calib", data, "--json", "--quiet", "--output", "y=values", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{msq}: {done.stderr.strip()}")
    quality = json.loads(done.stdout)["quality"]
    return out, quality["outputs"][0]["sqnr"]


def measure(name: str, seed: int, rows: int, args: argparse.Namespace) -> dict[str, float]:
    """Ratios of a network by what was stated of which file."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    model, data = args.out / "float.onnx", args.out / "calib.npz"
    samples = NETWORKS[name](rng, model, UNSEEN + max(args.rows))
    seen, unseen = ({n: a[part] for n, a in samples.items()} for part in (slice(rows), slice(max(args.rows), None)))
    np.savez(data, **seen)
    wanted = outputs(model, unseen)
    found: dict[str, float] = {}
    for label, path in (binary.split("=", 1) for binary in args.msq):
        out, found[f"{label} stated"] = quantized(Path(path), model, data, shlex.split(args.args), args.out)
        found[f"{label} real"] = ratio(outputs(out, unseen), wanted)
    if args.ort:
        out = args.out / "ort.onnx"
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(model, out, Reader(seen), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
        found["onnxruntime real"] = ratio(outputs(out, unseen), wanted)
    return found


def main() -> None:
    """Measure all, print a table and how far statements are off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--args", default="--placement all", help="arguments of every run")
    parser.add_argument("--no-ort", dest="ort", action="store_false", help="leaves onnxruntime's quantizer out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    columns: list[str] = []
    every: dict[int, list[dict[str, float]]] = {rows: [] for rows in args.rows}
    for name in args.networks:
        for rows in args.rows:
            found = [measure(name, seed, rows, args) for seed in range(args.seeds)]
            every[rows] += found
            if not columns:
                columns = list(found[0])
                print(f"| network | rows | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
            medians = (statistics.median(run[column] for run in found) for column in columns)
            print(f"| {name} | {rows} | {' | '.join(f'{value:.1f}' for value in medians)} |", flush=True)
    print("\n| rows | binary | mean real dB | stated − real: mean | 90 % below | worst |\n|---|---|---|---|---|---|")
    for rows, runs in every.items():
        for label in (binary.split("=", 1)[0] for binary in args.msq):
            real = statistics.mean(run[f"{label} real"] for run in runs)
            off = [run[f"{label} stated"] - run[f"{label} real"] for run in runs]
            words = (real, statistics.mean(off), float(np.quantile(off, 0.9)), max(off))
            print(f"| {rows} | {label} | {' | '.join(f'{value:.1f}' for value in words)} |")


if __name__ == "__main__":
    main()
