"""Train the small digits network that the tests use and write it as ONNX.

Writes `digits.onnx`, `calib.npz` and `test.npz` beside this script (or into
`--out`). The data are scikit-learn's bundled handwritten digits, so nothing is
downloaded.

Made with Python 3.11.7 and

    pip install jax==0.10.2 jaxlib==0.10.2 scikit-learn==1.9.1 numpy==2.4.6 \\
        onnx==1.23.2 onnxruntime==1.31.1

Seeds are fixed. Another CPU may sum in another order, so retraining there gives
weights that differ in the last bits and an accuracy that differs by a few images.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

SEED = 20
TEST_IMAGES = 600
CALIB_IMAGES = 512
BATCH = 64
EPOCHS = 80
PEAK_RATE = 3e-3
WEIGHT_DECAY = 5e-4
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9

Params = dict[str, Any]


@dataclass(frozen=True)
class ConvBn:
    """One convolution without bias, followed by batch normalisation."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    groups: int = 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """The ONNX (OIHW) weight shape."""
        return (self.outputs, self.inputs // self.groups, self.kernel, self.kernel)


STEM = ConvBn("stem", 1, 24, 3)
RES_A = ConvBn("res.conv1", 24, 24, 3)
RES_B = ConvBn("res.conv2", 24, 24, 3)
DOWN_EXPAND = ConvBn("down.expand", 24, 72, 1)
DOWN_DEPTH = ConvBn("down.depthwise", 72, 72, 3, groups=72)
DOWN_PROJECT = ConvBn("down.project", 72, 40, 1)
INV_EXPAND = ConvBn("inv.expand", 40, 80, 1)
INV_DEPTH = ConvBn("inv.depthwise", 80, 80, 3, groups=80)
INV_PROJECT = ConvBn("inv.project", 80, 40, 1)
LAYERS = (
    STEM,
    RES_A,
    RES_B,
    DOWN_EXPAND,
    DOWN_DEPTH,
    DOWN_PROJECT,
    INV_EXPAND,
    INV_DEPTH,
    INV_PROJECT,
)
CLASSES = 10


def split_digits() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The training and the held-out part, in one fixed shuffled order."""
    digits = load_digits()
    image = (digits.images / 16.0).astype(np.float32)[:, None]
    label = digits.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(label))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return (
        {"image": image[train], "label": label[train]},
        {"image": image[test], "label": label[test]},
    )


def initial_params(rng: np.random.Generator) -> Params:
    """He-initialised weights; batch-norm starts as the identity."""
    params: Params = {}
    for layer in LAYERS:
        fan_in = float(np.prod(layer.weight_shape[1:]))
        params[f"{layer.name}.weight"] = rng.normal(0, (2 / fan_in) ** 0.5, layer.weight_shape)
        params[f"{layer.name}.bn.gamma"] = np.ones(layer.outputs)
        params[f"{layer.name}.bn.beta"] = np.zeros(layer.outputs)
    features = INV_PROJECT.outputs
    params["head.weight"] = rng.normal(0, features**-0.5, (CLASSES, features))
    params["head.bias"] = np.zeros(CLASSES)
    return {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}


def initial_stats() -> Params:
    """Running mean 0 and variance 1 for each batch normalisation."""
    stats: Params = {}
    for layer in LAYERS:
        stats[f"{layer.name}.bn.mean"] = jnp.zeros(layer.outputs, jnp.float32)
        stats[f"{layer.name}.bn.var"] = jnp.ones(layer.outputs, jnp.float32)
    return stats


