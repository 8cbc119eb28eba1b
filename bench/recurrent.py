"""Time LSTMs that msq-onnx writes for `--act-bits dynamic` beside float, in onnxruntime on one thread.

    python recurrent.py --out OUT --msq path/to/msq-onnx

Single layers with random weights, as many inputs as units, on sequences of 32 steps. Each is
quantized with float activations, so that its weights are integers that the runtime folds to
floats, and with ranges found at run time. A row for each size: the time relative to the former,
and the signal-to-noise ratio of both against float, in decibels.

    python recurrent.py --out OUT --msq path/to/msq-onnx --spread 1 10 100 1000

A table of noise alone, for a layer of 64 units whose inputs have units that differ by up to these
factors, and weights that make up for them: with inputs as they are (`--no-smooth`), and balanced.
Mean and standard deviation over seeds.
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


def write_units(path: Path, spread: float, seed: int) -> np.ndarray:
    """An LSTM whose inputs have units of different size; returns the units."""
    random = np.random.default_rng(seed)
    inputs, units = 40, 64
    sizes = np.exp(random.uniform(-0.5, 0.5, inputs) * np.log(spread)).astype(np.float32)
    w = random.uniform(-2, 2, (1, 4 * units, inputs)) / np.sqrt(inputs) / sizes
    r = random.uniform(-2, 2, (1, 4 * units, units)) / np.sqrt(units)
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in (("w", w), ("r", r))]
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=units)
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, 1, inputs])
    written = helper.make_tensor_value_info("y", TensorProto.FLOAT, [STEPS, 1, 1, units])
    graph = helper.make_graph([node], "lstm", [read], [written], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return sizes


def noise_of_units(args: argparse.Namespace) -> None:
    """Print a table of layers with inputs of different size."""
    print("| largest unit / smallest | activations | as they are, dB | balanced, dB |\n|---|---|---|---|")
    for spread in args.spread:
        for bits in ("float", "dynamic"):
            found: dict[str, list[float]] = {"--no-smooth": [], "--quiet": []}
            for seed in range(args.seeds):
                layer = args.out / f"units-{spread:g}-{seed}.onnx"
                sizes = write_units(layer, spread, seed)
                feed = {"x": np.random.default_rng(100 + seed).standard_normal((STEPS, 1, len(sizes))) * sizes}
                feed["x"] = feed["x"].astype(np.float32)
                wanted = session(layer).run(None, feed)[0]
                for flag, noise in found.items():
                    small = layer.with_suffix(".small.onnx")
                    command = [args.msq, layer, "-o", small, "--act-bits", bits, "--quiet", flag]
                    subprocess.run(list(dict.fromkeys(command)), check=True, capture_output=True)
                    noise.append(decibels(wanted, session(small).run(None, feed)[0]))
            columns = [f"{np.mean(noise):.1f} ± {np.std(noise):.1f}" for noise in found.values()]
            print(f"| {spread:g} | {bits} | {columns[0]} | {columns[1]} |", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--spread", type=float, nargs="+", help="noise of layers whose inputs have such units")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.spread:
        noise_of_units(args)
        return
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
