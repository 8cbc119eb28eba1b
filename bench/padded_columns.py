"""Time float convolutions over one column with their padding inside and in a node of its own, in onnxruntime.

    python padded_columns.py --out OUT

The convolution behind a `Pad` says `auto_pad = VALID`, as `msq-onnx` writes it: without that onnxruntime takes the padding
back in. One thread, the two taking turns, medians over rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sessions import random_feeds, ratio, times

# Input and output channels, rows, columns, rows of the kernel, stride.
SHAPES = [
    (64, 64, 200, 1, 3, 1),
    (64, 64, 2000, 1, 3, 1),
    (64, 64, 200, 1, 5, 1),
    (64, 64, 200, 1, 9, 1),
    (64, 64, 2000, 1, 9, 1),
    (64, 64, 200, 1, 31, 1),
    (64, 64, 200, 1, 31, 4),
    (128, 16, 128, 1, 64, 1),
    (1, 64, 2000, 1, 31, 1),
    (1, 128, 1024, 1, 512, 1),
    (64, 64, 200, 2, 31, 1),
    (64, 64, 50, 4, 9, 1),
]


def write(path: Path, shape: tuple[int, ...], split: bool) -> Path:
    """One convolution with "same" padding along its rows."""
    inputs, outputs, rows, columns, kernel, stride = shape
    weight = np.random.default_rng(0).normal(0, 0.1, (outputs, inputs, kernel, 1)).astype(np.float32)
    before, after = (kernel - 1) // 2, kernel // 2
    constants = [numpy_helper.from_array(weight, "w")]
    if split:
        lengths = np.array([0, 0, before, 0, 0, 0, after, 0])
        constants.append(numpy_helper.from_array(lengths, "lengths"))
        nodes = [
            helper.make_node("Pad", ["x", "lengths"], ["padded"]),
            helper.make_node("Conv", ["padded", "w"], ["y"], auto_pad="VALID", strides=[stride, 1]),
        ]
    else:
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[before, 0, after, 0], strides=[stride, 1])]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", [1, inputs, rows, columns]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2, help="for each of the two")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| channels | image | kernel | stride | inside over behind a `Pad` |\n|---|---|---|---|---|")
    for shape in SHAPES:
        inputs, outputs, rows, columns, kernel, stride = shape
        models = {name: write(arguments.out / f"{name}.onnx", shape, name == "split") for name in ("inside", "split")}
        (feed,) = random_feeds(models["inside"], 1, 1)
        spent = times(models, feed, seconds=arguments.seconds)
        found = ratio(spent, "inside", "split")
        print(f"| {inputs} → {outputs} | {rows}×{columns} | {kernel}×1 | {stride} | {found:.2f} |", flush=True)


if __name__ == "__main__":
    main()