def conv_bn(params: Params, x: jax.Array, layer: ConvBn, batch_stats: Params) -> jax.Array:
    """Convolution and training-mode batch norm; adds the batch's statistics to `batch_stats`."""
    y = jax.lax.conv_general_dilated(
        x,
        params[f"{layer.name}.weight"],
        window_strides=(1, 1),
        padding="SAME",
        feature_group_count=layer.groups,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3))
    batch_stats[f"{layer.name}.bn.mean"] = mean
    batch_stats[f"{layer.name}.bn.var"] = var
    scale = params[f"{layer.name}.bn.gamma"] / jnp.sqrt(var + BN_EPSILON)
    shift = params[f"{layer.name}.bn.beta"] - mean * scale
    return y * scale[:, None, None] + shift[:, None, None]


def forward(params: Params, x: jax.Array) -> tuple[jax.Array, Params]:
    """Logits and the batch statistics of a training batch."""
    stats: Params = {}

    def layer(value: jax.Array, which: ConvBn) -> jax.Array:
        return conv_bn(params, value, which, stats)

    x = jax.nn.relu(layer(x, STEM))
    y = jax.nn.relu(layer(x, RES_A))
    x = jax.nn.relu(x + layer(y, RES_B))
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))
    y = jnp.clip(layer(x, DOWN_EXPAND), 0, 6)
    y = jnp.clip(layer(y, DOWN_DEPTH), 0, 6)
    x = layer(y, DOWN_PROJECT)
    y = jnp.clip(layer(x, INV_EXPAND), 0, 6)
    y = jnp.clip(layer(y, INV_DEPTH), 0, 6)
    x = x + layer(y, INV_PROJECT)
    x = x.mean((2, 3))
    return x @ params["head.weight"].T + params["head.bias"], stats


def loss_fn(params: Params, x: jax.Array, label: jax.Array) -> tuple[jax.Array, Params]:
    """Mean cross-entropy, with the batch statistics as auxiliary result."""
    logits, stats = forward(params, x)
    log_prob = jax.nn.log_softmax(logits)
    return -log_prob[jnp.arange(len(label)), label].mean(), stats


@jax.jit
def train_step(
    params: Params, moments: tuple[Params, Params], x: jax.Array, label: jax.Array, step: jax.Array, rate: jax.Array
) -> tuple[Params, tuple[Params, Params], jax.Array, Params]:
    """One AdamW step."""
    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, x, label)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], grads)
    correct_first, correct_second = 1 - 0.9**step, 1 - 0.999**step

    def update(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        decay = WEIGHT_DECAY if p.ndim > 1 else 0.0
        return p - rate * (m / correct_first / (jnp.sqrt(v / correct_second) + 1e-8) + decay * p)

    return jax.tree.map(update, params, first, second), (first, second), loss, stats


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by -1, 0 or 1 pixel along both axes, zeros coming in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    offsets = rng.integers(0, 3, (len(images), 2))
    height, width = images.shape[2:]
    return np.stack([p[:, r : r + height, c : c + width] for p, (r, c) in zip(padded, offsets)])


def train(data: dict[str, np.ndarray]) -> tuple[Params, Params]:
    """Trained parameters and running batch-norm statistics."""
    rng = np.random.default_rng(SEED + 1)
    params, running = initial_params(rng), initial_stats()
    zeros = jax.tree.map(jnp.zeros_like, params)
    moments = (zeros, zeros)
    per_epoch = len(data["label"]) // BATCH
    total = EPOCHS * per_epoch
    step = 0
    for epoch in range(EPOCHS):
        order = rng.permutation(len(data["label"]))
        for i in range(per_epoch):
            pick = order[i * BATCH : (i + 1) * BATCH]
            step += 1
            warm_up = min(1.0, step / (3 * per_epoch))
            rate = PEAK_RATE * warm_up * 0.5 * (1 + np.cos(np.pi * step / total))
            params, moments, loss, stats = train_step(
                params, moments, shifted(data["image"][pick], rng), data["label"][pick], float(step), rate
            )
            running = jax.tree.map(lambda r, s: BN_MOMENTUM * r + (1 - BN_MOMENTUM) * s, running, stats)
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1:3d}  loss {float(loss):.4f}")
    return params, running


