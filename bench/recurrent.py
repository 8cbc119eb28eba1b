"""Time LSTMs that msq-onnx writes for `--act-bits dynamic` beside float, in onnxruntime on one thread.

    python recurrent.py --out OUT --msq path/to/msq-onnx

Single layers with random weights, as many inputs as units, on sequences of 32 steps. Each is
quantized with float activations, so that its weights are integers that the runtime folds to
floats, and with ranges found at run time. A row for each size: the time relative to the former,
and the signal-to-noise ratio of both against float, in decibels.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sessions import ratio, session, times

STEPS = 32


def write_layer(path: Path, units: int, batch: int) -> None:
    """One LSTM of so many units."""
    random = np.random.default_rng(units)
    shapes = {"w": (1, 4 * units, units), "r": (1, 4 * units, units), "b": (1, 8 * units)}
    weights = [
        numpy_helper.from_array((random.uniform(-2, 2, shape) / np.sqrt(units)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    node = helper.make_node("LSTM", ["x", *shapes], ["y"], hidden_size=units)
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, batch, units])
    written = helper.make_tensor_value_info("y", TensorProto.FLOAT, [STEPS, 1, batch, units])
    graph = helper.make_graph([node], "lstm", [read], [written], weights)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise."""
    return float(10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum()))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| units | batch | time | float activations, dB | dynamic, dB |\n|---|---|---|---|---|")
    for units in args.sizes:
        for batch in args.batches:
            layer = args.out / f"lstm-{units}-{batch}.onnx"
            write_layer(layer, units, batch)
            files = {}
            for bits in ("float", "dynamic"):
                files[bits] = layer.with_suffix(f".{bits}.onnx")
                command = [args.msq, layer, "-o", files[bits], "--act-bits", bits, "--quiet"]
                subprocess.run(command, check=True, capture_output=True)
            feed = {"x": np.random.default_rng(1).standard_normal((STEPS, batch, units)).astype(np.float32)}
            wanted = session(layer).run(None, feed)[0]
            noise = {bits: decibels(wanted, session(path).run(None, feed)[0]) for bits, path in files.items()}
            spent = ratio(times(files, feed, args.rounds), "dynamic")
            print(f"| {units} | {batch} | {spent:.2f} | {noise['float']:.1f} | {noise['dynamic']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