class GraphWriter:
    """Collects the nodes and initializers of the exported graph."""

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self.values = values
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an initializer (raw little-endian data) and return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output called after it and return that output's name."""
        output = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def conv_bn(self, x: str, layer: ConvBn) -> str:
        """Conv (no bias) and BatchNormalization as two nodes."""
        weight = f"{layer.name}.weight"
        pad = layer.kernel // 2
        y = self.node(
            "Conv",
            [x, self.constant(weight, self.values[weight])],
            f"{layer.name}.conv",
            dilations=[1, 1],
            group=layer.groups,
            kernel_shape=[layer.kernel] * 2,
            pads=[pad] * 4,
            strides=[1, 1],
        )
        names = [f"{layer.name}.bn.{part}" for part in ("gamma", "beta", "mean", "var")]
        inputs = [y] + [self.constant(name, self.values[name]) for name in names]
        return self.node("BatchNormalization", inputs, f"{layer.name}.bn", epsilon=BN_EPSILON)

    def relu6(self, x: str, name: str) -> str:
        """Clip(0, 6); the bounds are shared by all Clips."""
        return self.node("Clip", [x, "relu6.min", "relu6.max"], f"{name}.relu6")


def export(params: Params, running: Params) -> onnx.ModelProto:
    """The inference graph, with batch norm left unfolded."""
    values = {name: np.asarray(value) for name, value in (params | running).items()}
    g = GraphWriter(values)
    g.constant("relu6.min", np.float32(0))
    g.constant("relu6.max", np.float32(6))
    stem = g.node("Relu", [g.conv_bn("image", STEM)], "stem.relu")
    res = g.node("Relu", [g.conv_bn(stem, RES_A)], "res.relu1")
    res = g.node("Add", [stem, g.conv_bn(res, RES_B)], "res.add")
    res = g.node("Relu", [res], "res.relu2")
    x = g.node("MaxPool", [res], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = g.relu6(g.conv_bn(x, DOWN_EXPAND), DOWN_EXPAND.name)
    x = g.relu6(g.conv_bn(x, DOWN_DEPTH), DOWN_DEPTH.name)
    down = g.conv_bn(x, DOWN_PROJECT)
    x = g.relu6(g.conv_bn(down, INV_EXPAND), INV_EXPAND.name)
    x = g.relu6(g.conv_bn(x, INV_DEPTH), INV_DEPTH.name)
    x = g.node("Add", [down, g.conv_bn(x, INV_PROJECT)], "inv.add")
    x = g.node("GlobalAveragePool", [x], "gap")
    x = g.node("Flatten", [x], "flatten", axis=1)
    head = [g.constant(name, values[name]) for name in ("head.weight", "head.bias")]
    g.nodes.append(helper.make_node("Gemm", [x, *head], ["logits"], name="head", transB=1))
    graph = helper.make_graph(
        g.nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        g.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = "msq-onnx testdata"
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: Path, data: dict[str, np.ndarray]) -> float:
    """Top-1 accuracy in onnxruntime."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": data["image"]})
    return float((logits.argmax(1) == data["label"]).mean())


def main() -> None:
    """Train, export, and print accuracy, sizes and hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="output folder")
    out: Path = parser.parse_args().out

    train_data, test_data = split_digits()
    params, running = train(train_data)
    model_path = out / "digits.onnx"
    model_path.write_bytes(export(params, running).SerializeToString())
    calib_data = {name: array[:CALIB_IMAGES] for name, array in train_data.items()}
    np.savez_compressed(out / "calib.npz", **calib_data)
    np.savez_compressed(out / "test.npz", **test_data)

    print(f"train accuracy {accuracy(model_path, train_data):.4f}")
    print(f"test accuracy  {accuracy(model_path, test_data):.4f}")
    for name in ("digits.onnx", "calib.npz", "test.npz"):
        content = (out / name).read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {name}  {len(content)} bytes")


if __name__ == "__main__":
    main()
